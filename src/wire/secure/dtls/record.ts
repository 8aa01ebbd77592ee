/** Content types of records (RFC 5246 section 6.2.1, RFC 9146 section 4). */
export const ContentType = {
  ChangeCipherSpec: 20,
  Alert: 21,
  Handshake: 22,
  ApplicationData: 23,
  /** A protected record with a connection ID. Its own type is inside. */
  WithCid: 25,
} as const;

/** DTLS 1.2, and DTLS 1.0, which the first records may say (RFC 6347 section 4.2.1). */
export const dtls12 = 0xfefd;
export const dtls10 = 0xfeff;

/** A record as it was received (RFC 6347 section 4.1, RFC 9146 section 4). */
export interface DtlsRecord {
  readonly type: number;
  readonly version: number;
  readonly epoch: number;
  readonly sequence: number;
  /** Connection ID of the receiver. */
  readonly cid: Buffer | undefined;
  readonly fragment: Buffer;
}

/** Most bytes of a record's protected fragment (RFC 6347 section 4.1.2, RFC 5246 section 6.2.3). */
const mostFragment = 2 ** 14 + 2048;
/** Bytes of a record's header without a connection ID. */
export const headerBytes = 13;

/**
 * Reads the records of a datagram. Stops at the first one that is none (RFC 6347 section 4.1.2.7): what follows cannot be told
 * apart from rubbish.
 * @param cidBytes length of the receiver's connection IDs
 */
export function recordsOf(datagram: Buffer, cidBytes: number): DtlsRecord[] {
  const records: DtlsRecord[] = [];
  for (let at = 0; at + headerBytes <= datagram.length; ) {
    const type = datagram[at]!;
    const version = datagram.readUInt16BE(at + 1);
    if (version !== dtls12 && version !== dtls10) break;
    const cidEnd = at + 11 + (type === ContentType.WithCid ? cidBytes : 0);
    if (cidEnd + 2 > datagram.length) break;
    const start = cidEnd + 2;
    const length = datagram.readUInt16BE(cidEnd);
    if (length > mostFragment || start + length > datagram.length) break;
    records.push({
      type,
      version,
      epoch: datagram.readUInt16BE(at + 3),
      sequence: datagram.readUIntBE(at + 5, 6),
      cid: type === ContentType.WithCid ? datagram.subarray(at + 11, cidEnd) : undefined,
      fragment: datagram.subarray(start, start + length),
    });
    at = start + length;
  }
  return records;
}

/** Writes the header of a record that is `headerBytes` and the connection ID long. */
export function writeHeader(
  target: Buffer,
  { type, version, epoch, sequence, cid }: Omit<DtlsRecord, 'fragment'>,
  length: number,
): void {
  target[0] = type;
  target.writeUInt16BE(version, 1);
  target.writeUInt16BE(epoch, 3);
  target.writeUIntBE(sequence, 5, 6);
  if (cid) target.set(cid, 11);
  target.writeUInt16BE(length, 11 + (cid?.length ?? 0));
}

/** A record without protection, of epoch 0. */
export function plainRecord(
  type: number,
  sequence: number,
  fragment: Uint8Array,
  version: number = dtls12,
): Buffer {
  const record = Buffer.allocUnsafe(headerBytes + fragment.length);
  writeHeader(record, { type, version, epoch: 0, sequence, cid: undefined }, fragment.length);
  record.set(fragment, headerBytes);
  return record;
}
