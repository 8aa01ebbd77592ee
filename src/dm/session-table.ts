import { hash } from 'node:crypto';
import { background } from '../base/background.ts';
import type { Clock, Monotonic, Timer } from '../base/clock.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import type { SyncmlMessage } from '../wire/syncml/message.ts';
import type { Seal } from './authentication.ts';
import type { ServerSession } from './server-session.ts';
import { type ByteLimits, type Holder, SessionBudget } from './session-budget.ts';
import { DmStatus } from './status.ts';

/** Bounds of a `SessionTable`. Times are in milliseconds. */
export interface SessionTableLimits {
  /** Largest number of sessions. All of them are of clients that have proved themselves. */
  readonly sessions: number;
  /** A session ends when no proven message came for this time. */
  readonly idle: number;
  /** At the bound, a session gives way to another one when it was silent for this time. */
  readonly silent: number;
  /** What all sessions together may hold. */
  readonly bytes: ByteLimits;
}

/** A message of a client, and where it came from. */
export interface ArrivedMessage {
  /** Names the session: its client, its session ID, and the transport. */
  readonly key: string;
  /**
   * Associations that the message belongs to: an address with its port, a connection, or a URI that only the client of the
   * session knows. A message without a proof of its own continues a session only if they have one in common.
   */
  readonly associations: readonly string[];
  readonly message: SyncmlMessage;
  readonly seal: Seal;
}

/** A session that was made for a message. */
export interface BegunSession<Owner> {
  readonly session: ServerSession;
  readonly owner: Owner;
  /** An association that the session has from now on, besides those of its last message. */
  readonly association?: string | undefined;
}

interface Entry<Owner> extends BegunSession<Owner>, Holder {
  readonly key: string;
  associations: readonly string[];
  /** The last message: its MsgID, and the digest of its octets. */
  msgId: number;
  digest: string;
  /** When its last message came. */
  heard: Monotonic;
  idle: Timer;
  /** Bytes of its messages that are in work. */
  inWork: number;
}

/** A session as its table has found it for a message. */
export interface FoundSession<Owner> {
  readonly session: ServerSession;
  readonly owner: Owner;
  /**
   * `repeated` when this message has an answer already, which `session.receive` returns again. `stranger` when nothing proves
   * the message: the table does not keep the session, and the message gets the answer of `session.refuse`.
   */
  readonly place: 'new' | 'next' | 'repeated' | 'stranger';
}

export interface SessionTableParts<Owner> {
  readonly clock: Clock;
  readonly events: Events;
  readonly limits: SessionTableLimits;
  /** Called for a session that the table has ended before its end. The session is abandoned already. */
  readonly abandoned: (owner: Owner, status: number, reason: string) => void;
}

/**
 * The sessions of a DM server, by their clients and session IDs. A session begins with the first message that proves its
 * client; the proof may answer a challenge (`Challenges`). Nothing is kept of a message that proves nothing, so it cannot take
 * a place, and cannot end, block or prolong a session.
 *
 * A client may use the same session ID for ever, and may lose its power in a session. So a proof that does not continue the
 * open session begins a new one in its place.
 */
export class SessionTable<Owner> {
  readonly #parts: SessionTableParts<Owner>;
  /** The session that was heard longest ago first. */
  readonly #entries = new Map<string, Entry<Owner>>();
  /** Those of them that have ended, the first that ended first. */
  readonly #ended = new Set<Entry<Owner>>();
  readonly #budget: SessionBudget<Entry<Owner>>;
  /** Messages that were refused within the last second, for want of a place. */
  #refused: { readonly since: Monotonic; count: number } | undefined;
  /** Why there are no more sessions. */
  #stopped: string | undefined;

  constructor(parts: SessionTableParts<Owner>) {
    this.#parts = parts;
    this.#budget = new SessionBudget(parts.clock, parts.limits.bytes);
  }

  /** Bytes that sessions hold beyond their shares. */
  get pooled(): number {
    return this.#budget.used;
  }

