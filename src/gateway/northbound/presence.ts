import { background } from '../../base/background.ts';
import type { Clock, Timer } from '../../base/clock.ts';
import { asPosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { decodeState, encodeState } from '../../wire/tunnel/gateway-state.ts';
import type { MqttLink } from '../../wire/tunnel/mqtt-link.ts';

export interface PresenceParts {
  /** Topic of the gateway's retained state. The gateway subscribes to it as well. */
  readonly topic: string;
  readonly softwareVersion: string;
  /** Epoch of the gateway's alerts. */
  readonly epoch?: (() => string) | undefined;
  /** New at each start of the gateway. */
  readonly bootId: Uint8Array;
  readonly link: () => Pick<
    MqttLink,
    'connected' | 'publish' | 'refused' | 'rivalled' | 'rival' | 'isWatching'
  >;
  readonly clock: Clock;
  readonly events: Events;
}

/** Milliseconds within which the broker must return the gateway's own state. */
const echoWithin = 10_000;
/** Milliseconds until the state is published again when the echo did not come. The broker's rules may have changed. */
const repeatAfter = 60_000;

/**
 * The gateway's retained state at the broker. The gateway subscribes to it, for two reasons. A broker that accepts a message
 * and drops it for its access rules says nothing over MQTT 3.1.1; the message does not come back. And the state of another
 * start under the same name shows that two gateways have this name.
 */
export class Presence {
  readonly #parts: PresenceParts;
  /** Ends the wait for the echo, or the wait after it did not come. */
  #timer: Timer | undefined;
  /** The broker has returned the state of this start, on this or an earlier connection. */
  #isSeen = false;
  /** The broker has returned it on this connection. */
  #isEchoed = false;
  /** The problem in the state that was published last. */
  #published: string | undefined;
  /** Why the state could not be published. The same reason is said once. */
  #failure: string | undefined;

  constructor(parts: PresenceParts) {
    this.#parts = parts;
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
    const { topic, link, clock, events } = this.#parts;
    const problem = link().rival;
    this.#published = problem;
    this.#timer?.cancel();
    this.#timer = clock.after(echoWithin, () => this.#missed());
    try {
      await link().publish({ topic, payload: this.state(true, problem), retain: true });
      this.#failure = undefined;
    } catch (thrown) {
      const { message: reason } = asPosternError(thrown);
      if (reason !== this.#failure) events.emit('mqtt.state-failed', { reason });
      this.#failure = reason;
      this.#repeat();
    }
  }

  /** As `announce`, without anybody who waits. */
  #again(): void {
    void background(this.#parts.events, 'uplink', () => this.announce());
  }

  #missed(): void {
    const { topic, link } = this.#parts;
    if (!link().isWatching(topic)) return;
    link().refused('echo', topic, `its own message did not come back in ${echoWithin / 1000} s`);
    this.#repeat();
  }

  #repeat(): void {
    const { link, clock } = this.#parts;
    this.#timer?.cancel();
    if (link().connected) this.#timer = clock.after(repeatAfter, () => this.#again());
  }

  /** Publishes the state again if its problem is over. */
  settled(): void {
    if (this.#published !== this.#parts.link().rival) this.#again();
  }

  /** Stops to wait for the echo, because the connection has ended. */
  disconnected(): void {
    this.#timer?.cancel();
    this.#isEchoed = false;
  }

  /** Takes a message on the gateway's own state topic. `isRetained`: it was published before this connection. */
  received(payload: Buffer, isRetained: boolean): void {
    const { topic, bootId, link } = this.#parts;
    // An operator may clear a retained state by an empty message.
    if (payload.length === 0) return;
    const { bootId: sender, online } = decodeState(payload);
    if (Buffer.compare(sender, bootId) === 0) {
      if (!online || isRetained) return;
      this.#timer?.cancel();
      this.#isSeen = true;
      this.#isEchoed = true;
      link().refused('echo', topic, undefined);
    } else if (this.#isSeen && (online || !this.#isEchoed)) {
      // States of earlier starts come before the first echo. Only the Last Will of one may be late.
      link().rivalled('another gateway publishes its state under this name');
      if (this.#isEchoed && this.#published === undefined) this.#again();
    }
  }
}
