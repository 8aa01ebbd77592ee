import type { X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { Alert, DtlsFailure } from './alerts.ts';
import { type CertificateFacts, factsOf } from './certificate-facts.ts';
import { keyMark, nameOf, type PeerTrust, type Presented, unlistedIdentity } from './certificates.ts';

/** Who a peer is, and by what it proved that. */
export interface Proven {
  readonly identity: string;
  /** Says later whether that proof still counts (`isStillTrusted`). */
  readonly proof: string;
}

/** Whom a peer must be. */
export type Wanted =
  /** A device, whose name its certificate tells. */
  | { readonly role: 'client' }
  /** The server with this host name or address, or the raw public key of this name. */
  | { readonly role: 'server'; readonly name: string };

/** Purposes of certificates (RFC 5280 section 4.2.1.12). */
const purposes = {
  client: '1.3.6.1.5.5.7.3.2',
  server: '1.3.6.1.5.5.7.3.1',
  'code signer': '1.3.6.1.5.5.7.3.3',
} as const;
const anyPurpose = '2.5.29.37.0';
const KeyUsage = { Signature: 0x80, Certificates: 0x04 } as const;

/** Longest name of a device in bytes, as that of a pre-shared key (RFC 4279 section 5.3). */
const mostName = 128;
/** Spaces, line separators, and characters of which nothing is seen. */
const unfit = /[\p{Z}\p{C}\ufffd]/u;

/**
 * Checks what a peer presented, and says who the peer is. It must be asked only when the peer has proved to have the private key:
 * then nobody learns by the certificate of another what is believed here.
 * @param now milliseconds since 1970 by the machine's clock
 * @throws {DtlsFailure} `CertificateUnknown`, `UnknownCa`, `CertificateExpired`, `UnsupportedCertificate`, `BadCertificate`
 */
export function proven(peer: Presented, trust: PeerTrust, wanted: Wanted, now: number): Proven {
  const [own] = peer.chain;
  if (!own) return provenByKey(peer, trust, wanted);
  const found = pathOf(peer.chain, trust.authorities);
  if (!found) {
    // Whatever it says of itself, it counts as its key alone.
    const unlisted = provenUnlisted(peer, trust, wanted);
    if (unlisted) return unlisted;
    throw new DtlsFailure(
      Alert.UnknownCa,
      `no configured authority has signed the certificate of ${presentable(nameOf(own))}`,
    );
  }
  const { mark, path } = found;
  checkPath(path, wanted.role, trust.notBefore, now);
  const until = Math.min(...path.map(({ validToDate }) => validToDate.getTime()));
  const identity = wanted.role === 'client' ? deviceName(factsOf(own.raw)) : hostName(own, wanted.name);
  return { identity, proof: `x509 ${mark} ${until}` };
}

function provenByKey(peer: Presented, trust: PeerTrust, wanted: Wanted): Proven {
  const mark = keyMark(peer);
  const identity = trust.rawKeys.get(mark);
  const unlisted = identity === undefined ? provenUnlisted(peer, trust, wanted) : undefined;
  if (unlisted) return unlisted;
  if (identity === undefined || (wanted.role === 'server' && identity !== wanted.name))
    throw new DtlsFailure(Alert.CertificateUnknown, 'the raw public key is not known');
  return { identity, proof: `raw ${mark}` };
}

function provenUnlisted(peer: Presented, { unlisted }: PeerTrust, { role }: Wanted): Proven | undefined {
  if (role !== 'client' || !unlisted) return undefined;
  const mark = keyMark(peer);
  return unlisted.admits(mark) ? { identity: unlistedIdentity(mark), proof: `raw ${mark}` } : undefined;
}

/**
 * The certificates from the own one, which is the first of a chain, to the authority that the chain leads to, and the name that this
 * authority has here. Undefined when it leads to none. Signatures are verified from the authority down, so that no key of an unknown
 * one is ever used.
 * @throws {DtlsFailure} `BadCertificate`
 */
export function pathOf<K>(
  chain: readonly X509Certificate[],
  authorities: Iterable<readonly [K, X509Certificate]>,
): { readonly mark: K; readonly path: readonly X509Certificate[] } | undefined {
  for (const [at, certificate] of chain.entries())
    for (const [mark, each] of authorities)
      if (certificate.checkIssued(each) && certificate.verify(each.publicKey)) {
        const below = chain.slice(0, at + 1);
        verifyBelow(below);
        return { mark, path: [...below, each] };
      }
  return undefined;
}

/**
 * Checks that each certificate of a path may be used as it is, now.
 * @param notBefore milliseconds since 1970 before which it cannot be now
 * @param now milliseconds since 1970 by the machine's clock
 * @throws {DtlsFailure} `CertificateExpired`, `UnsupportedCertificate`
 */
export function checkPath(
  path: readonly X509Certificate[],
  role: keyof typeof purposes,
  notBefore: number,
  now: number,
): void {
  for (const [at, certificate] of path.entries()) {
    checkUse(certificate, at, role);
    checkTime(certificate, notBefore, now);
  }
}

function verifyBelow(chain: readonly X509Certificate[]): void {
  for (let at = chain.length - 2; at >= 0; at--) {
    const [certificate, issuer] = [chain[at]!, chain[at + 1]!];
    if (!certificate.checkIssued(issuer) || !certificate.verify(issuer.publicKey))
      throw new DtlsFailure(Alert.BadCertificate, 'a certificate of the chain is not signed by the next one');
  }
}

/** @param at how many certificates of the path are below this one */
function checkUse(
  { ca, keyUsage: extended, signatureAlgorithm = '', raw }: X509Certificate,
  at: number,
  role: keyof typeof purposes,
): void {
  const { keyUsage, pathLength, hasUnknown } = factsOf(raw);
  // Code is signed by certificates alone that are for that: RAUC has the same rule.
  const isForCode = role === 'code signer';
  const fail = (what: string): never => {
    throw new DtlsFailure(Alert.UnsupportedCertificate, what);
  };
  if (/md5|sha1/i.test(signatureAlgorithm)) fail('a certificate is signed with MD5 or SHA-1');
  if (hasUnknown) fail('a certificate has a critical extension that is not supported');
  if (
    isForCode
      ? at === 0 && !extended?.includes(purposes[role])
      : extended && !extended.some((each) => each === purposes[role] || each === anyPurpose)
  )
    fail(`the extended key usage of a certificate does not allow a ${role}`);
  const needed = at === 0 ? KeyUsage.Signature : KeyUsage.Certificates;
  if (keyUsage !== undefined && (keyUsage & needed) === 0)
    fail('the key usage of a certificate does not allow its use');
  if (at > 0 && !ca) fail('a certificate above another one is not one of an authority');
  if (pathLength !== undefined && at - 1 > pathLength)
    fail('there are too many certificates below an authority');
}

/**
 * Checks the dates of a certificate. A machine without a battery begins in 1970. A time before the beginning of the own certificate
 * is known to be wrong: then it is at least that beginning, and a certificate that begins later is not refused for it.
 */
function checkTime(certificate: X509Certificate, notBefore: number, now: number): void {
  const { validFromDate, validToDate } = certificate;
  const whose = `the certificate of ${presentable(nameOf(certificate))}`;
  const isRight = now >= notBefore;
  // A date that cannot be read is not a number, and passes no comparison.
  if (!(Math.max(now, notBefore) <= validToDate.getTime()))
    throw new DtlsFailure(Alert.CertificateExpired, `${whose} has expired`);
  if (isRight && !(now >= validFromDate.getTime()))
    throw new DtlsFailure(Alert.CertificateExpired, `${whose} is not valid yet`);
}

/**
 * The name of a device: the URN among its alternative names (RFC 7925 section 4.4.2, LwM2M core 1.1 section 7.3), else its common
 * name.
 */
function deviceName({ uris, commonNames }: CertificateFacts): string {
  const urns = uris.filter((uri) => /^urn:/i.test(uri));
  const [name, ...more] = urns.length > 0 ? urns : commonNames;
  if (name === undefined)
    throw new DtlsFailure(Alert.BadCertificate, 'the certificate has no name of a device');
  if (more.length > 0)
    throw new DtlsFailure(Alert.BadCertificate, 'the certificate has more than one name of a device');
  if (name === '' || unfit.test(name) || Buffer.byteLength(name) > mostName)
    throw new DtlsFailure(Alert.BadCertificate, 'the name in the certificate is not fit for a device');
  return name;
}

/** The name of a server, if its certificate has it (RFC 7252 section 9.1.3.3). */
function hostName(certificate: X509Certificate, name: string): string {
  const matches = isIP(name) ? certificate.checkIP(name) : certificate.checkHost(name);
  if (matches === undefined)
    throw new DtlsFailure(Alert.BadCertificate, 'the certificate is that of another server');
  return name;
}

/** Whether a proof still counts: its authority or its key is still believed, and no certificate has expired. */
export function isStillTrusted(
  { identity, proof }: Proven,
  trust: PeerTrust | undefined,
  now: number,
): boolean {
  const [kind, mark = '', until] = proof.split(' ');
  if (!trust) return false;
  return kind === 'raw'
    ? trust.rawKeys.get(mark) === identity ||
        (identity === unlistedIdentity(mark) && (trust.unlisted?.holds(mark) ?? false))
    : trust.authorities.has(mark) && Math.max(now, trust.notBefore) <= Number(until);
}

const presentable = (text: string): string => text.replace(/[^ -~]/g, '?').slice(0, 100);
