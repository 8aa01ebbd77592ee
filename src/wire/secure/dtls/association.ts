import type { Monotonic } from '../../../base/clock.ts';
import type { Entropy } from '../../../base/entropy.ts';
import { PosternError } from '../../../base/errors.ts';
import { type Content, type DirectionKeys, protect, unprotect } from './protection.ts';
import type { DtlsRecord } from './record.ts';
import { ReplayWindow } from './replay-window.ts';
import { keyBytes, type Suite, saltBytes } from './suites.ts';

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

/** A record that was opened. */
export interface Received extends Content {
  /** It has the highest sequence number so far. */
  readonly isNewest: boolean;
}

/** An association after its handshake: it protects records and opens them. It has no timer and no socket. */
export class Association {
  readonly agreement: Agreement;
  /** Where the peer receives. */
  place: Place;
  /** When a record of the peer verified last. */
  heard: Monotonic;
  readonly #window = new ReplayWindow();
  #sequence = 0;

  constructor(agreement: Agreement, place: Place, now: Monotonic) {
    this.agreement = agreement;
    this.place = place;
    this.heard = now;
  }

  get identity(): string {
    return this.agreement.identity;
  }

  /**
   * A protected record for the peer.
   * @throws {PosternError} `tooLarge` for more bytes than the peer takes; `unavailable` when all numbers are used
   */
  seal(type: number, bytes: Buffer, entropy: Entropy): Buffer {
    const { peerCid, peerLimit, isClient } = this.agreement;
    if (bytes.length > peerLimit)
      throw new PosternError('tooLarge', `the peer takes at most ${peerLimit} bytes in a record`);
    if (this.#sequence > mostSequence)
      throw new PosternError('unavailable', 'the association has no further sequence number');
    const sequence = this.#sequence++;
    return protect(
      this.#keysOf(isClient),
      { type, bytes, epoch: protectedEpoch, sequence, cid: peerCid },
      entropy,
    );
  }

  /** Opens a record. Undefined when it is a repetition, does not verify or is not of this association. */
  open(record: DtlsRecord, now: Monotonic): Received | undefined {
    const { ownCid, isClient } = this.agreement;
    if (record.epoch !== protectedEpoch || record.cid?.readUIntBE(0, cidBytes) !== ownCid) return undefined;
    if (!this.#window.isNew(record.sequence)) return undefined;
    const content = unprotect(this.#keysOf(!isClient), record);
    if (!content) return undefined;
    this.heard = now;
    return { ...content, isNewest: this.#window.accept(record.sequence) };
  }

  /** Overwrites the keys. The association is of no use then. */
  destroy(): void {
    this.agreement.keys.fill(0);
  }

  #keysOf(client: boolean): DirectionKeys {
    const { suite, keys } = this.agreement;
    const salt = saltBytes(suite);
    const side = client ? 0 : 1;
    // MAC keys stand in front of the encryption keys, fixed parts of nonces behind them (RFC 5246 section 6.3).
    const isMac = suite.cipher === 'aes-128-cbc';
    const keyAt = (isMac ? 2 * salt : 0) + side * keyBytes;
    const saltAt = (isMac ? 0 : 2 * keyBytes) + side * salt;
    return {
      suite,
      key: keys.subarray(keyAt, keyAt + keyBytes),
      salt: keys.subarray(saltAt, saltAt + salt),
    };
  }
}