  /** All sessions. Those that have ended are kept for a while to answer repeated messages. */
  *values(): Generator<{ readonly session: ServerSession; readonly owner: Owner }> {
    yield* this.#entries.values();
  }

  /**
   * Returns the session of a message. Makes it by `begin` when the message belongs to none.
   * @throws {PosternError} `unavailable` when there are too many sessions, when they hold too much, or after `stop`; the session is as
   *   it was
   */
  find(arrived: ArrivedMessage, begin: () => BegunSession<Owner>): FoundSession<Owner> {
    if (this.#stopped !== undefined) throw new PosternError('unavailable', this.#stopped);
    const { key, associations, message, seal } = arrived;
    const open = this.#entries.get(key);
    if (open && isRepeated(open, arrived)) return { ...open, place: 'repeated' };
    const isNext = open !== undefined && continues(open, arrived);
    // Asked first: most messages of a crowd are refused here, and to make and prove a session takes far longer.
    if (!open) this.#demandPlace();
    const begun = isNext ? open : begin();
    if (!isNext && !begun.session.recognises(message, seal)) return { ...begun, place: 'stranger' };
    const entry: Entry<Owner> = isNext
      ? open
      : { ...begun, ...blank, key, associations, heard: this.#parts.clock.now() };
    if (!this.#fits(entry, seal.body.length))
      throw new PosternError('unavailable', 'the sessions hold too much; try again later');
    if (!isNext) this.#makeRoomFor(entry);
    entry.inWork += seal.body.length;
    this.#count(entry);
    entry.associations =
      entry.association === undefined ? associations : [...associations, entry.association];
    entry.msgId = message.header.msgId;
    entry.digest = digestOf(seal);
    this.#renew(entry);
    return { ...entry, place: isNext ? 'next' : 'new' };
  }

  /**
   * Has the session answer a message that `find` has found it for, and counts what the session holds then. A session that holds
   * more than there is room for ends with its answer.
   */
  async receive(
    { key, message, seal }: ArrivedMessage,
    { session, place }: FoundSession<Owner>,
  ): Promise<SyncmlMessage> {
    if (place === 'repeated') return await session.receive(message, seal);
    try {
      return await session.receive(message, seal);
    } finally {
      const entry = this.#entries.get(key);
      if (entry?.session === session) {
        if (session.outcome) this.#ended.add(entry);
        entry.inWork -= seal.body.length;
        if (!this.#fits(entry, 0)) this.#drop(entry, DmStatus.DeviceFull, 'the sessions hold too much');
        else this.#count(entry);
      }
    }
  }

  /** Ends the sessions whose owner fits. Sessions that have ended are forgotten. */
  async end(fits: (owner: Owner) => boolean, status: number, reason: string): Promise<void> {
    const ending = [...this.#entries.values()].filter(({ owner }) => fits(owner));
    for (const entry of ending) this.#forget(entry);
    await Promise.all(ending.map((entry) => this.#abandon(entry, status, reason)));
  }

  /** Ends all sessions with 514. A message that comes later, while the rest of the process stops, begins none. */
  async stop(reason: string): Promise<void> {
    this.#stopped = reason;
    await this.end(() => true, DmStatus.SessionAborted, reason);
  }

  /** A new session takes the place of the earlier one of its key, or else a free place, which `#demandPlace` has found. */
  #makeRoomFor({ key }: Entry<Owner>): void {
    const before = this.#entries.get(key);
    if (before) this.#drop(before, DmStatus.SessionAborted, 'the client began the session anew');
    else if (this.#entries.size >= this.#parts.limits.sessions)
      this.#drop(this.#demandPlace()!, DmStatus.DeviceFull, 'too many sessions');
  }

  /**
   * The session that gives its place to a new one. Undefined when a place is free.
   * @throws {PosternError} `unavailable` when none does. To be tried again after a second, and one more for each time that the places
   *   would have been taken by those who were refused within a second, up to half the time that makes a session silent. So a
   *   crowd of hundreds waits no longer than it needs, and one of thousands does not come back all at once
   */
  #demandPlace(): Entry<Owner> | undefined {
    const { clock, limits } = this.#parts;
    if (this.#entries.size < limits.sessions) return undefined;
    const [ended] = this.#ended;
    if (ended) return ended;
    const [silent] = this.#entries.values();
    if (silent && clock.now() - silent.heard >= limits.silent) return silent;
    const now = clock.now();
    if (this.#refused === undefined || now - this.#refused.since >= 1000)
      this.#refused = { since: now, count: 0 };
    const crowds = Math.floor(this.#refused.count++ / limits.sessions);
    throw new PosternError('unavailable', 'too many sessions; try again later', {
      retryAfter: Math.min(1 + crowds, Math.ceil(limits.silent / 2000)),
    });
  }

  /** Whether a session may hold this many bytes more than it does. Other sessions may have to end for it. */
  #fits(entry: Entry<Owner>, more: number): boolean {
    const { clock, limits } = this.#parts;
    const now = clock.now();
    const giving = this.#budget.roomFor(
      entry,
      entry.session.weight + entry.inWork + more,
      ({ session, heard }) => session.outcome !== undefined || now - heard >= limits.silent,
    );
    for (const other of giving ?? []) this.#drop(other, DmStatus.DeviceFull, 'the sessions hold too much');
    return giving !== undefined;
  }

  #count(entry: Entry<Owner>): void {
    this.#budget.count(entry, entry.session.weight + entry.inWork);
  }

  /** Makes a session the one that was heard last. One that has ended is not kept longer than it is. */
  #renew(entry: Entry<Owner>): void {
    const { clock, limits } = this.#parts;
    if (entry.session.outcome) return;
    this.#entries.delete(entry.key);
    this.#entries.set(entry.key, entry);
    entry.heard = clock.now();
    entry.idle.cancel();
    entry.idle = clock.after(limits.idle, () =>
      this.#drop(entry, DmStatus.RequestTimeout, 'the device did not come back'),
    );
  }

  #drop(entry: Entry<Owner>, status: number, reason: string): void {
    this.#forget(entry);
    void this.#abandon(entry, status, reason);
  }

  #forget(entry: Entry<Owner>): void {
    entry.idle.cancel();
    this.#budget.count(entry, 0);
    this.#ended.delete(entry);
    if (this.#entries.get(entry.key) === entry) this.#entries.delete(entry.key);
  }

  /** Never rejects: what fails in the end of the session's work becomes the reason. */
  #abandon({ session, owner }: Entry<Owner>, status: number, reason: string): Promise<void> {
    const { events, abandoned } = this.#parts;
    return background(events, 'session-end', async () => {
      if (session.outcome) return;
      const failure = await session.abandon(status, reason).then(
        () => undefined,
        (thrown) => asPosternError(thrown).message,
      );
      abandoned(owner, status, failure ?? reason);
    });
  }
}

const noTimer: Timer = { cancel() {} };
const blank = { msgId: 0, digest: '', idle: noTimer, inWork: 0, pooled: 0, pooledSince: undefined };

const digestOf = ({ body }: Seal): string => hash('sha256', body, 'base64');

const isOf = (entry: Entry<unknown>, { associations }: ArrivedMessage): boolean =>
  associations.some((association) => entry.associations.includes(association));

/** Whether the session has answered this very message. */
const isRepeated = (entry: Entry<unknown>, arrived: ArrivedMessage): boolean =>
  entry.msgId === arrived.message.header.msgId &&
  isOf(entry, arrived) &&
  entry.digest === digestOf(arrived.seal);

/** Whether this message is the next one of the session. */
const continues = (entry: Entry<unknown>, arrived: ArrivedMessage): boolean => {
  const { session, msgId } = entry;
  const { message, seal } = arrived;
  if (message.header.msgId !== msgId + 1) return false;
  return session.recognises(message, seal) || (session.needsNoProof && isOf(entry, arrived));
};
