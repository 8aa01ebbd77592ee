import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { prefixOf } from './address-prefix.ts';

/** Most open connections. */
export interface ConnectionBounds {
  /** Of all addresses. */
  readonly total: number;
  /** Of all addresses that are not known. The rest is for the others. */
  readonly strangers: number;
  /** Of one prefix of such addresses. As many are left for others by one prefix of known addresses. */
  readonly perPrefix: number;
  /** Of one such address; four times as many of a known one. */
  readonly perAddress: number;
}

/** How many more connections a known address may have. */
const knownFactor = 4;

/** Requests of one connection that wait for their answers. */
const pipelined = 4;

/** Address of the other side of a connection, with its zone; an IPv4 address in its own form. */
export const addressOf = ({ remoteAddress = '' }: Socket): string => remoteAddress.replace(/^::ffff:/, '');

/** Who connects. */
export interface ConnectionJudge {
  /** Whether somebody proved itself at this address lately. */
  isKnown(address: string): boolean;
  /** Called for a connection that is closed because there are too many. */
  refusedConnection(address: string): void;
}

/** The open connections of an HTTP server. One beyond a bound is closed at once, before anything is read from it. */
export class HttpConnections {
  readonly #judge: ConnectionJudge;
  readonly #bounds: ConnectionBounds;
  /** By address, by prefix of strangers, of strangers, and of all. */
  readonly #counts = new Map<string, number>();
  /** Requests without an answer, by connection. */
  readonly #waiting = new WeakMap<Socket, number>();

  constructor(judge: ConnectionJudge, bounds: ConnectionBounds) {
    this.#judge = judge;
    this.#bounds = bounds;
  }

  /** Takes a connection. Returns whether it stays open. */
  opened(socket: Socket): boolean {
    const { total, strangers, perPrefix, perAddress } = this.#bounds;
    const address = addressOf(socket);
    const isKnown = this.#judge.isKnown(address);
    const bounds: [string, number][] = [
      ['', total],
      [address, isKnown ? knownFactor * perAddress : perAddress],
    ];
    const prefix = prefixOf(address);
    // One party may have proved itself at many addresses of its /64.
    if (isKnown) bounds.push([`known /${prefix}`, total - perPrefix]);
    else bounds.push(['stranger', strangers], [`/${prefix}`, perPrefix]);
    if (bounds.some(([name, most]) => (this.#counts.get(name) ?? 0) >= most)) {
      this.#judge.refusedConnection(address);
      socket.destroy();
      return false;
    }
    for (const [name] of bounds) this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
    socket.once('close', () => {
      for (const [name] of bounds) {
        const left = (this.#counts.get(name) ?? 1) - 1;
        if (left > 0) this.#counts.set(name, left);
        else this.#counts.delete(name);
      }
    });
    return true;
  }

  /**
   * Takes a request of a connection. A connection with too many unanswered requests is closed: the loop would be busy with all
   * that one connection sends. Returns whether the request is to be answered.
   */
  begins(socket: Socket, response: ServerResponse): boolean {
    const waiting = (this.#waiting.get(socket) ?? 0) + 1;
    if (socket.destroyed) return false;
    if (waiting > pipelined) {
      this.#judge.refusedConnection(addressOf(socket));
      socket.destroy();
      return false;
    }
    this.#waiting.set(socket, waiting);
    response.once('close', () => this.#waiting.set(socket, (this.#waiting.get(socket) ?? 1) - 1));
    return true;
  }
}
