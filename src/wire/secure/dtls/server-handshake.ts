import { createVerify, type Verify } from 'node:crypto';
import { Alert, DtlsFailure } from './alerts.ts';
import { cidOf } from './association.ts';
import { Reader } from './bytes.ts';
import { isStillTrusted, type Proven, proven } from './certificate-check.ts';
import {
  certificateBytes,
  certificateRequestBytes,
  readCertificate,
  readSignature,
  signatureBytes,
} from './certificate-messages.ts';
import {
  type Certificates,
  entriesOf,
  ownTypes,
  type Presented,
  presented,
  signed,
  trustedTypes,
} from './certificates.ts';
import { CertificateType, ecdsaSha256, type HelloExtensions, secp256r1 } from './extensions.ts';
import { Handshake, type HandshakeParts } from './handshake.ts';
import { type ClientHello, readClientHello, renegotiationSignal, serverHelloBytes } from './hellos.ts';
import {
  EphemeralKey,
  readClientPoint,
  readClientShare,
  serverShareBytes,
  shareBytes,
} from './key-exchange.ts';
import { masterSecret, premasterOf } from './key-schedule.ts';
import { type Fragment, type HandshakeMessage, MessageType } from './messages.ts';
import type { Session, Sessions } from './sessions.ts';
import { isAead, type Suite } from './suites.ts';

/** Most bytes of content in one record, which is also what is taken here (RFC 5246 section 6.2.1, RFC 8449 section 4). */
export const mostContent = 2 ** 14;

/** What a server decides by. */
export interface ServerSettings {
  /** The key of an identity; undefined when it is unknown. It should take the same time in both cases. */
  readonly keyOf: (identity: string) => Uint8Array | undefined;
  /** What certificates and raw public keys need; undefined when there are none. */
  readonly certificates: () => Certificates | undefined;
  /** Suites that are accepted, the preferred one first. */
  readonly suites: readonly Suite[];
  readonly sessions: Sessions;
  /** A new connection ID for records to this server. */
  readonly newCid: () => number;
  /** Stands for the key of an unknown identity. It must be random and secret. */
  readonly noKey: Uint8Array;
}

/** Certificates, and their kinds that both ends know. */
interface Certified {
  readonly certificates: Certificates;
  readonly clientType: number;
  readonly serverType: number;
}

/** What was agreed on by the hellos. */
interface Choice {
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

/** The server's side of a handshake, from the ClientHello with its cookie on (RFC 5246 section 7.3, RFC 6347 section 4.2.4). */
export class ServerHandshake extends Handshake {
  protected readonly heedsPlainAlerts = false;
  protected readonly peer = 'client';
  readonly #settings: ServerSettings;
  #choice: Choice | undefined;
  #share: EphemeralKey | undefined;
  #identity = '';
  #master: Buffer | undefined;
  /** Type of the message that is to come next. */
  #expected: number = MessageType.Finished;
  #presented: Presented | undefined;
  #proven: Proven | undefined;

