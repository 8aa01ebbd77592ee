import type { Entropy } from '../../../base/entropy.ts';
import { PosternError } from '../../../base/errors.ts';
import { ReplayWindow } from '../replay-window.ts';
import { mostCid } from './extensions.ts';
import { type Content, type DirectionKeys, protect, unprotect } from './protection.ts';
import type { DtlsRecord } from './record.ts';
import { SecretPool } from './secret-pool.ts';
import { isAead, keyBytes, type Suite, saltBytes } from './suites.ts';

/** Bytes of the connection IDs that are given out here: enough for random ones, few enough for each record. */
export const cidBytes = 6;
/** A connection ID as it is in a record. */
export function cidOf(cid: number): Buffer {
  const bytes = Buffer.alloc(cidBytes);
  bytes.writeUIntBE(cid, 0, cidBytes);
  return bytes;
}

/** Sequence numbers have 48 bits (RFC 6347 section 4.1). */
const mostSequence = 2 ** 48 - 1;
/** The only protected epoch: there is no renegotiation. */
export const protectedEpoch = 1;

/** What two ends agreed on in a handshake. */
export interface Agreement {
  readonly suite: Suite;
  /** Who the peer proved to be, or for a client, as whom it proved itself. */
  readonly identity: string;
  /** By what the peer proved its identity (`Proven.proof`); absent for a pre-shared key. */
  readonly proof?: string | undefined;
  readonly isClient: boolean;
  /** Keys of both directions, as `keyBlock` gives them. */
  readonly keys: Buffer;
  /** Connection ID in records to this end, as a number; undefined for none. */
  readonly ownCid: number | undefined;
  /** Connection ID in records to the peer; undefined for none. */
  readonly peerCid: Buffer | undefined;
  /** Most bytes of content that the peer takes in one record (RFC 8449). */
  readonly peerLimit: number;
}

/** Where a peer is. */
export interface Place {
  readonly address: string;
  readonly port: number;
  /** Which own socket hears it. Its values have a meaning for the owner of the sockets only. */
  readonly local: string;
}

/** What is stored of an association, so that it outlives the process. */
export interface AssociationState extends Agreement {
  readonly place: Place;
  /** Sequence numbers below this one may have been used. */
  readonly sent: number;
  /** The highest sequence number that was received, or a lower one. */
  readonly received: number;
}

/**
 * Where the peer seems to be now: a record came from there that verifies and is newer than all before. As anyone can send a record
 * on from elsewhere, this place counts only after it has been seen that the peer receives there (RFC 9146 section 6).
 */
export interface Candidate {
  readonly place: Place;
  /** Bytes that may be sent there until then: three times those that came from there. */
  room: number;
}

/** A record that was opened. */
export interface Received extends Content {
  /** It has the highest sequence number so far. */
  readonly isNewest: boolean;
}

/** Bytes for the keys of an AEAD and a connection ID of 8 bytes; for those of CBC and any connection ID. */
const [small, large] = [48, 96 + mostCid];
/** Keys of both directions, and the connection ID of the peer. */
const pools = { small: new SecretPool(small), large: new SecretPool(large) };
const poolFor = (bytes: number): SecretPool => (bytes > small ? pools.large : pools.small);

/** An association after its handshake: it protects records and opens them. It has no timer and no socket. */
export class Association {
  readonly suite: Suite;
  readonly identity: string;
  readonly proof: string | undefined;
  readonly isClient: boolean;
  readonly ownCid: number | undefined;
  readonly peerLimit: number;
  /** Where the peer receives. */
  place: Place;
  /** Where the peer seems to be, if that is elsewhere. */
  candidate: Candidate | undefined;
  /** Sequence numbers from this one on must not be used yet. */
  reserved = mostSequence + 1;
  /**
   * The association was restored, and records may have come after it was stored. They could be repeated now, so no record tells
   * anything until it is known that the peer is there now.
   */
  isStale = false;
  /** What the owner of the endpoint keeps of the association. */
  owner: unknown;
  /** Where its keys are. -1 after `destroy`. */
  #slot: number;
  readonly #cidBytes: number;
  #window = new ReplayWindow();
  #sequence = 0;

