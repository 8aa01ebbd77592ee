import { hash } from 'node:crypto';
import { background } from '../base/background.ts';
import type { Clock, Monotonic, Timer } from '../base/clock.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import type { SyncmlMessage } from '../wire/syncml/message.ts';
import type { Seal } from './authentication.ts';
import type { ServerSession } from './server-session.ts';
import { DmStatus } from './status.ts';

/** Bounds of a `SessionTable`. Times are in milliseconds. */
export interface SessionTableLimits {
  /** Sessions whose client has proved itself. */
  readonly proven: number;
  /** Sessions whose client has not: in all, and of one host. */
  readonly unproven: number;
  readonly unprovenOfHost: number;
  /** A session ends when no proven message came for this time. One that was never proven ends this long after its start. */
  readonly idle: number;
  /** At the bound, a session gives way that was silent for this time. One of a proven client gives way to another such. */
  readonly silent: number;
  readonly unprovenSilent: number;
}

/** A message of a client, and where it came from. */
export interface ArrivedMessage {
  /** Names the session: its client, its session ID, and the transport. */
  readonly key: string;
  /** Sender by address. A message without a proof continues a session only if it has the sender of the session. */
  readonly sender: string;
  /** Part of the sender that shares the bound `unprovenOfHost`. */
  readonly host: string;
  readonly message: SyncmlMessage;
  readonly seal: Seal;
}

interface Entry<Owner> {
  readonly session: ServerSession;
  readonly owner: Owner;
  readonly key: string;
  readonly host: string;
  sender: string;
  /** The last message: its MsgID, and the digest of its octets. */
  msgId: number;
  digest: string;
  /** When it began, or its last proven message came. */
  heard: Monotonic;
  idle: Timer;
}

/** A session as its table has found it for a message. */
export interface FoundSession<Owner> {
  readonly session: ServerSession;
  readonly owner: Owner;
  /** `repeated` when this message has an answer already, which `session.receive` returns again. */
  readonly place: 'new' | 'next' | 'repeated';
}

export interface SessionTableParts<Owner> {
  readonly clock: Clock;
  readonly events: Events;
  readonly limits: SessionTableLimits;
  /** Called for a session that the table has ended before its end. The session is abandoned already. */
  readonly abandoned: (owner: Owner, status: number, reason: string) => void;
}

/** Sessions of one key that no client has proved itself in. One more replaces the oldest. */
const unprovenOfKey = 4;

/**
 * The sessions of a DM server, by their clients and session IDs. A client may use the same session ID for ever, and may
 * lose its power in a session, so a message with MsgID 1 begins a new session beside the open one. The new session
 * replaces the open one when its client proves itself. Until then it changes nothing: a sender without a credential
 * cannot end, block or prolong the session of a client that has proved itself.
 */
export class SessionTable<Owner> {
  readonly #parts: SessionTableParts<Owner>;
  /** Sessions whose client has proved itself, the one that was heard longest ago first. */
  readonly #proven = new Map<string, Entry<Owner>>();
  /** The other sessions, the oldest first. */
  readonly #unproven = new Set<Entry<Owner>>();

  constructor(parts: SessionTableParts<Owner>) {
    this.#parts = parts;
  }

  /** All sessions. Those that have ended are kept for a while to answer repeated messages. */
  *values(): Generator<{ readonly session: ServerSession; readonly owner: Owner }> {
    yield* this.#proven.values();
    yield* this.#unproven;
  }

  /**
   * Returns the session of a message. Makes it by `begin` when the message belongs to none.
   * @throws {PosternError} `unavailable` when there are too many sessions
   */
  find(arrived: ArrivedMessage, begin: () => { session: ServerSession; owner: Owner }): FoundSession<Owner> {
    const { key, sender, host, message, seal } = arrived;
    const { msgId } = message.header;
    const digest = hash('sha256', seal.body, 'base64');
    const repeated = this.#repeatedIn(arrived, digest);
    if (repeated) return { ...repeated, place: 'repeated' };
    const known = this.#continuedBy(arrived);
    const heard = this.#parts.clock.now();
    const entry = known ?? { key, sender, host, msgId, digest, heard, idle: { cancel() {} }, ...begin() };
    const isProof = !entry.session.outcome && entry.session.recognises(message, seal);
    if (isProof) entry.sender = sender;
    const isProven = this.#proven.get(key) === entry;
    if (!isProven && isProof) this.#prove(entry);
    else if (isProven) this.#renew(entry);
    else if (!known) this.#admit(entry);
    entry.msgId = msgId;
    entry.digest = digest;
    return { ...entry, place: known ? 'next' : 'new' };
  }