  /** @param record sequence number of the record with the ClientHello, at which the server's begin (RFC 6347 section 4.2.1) */
  constructor(parts: HandshakeParts, settings: ServerSettings, hello: HandshakeMessage, record: number) {
    super(parts, { received: hello.sequence + 1, sent: hello.sequence, record });
    this.#settings = settings;
    this.begin(() => this.#greet(hello));
  }

  protected override handle(message: HandshakeMessage): void {
    this.#demand(message.type);
    // What a CertificateVerify signs are the messages before it.
    if (message.type === MessageType.CertificateVerify) this.#takeProof(message.body);
    this.record(message);
    if (message.type === MessageType.Certificate) this.#takeCertificate(message.body);
    else if (message.type === MessageType.ClientKeyExchange) this.#takeKey(message.body);
  }

  protected override repeated({ type }: Fragment): void {
    if (type === MessageType.ClientHello) this.repeat();
  }

  protected override finished(): void {
    this.#demand(MessageType.Finished);
    const { resumed, sessionId, suite } = this.#choice!;
    if (resumed) {
      this.complete(resumed);
      return;
    }
    this.sendFlight(this.finish(), true);
    const proof = this.#proven?.proof;
    const session = { id: sessionId, identity: this.#identity, proof, suite, master: this.#master! };
    this.complete(sessionId.length > 0 ? session : undefined);
  }

  #greet(message: HandshakeMessage): void {
    const hello = readClientHello(message.body);
    const choice = this.#choose(hello);
    this.#choice = choice;
    const { suite, resumed, certified } = choice;
    if (certified && !resumed) this.signature = createVerify('sha256');
    this.record(message);
    const first = this.message(MessageType.ServerHello, this.#helloBytes(choice));
    if (resumed) {
      this.#identity = resumed.identity;
      this.#proven = resumed.proof === undefined ? undefined : { ...resumed, proof: resumed.proof };
      this.#deriveFrom(Buffer.from(resumed.master));
      this.sendFlight([first, ...this.finish()]);
      return;
    }
    const flight = [first];
    if (suite.exchange === 'ecdhe-psk') {
      this.#share = new EphemeralKey();
      flight.push(this.message(MessageType.ServerKeyExchange, serverShareBytes(this.#share.point)));
    }
    if (certified) flight.push(...this.#certificate(choice, certified));
    this.#expected = certified ? MessageType.Certificate : MessageType.ClientKeyExchange;
    this.sendFlight([...flight, this.message(MessageType.ServerHelloDone)]);
  }

  /** What a suite with certificates adds: certificate, signed share, and the request for the certificate of the client. */
  #certificate({ hello, serverRandom }: Choice, { certificates, serverType }: Certified): HandshakeMessage[] {
    const share = new EphemeralKey();
    this.#share = share;
    const params = shareBytes(share.point);
    const signature = signed(certificates, hello.random, serverRandom, params);
    const certificate = certificateBytes(serverType, entriesOf(certificates, serverType));
    return [
      this.message(MessageType.Certificate, certificate),
      this.message(MessageType.ServerKeyExchange, Buffer.concat([params, signatureBytes(signature)])),
      this.message(MessageType.CertificateRequest, certificateRequestBytes()),
    ];
  }

  #demand(type: number): void {
    if (type !== this.#expected)
      throw new DtlsFailure(Alert.UnexpectedMessage, `message ${type} is not expected`);
  }

  #choose(hello: ClientHello): Choice {
    const { extensions, sessionId } = hello;
    const { entropy } = this.parts;
    const { sessions, suites, newCid } = this.#settings;
    if (extensions.renegotiationInfo && extensions.renegotiationInfo.length > 0)
      throw new DtlsFailure(Alert.HandshakeFailure, 'the client renegotiates');
    const certified = this.#certified(extensions);
    const common = {
      hello,
      serverRandom: Buffer.from(entropy.bytes(32)),
      ownCid: extensions.cid ? newCid() : undefined,
    };
    const known = sessionId.length > 0 ? sessions.get(sessionId) : undefined;
    // A client that no longer knows the extended master secret gets a whole handshake (RFC 7627 section 5.3).
    if (known && extensions.extendedMasterSecret && this.#isCurrent(known) && isOffered(known.suite, hello))
      return { ...common, suite: known.suite, certified: undefined, resumed: known, sessionId };
    const fitting = suites.filter((each) => isOffered(each, hello));
    const suite = fitting.find(({ exchange }) => exchange !== 'ecdhe-ecdsa' || certified);
    if (!suite) throw this.#noSuite(fitting);
    const isResumable = extensions.extendedMasterSecret === true;
    return {
      ...common,
      suite,
      certified: suite.exchange === 'ecdhe-ecdsa' ? certified : undefined,
      resumed: undefined,
      sessionId: isResumable ? Buffer.from(entropy.bytes(32)) : Buffer.alloc(0),
    };
  }

  #noSuite(fitting: readonly Suite[]): DtlsFailure {
    return fitting.length > 0 && this.#settings.certificates()
      ? new DtlsFailure(Alert.UnsupportedCertificate, 'no kind of certificate suits both')
      : new DtlsFailure(Alert.HandshakeFailure, 'no cipher suite suits both');
  }

  /** Whether what a session was opened with is still valid. Sessions of pre-shared keys end with their keys. */
  #isCurrent({ identity, proof }: Session): boolean {
    const { certificates } = this.#settings;
    return (
      proof === undefined ||
      isStillTrusted({ identity, proof }, certificates()?.trust, this.parts.clock.wall())
    );
  }

  /** Certificates, when each end has a kind of them that the other one takes. Without the extensions that is X.509. */
  #certified({ clientTypes, serverTypes, signatureAlgorithms }: HelloExtensions): Certified | undefined {
    const certificates = this.#settings.certificates();
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

  #helloBytes({ hello, suite, certified, serverRandom, ownCid, sessionId }: Choice): Buffer {
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
        ...(extensions.recordSizeLimit !== undefined && { recordSizeLimit: mostContent }),
        ...(ownCid !== undefined && { cid: cidOf(ownCid) }),
        ...(knowsRenegotiation && { renegotiationInfo: Buffer.alloc(0) }),
      },
    });
  }

