import { guarded } from '../../base/background.ts';
import type { Clock, Monotonic, Timer } from '../../base/clock.ts';
import { plus } from '../../base/clock.ts';
import { asPosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { deviceKinds, type Outbox, type OutboxEntry } from '../store/outbox.ts';
import { alertsPerSession } from './alert-batches.ts';

/** Milliseconds until an alert that was not accepted is sent again. They double with each attempt. */
const retry = { first: 1000, cap: 300_000 } as const;
/** Attempts after which an alert is set aside that its server refuses for good, alone or with its whole package. */
export const refusalsUntilAside = 5;

interface Refused {
  readonly count: number;
  readonly notBefore: Monotonic;
  /** The server may have the alert by this number. */
  readonly keepsNumber: boolean;
  /** The server refuses each package with this alert. So it gets a session of its own. */
  readonly isAlone?: boolean;
}

/**
 * Which alerts of the outbox are due. An alert that its server did not accept waits by itself, behind the others. When the
 * server refuses it for good, with a status of class 4, the alert is set aside after some attempts.
 */
export class AlertDeliveries {
  readonly #outbox: Outbox;
  readonly #clock: Clock;
  /** Alerts that the server has and that are still in the outbox: at most as many as the outbox holds. */
  readonly #told = new Map<number, () => void>();
  /** Alerts that were not accepted, by sequence number: at most as many as the outbox holds. */
  readonly #refused = new Map<number, Refused>();
  /**
   * Alerts that were not accepted and could not get a new number: at most as many as the outbox holds. They are not sent
   * with the old one.
   */
  readonly #outdated = new Set<number>();
  readonly #wake: () => void;
  readonly #forgetSoon: () => void;
  #timer: Timer | undefined;

  /**
   * @param wake called when an alert that waited by itself is due again
   * @param events gets failures of what nobody waits for
   */
  constructor(outbox: Outbox, clock: Clock, wake: () => void, events: Events) {
    this.#outbox = outbox;
    this.#clock = clock;
    this.#wake = wake;
    this.#forgetSoon = guarded(events, 'alerts', () => this.forgetDelivered());
  }

  stop(): void {
    this.#timer?.cancel();
  }

  /** The alerts for a server that are due, the oldest first: at most `count`, which are as many as one session takes. */
  due(server: string | undefined, count = alertsPerSession): OutboxEntry[] {
    this.forgetDelivered();
    for (const sequence of this.#outdated) if (this.#isOver(sequence) && !this.#renumber(sequence)) break;
    const apart = this.#refused.size + this.#told.size + this.#outdated.size;
    const waiting = this.#outbox.peek(count + apart, server);
    const due = this.#inOrder(waiting);
    const together = due.filter((entry) => !this.isAlone(entry));
    return (together.length > 0 ? together.slice(0, count) : due.slice(0, 1)).slice(0, count);
  }

  /** Those of some alerts that are due. An alert about a device does not overtake an earlier one that waits by itself. */
  #inOrder(waiting: readonly OutboxEntry[]): OutboxEntry[] {
    const held = new Set<string>();
    return waiting.filter((entry) => {
      const { sequence, kind, deviceId } = entry;
      const isOfDevice = deviceKinds.includes(kind);
      if (this.#told.has(sequence) || (isOfDevice && held.has(deviceId))) return false;
      const isDue = this.#isDue(sequence);
      if (isOfDevice && (!isDue || this.isAlone(entry))) held.add(deviceId);
      return isDue;
    });
  }

  /** Whether an alert gets a session of its own. */
  isAlone({ sequence }: OutboxEntry): boolean {
    return this.#refused.get(sequence)?.isAlone === true;
  }

  /** ServerIDs of the recipients of alerts that are due. `undefined` stands for the gateway's own DM server. */
  servers(): (string | undefined)[] {
    const servers = this.#outbox.servers();
    return this.#refused.size + this.#told.size + this.#outdated.size === 0
      ? servers
      : servers.filter((server) => this.due(server).length > 0);
  }

  /**
   * The server has the alert. It is not sent again. The alerts of one package leave the outbox together.
   * @param left called when it has left the outbox
   */
  delivered({ sequence }: OutboxEntry, left: () => void): void {
    this.#refused.delete(sequence);
    this.#told.set(sequence, left);
    if (this.#told.size === 1) queueMicrotask(this.#forgetSoon);
  }

  /**
   * Removes the delivered alerts from the outbox. Where the disk does not take it, they are removed later. The server takes
   * all lower numbers for repetitions from now on, so the alerts that it did not accept get higher ones first.
   */
  forgetDelivered(): void {
    if (this.#told.size === 0) return;
    const highest = this.#told.keys().reduce((one, other) => Math.max(one, other));
    for (const [waiting, { keepsNumber }] of [...this.#refused])
      if (waiting < highest && !keepsNumber) this.#renumber(waiting);
    try {
      this.#outbox.removeAll(this.#told.keys());
    } catch (thrown) {
      if (asPosternError(thrown).code !== 'storage') throw thrown;
      return;
    }
    const followers = [...this.#told.values()];
    this.#told.clear();
    for (const left of followers) left();
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
    this.#wait(entry.sequence, { count, keepsNumber: false });
    this.#renumber(entry.sequence);
    return false;
  }

  /**
   * The server refuses each package with this alert, or does not answer it, but answers others. The alert waits behind all
   * others, with a new sequence number, and gets a session of its own. Returns true when it is set aside.
   */
  blamed(entry: OutboxEntry, reason: string): boolean {
    const count = (this.#refused.get(entry.sequence)?.count ?? 0) + 1;
    if (count >= refusalsUntilAside) {
      this.setAside(entry, reason);
      return true;
    }
    this.#wait(entry.sequence, { count, keepsNumber: false, isAlone: true });
    this.#renumber(entry.sequence);
    return false;
  }

  /**
   * The server knows the number of an alert from a run that the state has forgotten. The alert is due again, in a new epoch.
   * Returns the epoch when it begins now; 'begun' when it has begun; undefined when the reason must be another one.
   */
  forgotten(entry: OutboxEntry): string | undefined {
    if (entry.run === undefined) return undefined;
    if (this.#outbox.isOutdated(entry)) return 'begun';
    try {
      return this.#outbox.renewEpoch();
    } catch (thrown) {
      if (asPosternError(thrown).code !== 'storage') throw thrown;
      this.unanswered(entry);
      return 'begun';
    }
  }

  /** The server said nothing of an alert. It may have it, so the alert keeps its number. */
  unanswered({ sequence }: OutboxEntry): void {
    const before = this.#refused.get(sequence);
    this.#wait(sequence, { ...before, count: (before?.count ?? 0) + 1, keepsNumber: true });
  }

  /** The alert cannot be delivered. It leaves the queue, and is kept for people to see. */
  setAside({ sequence }: OutboxEntry, reason: string): void {
    this.#outbox.setAside(sequence, reason);
    this.#refused.delete(sequence);
  }

  /**
   * Gives a refused alert a new number, with which it waits on, and then the later alerts about the same device. False when the
   * disk does not take it: it is done later.
   */
  #renumber(sequence: number): boolean {
    try {
      for (const [before, after] of this.#outbox.requeue(sequence)) {
        const waiting = this.#refused.get(before);
        this.#outdated.delete(before);
        this.#refused.delete(before);
        if (waiting) this.#refused.set(after, waiting);
      }
      this.#outdated.delete(sequence);
      this.#refused.delete(sequence);
      return true;
    } catch (thrown) {
      if (asPosternError(thrown).code !== 'storage') throw thrown;
      const waiting = this.#refused.get(sequence);
      this.#outdated.add(sequence);
      this.#wait(sequence, { ...waiting, count: waiting?.count ?? 1, keepsNumber: false });
      return false;
    }
  }

  #wait(sequence: number, refused: Omit<Refused, 'notBefore'>): void {
    const { count } = refused;
    const delay = Math.min(retry.cap, retry.first * 2 ** Math.min(count - 1, 20));
    this.#refused.set(sequence, { ...refused, notBefore: plus(this.#clock.now(), delay) });
    this.#arm();
  }

  #isDue(sequence: number): boolean {
    if (this.#told.has(sequence) || this.#outdated.has(sequence)) return false;
    return this.#isOver(sequence);
  }

  /** Whether an alert does not wait by itself any more. */
  #isOver(sequence: number): boolean {
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
