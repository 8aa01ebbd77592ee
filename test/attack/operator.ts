import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import type { Operation } from '../../src/dm/server-session.ts';
import { deviceId } from '../bench/crowd.ts';
import { type Deed, hasServer } from './deed.ts';

/** Milliseconds for an answer of the API. A session waits for its device. */
const patience = 60_000;

/** An honest user of the head-end's API. */
export class Operator {
  readonly #api: string;
  readonly #token: string;
  readonly #stop = new AbortController();

  /** @param token the line of the token file: a header */
  constructor(api: string, token: string) {
    this.#api = api;
    this.#token = token.trim().replace(/^authorization: */i, '');
  }

  stop(): void {
    this.#stop.abort();
  }

  /** @throws for an answer other than 2xx */
  async ask(method: string, path: string, body?: unknown): Promise<unknown> {
    // A connection for each request, as of curl: an attacker may have taken all places in between.
    const outgoing = request(`${this.#api}${path}`, {
      method,
      agent: false,
      headers: { authorization: this.#token, 'content-type': 'application/json' },
      signal: AbortSignal.any([this.#stop.signal, AbortSignal.timeout(patience)]),
    });
    // After the beginning of the answer, its reader meets the error.
    outgoing.on('error', () => {});
    outgoing.end(body === undefined ? undefined : JSON.stringify(body));
    const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
    const text = Buffer.concat(await answer.toArray()).toString();
    if (answer.statusCode! >= 300) throw new Error(`${method} ${path}: ${answer.statusCode} ${text}`);
    return JSON.parse(text);
  }

  /** Operations on the gateway itself. */
  async manage(gateway: string, operations: readonly Operation[]): Promise<void> {
    await this.ask('POST', `/gateways/${gateway}/sessions`, { operations });
  }

  /**
   * Asks for lists, and for sessions with the devices that have an account for the DM server, until it is stopped.
   * @param rest milliseconds between two questions
   */
  work(devices: number, rest: number, tell: (deed: Deed) => void): void {
    const withServer = Array.from({ length: devices }, (_, at) => at).filter(hasServer);
    void this.#repeat(rest, tell, (round) => {
      const path = ['/devices', '/gateways', '/alerts?limit=10', '/healthz'][round % 4]!;
      return ['api', 'operator', () => this.ask('GET', path)];
    });
    void this.#repeat(rest * 4, tell, (round) => {
      const device = deviceId(withServer[round % withServer.length]!);
      return ['order', device, () => this.ask('POST', `/devices/${device}/sessions`, {})];
    });
  }

  async #repeat(
    rest: number,
    tell: (deed: Deed) => void,
    next: (round: number) => [Deed['deed'], string, () => Promise<unknown>],
  ): Promise<void> {
    for (let round = 0; !this.#stop.signal.aborted; round++) {
      const [deed, device, act] = next(round);
      const began = performance.now();
      let reason: string | undefined;
      try {
        await act();
      } catch (thrown) {
        if (this.#stop.signal.aborted) return;
        reason = String(thrown);
      }
      const milliseconds = performance.now() - began;
      tell({
        ...{ deed, device, milliseconds, ok: reason === undefined },
        ...(reason !== undefined && { reason }),
      });
      await pause(rest);
    }
  }
}