  /**
   * Takes the client's ClientKeyExchange. An unknown identity goes on with a key that nobody has, so its Finished does not verify
   * either: nobody learns which identities there are (RFC 4279 section 7.2).
   */
  #takeKey(body: Buffer): void {
    const { hello, certified, serverRandom } = this.#choice!;
    const premaster = certified ? this.#share!.secretWith(readClientPoint(body)) : this.#premasterOf(body);
    const sessionHash = hello.extensions.extendedMasterSecret ? this.transcriptHash : undefined;
    const master = masterSecret(premaster, { sessionHash, clientRandom: hello.random, serverRandom });
    premaster.fill(0);
    if (certified) {
      // The keys come when it is known whose they are.
      this.#master = master;
      this.#expected = MessageType.CertificateVerify;
    } else this.#deriveFrom(master);
  }

  #premasterOf(body: Buffer): Buffer {
    const { identity, point } = readClientShare(body, this.#share !== undefined);
    this.#identity = identity.toString();
    const key = this.#settings.keyOf(this.#identity) ?? this.#settings.noKey;
    return premasterOf(key, point && this.#share!.secretWith(point));
  }

  #takeCertificate(body: Buffer): void {
    const { clientType } = this.#choice!.certified!;
    this.#presented = presented(clientType, readCertificate(clientType, body));
    this.#expected = MessageType.ClientKeyExchange;
  }

  /**
   * Takes the client's CertificateVerify, and only then looks whether its certificate is believed. One who presents the
   * certificate of another learns nothing about it, and pays a signature for whatever is verified here.
   */
  #takeProof(body: Buffer): void {
    const signature = readSignature(new Reader(body));
    const { publicKey } = this.#presented!;
    if (!(this.signature as Verify).verify(publicKey, signature))
      throw new DtlsFailure(Alert.DecryptError, 'the client does not have the key of its certificate');
    this.signature = undefined;
    // As they are now: the configuration may have changed since the hello.
    const trust = this.#settings.certificates()?.trust;
    if (!trust) throw new DtlsFailure(Alert.HandshakeFailure, 'no certificates are taken any more');
    this.#proven = proven(this.#presented!, trust, { role: 'client' }, this.parts.clock.wall());
    this.#identity = this.#proven.identity;
    this.#deriveFrom(this.#master!);
  }

  #deriveFrom(master: Buffer): void {
    const { hello, suite, serverRandom, ownCid } = this.#choice!;
    const { cid, recordSizeLimit = mostContent } = hello.extensions;
    this.#master = master;
    this.#expected = MessageType.Finished;
    this.derive({
      master,
      clientRandom: hello.random,
      serverRandom,
      agreement: {
        suite,
        identity: this.#identity,
        proof: this.#proven?.proof,
        isClient: false,
        ownCid,
        peerCid: cid && cid.length > 0 ? cid : undefined,
        peerLimit: Math.min(recordSizeLimit, mostContent),
      },
    });
  }
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
