import { Standing, standings } from '../../base/admission.ts';
import type { Clock, Monotonic } from '../../base/clock.ts';
import { plus } from '../../base/clock.ts';
import { type FairBounds, FairMap } from '../../base/fair-map.ts';
import type { Remote, Reply } from './message.ts';

/**
 * Bounds of the block-wise transfers of one endpoint. Request bodies and response bodies are counted separately. The bounds of
 * all peers are those of proven ones. Known addresses and strangers have tables of their own (`boundsOf`).
 */
export interface BlockwiseLimits {
  /** Most bytes of one request body. */
  readonly bodyBytes: number;
  /** Most bodies in transfer at one time, of all peers. */
  readonly transfers: number;
  /** Most bodies in transfer at one time, of one peer. */
  readonly transfersPerPeer: number;
  /** Most bytes of all bodies in transfer together. */
  readonly totalBytes: number;
  /** Milliseconds without a new block after which a transfer is dropped. */
  readonly idle: number;
}

export const blockwiseDefaults: BlockwiseLimits = {
  bodyBytes: 64 * 1024,
  transfers: 1024,
  transfersPerPeer: 4,
  totalBytes: 8 * 1024 * 1024,
  idle: 60_000,
};

/**
 * Known addresses have half of the bounds, strangers a quarter. Of the strangers' share, one address has an eighth and one prefix a
 * half.
 */
export function boundsOf({ transfers, totalBytes }: BlockwiseLimits, standing: Standing): FairBounds {
  const part = (all: number, divisor: number) => Math.ceil(all / divisor);
  if (standing === Standing.Stranger) {
    const entries = part(transfers, 4);
    return {
      entries,
      perAddress: part(entries, 8),
      perPrefix: part(entries, 2),
      bytes: part(totalBytes, 4),
    };
  }
  const divisor = standing === Standing.Proven ? 1 : 2;
  const entries = part(transfers, divisor);
  return { entries, perAddress: entries, perPrefix: entries, bytes: part(totalBytes, divisor) };
}

/** A request body that is arriving, or a response body that is being fetched. */
export interface Transfer {
  readonly key: string;
  /** Key of the remote. */
  readonly peer: string;
  readonly standing: Standing;
  /** Grows as the body does. */
  buffer: Buffer;
  /** Bytes of the body that are there. */
  bytes: number;
  expires: Monotonic;
  /** For a response body: the whole response. */
  head?: Reply;
}

/** Bytes of a buffer for the first block of a body. */
const firstBuffer = 1024;

/**
 * The transfers of one direction, in one table for each standing. A transfer without a new block for `idle` milliseconds is
 * dropped. At the bound for one peer a new transfer is refused. At any other bound the one that waits longest for a block gives
 * way, except that the bytes of proven peers displace no others.
 */
export class Transfers {
  readonly #limits: BlockwiseLimits;
  readonly #clock: Clock;
  readonly #perPeer = new Map<string, number>();
  readonly #tables: readonly FairMap<Transfer>[];

  constructor(limits: BlockwiseLimits, clock: Clock) {
    this.#limits = limits;
    this.#clock = clock;
    const forgotten = (_: string, transfer: Transfer) => this.#forgotten(transfer);
    this.#tables = standings.map((standing) => new FairMap(boundsOf(limits, standing), forgotten));
  }

  get size(): number {
    return this.#tables.reduce((sum, { size }) => sum + size, 0);
  }

  /** Bytes of all bodies. */
  get bytes(): number {
    return this.#tables.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  get(key: string): Transfer | undefined {
    const found = this.#tables.find((table) => table.has(key))?.get(key);
    if (!found || found.expires > this.#clock.now()) return found;
    this.delete(key);
    return undefined;
  }

  /** Starts a transfer and drops an earlier one with the same key. Returns `undefined` when the peer has too many. */
  begin(key: string, peer: Remote, standing: Standing): Transfer | undefined {
    this.delete(key);
    this.#expire();
    const count = this.#perPeer.get(peer.key) ?? 0;
    if (count >= this.#limits.transfersPerPeer) return undefined;
    const buffer = Buffer.alloc(0);
    const transfer = { key, peer: peer.key, standing, buffer, bytes: 0, expires: this.#deadline() };
    this.#perPeer.set(peer.key, count + 1);
    this.#tables[standing]!.set(key, peer.address, transfer);
    return transfer;
  }

  /** Returns false, and adds nothing, when there is no room for the bytes. */
  append(transfer: Transfer, chunk: Uint8Array): boolean {
    const { buffer, bytes } = transfer;
    const needed = bytes + chunk.length;
    if (needed > buffer.length) {
      // What counts is the buffer, not the blocks: many small blocks take no more than one large one.
      const capacity = Math.max(needed, Math.min(this.#limits.bodyBytes, Math.max(firstBuffer, 2 * bytes)));
      if (!this.#grow(transfer, capacity - buffer.length)) return false;
      transfer.buffer = Buffer.allocUnsafeSlow(capacity);
      buffer.copy(transfer.buffer, 0, 0, bytes);
    }
    transfer.buffer.set(chunk, bytes);
    transfer.bytes = needed;
    transfer.expires = this.#deadline();
    // The transfers stay in the order in which they expire.
    this.#tables[transfer.standing]!.touch(transfer.key);
    return true;
  }

  /** Keeps a response whose blocks are fetched. Returns false when there is no room for it. */
  keep(transfer: Transfer, response: Reply): boolean {
    if (!this.#grow(transfer, response.payload.length)) return false;
    transfer.head = response;
    return true;
  }

  delete(key: string): void {
    for (const table of this.#tables) {
      const found = table.get(key);
      if (found && table.delete(key)) this.#forgotten(found);
    }
  }

  #grow({ key, standing }: Transfer, bytes: number): boolean {
    const table = this.#tables[standing]!;
    const { bytes: most = 0 } = table.bounds;
    if (standing === Standing.Proven && table.bytes + bytes > most) return false;
    return table.grow(key, bytes);
  }

  #deadline(): Monotonic {
    return plus(this.#clock.now(), this.#limits.idle);
  }

  #expire(): void {
    const now = this.#clock.now();
    for (const table of this.#tables)
      for (const [key, { expires }] of table.entries()) {
        if (expires > now) break;
        this.delete(key);
      }
  }

  #forgotten({ peer }: Transfer): void {
    const left = (this.#perPeer.get(peer) ?? 1) - 1;
    if (left > 0) this.#perPeer.set(peer, left);
    else this.#perPeer.delete(peer);
  }
}
