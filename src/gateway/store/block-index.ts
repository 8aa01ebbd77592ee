import { hash } from 'node:crypto';
import { open } from 'node:fs/promises';
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
/** Bytes of a digest, of the superblock of a squashfs, and bytes that are read of a file at a time. */
const digestBytes = 6;
const superblock = 96;
const pieceBytes = 16 * blockBytes;

/** Size of the index of a file in bytes, at most. */
export const indexSize = (total: number): number => head + (1 + Math.ceil(total / blockBytes)) * digestBytes;

/** The first 48 bits of the SHA-256 of a block. Two blocks of a release have the same digest less than once in a million releases. */
export const blockDigest = (block: Uint8Array): number =>
  hash('sha256', block, 'buffer').readUIntBE(0, digestBytes);

/**
 * Makes the index of a bundle.
 * @param first size of the first block, 1 to `blockBytes`
 */
export function writeIndex(bundle: Buffer, first = firstBytes(bundle)): Buffer {
  const index = new IndexWriter(hash('sha256', bundle, 'buffer'), bundle.length, first);
  index.add(bundle.subarray(0, first));
  index.add(bundle.subarray(first));
  return index.bytes;
}

/**
 * Makes the index of a file of less than 4 GiB, piece by piece: devices are served meanwhile.
 * @param sha256 of the file in hexadecimal
 * @param total size of the file in bytes, at least 1
 * @throws {Error} of the file system
 * @throws {PosternError} `internal` when the file is shorter
 */
export async function makeIndex(path: string, sha256: string, total: number): Promise<Buffer> {
  await using file = await open(path);
  const buffer = Buffer.allocUnsafe(pieceBytes);
  const read = async (at: number, bytes: number) => {
    const { bytesRead } = await file.read(buffer, 0, bytes, at);
    if (bytesRead < bytes) throw new PosternError('internal', `${path} has less than ${total} bytes`);
    return buffer.subarray(0, bytes);
  };
  const first = Math.min(total, firstBytes(await read(0, Math.min(total, pieceBytes))));
  const index = new IndexWriter(Buffer.from(sha256, 'hex'), total, first);
  for (let at = 0, next = first; at < total; at = next, next = Math.min(total, at + pieceBytes))
    index.add(await read(at, next - at));
  return index.bytes;
}

/**
 * Size of the first block of a file, 1 to `blockBytes`, by how the file begins. The images in a bundle of RAUC are stored behind the
 * superblock of a squashfs, and the program in a bundle for directory slots behind four lines (update/bundle.ts). Blocks of anything
 * else begin at its beginning.
 */
export function firstBytes(beginning: Buffer): number {
  if (beginning.toString('latin1', 0, 4) === 'hsqs') return superblock;
  let lines = 0;
  if (beginning.toString('latin1', 0, 15) === 'postern-update ')
    for (let line = 0; line < 4; line++) lines = beginning.indexOf('\n', lines) + 1;
  return lines % blockBytes || blockBytes;
}

/** An index that grows by whole blocks; the first and the last one may be smaller. */
class IndexWriter {
  readonly bytes: Buffer;
  #at = head;

  constructor(sha256: Buffer, total: number, first: number) {
    this.bytes = Buffer.alloc(head + (1 + Math.ceil((total - first) / blockBytes)) * digestBytes);
    this.bytes.write(magic, 'latin1');
    sha256.copy(this.bytes, magic.length);
    this.bytes.writeUInt32BE(first, head - 8);
    this.bytes.writeUInt32BE(total, head - 4);
  }

  add(blocks: Buffer): void {
    for (let from = 0; from < blocks.length; from += blockBytes, this.#at += digestBytes)
      this.bytes.writeUIntBE(blockDigest(blocks.subarray(from, from + blockBytes)), this.#at, digestBytes);
  }
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
