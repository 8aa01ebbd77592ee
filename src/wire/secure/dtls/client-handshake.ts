import { createSign, type Sign } from 'node:crypto';
import { Alert, DtlsFailure } from './alerts.ts';
import { cidOf } from './association.ts';
import { proven } from './certificate-check.ts';
import {
  certificateBytes,
  readCertificate,
  readCertificateRequest,
  readSignedShare,
  signatureBytes,
} from './certificate-messages.ts';
import {
  type Certificates,
  entriesOf,
  isSigned,
  ownTypes,
  type Presented,
  presented,
  trustedTypes,
} from './certificates.ts';
import { CertificateType, ecdsaSha256, secp256r1 } from './extensions.ts';
import { handshakeLimits } from './flights.ts';
import { Handshake, type HandshakeParts } from './handshake.ts';
import {
  type ClientHello,
  clientHelloBytes,
  readHelloVerify,
  readServerHello,
  type ServerHello,
} from './hellos.ts';
import { clientPointBytes, clientShareBytes, EphemeralKey, readServerShare } from './key-exchange.ts';
import { masterSecret, premasterOf } from './key-schedule.ts';
import { type HandshakeMessage, MessageType } from './messages.ts';
import { limitOf, mostContent } from './server-choice.ts';
import type { Session } from './sessions.ts';
import { isAead, type Suite } from './suites.ts';

/** What a client proves itself with, and whom it believes. */
export interface ServedCertificates extends Certificates {
  /** Host name or address of the server, which its certificate must have; or the name of its raw public key. */
  readonly serverName: string;
}

/** What a client proves itself with. */
export interface ClientSettings {
  readonly identity: string;
  /** The pre-shared key. Absent with certificates. */
  readonly key?: Uint8Array | undefined;
  readonly certificates?: ServedCertificates | undefined;
  /** Suites that are offered, the preferred one first. */
  readonly suites: readonly Suite[];
  /** A session of an earlier handshake with the same server and identity. */
  readonly session?: Session | undefined;
  /** Connection ID for records to this client. Absent, it wants none, but uses one of the server. */
  readonly cid?: number | undefined;
}

/** The client's side of a handshake (RFC 5246 section 7.3, RFC 6347 section 4.2.4). */
export class ClientHandshake extends Handshake {
  protected readonly heedsPlainAlerts = true;
  protected readonly peer = 'server';
  readonly #settings: ClientSettings;
  #hello: ClientHello;
  #answer: ServerHello | undefined;
  #suite: Suite | undefined;
  #serverPoint: Buffer | undefined;
  #presented: Presented | undefined;
  #isAsked = false;
  #master: Buffer | undefined;

  constructor(parts: HandshakeParts, settings: ClientSettings) {
    super(parts, { received: 0, sent: 0, record: 0 });
    this.#settings = settings;
    const { suites, session, cid, certificates } = settings;
    if (certificates) this.signature = createSign('sha256');
    const takesShares = suites.some(({ exchange }) => exchange !== 'psk');
    this.#hello = {
      random: Buffer.from(parts.entropy.bytes(32)),
      sessionId: session?.id ?? Buffer.alloc(0),
      cookie: Buffer.alloc(0),
      suites: suites.map(({ id }) => id),
      extensions: {
        ...(takesShares && { groups: [secp256r1], hasPointFormats: true }),
        ...(certificates && offerOf(certificates)),
        ...(suites.some((suite) => !isAead(suite)) && { encryptThenMac: true }),
        extendedMasterSecret: true,
        recordSizeLimit: mostContent,
        cid: cid === undefined ? Buffer.alloc(0) : cidOf(cid),
        renegotiationInfo: Buffer.alloc(0),
      },
    };
    this.begin(() => this.#greet());
  }

