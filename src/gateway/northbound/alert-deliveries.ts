import type { Clock, Monotonic, Timer } from '../../base/clock.ts';
import { plus } from '../../base/clock.ts';
import { asPosternError } from '../../base/errors.ts';
import type { Outbox, OutboxEntry } from '../store/outbox.ts';

/** Largest number of alerts of one session. */
const alertsPerSession = 1024;
/** Milliseconds until an alert that was not accepted is sent again. They double with each attempt. */
const retry = { first: 1000, cap: 300_000 } as const;
/** Attempts after which an alert is set aside that its server refuses for good. */
export const refusalsUntilAside = 5;

interface Refused {
  readonly count: number;
  readonly notBefore: Monotonic;
}

/**
 * Which alerts of the outbox are due. An alert that its server did not accept waits by itself, behind the others. When the
 * server refuses it for good, with a status of class 4, the alert is set aside after some attempts.
 */
export class AlertDeliveries {
  readonly #outbox: Outbox;
  readonly #clock: Clock;
  /** Alerts that the server has and that are still in the outbox: at most as many as the outbox holds. */
  readonly #told = new Set<number>();
  /** Alerts that were not accepted, by sequence number: at most as many as the outbox holds. */
  readonly #refused = new Map<number, Refused>();
  readonly #wake: () => void;
  #timer: Timer | undefined;

  /** @param wake called when an alert that waited by itself is due again */
  constructor(outbox: Outbox, clock: Clock, wake: () => void) {
    this.#outbox = outbox;
    this.#clock = clock;
    this.#wake = wake;
  }

  stop(): void {
    this.#timer?.cancel();
  }

  /** The alerts for a server that are due, the oldest first: as many as one session takes. */
  due(server: string | undefined): OutboxEntry[] {
    this.forgetDelivered();
    const waiting = this.#outbox.peek(alertsPerSession + this.#refused.size + this.#told.size, server);
    return waiting.filter(({ sequence }) => this.#isDue(sequence)).slice(0, alertsPerSession);
  }

  /** ServerIDs of the recipients of alerts that are due. `undefined` stands for the gateway's own DM server. */
  servers(): (string | undefined)[] {
    const servers = this.#outbox.servers();
    return this.#refused.size + this.#told.size === 0
      ? servers
      : servers.filter((server) => this.due(server).length > 0);
  }

  /** The server has the alert. It is not sent again, and leaves the outbox with `forgetDelivered`. */
  delivered({ sequence }: OutboxEntry): void {
    this.#refused.delete(sequence);
    this.#told.add(sequence);
  }

  /**
   * Removes the delivered alerts from the outbox: those of a whole package together. Where the disk does not take it, they
   * are removed later.
   */
  forgetDelivered(): void {
    if (this.#told.size === 0) return;
    try {
      this.#outbox.removeAll(this.#told);
    } catch (thrown) {
      if (asPosternError(thrown).code !== 'storage') throw thrown;
      return;
    }
    this.#told.clear();
  }

  /**
   * The server did not accept an alert. The alert gets a new sequence number: a server that has taken later alerts would
   * believe the old number to be a repetition. Returns true when the alert is set aside.
   */
  refused(entry: OutboxEntry, status: number): boolean {
    const count = (this.#refused.get(entry.sequence)?.count ?? 0) + 1;
    // 420, like all of class 5, is a state of the server that passes.
    const isForGood = status >= 400 && status < 500 && status !== 420;
    if (isForGood && count >= refusalsUntilAside) {
      this.setAside(entry, `the server answered with ${status}, ${count} times`);
      return true;
    }
    this.#refused.delete(entry.sequence);
    this.#wait(this.#outbox.requeue(entry.sequence), count);
    return false;
  }

  /** The server said nothing of an alert. It may have it, so the alert keeps its number. */
  unanswered({ sequence }: OutboxEntry): void {
    this.#wait(sequence, (this.#refused.get(sequence)?.count ?? 0) + 1);
  }

  /** The alert cannot be delivered. It leaves the queue, and is kept for people to see. */
  setAside({ sequence }: OutboxEntry, reason: string): void {
    this.#outbox.setAside(sequence, reason);
    this.#refused.delete(sequence);
  }

  #wait(sequence: number, count: number): void {
    const delay = Math.min(retry.cap, retry.first * 2 ** Math.min(count - 1, 20));
    this.#refused.set(sequence, { count, notBefore: plus(this.#clock.now(), delay) });
    this.#arm();
  }

  #isDue(sequence: number): boolean {
    if (this.#told.has(sequence)) return false;
    const refused = this.#refused.get(sequence);
    return refused === undefined || refused.notBefore <= this.#clock.now();
  }

  /** One timer, for the alert that is due next. */
  #arm(): void {
    this.#timer?.cancel();
    const now = this.#clock.now();
    let next = Number.POSITIVE_INFINITY;
    for (const { notBefore } of this.#refused.values()) if (notBefore > now) next = Math.min(next, notBefore);
    if (next === Number.POSITIVE_INFINITY) return;
    this.#timer = this.#clock.after(next - now, () => {
      this.#wake();
      this.#arm();
    });
  }
}
