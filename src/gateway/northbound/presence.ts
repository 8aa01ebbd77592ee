import type { Clock } from '../../base/clock.ts';
import { asPosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { decodeState, encodeState } from '../../wire/tunnel/gateway-state.ts';
import type { MqttLink } from '../../wire/tunnel/mqtt-link.ts';
import { OwnEcho } from '../../wire/tunnel/own-echo.ts';

export interface PresenceParts {
  /** Topic of the gateway's retained state. The gateway subscribes to it as well. */
  readonly topic: string;
  readonly softwareVersion: string;
  /** Epoch of the gateway's alerts. */
  readonly epoch?: (() => string) | undefined;
  /** What else than the uplink is wrong with the gateway, for people; undefined when nothing is. */
  readonly problem?: (() => string | undefined) | undefined;
  /** New at each start of the gateway. */
  readonly bootId: Uint8Array;
  readonly link: () => Pick<
    MqttLink,
    'connected' | 'publish' | 'refused' | 'rivalled' | 'rival' | 'isGranted'
  >;
  readonly clock: Clock;
  readonly events: Events;
}

/**
 * The gateway's retained state at the broker. The gateway subscribes to it, for two reasons. A broker that drops it
 * for its access rules does not return it (`OwnEcho`). And the state of another start under the same name shows that two gateways
 * have this name.
 */
export class Presence {
  readonly #parts: PresenceParts;
  readonly #echo: OwnEcho;
  /** The broker has returned the state of this start, on this or an earlier connection. */
  #isSeen = false;
  /** The broker has returned it on this connection. */
  #isEchoed = false;
  /** The problem in the state that was published last. */
  #published: string | undefined;
  /** Why the state could not be published. The same reason is said once. */
  #failure: string | undefined;

  constructor(parts: PresenceParts) {
    const { topic, link, clock, events } = parts;
    this.#parts = parts;
    this.#echo = new OwnEcho({
      about: topic,
      filter: topic,
      link,
      publish: () => this.#publish(),
      published: (failure) => this.#tell(failure),
      clock,
      events,
    });
  }

  /** The encoded state. With `online` false also the Last Will. */
  state(online: boolean, problem?: string): Buffer {
    const { softwareVersion: software, bootId, epoch } = this.#parts;
    return encodeState({
      online,
      software,
      bootId,
      ...(epoch && { epoch: epoch() }),
      ...(problem !== undefined && { problem }),
    });
  }

  /** Publishes that the gateway is online, after each connect, and waits for the echo. */
  async announce(): Promise<void> {
    await this.#echo.check();
  }

  async #publish(): Promise<void> {
    const { topic, link } = this.#parts;
    const problem = this.#problem();
    this.#published = problem;
    await link().publish({ topic, payload: this.state(true, problem), retain: true });
  }

  /** What is wrong, in one line. A gateway of the same name is told first: it may be the one that the rest is about. */
  #problem(): string | undefined {
    const { link, problem } = this.#parts;
    const all = [link().rival, problem?.()].filter((text) => text !== undefined);
    return all.length === 0 ? undefined : all.join('; ');
  }

  #tell(failure: unknown): void {
    const reason = failure === undefined ? undefined : asPosternError(failure).message;
    if (reason !== undefined && reason !== this.#failure)
      this.#parts.events.emit('mqtt.state-failed', { reason });
    this.#failure = reason;
  }

  /** Publishes the state again if its problem is another one by now, or is over. */
  changed(): void {
    if (this.#parts.link().connected && this.#published !== this.#problem()) this.#echo.again();
  }

  /** Stops to wait for the echo, because the connection has ended. */
  disconnected(): void {
    this.#echo.disconnected();
    this.#isEchoed = false;
  }

  /** Takes a message on the gateway's own state topic. `isRetained`: it was published before this connection. */
  received(payload: Buffer, isRetained: boolean): void {
    const { bootId, link } = this.#parts;
    // An operator may clear a retained state by an empty message.
    if (payload.length === 0) return;
    const { bootId: sender, online } = decodeState(payload);
    if (Buffer.compare(sender, bootId) === 0) {
      if (!online || isRetained) return;
      this.#isSeen = true;
      this.#isEchoed = true;
      this.#echo.seen();
    } else if (this.#isSeen && (online || !this.#isEchoed)) {
      // States of earlier starts come before the first echo. Only the Last Will of one may be late.
      link().rivalled('another gateway publishes its state under this name');
      if (this.#isEchoed) this.changed();
    }
  }
}