  /** Ends the sessions whose owner fits. Sessions that have ended are forgotten. */
  async end(fits: (owner: Owner) => boolean, status: number, reason: string): Promise<void> {
    const ending = [...this.#proven.values(), ...this.#unproven].filter(({ owner }) => fits(owner));
    for (const entry of ending) this.#forget(entry);
    await Promise.all(ending.map((entry) => this.#abandon(entry, status, reason)));
  }

  /** The session that has answered this very message. */
  #repeatedIn({ key, sender, message }: ArrivedMessage, digest: string): Entry<Owner> | undefined {
    const { msgId } = message.header;
    const same = (entry: Entry<Owner>) =>
      entry.key === key && entry.sender === sender && entry.msgId === msgId && entry.digest === digest;
    const proven = this.#proven.get(key);
    return proven && same(proven) ? proven : [...this.#unproven].find(same);
  }

  /** The session that this message is the next one of. */
  #continuedBy({ key, sender, message, seal }: ArrivedMessage): Entry<Owner> | undefined {
    const { msgId } = message.header;
    const isNext = (entry: Entry<Owner>) => entry.key === key && entry.msgId === msgId - 1;
    const proves = ({ session }: Entry<Owner>) => session.recognises(message, seal);
    const proven = this.#proven.get(key);
    const unproven = [...this.#unproven].filter(isNext);
    if (proven && isNext(proven) && proves(proven)) return proven;
    const proving = unproven.find(proves);
    if (proving) return proving;
    if (proven && isNext(proven) && proven.session.needsNoProof && proven.sender === sender) return proven;
    return unproven.findLast((entry) => entry.sender === sender);
  }

  /**
   * Gives a session a place among those that are not proven.
   * @throws {PosternError} `unavailable` when there is none
   */
  #admit(entry: Entry<Owner>): void {
    const { clock, limits } = this.#parts;
    const ofKey = [...this.#unproven].filter(({ key }) => key === entry.key);
    const ofHost = [...this.#unproven].filter(({ host }) => host === entry.host);
    if (ofKey.length >= unprovenOfKey) this.#drop(ofKey[0]!);
    else if (ofHost.length >= limits.unprovenOfHost) this.#makeRoom(ofHost, limits.unprovenSilent);
    else if (this.#unproven.size >= limits.unproven) this.#makeRoom(this.#unproven, limits.unprovenSilent);
    this.#unproven.add(entry);
    entry.idle = clock.after(limits.idle, () => this.#expire(entry));
  }

  /**
   * Gives a session a place among the proven ones, in which it replaces the earlier session of its key.
   * @throws {PosternError} `unavailable` when there is none
   */
  #prove(entry: Entry<Owner>): void {
    const { limits } = this.#parts;
    const before = this.#proven.get(entry.key);
    if (before) this.#drop(before, DmStatus.SessionAborted, 'the client began the session anew');
    else if (this.#proven.size >= limits.proven) this.#makeRoom(this.#proven.values(), limits.silent);
    this.#unproven.delete(entry);
    this.#renew(entry);
  }

  /** Makes a proven session the one that was heard last. One that has ended is not kept longer than it is. */
  #renew(entry: Entry<Owner>): void {
    const { clock, limits } = this.#parts;
    if (entry.session.outcome) return;
    this.#proven.delete(entry.key);
    this.#proven.set(entry.key, entry);
    entry.heard = clock.now();
    entry.idle.cancel();
    entry.idle = clock.after(limits.idle, () => this.#expire(entry));
  }

  #makeRoom(entries: Iterable<Entry<Owner>>, silence: number): void {
    const now = this.#parts.clock.now();
    for (const entry of entries)
      if (entry.session.outcome || now - entry.heard >= silence) {
        this.#drop(entry);
        return;
      }
    throw new PosternError('unavailable', 'too many sessions; try again later');
  }

  #expire(entry: Entry<Owner>): void {
    this.#drop(entry, DmStatus.RequestTimeout, 'the device did not come back');
  }

  #drop(entry: Entry<Owner>, status: number = DmStatus.DeviceFull, reason = 'too many sessions'): void {
    this.#forget(entry);
    void this.#abandon(entry, status, reason);
  }

  #forget(entry: Entry<Owner>): void {
    entry.idle.cancel();
    this.#unproven.delete(entry);
    if (this.#proven.get(entry.key) === entry) this.#proven.delete(entry.key);
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
