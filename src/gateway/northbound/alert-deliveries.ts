import type { Clock, Monotonic, Timer } from '../../base/clock.ts';
import { plus } from '../../base/clock.ts';
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
 * Which alerts of the outbox are due. An alert that its server did not accept waits by itself, while the others go on. When
 * the server refuses it for good (a status of class 4), it is set aside after some attempts.
 */
export class AlertDeliveries {
  readonly #outbox: Outbox;
  readonly #clock: Clock;
  /** Alerts that were not accepted, by sequence number. At most as many as the outbox holds. */
  readonly #refused = new Map<number, Refused>();
  readonly #due: () => void;
  #timer: Timer | undefined;

  /** @param due called when an alert is due again that waited by itself */
  constructor(outbox: Outbox, clock: Clock, due: () => void) {
    this.#outbox = outbox;
    this.#clock = clock;
    this.#due = due;
  }

  stop(): void {
    this.#timer?.cancel();
  }

  /** The alerts for a server that are due, the oldest first: as many as one session takes. */
  of(server: string | undefined): OutboxEntry[] {
    const waiting = this.#outbox.peek(alertsPerSession + this.#refused.size, server);
    return waiting.filter(({ sequence }) => this.#isDue(sequence)).slice(0, alertsPerSession);
  }

  /** ServerIDs of the recipients of alerts that are due. `undefined` stands for the gateway's own DM server. */
  servers(): (string | undefined)[] {
    const servers = this.#outbox.servers();
    return this.#refused.size === 0 ? servers : servers.filter((server) => this.of(server).length > 0);
  }

  /** The server has the alert. */
  delivered({ sequence }: OutboxEntry): void {
    this.#outbox.remove(sequence);
    this.#refused.delete(sequence);
  }

  /**
   * The server did not accept the alert. Returns true when the alert is set aside.
   * @param status the server's; undefined when it gave none
   */
  refused({ sequence }: OutboxEntry, status: number | undefined): boolean {
    const count = (this.#refused.get(sequence)?.count ?? 0) + 1;
    const isForGood = status !== undefined && status >= 400 && status < 500 && status !== 420;
    if (isForGood && count >= refusalsUntilAside) {
      this.setAside(sequence, `the server answered with ${status}, ${count} times`);
      return true;
    }
    const delay = Math.min(retry.cap, retry.first * 2 ** Math.min(count - 1, 20));
    this.#refused.set(sequence, { count, notBefore: plus(this.#clock.now(), delay) });
    this.#arm();
    return false;
  }

  /** The alert cannot be delivered. It stays in the outbox for people to see, and is tried again after the next start. */
  setAside(sequence: number, reason: string): void {
    this.#outbox.setAside(sequence, reason);
    this.#refused.delete(sequence);
  }

  #isDue(sequence: number): boolean {
    const refused = this.#refused.get(sequence);
    return refused === undefined || refused.notBefore <= this.#clock.now();
  }

  #arm(): void {
    this.#timer?.cancel();
    const next = Math.min(...[...this.#refused.values()].map(({ notBefore }) => notBefore));
    if (!Number.isFinite(next)) return;
    this.#timer = this.#clock.after(Math.max(0, next - this.#clock.now()), () => {
      this.#due();
      // Later ones have a time of their own.
      const later = [...this.#refused.values()].some(({ notBefore }) => notBefore > this.#clock.now());
      if (later) this.#armLater();
    });
  }

  #armLater(): void {
    const now = this.#clock.now();
    const next = Math.min(...[...this.#refused.values()].map(({ notBefore }) => notBefore).filter((at) => at > now));
    this.#timer = this.#clock.after(next - now, () => {
      this.#due();
      this.#armLater();
    });
  }
}
