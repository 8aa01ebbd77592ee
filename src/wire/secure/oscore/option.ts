import { noBytes } from '../../coap/codec.ts';

/** What the OSCORE option says: the header of the compressed COSE object (RFC 8613 section 6.1). */
export interface OscoreHeader {
  /** Partial IV: the sequence number of the sender in its shortest form. */
  readonly piv?: Uint8Array | undefined;
  /** Sender ID of the sender. Present in requests, and empty where the ID is. */
  readonly kid?: Uint8Array | undefined;
  /** ID Context of the sender. */
  readonly kidContext?: Uint8Array | undefined;
}

/** Bits of the first octet. Those above are reserved. */
const lengthBits = 0x07;
const kidBit = 0x08;
const contextBit = 0x10;
const reservedBits = 0xe0;
/** Most octets of a Partial IV. */
export const mostPivBytes = 5;

/** Writes the value of the option. Without any part it is empty. */
export function writeHeader({ piv = noBytes, kid, kidContext }: OscoreHeader): Buffer {
  if (piv.length === 0 && !kid && !kidContext) return noBytes;
  const flags = piv.length | (kid ? kidBit : 0) | (kidContext ? contextBit : 0);
  const context = kidContext ? [Buffer.of(kidContext.length), kidContext] : [];
  return Buffer.concat([Buffer.of(flags), piv, ...context, kid ?? noBytes]);
}

/**
 * Reads the value of the option. Undefined when it is not of this form: reserved bits or lengths, a Partial IV with leading zeros, an
 * end in the middle, octets behind the end, or flags that are all zero, for which the value must be empty.
 */
export function readHeader(value: Uint8Array): OscoreHeader | undefined {
  const flags = value[0];
  if (flags === undefined) return {};
  const pivBytes = flags & lengthBits;
  if (flags === 0 || (flags & reservedBits) !== 0 || pivBytes > mostPivBytes) return undefined;
  let at = 1 + pivBytes;
  const piv = pivBytes > 0 ? value.subarray(1, at) : undefined;
  if (piv && pivBytes > 1 && piv[0] === 0) return undefined;
  let kidContext: Uint8Array | undefined;
  if ((flags & contextBit) !== 0) {
    const end = at + 1 + (value[at] ?? value.length);
    kidContext = value.subarray(at + 1, end);
    at = end;
  }
  if (at > value.length) return undefined;
  if ((flags & kidBit) !== 0) return { piv, kid: value.subarray(at), kidContext };
  return at === value.length ? { piv, kidContext } : undefined;
}

/** A sequence number as a Partial IV: without leading zeros, and zero as one octet. */
export function pivOf(sequence: number): Buffer {
  let bytes = 1;
  while (sequence >= 256 ** bytes) bytes++;
  const piv = Buffer.allocUnsafe(bytes);
  piv.writeUIntBE(sequence, 0, bytes);
  return piv;
}

/** The sequence number of a Partial IV. */
export const sequenceOf = (piv: Uint8Array): number => piv.reduce((sum, byte) => sum * 256 + byte, 0);
