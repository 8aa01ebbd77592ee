import { Alert, DtlsFailure } from './alerts.ts';
import { cidOf } from './association.ts';
import { isStillTrusted } from './certificate-check.ts';
import { type Certificates, ownTypes, trustedTypes } from './certificates.ts';
import { CertificateType, ecdsaSha256, type HelloExtensions, secp256r1 } from './extensions.ts';
import type { HandshakeParts } from './handshake.ts';
import { type ClientHello, renegotiationSignal, serverHelloBytes } from './hellos.ts';
import type { Session, Sessions } from './sessions.ts';
import { isAead, type Suite } from './suites.ts';

/** Most bytes of content in one record, which is also what is taken here (RFC 5246 section 6.2.1, RFC 8449 section 4). */
export const mostContent = 2 ** 14;

/** Most bytes of content that a peer takes in one record, by its hello. */
export const limitOf = ({ recordSizeLimit, maxFragment }: HelloExtensions): number =>
  Math.min(
    recordSizeLimit ?? (maxFragment === undefined ? mostContent : 2 ** (8 + maxFragment)),
    mostContent,
  );

/** What a server decides by. */
export interface ServerSettings {
  /** The key of an identity; undefined when it is unknown. It should take the same time in both cases. */
  readonly keyOf: (identity: string) => Uint8Array | undefined;
  /** What certificates and raw public keys need; undefined when there are none. */
  readonly certificates: () => Certificates | undefined;
  /** Whether a client at this address may cause the signatures of a handshake with certificates. */
  readonly mayCauseSignatures: (address: string) => boolean;
  /** Suites that are accepted, the preferred one first. */
  readonly suites: readonly Suite[];
  readonly sessions: Sessions;
  /** A new connection ID for records to this server. */
  readonly newCid: () => number;
  /** Stands for the key of an unknown identity. It must be random and secret. */
  readonly noKey: Uint8Array;
}

/** Certificates, and their kinds that both ends know. */
export interface Certified {
  readonly certificates: Certificates;
  readonly clientType: number;
  readonly serverType: number;
}

/** What was agreed on by the hellos. */
export interface Choice {
  readonly hello: ClientHello;
  readonly suite: Suite;
  /** What a suite with certificates needs. */
  readonly certified: Certified | undefined;
  readonly serverRandom: Buffer;
  readonly ownCid: number | undefined;
  /** The session that is resumed. */
  readonly resumed: Session | undefined;
  /** The ID of the session, which the client may resume later; empty when it may not. */
  readonly sessionId: Buffer;
}

/**
 * Chooses what the handshake is to use of what a client offers.
 * @throws {DtlsFailure} `HandshakeFailure` or `UnsupportedCertificate` when nothing suits both
 */
export function choose(
  hello: ClientHello,
  settings: ServerSettings,
  { clock, entropy }: Pick<HandshakeParts, 'clock' | 'entropy'>,
): Choice {
  const { extensions, sessionId } = hello;
  const { sessions, suites, newCid } = settings;
  const certificates = settings.certificates();
  if (extensions.renegotiationInfo && extensions.renegotiationInfo.length > 0)
    throw new DtlsFailure(Alert.HandshakeFailure, 'the client renegotiates');
  const certified = certifiedBy(certificates, extensions);
  const common = {
    hello,
    serverRandom: Buffer.from(entropy.bytes(32)),
    ownCid: extensions.cid ? newCid() : undefined,
  };
  const known = sessionId.length > 0 ? sessions.get(sessionId) : undefined;
  // A client that no longer knows the extended master secret gets a whole handshake (RFC 7627 section 5.3).
  if (
    known &&
    extensions.extendedMasterSecret &&
    isCurrent(known, certificates, clock.wall()) &&
    isOffered(known.suite, hello)
  )
    return { ...common, suite: known.suite, certified: undefined, resumed: known, sessionId };
  const fitting = suites.filter((each) => isOffered(each, hello));
  const suite = fitting.find(({ exchange }) => exchange !== 'ecdhe-ecdsa' || certified);
  if (!suite) throw noSuite(fitting.length > 0 && certificates !== undefined);
  const isResumable = extensions.extendedMasterSecret === true;
  return {
    ...common,
    suite,
    certified: suite.exchange === 'ecdhe-ecdsa' ? certified : undefined,
    resumed: undefined,
    sessionId: isResumable ? Buffer.from(entropy.bytes(32)) : Buffer.alloc(0),
  };
}

