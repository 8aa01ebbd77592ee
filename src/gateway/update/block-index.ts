import { hash } from 'node:crypto';
import { PosternError } from '../../base/errors.ts';

/**
 * The index of a bundle: a digest of each of its blocks. It is beside the bundle at the download server, and its name is that
 * of the bundle with `indexSuffix`. A gateway finds by it which blocks it has already. The index needs no trust, because what is
 * made by it is verified as a bundle.
 */
export interface BlockIndex {
  /** SHA-256 of the bundle in hexadecimal. */
  readonly sha256: string;
  /** Size of the bundle in bytes. */
  readonly total: number;
  /** Size of the first block in bytes, 1 to `blockBytes`. So the other blocks begin where the blocks of an image inside begin. */
  readonly first: number;
  /** Digest of each block, as `blockDigest` returns it. All but the first and the last have `blockBytes` bytes. */
  readonly digests: readonly number[];
}

export const indexSuffix = '.blocks';
export const blockBytes = 4096;
/** What an index begins with. SHA-256 (32 bytes), size of the first block and of the bundle (4 bytes each) follow. */
const magic = 'postern-blocks 1';
const head = magic.length + 40;
/** Bytes of a digest. */
const digestBytes = 6;

/** The first 48 bits of the SHA-256 of a block. Two blocks of a release have the same digest less than once in a million releases. */
export const blockDigest = (block: Uint8Array): number =>
  hash('sha256', block, 'buffer').readUIntBE(0, digestBytes);

/**
 * Makes the index of a bundle.
 * @param first size of the first block, 1 to `blockBytes`
 */
export function writeIndex(bundle: Buffer, first: number): Buffer {
  const numbers = Buffer.alloc(8);
  numbers.writeUInt32BE(first, 0);
  numbers.writeUInt32BE(bundle.length, 4);
  const parts = [Buffer.from(magic), hash('sha256', bundle, 'buffer'), numbers];
  for (let at = 0, end = first; at < bundle.length; at = end, end += blockBytes) {
    const digest = Buffer.alloc(digestBytes);
    digest.writeUIntBE(blockDigest(bundle.subarray(at, end)), 0, digestBytes);
    parts.push(digest);
  }
  return Buffer.concat(parts);
}

/**
 * Reads an index.
 * @param limit largest size of a bundle in bytes
 * @throws {PosternError} `malformed`
 */
export function readIndex(bytes: Buffer, limit: number): BlockIndex {
  const isIndex = bytes.length > head && bytes.toString('latin1', 0, magic.length) === magic;
  const [first, total] = isIndex ? [bytes.readUInt32BE(head - 8), bytes.readUInt32BE(head - 4)] : [0, 0];
  const count = 1 + Math.ceil((total - first) / blockBytes);
  const isSound = first > 0 && first <= blockBytes && first <= total && total <= limit;
  if (!isSound || bytes.length !== head + count * digestBytes)
    throw new PosternError('malformed', 'the index is damaged');
  const digests = Array.from({ length: count }, (_, number) =>
    bytes.readUIntBE(head + number * digestBytes, digestBytes),
  );
  return { sha256: bytes.toString('hex', magic.length, head - 8), total, first, digests };
}
