import { verify, type X509Certificate } from 'node:crypto';
import { PosternError } from '../../base/errors.ts';
import { extensionsOf, inner, type Value, valuesOf } from '../../wire/secure/dtls/certificate-facts.ts';

/** A certificate revocation list (RFC 5280 section 5). */
export interface RevocationList {
  readonly pem: string;
  /** Number of the list (section 5.2.3). A higher one is newer. Exact below 2^53. */
  readonly number: number;
  /** Milliseconds since 1970 at which the authority made it. */
  readonly made: number;
  /** Milliseconds since 1970 by which there is a newer one; undefined without such a time. */
  readonly until: number | undefined;
  /** Serial numbers of revoked certificates. */
  readonly revoked: ReadonlySet<bigint>;
  /** Whether the authority with this certificate signed it. */
  isBy(authority: X509Certificate): boolean;
}

const listPattern = /-----BEGIN X509 CRL-----[^-]+-----END X509 CRL-----/g;
/** Identifier of the extension CRL Number, in hexadecimal digits of its DER. */
const crlNumber = '551d14';
const Tag = { UtcTime: 0x17, GeneralizedTime: 0x18, Sequence: 0x30, Extensions: 0xa0 } as const;

/**
 * The lists that are in force: for each authority the one with the highest number that it signed. Of two with the same number
 * the first one is in force. A list that cannot be read, has no number or has a critical extension is ignored.
 * @param pem PEM texts of lists
 */
export function listsInForce(pem: string, authorities: readonly X509Certificate[]): RevocationList[] {
  const lists = (pem.match(listPattern) ?? []).flatMap(listOf);
  return authorities.flatMap((authority) =>
    lists
      .filter((list) => list.isBy(authority))
      .toSorted((a, b) => b.number - a.number)
      .slice(0, 1),
  );
}

/**
 * Adds a list to those in force. Returns the PEM texts of all.
 * @throws {PosternError} `conflict` when the list is not in force afterwards
 */
export function withList(list: string, pem: string, authorities: readonly X509Certificate[]): string {
  const texts = listsInForce(`${pem}\n${list}`, authorities).map((one) => one.pem);
  if (!texts.some((text) => list.includes(text)))
    throw new PosternError(
      'conflict',
      'no authority that is trusted has signed the revocation list, or a newer one is in force',
    );
  return texts.join('\n');
}

function listOf(pem: string): RevocationList[] {
  try {
    const whole = inner(Buffer.from(pem.split('-----')[2]!, 'base64'));
    const [body, , signature] = valuesOf(whole);
    const { content } = body!;
    const fields = valuesOf(content);
    const [made, until] = fields.flatMap(timeOf);
    // The first two sequences are the algorithm and the issuer.
    const [, , entries] = fields.filter(({ tag }) => tag === Tag.Sequence);
    const { extensions, hasUnknown } = extensionsOf(fields.find(({ tag }) => tag === Tag.Extensions));
    // The bytes that are signed include the head of their sequence.
    const signed = whole.subarray(0, content.byteOffset - whole.byteOffset + content.length);
    const number = Number(integerOf(inner(extensions.get(crlNumber)!)));
    if (hasUnknown) return [];
    const revoked = new Set(
      entries && valuesOf(entries.content).map((entry) => integerOf(inner(entry.content))),
    );
    // Behind the number of unused bits.
    const isBy = ({ publicKey }: X509Certificate) =>
      ['sha256', 'sha384', 'sha512'].some((digest) =>
        verify(digest, signed, publicKey, signature!.content.subarray(1)),
      );
    return [{ pem, number, made: made!, until, revoked, isBy }];
  } catch {
    return [];
  }
}

const integerOf = (content: Buffer): bigint => BigInt(`0x${content.toString('hex')}`);

/** Milliseconds since 1970 of a UTCTime, which has two digits of the year, or a GeneralizedTime; nothing for other values. */
const timeOf = ({ tag, content }: Value): number[] =>
  tag === Tag.UtcTime || tag === Tag.GeneralizedTime
    ? [
        Date.parse(
          `${tag === Tag.UtcTime ? 20 : ''}${content}`.replace(/(....)(..)(..)(..)(..)/, '$1-$2-$3T$4:$5:'),
        ),
      ]
    : [];
