import { background } from '../../base/background.ts';
import type { Clock, Timer } from '../../base/clock.ts';
import type { Events } from '../../base/events.ts';
import type { MqttLink } from './mqtt-link.ts';

export interface OwnEchoParts {
  /** Topic, or filter of topics, whose rules the check is about. For people. */
  readonly about: string;
  /** Filter of the subscription by which the message comes back; one that the broker refused brings nothing back. */
  readonly filter: string;
  readonly link: () => Pick<MqttLink, 'connected' | 'refused' | 'isGranted'>;
  /** Publishes the message. Rejects when the broker did not take it. */
  readonly publish: () => Promise<unknown>;
  /** Called with what `publish` throws; undefined when it did not. */
  readonly published?: (failure: unknown) => void;
  /** Milliseconds until the check is made again after the message came back. Absent: at the next connection. */
  readonly every?: number;
  readonly clock: Clock;
  readonly events: Events;
}

/** Milliseconds within which the broker must return an own message. */
const echoWithin = 10_000;
/** Milliseconds until the message is published again when it did not come back. The broker's rules may have changed. */
const repeatAfter = 60_000;

/**
 * Checks whether a message of this client comes back to it. A broker that accepts a message, or grants a subscription, and drops
 * the messages for its access rules says nothing about it: no broker does over MQTT 3.1.1, and mosquitto grants subscriptions that
 * it delivers nothing for over MQTT 5 too. A message that does not come back is told by `MqttLink.refused`, and published again each
 * minute, until it does.
 */
export class OwnEcho {
  readonly #parts: OwnEchoParts;
  /** Ends the wait for the echo, or the wait until the next check. */
  #timer: Timer | undefined;
  #isAwaited = false;

  constructor(parts: OwnEchoParts) {
    this.#parts = parts;
  }

  /** Publishes the message, and waits for it. */
  async check(): Promise<void> {
    const { publish, published, clock } = this.#parts;
    this.#timer?.cancel();
    this.#isAwaited = true;
    this.#timer = clock.after(echoWithin, () => this.#missed());
    try {
      await publish();
      published?.(undefined);
    } catch (thrown) {
      published?.(thrown);
      this.#after(repeatAfter);
    }
  }

  /** As `check`, without anybody who waits. */
  again(): void {
    void background(this.#parts.events, 'uplink', () => this.check());
  }

  /** Another message that only such rules let through has come. */
  heard(): void {
    if (this.#isAwaited) this.seen();
  }

  /** The message has come. */
  seen(): void {
    const { about, link, every } = this.#parts;
    this.#timer?.cancel();
    this.#isAwaited = false;
    link().refused('echo', about, undefined);
    if (every !== undefined) this.#after(every);
  }

  /** Stops to wait, because the connection has ended. */
  disconnected(): void {
    this.#timer?.cancel();
    this.#isAwaited = false;
  }

  #missed(): void {
    const { about, filter, link } = this.#parts;
    if (!link().isGranted(filter)) return;
    link().refused('echo', about, `its own message did not come back in ${echoWithin / 1000} s`);
    this.#after(repeatAfter);
  }

  #after(milliseconds: number): void {
    const { link, clock } = this.#parts;
    this.#timer?.cancel();
    if (link().connected) this.#timer = clock.after(milliseconds, () => this.again());
  }
}
