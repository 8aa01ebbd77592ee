import type { Fragment, HandshakeMessage } from './messages.ts';

/**
 * Most bytes of one message, which a chain of certificates may have; bytes of all messages that are not complete or wait for earlier
 * ones; such messages; and pieces of a message between gaps.
 */
export const reassemblyLimits = { message: 8192, total: 12_288, ahead: 8, pieces: 32 } as const;

interface Partial {
  readonly type: number;
  readonly body: Buffer;
  /** Ranges of bytes that are there, apart from each other and in order. */
  ranges: (readonly [from: number, to: number])[];
}

/**
 * Puts messages of a handshake together, and gives them in order (RFC 6347 section 4.2.3). Fragments that do not fit together or
 * exceed a bound are dropped: the peer may send them again.
 */
export class Reassembly {
  #next: number;
  readonly #partials = new Map<number, Partial>();
  #total = 0;

  /** @param next message_seq of the first message */
  constructor(next: number) {
    this.#next = next;
  }

  /** message_seq of the next message that is complete. */
  get next(): number {
    return this.#next;
  }

  /** Bytes of all messages that are not given yet. */
  get bytes(): number {
    return this.#total;
  }

  add(fragment: Fragment): void {
    const { type, sequence, length, offset, bytes } = fragment;
    if (sequence < this.#next || sequence >= this.#next + reassemblyLimits.ahead) return;
    if (length > reassemblyLimits.message || offset + bytes.length > length) return;
    const known = this.#partials.get(sequence);
    if (!known && this.#total + length > reassemblyLimits.total) return;
    const partial = known ?? { type, body: Buffer.alloc(length), ranges: [] };
    if (partial.type !== type || partial.body.length !== length) return;
    const ranges = joined([...partial.ranges, [offset, offset + bytes.length]]);
    if (ranges.length > reassemblyLimits.pieces) return;
    bytes.copy(partial.body, offset);
    partial.ranges = ranges;
    if (!known) this.#total += length;
    this.#partials.set(sequence, partial);
  }

  /** The next message, if it is complete. */
  take(): HandshakeMessage | undefined {
    const partial = this.#partials.get(this.#next);
    if (!partial) return undefined;
    const { type, body, ranges } = partial;
    if (ranges.length !== 1 || ranges[0]![1] - ranges[0]![0] !== body.length) return undefined;
    this.#partials.delete(this.#next);
    this.#total -= body.length;
    return { type, sequence: this.#next++, body };
  }
}

/** The same ranges, in order, with those joined that touch or overlap. */
function joined(ranges: Partial['ranges']): Partial['ranges'] {
  const result: (readonly [number, number])[] = [];
  for (const [from, to] of ranges.toSorted((a, b) => a[0] - b[0])) {
    const last = result.at(-1);
    if (last && from <= last[1]) result[result.length - 1] = [last[0], Math.max(last[1], to)];
    else result.push([from, to]);
  }
  return result;
}
