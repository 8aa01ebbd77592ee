import { createCipheriv, createDecipheriv, createHmac, timingSafeEqual } from 'node:crypto';
import type { Entropy } from '../../../base/entropy.ts';
import { opened, sealed } from '../aead.ts';
import { ContentType, type DtlsRecord, dtls12, headerBytes, writeHeader } from './record.ts';
import { isAead, type Suite } from './suites.ts';

/** What protects the records of one direction. */
export interface DirectionKeys {
  readonly suite: Suite;
  readonly key: Uint8Array;
  /** Fixed part of the nonce, or the MAC key. */
  readonly salt: Uint8Array;
}

/** What is inside of a protected record. */
export interface Content {
  readonly type: number;
  readonly bytes: Buffer;
}

/** A record that is to be protected. `cid` is the peer's connection ID, if it has one. */
export interface Outgoing extends Content {
  readonly epoch: number;
  readonly sequence: number;
  readonly cid: Uint8Array | undefined;
}

const nonceBytes = 8;
const ivBytes = 16;

/**
 * The data that is authenticated besides the content (RFC 5246 section 6.2.3.3; with a connection ID, RFC 9146 section 5). The MAC
 * of CBC covers the same data (RFC 7366 section 3, RFC 9146 section 5.2).
 */
function authenticated(
  { type, version, epoch, sequence, cid }: Omit<DtlsRecord, 'fragment'>,
  length: number,
): Buffer {
  const base = cid ? 10 : 0;
  const data = Buffer.allocUnsafe(cid ? 23 + cid.length : headerBytes);
  if (cid) {
    data.fill(0xff, 0, 8);
    data[8] = ContentType.WithCid;
    data[9] = cid.length;
    writeHeader(data.subarray(base), { type, version, epoch, sequence, cid }, length);
    return data;
  }
  data.writeUInt16BE(epoch, 0);
  data.writeUIntBE(sequence, 2, 6);
  data[8] = type;
  data.writeUInt16BE(version, 9);
  data.writeUInt16BE(length, 11);
  return data;
}

/** A protected record, ready to be sent. */
export function protect(keys: DirectionKeys, outgoing: Outgoing, entropy: Entropy): Buffer {
  const { epoch, sequence, cid, type, bytes } = outgoing;
  // With a connection ID the type is behind the content, and no padding follows (RFC 9146 section 4).
  const inner = cid ? Buffer.concat([bytes, Buffer.from([type])]) : bytes;
  const header = {
    type: cid ? ContentType.WithCid : type,
    version: dtls12,
    epoch,
    sequence,
    cid: cid as Buffer | undefined,
  };
  const parts = isAead(keys.suite) ? aeadSeal(keys, header, inner) : cbcSeal(keys, header, inner, entropy);
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const start = headerBytes + (cid?.length ?? 0);
  const record = Buffer.allocUnsafe(start + length);
  writeHeader(record, header, length);
  let at = start;
  for (const part of parts) {
    record.set(part, at);
    at += part.length;
  }
  return record;
}

/** Opens a protected record. Undefined when it does not verify, whatever the reason. */
export function unprotect(keys: DirectionKeys, record: DtlsRecord): Content | undefined {
  let inner: Buffer | undefined;
  try {
    inner = isAead(keys.suite) ? aeadOpen(keys, record) : cbcOpen(keys, record);
  } catch {
    // The primitives throw when a tag or a length is wrong.
    return undefined;
  }
  if (!inner || !record.cid) return inner && { type: record.type, bytes: inner };
  // The last byte that is not zero is the type; the zeros behind it are padding (RFC 9146 section 4).
  let end = inner.length - 1;
  while (end >= 0 && inner[end] === 0) end--;
  return end < 0 ? undefined : { type: inner[end]!, bytes: inner.subarray(0, end) };
}

/** Explicit nonce, ciphertext and tag (RFC 5288 section 3, RFC 6655 section 3). The explicit nonce is epoch and number. */
function aeadSeal(
  { suite, key, salt }: DirectionKeys,
  header: Omit<DtlsRecord, 'fragment'>,
  inner: Buffer,
): Uint8Array[] {
  const nonce = Buffer.allocUnsafe(4 + nonceBytes);
  nonce.set(salt);
  nonce.writeUInt16BE(header.epoch, 4);
  nonce.writeUIntBE(header.sequence, 6, 6);
  const aead = { cipher: suite.cipher, key, nonce, tag: suite.tag };
  return [nonce.subarray(4), ...sealed(aead, authenticated(header, inner.length), inner)];
}

function aeadOpen({ suite, key, salt }: DirectionKeys, record: DtlsRecord): Buffer | undefined {
  const { fragment } = record;
  const length = fragment.length - nonceBytes - suite.tag;
  if (length < 0) return undefined;
  const nonce = Buffer.allocUnsafe(4 + nonceBytes);
  nonce.set(salt);
  fragment.copy(nonce, 4, 0, nonceBytes);
  const aead = { cipher: suite.cipher, key, nonce, tag: suite.tag };
  return opened(aead, authenticated(record, length), fragment.subarray(nonceBytes));
}

/** IV, ciphertext with padding, and the MAC over both (RFC 5246 section 6.2.3.2, RFC 7366 section 3). */
function cbcSeal(
  { key, salt }: DirectionKeys,
  header: Omit<DtlsRecord, 'fragment'>,
  inner: Buffer,
  entropy: Entropy,
): Uint8Array[] {
  const padding = ivBytes - (inner.length % ivBytes);
  const iv = entropy.bytes(ivBytes);
  const cipher = createCipheriv('aes-128-cbc', key, iv).setAutoPadding(false);
  const encrypted = cipher.update(Buffer.concat([inner, Buffer.alloc(padding, padding - 1)]));
  cipher.final();
  return [iv, encrypted, macOf(salt, header, iv, encrypted)];
}

function cbcOpen({ suite, key, salt }: DirectionKeys, record: DtlsRecord): Buffer | undefined {
  const { fragment } = record;
  const end = fragment.length - suite.tag;
  if (end < 2 * ivBytes || end % ivBytes !== 0) return undefined;
  const iv = fragment.subarray(0, ivBytes);
  const encrypted = fragment.subarray(ivBytes, end);
  if (!timingSafeEqual(macOf(salt, record, iv, encrypted), fragment.subarray(end))) return undefined;
  const decipher = createDecipheriv('aes-128-cbc', key, iv).setAutoPadding(false);
  const padded = Buffer.concat([decipher.update(encrypted), decipher.final()]);
  // Only the holder of the key has written the padding, so how long this takes tells nothing to anyone else.
  const padding = padded.at(-1)! + 1;
  const start = padded.length - padding;
  if (start < 0 || padded.subarray(start).some((byte) => byte !== padding - 1)) return undefined;
  return padded.subarray(0, start);
}

function macOf(
  key: Uint8Array,
  header: Omit<DtlsRecord, 'fragment'>,
  iv: Uint8Array,
  encrypted: Uint8Array,
): Buffer {
  const data = authenticated(header, iv.length + encrypted.length);
  return createHmac('sha256', key).update(data).update(iv).update(encrypted).digest();
}
