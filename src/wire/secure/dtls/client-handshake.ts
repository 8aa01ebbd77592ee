import { Alert, DtlsFailure } from './alerts.ts';
import { cidOf } from './association.ts';
import { secp256r1 } from './extensions.ts';
import { Handshake, type HandshakeParts } from './handshake.ts';
import {
  type ClientHello,
  clientHelloBytes,
  readHelloVerify,
  readServerHello,
  type ServerHello,
} from './hellos.ts';
import { clientShareBytes, EphemeralKey, readServerShare } from './key-exchange.ts';
import { masterSecret, premasterOf } from './key-schedule.ts';
import { type HandshakeMessage, MessageType } from './messages.ts';
import { mostContent } from './server-handshake.ts';
import type { Session } from './sessions.ts';
import { isAead, type Suite } from './suites.ts';

/** What a client proves itself with. */
export interface ClientSettings {
  readonly identity: string;
  readonly key: Uint8Array;
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
  #master: Buffer | undefined;

  constructor(parts: HandshakeParts, settings: ClientSettings) {
    super(parts, { received: 0, sent: 0, record: 0 });
    this.#settings = settings;
    const { suites, session, cid } = settings;
    const takesShares = suites.some(({ exchange }) => exchange !== 'psk');
    this.#hello = {
      random: Buffer.from(parts.entropy.bytes(32)),
      sessionId: session?.id ?? Buffer.alloc(0),
      cookie: Buffer.alloc(0),
      suites: suites.map(({ id }) => id),
      extensions: {
        ...(takesShares && { groups: [secp256r1], hasPointFormats: true }),
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
      this.#greet();
      return;
    }
    this.record(message);
    if (type === MessageType.ServerHello && !this.#answer) this.#takeAnswer(body);
    else if (type === MessageType.ServerKeyExchange && this.#isNegotiating)
      this.#serverPoint = readServerShare(body, this.#suite!.exchange === 'ecdhe-psk');
    else if (type === MessageType.ServerHelloDone && this.#isNegotiating) this.#sendKey();
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

  #sendKey(): void {
    const suite = this.#suite!;
    const { identity, key } = this.#settings;
    const { random: serverRandom, extensions } = this.#answer!;
    const share = suite.exchange === 'ecdhe-psk' ? new EphemeralKey() : undefined;
    if (share && !this.#serverPoint)
      throw new DtlsFailure(Alert.UnexpectedMessage, 'the server sends no ServerKeyExchange');
    const body = clientShareBytes({ identity: Buffer.from(identity), point: share?.point });
    const exchange = this.message(MessageType.ClientKeyExchange, body);
    const premaster = premasterOf(key, share?.secretWith(this.#serverPoint!));
    const sessionHash = extensions.extendedMasterSecret ? this.transcriptHash : undefined;
    const clientRandom = this.#hello.random;
    this.#deriveFrom(masterSecret(premaster, { sessionHash, clientRandom, serverRandom }));
    premaster.fill(0);
    this.sendFlight([exchange, ...this.finish()]);
  }

  #deriveFrom(master: Buffer): void {
    const { identity, cid } = this.#settings;
    const { random: serverRandom, extensions } = this.#answer!;
    const { cid: peerCid, recordSizeLimit = mostContent } = extensions;
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
        peerLimit: Math.min(recordSizeLimit, mostContent),
      },
    });
  }
}