const noSuite = (isOfCertificates: boolean): DtlsFailure =>
  isOfCertificates
    ? new DtlsFailure(Alert.UnsupportedCertificate, 'no kind of certificate suits both')
    : new DtlsFailure(Alert.HandshakeFailure, 'no cipher suite suits both');

/** Whether what a session was opened with is still valid. Sessions of pre-shared keys end with their keys. */
const isCurrent = (
  { identity, proof }: Session,
  certificates: Certificates | undefined,
  now: number,
): boolean => proof === undefined || isStillTrusted({ identity, proof }, certificates?.trust, now);

/** Certificates, when each end has a kind of them that the other one takes. Without the extensions that is X.509. */
function certifiedBy(
  certificates: Certificates | undefined,
  { clientTypes, serverTypes, signatureAlgorithms }: HelloExtensions,
): Certified | undefined {
  if (!certificates || !signatureAlgorithms?.includes(ecdsaSha256)) return undefined;
  const common = (offered: readonly number[] = [CertificateType.X509], known: readonly number[]) =>
    offered.find((type) => known.includes(type));
  const clientType = common(clientTypes, trustedTypes(certificates));
  // A client with a raw public key often cannot check a certificate, although it offers to: both get the same kind if they can.
  const known = ownTypes(certificates);
  const same = common(
    serverTypes,
    known.filter((type) => type === clientType),
  );
  const serverType = same ?? common(serverTypes, known);
  if (clientType === undefined || serverType === undefined) return undefined;
  return { certificates, clientType, serverType };
}

/** The body of the ServerHello that says what was chosen. */
export function answerTo({ hello, suite, certified, serverRandom, ownCid, sessionId }: Choice): Buffer {
  const { extensions, suites } = hello;
  const knowsRenegotiation = extensions.renegotiationInfo || suites.includes(renegotiationSignal);
  return serverHelloBytes({
    random: serverRandom,
    sessionId,
    suite: suite.id,
    extensions: {
      ...(suite.exchange !== 'psk' && extensions.hasPointFormats && { hasPointFormats: true }),
      ...(certified && extensions.clientTypes && { clientTypes: [certified.clientType] }),
      ...(certified && extensions.serverTypes && { serverTypes: [certified.serverType] }),
      ...(!isAead(suite) && { encryptThenMac: true }),
      ...(extensions.extendedMasterSecret && { extendedMasterSecret: true }),
      // Who sends both means the limit (RFC 8449 section 5).
      ...(extensions.recordSizeLimit === undefined
        ? extensions.maxFragment !== undefined && { maxFragment: extensions.maxFragment }
        : { recordSizeLimit: mostContent }),
      ...(ownCid !== undefined && { cid: cidOf(ownCid) }),
      ...(knowsRenegotiation && { renegotiationInfo: Buffer.alloc(0) }),
    },
  });
}

/** Whether the client offers a suite and what the suite needs. CBC is taken only with encrypt-then-MAC. */
function isOffered(suite: Suite, { suites, extensions }: ClientHello): boolean {
  const { encryptThenMac, groups = [secp256r1], hasPointFormats = true } = extensions;
  return (
    suites.includes(suite.id) &&
    (isAead(suite) || encryptThenMac === true) &&
    (suite.exchange === 'psk' || (groups.includes(secp256r1) && hasPointFormats))
  );
}
