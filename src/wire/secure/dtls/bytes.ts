import { Alert, DtlsFailure } from './alerts.ts';

/**
 * Reads the presentation language of TLS (RFC 5246 section 4). What is read are views into the bytes.
 * @throws {DtlsFailure} `DecodeError` when the bytes end early or a length is out of its bounds
 */
export class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get remaining(): number {
    return this.#bytes.length - this.#at;
  }

  take(length: number): Buffer {
    if (length > this.remaining) throw new DtlsFailure(Alert.DecodeError, 'a message is too short');
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  /** An unsigned number of `size` bytes. */
  uint(size: number): number {
    return this.take(size).readUIntBE(0, size);
  }

  /** A vector whose length is told in `size` bytes and is from `least` to `most`. */
  vector(size: number, least = 0, most = Number.POSITIVE_INFINITY): Buffer {
    const length = this.uint(size);
    if (length < least || length > most)
      throw new DtlsFailure(Alert.DecodeError, `a vector of ${length} bytes is out of its bounds`);
    return this.take(length);
  }

  /** All numbers of `size` bytes that are left. */
  uints(size: number): number[] {
    const all: number[] = [];
    while (this.remaining > 0) all.push(this.uint(size));
    return all;
  }

  /** Checks that nothing is left. */
  end(): void {
    if (this.remaining > 0) throw new DtlsFailure(Alert.DecodeError, 'a message is too long');
  }
}

/** An unsigned number of `size` bytes. */
export function uint(value: number, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  bytes.writeUIntBE(value, 0, size);
  return bytes;
}

/** A vector whose length is told in `size` bytes. */
export const vector = (size: number, ...parts: readonly Uint8Array[]): Buffer =>
  Buffer.concat([
    uint(
      parts.reduce((sum, { length }) => sum + length, 0),
      size,
    ),
    ...parts,
  ]);

/** A vector of numbers of `size` bytes. */
export const uintVector = (lengthSize: number, size: number, values: readonly number[]): Buffer =>
  vector(lengthSize, ...values.map((value) => uint(value, size)));
