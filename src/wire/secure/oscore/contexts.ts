import { createHmac } from 'node:crypto';
import { failed } from '../../../base/background.ts';
import type { Clock } from '../../../base/clock.ts';
import type { Events } from '../../../base/events.ts';
import { noBytes } from '../../coap/codec.ts';
import type { Remote } from '../../coap/message.ts';
import { numbersByClock } from '../numbers-by-clock.ts';
import { Freshness } from './freshness.ts';
import { OscoreKeys, type OscoreParameters } from './keys.ts';
import { SenderSequence } from './sequence.ts';

/** Where a peer was heard. */
export interface ContextPlace {
  readonly address: string;
  readonly port: number;
}

/** What is durable of a sender. */
export interface SenderRecord {
  /** The first sequence number that was not reserved. */
  readonly reserved: number;
  readonly place: ContextPlace | undefined;
}

/** Where the reservations of sequence numbers outlive the process, by the mark of their sender. */
export interface SenderStore {
  get(mark: string): SenderRecord | undefined;
  put(mark: string, record: SenderRecord): void;
  /** Resolves when what was put survives a power cut. */
  settled(): Promise<void>;
}

export interface OscoreContextsParts {
  readonly clock: Pick<Clock, 'wall'>;
  readonly events: Events;
  readonly store: SenderStore;
}

/** Who the peer of a context is, and of which kind the context is. */
export interface ContextOwner extends Pick<Remote, 'credential'> {
  readonly identity: string;
}

/** The security context with one peer. */
export class OscoreContext {
  /** Name of the context. A peer may have several contexts. */
  readonly name: string;
  readonly owner: ContextOwner;
  readonly parameters: OscoreParameters;
  readonly freshness = new Freshness();
  readonly sequence: SenderSequence;
  /**
   * The first sequence number that may be used. A context that was taken away and comes back begins higher if it has used any: what
   * it was before is told apart by this.
   */
  readonly start: number;
  /** Where the peer sent its last request from. */
  place: ContextPlace | undefined;
  /** The highest end of a reservation that was ever stored, whether it is durable yet or not. */
  promised: number;
  /** It was taken away. Nothing is protected by it any more. */
  isRevoked = false;
  /** Requests that came before it was taken away may still get their responses. */
  mayAnswer = true;
  #keys: OscoreKeys | undefined;

  constructor(
    name: string,
    owner: ContextOwner,
    parameters: OscoreParameters,
    start: number,
    store: (record: SenderRecord) => Promise<void>,
  ) {
    this.name = name;
    this.owner = owner;
    this.parameters = parameters;
    this.start = start;
    this.promised = start;
    this.sequence = new SenderSequence(start, async (end) => {
      this.promised = end;
      await store(this.record);
    });
  }

  /** What is to be stored. */
  get record(): SenderRecord {
    return { reserved: this.promised, place: this.place };
  }

  /** Derived when they are needed first. */
  get keys(): OscoreKeys {
    this.#keys ??= new OscoreKeys(this.parameters);
    return this.#keys;
  }
}

/**
 * The security contexts of a party, by name, by what a request says of its sender, and by the place of the peer. As many are kept as
 * the configuration and the bootstrap server have devices, and one more for a device whose context is being replaced.
 *
 * The numbers of a sender begin after those of its record, and not before the number that the clock gives. So a party that lost its
 * state, or whose state was taken back, does not use a number again, as long as its clock is right (`numbersByClock`).
 */
export class OscoreContexts {
  readonly #parts: OscoreContextsParts;
  readonly #byName = new Map<string, OscoreContext>();
  /** By the Recipient ID. Contexts with the same one have different ID Contexts. */
  readonly #byKid = new Map<string, OscoreContext[]>();
  readonly #byPlace = new Map<string, OscoreContext>();
  /** By the mark of the sender. */
  readonly #byMark = new Map<string, OscoreContext>();

  constructor(parts: OscoreContextsParts) {
    this.#parts = parts;
  }

  get size(): number {
    return this.#byName.size;
  }

  get(name: string): OscoreContext | undefined {
    return this.#byName.get(name);
  }

  /**
   * Why a context cannot be added. Undefined when it can.
   * @param isLeaving whether the context of this name will be taken away before
   */
  conflict(name: string, parameters: OscoreParameters, isLeaving = (_: string) => false): string | undefined {
    const { senderId, recipientId, idContext } = parameters;
    // Both would use the same nonces with the same key.
    if (isSameId(senderId, recipientId)) return 'its sender ID is its recipient ID';
    const others = this.#byKid.get(keyOf(recipientId)) ?? [];
    const twin = this.#byMark.get(markOf(parameters));
    const other = [twin, ...others.filter((each) => isSameId(each.parameters.idContext, idContext))].find(
      (each) => each && each.name !== name && !isLeaving(each.name),
    );
    return (
      other && `${other.name} has the same secret and sender ID, or the same recipient ID and ID context`
    );
  }

