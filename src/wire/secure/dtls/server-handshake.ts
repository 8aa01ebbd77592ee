import { Alert, DtlsFailure } from './alerts.ts';
import { cidOf } from './association.ts';
import { secp256r1 } from './extensions.ts';
import { Handshake, type HandshakeParts } from './handshake.ts';
import { type ClientHello, readClientHello, renegotiationSignal, serverHelloBytes } from './hellos.ts';
import { EphemeralKey, readClientShare, serverShareBytes } from './key-exchange.ts';
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
  /** Suites that are accepted, the preferred one first. */
  readonly suites: readonly Suite[];
  readonly sessions: Sessions;
  /** A new connection ID for records to this server. */
  readonly newCid: () => number;
  /** Stands for the key of an unknown identity. It must be random and secret. */
  readonly noKey: Uint8Array;
}

/** What was agreed on by the hellos. */
interface Choice {
  readonly hello: ClientHello;
  readonly suite: Suite;
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
  #isKeyed = false;

  /** @param record sequence number of the record with the ClientHello, at which the server's begin (RFC 6347 section 4.2.1) */
  constructor(parts: HandshakeParts, settings: ServerSettings, hello: HandshakeMessage, record: number) {
    super(parts, { received: hello.sequence + 1, sent: hello.sequence, record });
    this.#settings = settings;
    this.begin(() => this.#greet(hello));
  }

  protected override handle(message: HandshakeMessage): void {
    if (message.type !== MessageType.ClientKeyExchange || this.#isKeyed || this.#choice?.resumed)
      throw new DtlsFailure(Alert.UnexpectedMessage, `message ${message.type} is not expected`);
    this.record(message);
    this.#takeKey(message.body);
  }

  protected override repeated({ type }: Fragment): void {
    if (type === MessageType.ClientHello) this.repeat();
  }

  protected override finished(): void {
    const { resumed, sessionId, suite } = this.#choice!;
    if (resumed) {
      this.complete(resumed);
      return;
    }
    this.sendFlight(this.finish(), true);
    const session = { id: sessionId, identity: this.#identity, suite, master: this.#master! };
    this.complete(sessionId.length > 0 ? session : undefined);
  }

  #greet(message: HandshakeMessage): void {
    this.record(message);
    const hello = readClientHello(message.body);
    const choice = this.#choose(hello);
    this.#choice = choice;
    const { suite, resumed } = choice;
    const first = this.message(MessageType.ServerHello, this.#helloBytes(choice));
    if (resumed) {
      this.#identity = resumed.identity;
      this.#deriveFrom(Buffer.from(resumed.master));
      this.sendFlight([first, ...this.finish()]);
      return;
    }
    const flight = [first];
    if (suite.exchange === 'ecdhe-psk') {
      this.#share = new EphemeralKey();
      flight.push(this.message(MessageType.ServerKeyExchange, serverShareBytes(this.#share.point)));
    }
    this.sendFlight([...flight, this.message(MessageType.ServerHelloDone)]);
  }

  #choose(hello: ClientHello): Choice {
    const { extensions, sessionId } = hello;
    const { entropy } = this.parts;
    const { sessions, suites, newCid } = this.#settings;
    if (extensions.renegotiationInfo && extensions.renegotiationInfo.length > 0)
      throw new DtlsFailure(Alert.HandshakeFailure, 'the client renegotiates');
    const common = {
      hello,
      serverRandom: Buffer.from(entropy.bytes(32)),
      ownCid: extensions.cid ? newCid() : undefined,
    };
    const known = sessionId.length > 0 ? sessions.get(sessionId) : undefined;
    // A client that no longer knows the extended master secret gets a whole handshake (RFC 7627 section 5.3).
    if (known && extensions.extendedMasterSecret && this.#fits(known.suite, hello))
      return { ...common, suite: known.suite, resumed: known, sessionId };
    const suite = suites.find((each) => this.#fits(each, hello));
    if (!suite) throw new DtlsFailure(Alert.HandshakeFailure, 'no cipher suite suits both');
    const isResumable = extensions.extendedMasterSecret === true;
    return {
      ...common,
      suite,
      resumed: undefined,
      sessionId: isResumable ? Buffer.from(entropy.bytes(32)) : Buffer.alloc(0),
    };
  }

  /** Whether the client offers a suite and what the suite needs. CBC is taken only with encrypt-then-MAC. */
  #fits(suite: Suite, { suites, extensions }: ClientHello): boolean {
    const { encryptThenMac, groups = [secp256r1], hasPointFormats = true } = extensions;
    return (
      suites.includes(suite.id) &&
      (isAead(suite) || encryptThenMac === true) &&
      (suite.exchange === 'psk' || (groups.includes(secp256r1) && hasPointFormats))
    );
  }

  #helloBytes({ hello, suite, serverRandom, ownCid, sessionId }: Choice): Buffer {
    const { extensions, suites } = hello;
    const knowsRenegotiation = extensions.renegotiationInfo || suites.includes(renegotiationSignal);
    return serverHelloBytes({
      random: serverRandom,
      sessionId,
      suite: suite.id,
      extensions: {
        ...(suite.exchange !== 'psk' && extensions.hasPointFormats && { hasPointFormats: true }),
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
    const { hello, serverRandom } = this.#choice!;
    const { identity, point } = readClientShare(body, this.#share !== undefined);
    this.#identity = identity.toString();
    const key = this.#settings.keyOf(this.#identity) ?? this.#settings.noKey;
    const premaster = premasterOf(key, point && this.#share!.secretWith(point));
    const sessionHash = hello.extensions.extendedMasterSecret ? this.transcriptHash : undefined;
    this.#deriveFrom(masterSecret(premaster, { sessionHash, clientRandom: hello.random, serverRandom }));
    premaster.fill(0);
  }

  #deriveFrom(master: Buffer): void {
    const { hello, suite, serverRandom, ownCid } = this.#choice!;
    const { cid, recordSizeLimit = mostContent } = hello.extensions;
    this.#master = master;
    this.#isKeyed = true;
    this.derive({
      master,
      clientRandom: hello.random,
      serverRandom,
      agreement: {
        suite,
        identity: this.#identity,
        isClient: false,
        ownCid,
        peerCid: cid && cid.length > 0 ? cid : undefined,
        peerLimit: Math.min(recordSizeLimit, mostContent),
      },
    });
  }
}
