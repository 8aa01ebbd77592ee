import { verify, type X509Certificate } from 'node:crypto';
import { PosternError } from '../../base/errors.ts';
import { extensionsOf, hexOf, valuesOf } from '../../wire/secure/dtls/certificate-facts.ts';

/** A certificate revocation list (RFC 5280 section 5). */
export interface RevocationList {
  readonly pem: string;
  /** Number of the list (section 5.2.3). A higher one is newer. */
  readonly number: bigint;
  /** Milliseconds since 1970 at which the authority made it. */
  readonly made: number;
  /** Milliseconds since 1970 by which there is a newer one; NaN without such a time. */
  readonly until: number;
  /** Serial numbers of revoked certificates, as `X509Certificate` has them. */
  readonly revoked: ReadonlySet<string>;
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
      .toSorted((a, b) => Number(b.number - a.number))
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
    const [whole] = valuesOf(Buffer.from(pem.split('-----')[2] ?? '', 'base64'));
    const [body, , signature] = valuesOf(whole!.content);
    const fields = valuesOf(body!.content);
    const times = fields.filter(({ tag }) => tag === Tag.UtcTime || tag === Tag.GeneralizedTime).map(timeOf);
    // The first two sequences are the algorithm and the issuer.
    const entries = fields.filter(({ tag }) => tag === Tag.Sequence)[2];
    const { extensions, hasUnknown } = extensionsOf(fields.find(({ tag }) => tag === Tag.Extensions));
    const number = extensions.get(crlNumber);
    if (!number || hasUnknown) return [];
    // The bytes that are signed include the head of their sequence.
    const signed = whole!.content.subarray(
      0,
      body!.content.byteOffset - whole!.content.byteOffset + body!.content.length,
    );
    return [
      {
        pem,
        number: BigInt(`0x${hexOf(valuesOf(number)[0])}`),
        made: times[0]!,
        until: times[1] ?? Number.NaN,
        revoked: new Set(
          (entries ? valuesOf(entries.content) : []).map(({ content }) =>
            hexOf(valuesOf(content)[0])
              .toUpperCase()
              .replace(/^00(?=.)/, ''),
          ),
        ),
        isBy: ({ publicKey }) =>
          ['sha256', 'sha384', 'sha512'].some((digest) =>
            // Behind the number of unused bits.
            verify(digest, signed, publicKey, signature!.content.subarray(1)),
          ),
      },
    ];
  } catch {
    return [];
  }
}

/** Milliseconds since 1970 of a UTCTime, which has two digits of the year, or a GeneralizedTime. */
function timeOf({ tag, content }: { readonly tag: number; readonly content: Buffer }): number {
  const text = (tag === Tag.UtcTime ? '20' : '') + content.toString('latin1');
  return Date.parse(text.replace(/^(....)(..)(..)(..)(..)(..)Z$/, '$1-$2-$3T$4:$5:$6Z'));
}