  protected override handle(message: HandshakeMessage): void {
    const { type, body } = message;
    if (type === MessageType.HelloVerifyRequest && !this.#answer) {
      this.#hello = { ...this.#hello, cookie: readHelloVerify(body) };
      this.restart();
      if (this.#settings.certificates) this.signature = createSign('sha256');
      this.#greet();
      return;
    }
    this.record(message);
    const isCertified = this.#isNegotiating && this.#suite?.exchange === 'ecdhe-ecdsa';
    if (type === MessageType.ServerHello && !this.#answer) this.#takeAnswer(body);
    else if (type === MessageType.Certificate && isCertified && !this.#presented)
      this.#presented = presented(this.#serverType, readCertificate(this.#serverType, body));
    else if (type === MessageType.ServerKeyExchange && this.#isNegotiating && !this.#serverPoint)
      this.#takeShare(body, isCertified);
    else if (type === MessageType.CertificateRequest && isCertified && this.#serverPoint) {
      readCertificateRequest(body);
      this.#isAsked = true;
    } else if (type === MessageType.ServerHelloDone && this.#isNegotiating) this.#sendKey();
    else throw new DtlsFailure(Alert.UnexpectedMessage, `message ${type} is not expected`);
  }

  /** The client's timer alone repeats its flights. */
  protected override repeated(): void {}

  protected override finished(): void {
    if (this.#isResumed) this.sendFlight(this.finish(), true);
    const { identity } = this.#settings;
    const { sessionId, extensions } = this.#answer!;
    const session = { id: sessionId, identity, suite: this.#suite!, master: this.#master! };
    this.complete(sessionId.length > 0 && extensions.extendedMasterSecret ? session : undefined);
  }

  /** A server that has answered, and does not take the Finished, has another key (RFC 4279 section 2). */
  protected override get refusal(): string | undefined {
    return this.#master === undefined ? undefined : 'the server does not take the key';
  }

  get #isResumed(): boolean {
    const { sessionId } = this.#hello;
    return sessionId.length > 0 && this.#answer?.sessionId.equals(sessionId) === true;
  }

  /** The ServerHello is there, and there are no keys yet. */
  get #isNegotiating(): boolean {
    return this.#answer !== undefined && this.#master === undefined;
  }

  #greet(): void {
    this.sendFlight([this.message(MessageType.ClientHello, clientHelloBytes(this.#hello))]);
  }

  #takeAnswer(body: Buffer): void {
    const answer = readServerHello(body);
    this.#answer = answer;
    this.#suite = this.#settings.suites.find(({ id }) => id === answer.suite);
    const { encryptThenMac, renegotiationInfo, extendedMasterSecret } = answer.extensions;
    if (!this.#suite) throw new DtlsFailure(Alert.IllegalParameter, 'the server takes a suite not offered');
    if (!isAead(this.#suite) && !encryptThenMac)
      throw new DtlsFailure(Alert.HandshakeFailure, 'the server lacks encrypt-then-MAC');
    if (renegotiationInfo && renegotiationInfo.length > 0)
      throw new DtlsFailure(Alert.HandshakeFailure, 'the server renegotiates');
    if (!this.#isResumed) return;
    const { session } = this.#settings;
    if (session?.suite !== this.#suite || !extendedMasterSecret)
      throw new DtlsFailure(Alert.IllegalParameter, 'the server resumes another session');
    this.#deriveFrom(Buffer.from(session.master));
  }

  /** The kind of certificate that the server has. Without the extension that is X.509 (RFC 7250 section 4.2). */
  get #serverType(): number {
    return this.#answer?.extensions.serverTypes?.[0] ?? CertificateType.X509;
  }

  #takeShare(body: Buffer, isCertified: boolean): void {
    if (!isCertified) {
      this.#serverPoint = readServerShare(body, this.#suite!.exchange === 'ecdhe-psk');
      return;
    }
    const { point, signed, signature } = readSignedShare(body);
    const peer = this.#presented;
    if (!peer) throw new DtlsFailure(Alert.UnexpectedMessage, 'the server sends no Certificate');
    if (!isSigned(peer.publicKey, signature, this.#hello.random, this.#answer!.random, signed))
      throw new DtlsFailure(Alert.DecryptError, 'the server does not have the key of its certificate');
    const { trust, serverName: name } = this.#settings.certificates!;
    proven(peer, trust, { role: 'server', name }, this.parts.clock.wall());
    this.#serverPoint = point;
  }

  #sendKey(): void {
    const { exchange } = this.#suite!;
    const { identity, key, certificates } = this.#settings;
    const { random: serverRandom, extensions } = this.#answer!;
    const share = exchange === 'psk' ? undefined : new EphemeralKey();
    if (share && !this.#serverPoint)
      throw new DtlsFailure(Alert.UnexpectedMessage, 'the server sends no ServerKeyExchange');
    const asked = this.#isAsked ? certificates : undefined;
    const flight = asked ? [this.#certificate(asked)] : [];
    const secret = share?.secretWith(this.#serverPoint!);
    const isCertified = exchange === 'ecdhe-ecdsa';
    const body = isCertified
      ? clientPointBytes(share!.point)
      : clientShareBytes({ identity: Buffer.from(identity), point: share?.point });
    flight.push(this.message(MessageType.ClientKeyExchange, body));
    if (!isCertified && !key) throw new DtlsFailure(Alert.HandshakeFailure, 'there is no pre-shared key');
    const premaster = isCertified ? secret! : premasterOf(key!, secret);
    const sessionHash = extensions.extendedMasterSecret ? this.transcriptHash : undefined;
    const clientRandom = this.#hello.random;
    this.#deriveFrom(masterSecret(premaster, { sessionHash, clientRandom, serverRandom }));
    premaster.fill(0);
    if (asked) {
      const signature = (this.signature as Sign).sign(asked.own.privateKey);
      this.signature = undefined;
      flight.push(this.message(MessageType.CertificateVerify, signatureBytes(signature)));
    }
    this.sendFlight([...flight, ...this.finish()], false, handshakeLimits.proofs);
  }

  #certificate(certificates: Certificates): HandshakeMessage {
    const type = this.#answer!.extensions.clientTypes?.[0] ?? CertificateType.X509;
    return this.message(MessageType.Certificate, certificateBytes(type, entriesOf(certificates, type)));
  }

  #deriveFrom(master: Buffer): void {
    const { identity, cid } = this.#settings;
    const { random: serverRandom, extensions } = this.#answer!;
    const { cid: peerCid } = extensions;
    this.#master = master;
    this.derive({
      master,
      clientRandom: this.#hello.random,
      serverRandom,
      agreement: {
        suite: this.#suite!,
        identity,
        isClient: true,
        ownCid: peerCid ? cid : undefined,
        peerCid: peerCid && peerCid.length > 0 ? peerCid : undefined,
        peerLimit: limitOf(extensions),
      },
    });
  }
}

/** Where X.509 alone is meant the extensions are left out (RFC 7250 section 4.1). */
function offerOf(certificates: Certificates) {
  const [clientTypes, serverTypes] = [ownTypes(certificates), trustedTypes(certificates)];
  const isPlain = (types: readonly number[]) => types.length === 1 && types[0] === CertificateType.X509;
  return {
    signatureAlgorithms: [ecdsaSha256],
    ...(!isPlain(clientTypes) && { clientTypes }),
    ...(!isPlain(serverTypes) && { serverTypes }),
  };
}