  /**
   * Adds a context. It replaces the one of the same name, unless its parameters are the same.
   * @returns why it cannot be added; then nothing changes
   */
  add(
    name: string,
    parameters: OscoreParameters,
    owner: ContextOwner = { identity: name },
  ): string | undefined {
    const why = this.conflict(name, parameters);
    if (why !== undefined) return why;
    const mark = markOf(parameters);
    const former = this.#byName.get(name);
    if (
      former &&
      former.owner.credential === owner.credential &&
      this.#byMark.get(mark) === former &&
      isSameId(former.parameters.recipientId, parameters.recipientId)
    )
      return undefined;
    this.remove(name);
    const { clock, store } = this.#parts;
    const record = store.get(mark);
    const start = Math.max(record?.reserved ?? 0, numbersByClock(clock));
    const context = new OscoreContext(name, owner, parameters, start, async (now) => {
      store.put(mark, now);
      await store.settled();
    });
    this.#byName.set(name, context);
    this.#byMark.set(mark, context);
    const kid = keyOf(parameters.recipientId);
    this.#byKid.set(kid, [...(this.#byKid.get(kid) ?? []), context]);
    if (record?.place) this.#settle(context, record.place);
    return undefined;
  }

  /**
   * Takes a context away. What it protected is not opened any more.
   * @param mayAnswer see `OscoreContext`
   */
  remove(name: string, mayAnswer = false): void {
    const context = this.#byName.get(name);
    if (!context) return;
    context.isRevoked = true;
    context.mayAnswer = mayAnswer;
    this.#byName.delete(name);
    this.#byMark.delete(markOf(context.parameters));
    const kid = keyOf(context.parameters.recipientId);
    const others = (this.#byKid.get(kid) ?? []).filter((each) => each !== context);
    if (others.length > 0) this.#byKid.set(kid, others);
    else this.#byKid.delete(kid);
    if (context.place && this.at(context.place) === context) this.#byPlace.delete(placeKey(context.place));
  }

  /** The context that a request names. A peer may leave its ID Context out where its Sender ID alone is enough. */
  find(kid: Uint8Array, idContext: Uint8Array | undefined): OscoreContext | undefined {
    const all = this.#byKid.get(keyOf(kid)) ?? [];
    const named = all.find(({ parameters }) => isSameId(parameters.idContext, idContext));
    return named ?? (idContext === undefined && all.length === 1 ? all[0] : undefined);
  }

  /** The context whose peer was heard last at this address and port. */
  at(place: ContextPlace): OscoreContext | undefined {
    return this.#byPlace.get(placeKey(place));
  }

  /** Notes where the peer of a context is. It is stored, since own requests after a restart must be protected too. */
  follow(context: OscoreContext, { address, port }: ContextPlace): void {
    const before = context.place;
    if (before?.address === address && before.port === port && this.at(before) === context) return;
    this.#settle(context, { address, port });
    this.#store(context);
  }

  /** Notes who is at this address and port. If that is another one, the former peer is nowhere. */
  leave(place: ContextPlace, identity: string): void {
    const context = this.at(place);
    if (!context || context.owner.identity === identity) return;
    this.#byPlace.delete(placeKey(place));
    context.place = undefined;
    this.#store(context);
  }

  #store(context: OscoreContext): void {
    try {
      this.#parts.store.put(markOf(context.parameters), context.record);
    } catch (thrown) {
      failed(this.#parts.events, 'state', thrown);
    }
  }

  #settle(context: OscoreContext, place: ContextPlace): void {
    if (context.place && this.at(context.place) === context) this.#byPlace.delete(placeKey(context.place));
    context.place = place;
    this.#byPlace.set(placeKey(place), context);
  }
}

const keyOf = (octets: Uint8Array): string => Buffer.from(octets).toString('hex');
const placeKey = ({ address, port }: ContextPlace): string => `${address} ${port}`;

const isSameId = (one: Uint8Array | undefined, other: Uint8Array | undefined): boolean =>
  one && other ? Buffer.compare(one, other) === 0 : one === other;

/**
 * Names a sender without giving away its key. What has the same mark has the same Sender Key and Common IV, so it shares its sequence
 * numbers, whatever its identity is called.
 */
function markOf({ masterSecret, masterSalt = noBytes, idContext, senderId }: OscoreParameters): string {
  const parts = [masterSalt, idContext, senderId].map((part) => part && keyOf(part));
  return createHmac('sha256', masterSecret)
    .update(`postern sender ${JSON.stringify(parts)}`)
    .digest('base64url')
    .slice(0, 22);
}
