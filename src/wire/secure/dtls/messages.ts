import { uint } from './bytes.ts';

/** Types of handshake messages (RFC 5246 section 7.4, RFC 6347 section 4.3.2). */
export const MessageType = {
  HelloRequest: 0,
  ClientHello: 1,
  ServerHello: 2,
  HelloVerifyRequest: 3,
  Certificate: 11,
  ServerKeyExchange: 12,
  CertificateRequest: 13,
  ServerHelloDone: 14,
  CertificateVerify: 15,
  ClientKeyExchange: 16,
  Finished: 20,
} as const;

/** A whole message of a handshake. `sequence` is its message_seq. */
export interface HandshakeMessage {
  readonly type: number;
  readonly sequence: number;
  readonly body: Buffer;
}

/** A part of a message, as a record holds it (RFC 6347 section 4.2.2). */
export interface Fragment {
  readonly type: number;
  readonly sequence: number;
  /** Bytes of the whole body. */
  readonly length: number;
  readonly offset: number;
  readonly bytes: Buffer;
}

/** Bytes of the header of a fragment. */
export const fragmentHeaderBytes = 12;

/** Bytes of a fragment with its header. */
export const fragmentBytes = ({ type, sequence, length, offset, bytes }: Fragment): Buffer =>
  Buffer.concat([
    uint(type, 1),
    uint(length, 3),
    uint(sequence, 2),
    uint(offset, 3),
    uint(bytes.length, 3),
    bytes,
  ]);

/** A message as it is hashed: in one fragment, whatever it was sent in (RFC 6347 section 4.2.6). */
export const wholeMessage = ({ type, sequence, body }: HandshakeMessage): Buffer =>
  fragmentBytes({ type, sequence, length: body.length, offset: 0, bytes: body });

/** Reads the fragments of a record. What is no whole fragment at its end is left out. */
export function readFragments(content: Buffer): Fragment[] {
  const fragments: Fragment[] = [];
  for (let at = 0; at + fragmentHeaderBytes <= content.length; ) {
    const start = at + fragmentHeaderBytes;
    const end = start + content.readUIntBE(at + 9, 3);
    if (end > content.length) break;
    fragments.push({
      type: content[at]!,
      length: content.readUIntBE(at + 1, 3),
      sequence: content.readUInt16BE(at + 4),
      offset: content.readUIntBE(at + 6, 3),
      bytes: content.subarray(start, end),
    });
    at = end;
  }
  return fragments;
}

/** Cuts a message into fragments of at most `room` bytes, headers included. */
export function fragmentsOf({ type, sequence, body }: HandshakeMessage, room: number): Buffer[] {
  const most = room - fragmentHeaderBytes;
  const fragments: Buffer[] = [];
  let offset = 0;
  do {
    const bytes = body.subarray(offset, offset + most);
    fragments.push(fragmentBytes({ type, sequence, length: body.length, offset, bytes }));
    offset += bytes.length;
  } while (offset < body.length);
  return fragments;
}
