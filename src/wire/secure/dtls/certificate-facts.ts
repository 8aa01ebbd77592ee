import { Reader } from './bytes.ts';

/** One value of DER (X.690 section 8.1), with a length of at most three bytes. */
export interface Value {
  readonly tag: number;
  readonly content: Buffer;
}

const Tag = {
  Boolean: 1,
  Utf8: 12,
  Printable: 19,
  Ia5: 22,
  /** [0] of a certificate, its version. */
  Version: 0xa0,
  /** [3] of a certificate, its extensions. */
  Extensions: 0xa3,
  /** [6] of a name, a URI. */
  Uri: 0x86,
} as const;

/** Object identifiers, in hexadecimal digits of their DER. */
const Oid = {
  CommonName: '550403',
  KeyUsage: '551d0f',
  SubjectAltName: '551d11',
  BasicConstraints: '551d13',
  ExtendedKeyUsage: '551d25',
} as const;
/** Extensions that are heeded, by this file or by `node:crypto`. */
const heeded = new Set<string>([
  Oid.KeyUsage,
  Oid.SubjectAltName,
  Oid.BasicConstraints,
  Oid.ExtendedKeyUsage,
]);

/** What `node:crypto` does not tell of a certificate. */
export interface CertificateFacts {
  /** Common names of the subject. */
  readonly commonNames: readonly string[];
  /** URIs among the alternative names of the subject. */
  readonly uris: readonly string[];
  /** First byte of the key usage (RFC 5280 section 4.2.1.3): 0x80 for signatures, 0x04 for certificates. */
  readonly keyUsage: number | undefined;
  /** Most certificates of authorities that may follow below this one. */
  readonly pathLength: number | undefined;
  /** There is a critical extension that is not heeded, such as constraints of names. */
  readonly hasUnknown: boolean;
}

/**
 * Reads a certificate (RFC 5280 section 4.1) that `node:crypto` could read.
 * @throws {DtlsFailure} `DecodeError`
 */
export function factsOf(certificate: Buffer): CertificateFacts {
  const fields = valuesOf(inner(inner(certificate)));
  // The version is absent in certificates of version 1.
  const subject = fields[fields[0]?.tag === Tag.Version ? 5 : 4]?.content ?? nothing;
  const { extensions, hasUnknown } = extensionsOf(fields.find(({ tag }) => tag === Tag.Extensions));
  return {
    commonNames: valuesOf(subject).flatMap(({ content }) => commonNames(content)),
    uris: valuesOf(innerOf(extensions.get(Oid.SubjectAltName))).flatMap(({ tag, content }) =>
      tag === Tag.Uri ? [content.toString('latin1')] : [],
    ),
    // Behind the number of unused bits.
    keyUsage: extensions.has(Oid.KeyUsage) ? (innerOf(extensions.get(Oid.KeyUsage))[1] ?? 0) : undefined,
    pathLength: pathLength(innerOf(extensions.get(Oid.BasicConstraints))),
    hasUnknown,
  };
}

/** Extensions of a certificate or a revocation list, by the digits of their identifier: the DER of each, in its OCTET STRING. */
export function extensionsOf(list: Value | undefined) {
  const extensions = new Map<string, Buffer>();
  let hasUnknown = false;
  for (const { content } of list ? valuesOf(inner(list.content)) : []) {
    const parts = valuesOf(content);
    const oid = hexOf(parts[0]);
    const isCritical = parts[1]?.tag === Tag.Boolean && parts[1].content[0] !== 0;
    if (isCritical && !heeded.has(oid)) hasUnknown = true;
    extensions.set(oid, parts.at(-1)?.content ?? nothing);
  }
  return { extensions, hasUnknown };
}

const nothing = Buffer.alloc(0);
const hexOf = (value: Value | undefined): string => value?.content.toString('hex') ?? '';

/**
 * The values that follow each other in a piece of DER.
 * @throws {DtlsFailure} `DecodeError`
 */
export function valuesOf(bytes: Buffer): Value[] {
  const reader = new Reader(bytes);
  const values: Value[] = [];
  while (reader.remaining > 0) {
    const tag = reader.uint(1);
    const length = reader.uint(1);
    const size = length & 0x7f;
    values.push({
      tag,
      content: reader.take(length < 0x80 ? length : reader.uint(Math.min(Math.max(size, 1), 3))),
    });
  }
  return values;
}

/** The content of the first value. */
export const inner = (bytes: Buffer): Buffer => valuesOf(bytes)[0]?.content ?? nothing;
const innerOf = (bytes: Buffer = nothing): Buffer => inner(bytes);

const texts: readonly number[] = [Tag.Utf8, Tag.Printable, Tag.Ia5];

/** The common names of a relative distinguished name. */
const commonNames = (set: Buffer): string[] =>
  valuesOf(set).flatMap(({ content }) => {
    const [type, value] = valuesOf(content);
    return hexOf(type) === Oid.CommonName && value && texts.includes(value.tag)
      ? [value.content.toString()]
      : [];
  });

/** The path length of basic constraints: the number behind the Boolean that says that this is an authority. */
function pathLength(constraints: Buffer): number | undefined {
  const value = valuesOf(constraints).find(({ tag }) => tag === 2)?.content;
  return value && value.length === 1 ? value[0] : undefined;
}
