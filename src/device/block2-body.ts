import { PosternError } from '../base/errors.ts';

/** A block of a response (RFC 7959 section 2.2). */
export interface Block2 {
  readonly number: number;
  readonly more: boolean;
  /** Size exponent: a block has 2^(exponent + 4) bytes. */
  readonly exponent: number;
}

/** Size exponent of the largest block. */
const largestExponent = 6;

/** Reads the value of a Block2 option. */
export function parseBlock2(value: Uint8Array): Block2 {
  const whole = value.length === 0 ? 0 : Buffer.from(value).readUIntBE(0, value.length);
  return { number: whole >> 4, more: (whole & 8) !== 0, exponent: whole & 7 };
}

/**
 * The body of a response while its blocks arrive. Each block must continue the bytes that are there, and have their ETag
 * (RFC 7959 section 2.4). The server chooses the size of its blocks. It may also change it between two blocks.
 */
export class Block2Body {
  readonly #limit: number;
  readonly #chunks: Uint8Array[] = [];
  #position: number;
  #etag: string | undefined;

  /**
   * @param limit most bytes of the whole body
   * @param from position at which the blocks begin: bytes that are there from an earlier request
   * @param etag ETag of these bytes, in hexadecimal
   */
  constructor(limit: number, from = 0, etag?: string) {
    this.#limit = limit;
    this.#position = from;
    this.#etag = etag;
  }

  /** ETag of the body in hexadecimal. Undefined when the server gives none, or nothing has arrived. */
  get etag(): string | undefined {
    return this.#etag;
  }

  /** The bytes that have arrived. */
  get bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  /**
   * Takes a response with its ETag, in hexadecimal. Without a block it is the whole body. Returns false when it is a
   * repetition of an earlier block.
   * @param isCurrent whether it answers the current message, so it cannot be a repetition
   * @throws {PosternError} `conflict` when it belongs to another body, `unavailable` when it is not the block that was
   * requested, `tooLarge`
   */
  take(
    block: Block2 | undefined,
    etag: string | undefined,
    payload: Uint8Array,
    isCurrent: boolean,
  ): boolean {
    const { number, more, exponent } = block ?? { number: 0, more: false, exponent: largestExponent };
    const size = 1 << (exponent + 4);
    const at = number * size;
    if (block && at < this.#position && !isCurrent) return false;
    const isFirst = this.#position === 0;
    if (!isFirst && (!block || etag !== this.#etag))
      throw new PosternError('conflict', 'the body changed while it was fetched');
    if (exponent > largestExponent || at !== this.#position)
      throw new PosternError('unavailable', `block ${number} of ${size} bytes was not requested`);
    if (block && (more ? payload.length !== size : payload.length > size))
      throw new PosternError('unavailable', `a block of ${payload.length} bytes instead of ${size}`);
    if (at + payload.length > this.#limit)
      throw new PosternError('tooLarge', `a body of more than ${this.#limit} bytes`);
    if (isFirst) this.#etag = etag;
    this.#position += payload.length;
    this.#chunks.push(payload);
    return true;
  }
}
