import { createHmac } from 'node:crypto';
import { failed } from '../../../base/background.ts';
import type { Clock } from '../../../base/clock.ts';
import type { Events } from '../../../base/events.ts';
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
  /** The state is new or went back in time: what it says of sequence numbers may be too low. */
  readonly isNew: boolean;
}

export interface OscoreContextsParts {
  readonly clock: Clock;
  readonly events: Events;
  readonly store: SenderStore;
}

/** The security context with one peer. */
export class OscoreContext {
  /** Who the peer is: the name of the credential. */
  readonly identity: string;
  readonly parameters: OscoreParameters;
  readonly freshness = new Freshness();
  readonly sequence: SenderSequence;
  /** Where the peer sent its last request from. */
  place: ContextPlace | undefined;
  /** It was taken away. Nothing is protected by it any more. */
  isRevoked = false;
  #keys: OscoreKeys | undefined;

  constructor(identity: string, parameters: OscoreParameters, sequence: SenderSequence) {
    this.identity = identity;
    this.parameters = parameters;
    this.sequence = sequence;
  }

  /** Derived when they are needed first. */
  get keys(): OscoreKeys {
    this.#keys ??= new OscoreKeys(this.parameters);
    return this.#keys;
  }
}

/** Numbers for each second since 2026, from which a sender begins that nothing is known of. */
const numbersPerSecond = 256;
const firstSecond = Date.UTC(2026, 0, 1) / 1000;

/**
 * The security contexts of a party, by identity, by what a request says of its sender, and by the place of the peer. As many are kept as
 * the configuration and the bootstrap server have devices.
 *
 * When there is no record of a sender, or the state went back in time, its numbers begin at a number that the clock gives. So a
 * party that lost its state does not use a number again, as long as its clock is right and it has used less than 256 a second.
 */
export class OscoreContexts {
  readonly #parts: OscoreContextsParts;
  readonly #byIdentity = new Map<string, OscoreContext>();
  /** By the Recipient ID. Contexts with the same one have different ID Contexts. */
  readonly #byKid = new Map<string, OscoreContext[]>();
  readonly #byPlace = new Map<string, OscoreContext>();

  constructor(parts: OscoreContextsParts) {
    this.#parts = parts;
  }

  get size(): number {
    return this.#byIdentity.size;
  }

  get(identity: string): OscoreContext | undefined {
    return this.#byIdentity.get(identity);
  }

  /**
   * Adds a context. It replaces the one of the same identity, unless its parameters are the same.
   * @returns false when another identity has the same Recipient ID and ID Context; then nothing changes
   */
  add(identity: string, parameters: OscoreParameters): boolean {
    const mark = markOf(parameters);
    const former = this.#byIdentity.get(identity);
    if (former && markOf(former.parameters) === mark && isSameId(former.parameters.recipientId, parameters.recipientId))
      return true;
    const kid = keyOf(parameters.recipientId);
    const others = (this.#byKid.get(kid) ?? []).filter((each) => each !== former);
    if (others.some((each) => isSameId(each.parameters.idContext, parameters.idContext))) return false;
    this.remove(identity);
    const { store } = this.#parts;
    const record = store.get(mark);
    const start = record && !store.isNew ? record.reserved : Math.max(record?.reserved ?? 0, this.#byClock());
    const sequence = new SenderSequence(start, async (reserved) => {
      store.put(mark, { reserved, place: context.place });
      await store.settled();
    });
    const context = new OscoreContext(identity, parameters, sequence);
    this.#byIdentity.set(identity, context);
    this.#byKid.set(kid, [...others, context]);
    if (record?.place) this.#settle(context, record.place);
    return true;
  }

  /** Takes a context away. What it protected is not opened any more. */
  remove(identity: string): void {
    const context = this.#byIdentity.get(identity);
    if (!context) return;
    context.isRevoked = true;
    this.#byIdentity.delete(identity);
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
    const { store, events } = this.#parts;
    const before = context.place;
    if (before?.address === address && before.port === port && this.at(before) === context) return;
    this.#settle(context, { address, port });
    try {
      const mark = markOf(context.parameters);
      store.put(mark, { reserved: store.get(mark)?.reserved ?? 0, place: context.place });
    } catch (thrown) {
      failed(events, 'state', thrown);
    }
  }

  #settle(context: OscoreContext, place: ContextPlace): void {
    if (context.place && this.at(context.place) === context) this.#byPlace.delete(placeKey(context.place));
    context.place = place;
    this.#byPlace.set(placeKey(place), context);
  }

  #byClock(): number {
    return Math.max(0, Math.floor(this.#parts.clock.wall() / 1000) - firstSecond) * numbersPerSecond;
  }
}