  constructor({ keys, peerCid = noBytes, ...agreement }: Agreement, place: Place) {
    this.suite = agreement.suite;
    this.identity = agreement.identity;
    this.proof = agreement.proof;
    this.isClient = agreement.isClient;
    this.ownCid = agreement.ownCid;
    this.peerLimit = agreement.peerLimit;
    this.place = place;
    this.candidate = undefined;
    this.owner = undefined;
    this.#cidBytes = peerCid.length;
    this.#slot = this.#secrets.keep(keys, peerCid);
  }

  /**
   * Makes an association of what was stored. All numbers up to those that were stored count as used.
   * @param reserved the first sequence number that must not be used yet
   */
  static restore(state: AssociationState, reserved: number, isStale: boolean): Association {
    const association = new Association(state, state.place);
    association.#sequence = state.sent;
    association.#window = new ReplayWindow(state.received);
    association.reserved = reserved;
    association.isStale = isStale;
    return association;
  }

  /** What is to be stored, with all sequence numbers below `sent` reserved. */
  state(sent: number): AssociationState {
    const { suite, identity, proof, isClient, ownCid, peerLimit, place } = this;
    const keys = Buffer.from(this.#secrets.view(this.#slot, 0, keyBlockBytes(suite)));
    const peerCid = this.#peerCid && Buffer.from(this.#peerCid);
    const received = this.#window.highest;
    return { suite, identity, proof, isClient, ownCid, peerLimit, place, keys, peerCid, sent, received };
  }

  /** The next sequence number. */
  get used(): number {
    return this.#sequence;
  }

  /** Sequence numbers that are left of the reserved ones. */
  get left(): number {
    return this.reserved - this.#sequence;
  }

  /** The peer has just answered: from now on only records after that answer count. */
  refresh(): void {
    this.#window.close();
    this.isStale = false;
  }

  /**
   * A protected record for the peer.
   * @throws {PosternError} `tooLarge` for more bytes than the peer takes; `unavailable` when all numbers are used
   */
  seal(type: number, bytes: Buffer, entropy: Entropy): Buffer {
    if (bytes.length > this.peerLimit)
      throw new PosternError('tooLarge', `the peer takes at most ${this.peerLimit} bytes in a record`);
    if (this.left <= 0 || this.#slot < 0)
      throw new PosternError('unavailable', 'the association has no further sequence number');
    const sequence = this.#sequence++;
    const outgoing = { type, bytes, epoch: protectedEpoch, sequence, cid: this.#peerCid };
    return protect(this.#keysOf(this.isClient), outgoing, entropy);
  }

  /** Opens a record. Undefined when it is a repetition, does not verify or is not of this association. */
  open(record: DtlsRecord): Received | undefined {
    if (this.#slot < 0 || record.epoch !== protectedEpoch) return undefined;
    if (record.cid?.readUIntBE(0, cidBytes) !== this.ownCid) return undefined;
    if (!this.#window.isNew(record.sequence)) return undefined;
    const content = unprotect(this.#keysOf(!this.isClient), record);
    return content && { ...content, isNewest: this.#window.accept(record.sequence) };
  }

  /** Overwrites the keys. The association is of no use then. */
  destroy(): void {
    if (this.#slot >= 0) this.#secrets.release(this.#slot);
    this.#slot = -1;
  }

  /** The connection ID in records to the peer. */
  get #peerCid(): Buffer | undefined {
    if (this.#cidBytes === 0) return undefined;
    return this.#secrets.view(this.#slot, keyBlockBytes(this.suite), this.#cidBytes);
  }

  get #secrets(): SecretPool {
    return poolFor(keyBlockBytes(this.suite) + this.#cidBytes);
  }

  #keysOf(client: boolean): DirectionKeys {
    const { suite } = this;
    const salt = saltBytes(suite);
    const side = client ? 0 : 1;
    // MAC keys stand in front of the encryption keys, fixed parts of nonces behind them (RFC 5246 section 6.3).
    const isMac = !isAead(suite);
    const secrets = this.#secrets;
    const keyAt = (isMac ? 2 * salt : 0) + side * keyBytes;
    const saltAt = (isMac ? 0 : 2 * keyBytes) + side * salt;
    return {
      suite,
      key: secrets.view(this.#slot, keyAt, keyBytes),
      salt: secrets.view(this.#slot, saltAt, salt),
    };
  }
}

const noBytes = Buffer.alloc(0);
const keyBlockBytes = (suite: Suite): number => 2 * (keyBytes + saltBytes(suite));
