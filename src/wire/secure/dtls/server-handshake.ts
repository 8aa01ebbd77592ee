import { createVerify, type Verify } from 'node:crypto';
import { Alert, DtlsFailure } from './alerts.ts';
import { Reader } from './bytes.ts';
import { isStillTrusted, type Proven, proven } from './certificate-check.ts';
import {
  certificateBytes,
  certificateRequestBytes,
  readCertificate,
  readSignature,
  signatureBytes,
} from './certificate-messages.ts';
import { entriesOf, type Presented, presented, signed } from './certificates.ts';
import { Handshake, type HandshakeParts } from './handshake.ts';
import { readClientHello } from './hellos.ts';
import {
  EphemeralKey,
  readClientPoint,
  readClientShare,
  serverShareBytes,
  shareBytes,
} from './key-exchange.ts';
import { masterSecret, premasterOf } from './key-schedule.ts';
import { type Fragment, type HandshakeMessage, MessageType } from './messages.ts';
import {
  answerTo,
  type Certified,
  type Choice,
  choose,
  limitOf,
  type ServerSettings,
} from './server-choice.ts';

/** The server's side of a handshake, from the ClientHello with its cookie on (RFC 5246 section 7.3, RFC 6347 section 4.2.4). */
export class ServerHandshake extends Handshake {
  protected readonly heedsPlainAlerts = false;
  protected readonly peer = 'client';
  readonly #settings: ServerSettings;
  #choice: Choice | undefined;
  #share: EphemeralKey | undefined;
  #identity = '';
  /** The pre-shared key that the client has to know. */
  #key: Uint8Array | undefined;
  #master: Buffer | undefined;
  /** Type of the message that is to come next. */
  #expected: number = MessageType.Finished;
  #presented: Presented | undefined;
  #proven: Proven | undefined;

  /** The identity of the pre-shared key that the client says it has. Empty before it says so, and with certificates. */
  get claimed(): string {
    return this.#proven ? '' : this.#identity;
  }

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
    if (!this.#isStillValid())
      throw new DtlsFailure(Alert.DecryptError, 'what the client proved itself by has ended meanwhile');
    if (resumed) {
      this.complete(resumed);
      return;
    }
    this.sendFlight(this.finish(), true);
    const proof = this.#proven?.proof;
    const session = { id: sessionId, identity: this.#identity, proof, suite, master: this.#master! };
    this.complete(sessionId.length > 0 ? session : undefined);
  }

  /** Whether what the client has proved itself by is still valid: a client may keep its Finished back for as long as it likes. */
  #isStillValid(): boolean {
    const { resumed } = this.#choice!;
    const { keyOf, sessions, certificates } = this.#settings;
    // A key that ends takes its session along.
    if (resumed && !sessions.has(resumed.id)) return false;
    if (this.#proven) return isStillTrusted(this.#proven, certificates()?.trust, this.parts.clock.wall());
    const now = keyOf(this.#identity);
    return !!resumed || (!!this.#key && !!now && Buffer.compare(this.#key, now) === 0);
  }

  #greet(message: HandshakeMessage): void {
    const hello = readClientHello(message.body);
    const choice = choose(hello, this.#settings, this.parts);
    this.#choice = choice;
    this.limitFragments(limitOf(hello.extensions));
    const { suite, resumed, certified } = choice;
    if (certified) {
      if (!this.#settings.mayCauseSignatures(this.parts.place.address)) {
        this.drop();
        return;
      }
      this.signature = createVerify('sha256');
    }
    this.record(message);
    const first = this.message(MessageType.ServerHello, answerTo(choice));
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
    this.#key = this.#settings.keyOf(this.#identity);
    return premasterOf(this.#key ?? this.#settings.noKey, point && this.#share!.secretWith(point));
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
    const { cid } = hello.extensions;
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
        peerLimit: limitOf(hello.extensions),
      },
    });
  }
}
