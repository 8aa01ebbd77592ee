import { verify, type X509Certificate } from 'node:crypto';
import { asPosternError } from '../../base/errors.ts';
import { FumoRefusal, FumoResult } from '../../mo/fumo.ts';
import { checkPath, pathOf } from '../../wire/secure/dtls/certificate-check.ts';
import { certificatesIn } from '../../wire/secure/dtls/certificates.ts';
import { listsInForce, type RevocationList } from './revocation-list.ts';

/** Whom bundles are believed, and at what time. */
export interface BundleTrust {
  /** PEM certificates of the authorities that certify signers. */
  readonly authorities: string;
  /** PEM certificates of those that certify a second signer. Empty when one signature is enough. */
  readonly secondAuthorities?: string | undefined;
  /** PEM texts of revocation lists. A bundle may bring newer ones. */
  readonly lists?: string;
  /** Milliseconds since 1970 by the machine's clock. */
  readonly now: number;
  /** Milliseconds since 1970 before which it cannot be now. */
  readonly floor?: number;
}

/** Most certificates of a signer that are read. */
const mostCertificates = 4;

const untrusted = (why: string, cause?: unknown) => new FumoRefusal(FumoResult.NotValidated, why, { cause });

/** What the signatures of a text have proved. */
export interface Signed {
  /** The authority that the first signer leads to. */
  readonly authority: X509Certificate;
  /** The revocation lists that are in force now. */
  readonly lists: readonly RevocationList[];
}

/**
 * Verifies the signatures of a text. A clock that is behind the latest time that is known says nothing about the beginning of a
 * certificate.
 * @param signatures base64 of the signature, and behind a space that of the second signer
 * @param chains as many: base64 of PEM certificates, the signer's own first, each issued by the next one; and of revocation lists
 * @throws {FumoRefusal} 404
 */
export function checkSignatures(
  text: string,
  signatures: string,
  chains: string,
  trust: BundleTrust,
): Signed {
  const { authorities, secondAuthorities = '', floor = 0, now } = trust;
  const pems = chains.split(' ').map((chain) => Buffer.from(chain, 'base64').toString());
  const lists = listsInForce(
    [trust.lists, ...pems].join('\n'),
    certificatesIn(authorities + secondAuthorities),
  );
  const known = Math.max(floor, ...lists.map(({ made }) => made));
  const paths = [authorities, ...(secondAuthorities ? [secondAuthorities] : [])].map((pem, at) => {
    const path = pathTo(pems[at] ?? '', pem, known, now);
    for (const [level, { serialNumber, subject }] of path.slice(0, -1).entries())
      for (const { revoked, until } of lists.filter((list) => list.isBy(path[level + 1]!))) {
        if (revoked.has(BigInt(`0x${serialNumber}`)))
          throw untrusted(`the certificate of ${subject} is revoked`);
        if (until !== undefined && !(Math.max(known, now) <= until))
          throw untrusted(`the revocation list for ${subject} has ended`);
      }
    const signature = Buffer.from(signatures.split(' ')[at] ?? '', 'base64');
    if (!verify('sha256', Buffer.from(text), path[0]!.publicKey, signature))
      throw untrusted('the signature of the bundle is wrong');
    return path;
  });
  const [first, second] = paths;
  if (second?.[0]?.subject === first![0]!.subject)
    throw untrusted('the second signature is by the same signer');
  return { authority: first!.at(-1)!, lists };
}

/** The certificates from a signer to one of the authorities. */
function pathTo(pem: string, authorities: string, floor: number, now: number): readonly X509Certificate[] {
  try {
    const found = pathOf(certificatesIn(pem).slice(0, mostCertificates), [
      ...certificatesIn(authorities).entries(),
    ]);
    if (!found) throw untrusted('no authority that is trusted has certified a signer of the bundle');
    checkPath(found.path, 'code signer', floor, now);
    return found.path;
  } catch (cause) {
    throw untrusted(`${asPosternError(cause).message}; it is ${new Date(now).toISOString()} here`, cause);
  }
}
