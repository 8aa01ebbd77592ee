import { createHash, type Sign, timingSafeEqual, type Verify } from 'node:crypto';
import type { Clock } from '../../../base/clock.ts';
import type { Entropy } from '../../../base/entropy.ts';
import { ownBytes } from '../../../base/own-bytes.ts';
import { Alert, DtlsFailure, fatal } from './alerts.ts';
import { type Agreement, Association, type Place, protectedEpoch } from './association.ts';
import { type FlightItem, Flights, handshakeLimits } from './flights.ts';
import { keyBlock, verifyData } from './key-schedule.ts';
import {
  type Fragment,
  type HandshakeMessage,
  MessageType,
  readFragments,
  wholeMessage,
} from './messages.ts';
import { Reassembly } from './reassembly.ts';
import { ContentType, type DtlsRecord } from './record.ts';
import type { Session } from './sessions.ts';
import type { TimerWheel } from './timer-wheel.ts';

/** What a handshake leads to. The session is there when it can be resumed. */
export interface Established {
  readonly association: Association;
  /** At a server its master secret is overwritten when `done` returns. */
  readonly session: Session | undefined;
  /** Sends the last flight again. Absent when the peer sent the last flight. */
  readonly repeat: (() => void) | undefined;
}

/** What a handshake needs from its surroundings. */
export interface HandshakeParts {
  readonly place: Place;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly wheel: TimerWheel;
  /** Sends one datagram to the peer. */
  readonly send: (datagram: Buffer) => void;
  /** Called once, when both ends have proved that they have the same keys. */
  readonly done: (established: Established) => void;
  /** Called once, when the handshake is over without success. `isSilent` says that the peer did not answer. */
  readonly failed: (reason: string, isSilent: boolean) => void;
  /** Called once, when the handshake is over because the entry has no room for its work. */
  readonly dropped?: () => void;
  /** Gets the master secret in the format of NSS, for analysers of captures. */
  readonly keyLog?: ((line: string) => void) | undefined;
}

/** What both ends know when they make the keys. */
export interface KeyParts {
  readonly master: Buffer;
  readonly clientRandom: Buffer;
  readonly serverRandom: Buffer;
  readonly agreement: Omit<Agreement, 'keys'>;
}

/**
 * What server and client do alike in a handshake (RFC 6347 section 4.2): flights, repetition, reassembly, transcript, Finished.
 * Nothing of epoch 0 is authentic, so what does not fit is dropped where that is possible.
 */
export abstract class Handshake {
  protected readonly parts: HandshakeParts;
  /** Hash over all messages so far (RFC 5246 section 7.4.9). */
  #transcript = createHash('sha256');
  /** Gets all messages as well, until a CertificateVerify signs them (RFC 5246 section 7.4.8). */
  protected signature: Sign | Verify | undefined;
  #inbox: Reassembly;
  readonly #flights: Flights;
  #early: DtlsRecord[] = [];
  #messageSequence: number;
  #keys: KeyParts | undefined;
  #association: Association | undefined;
  /** A protected record did not verify: the peer has another key, or the record was changed on its way. */
  #isUnverified = false;
  #isOver = false;

  /** @param first message_seq of the first message in each direction, and sequence number of the first record */
  constructor(parts: HandshakeParts, first: { received: number; sent: number; record: number }) {
    this.parts = parts;
    this.#inbox = new Reassembly(first.received);
    this.#messageSequence = first.sent;
    this.#flights = new Flights(
      parts,
      first.record,
      (content) => this.#association!.seal(ContentType.Handshake, content, parts.entropy),
      () => {
        this.stop();
        const { refusal } = this;
        const silence = this.#isUnverified
          ? 'records do not verify: its key is unknown, or another one'
          : 'the peer does not answer';
        parts.failed(refusal ?? silence, refusal === undefined);
      },
    );
  }

  /** Why a peer that does not go on seems to refuse the handshake. Undefined where it is only silent. */
  protected get refusal(): string | undefined {
    return undefined;
  }

  /** The connection ID that this handshake gave to the peer, once there are keys. */
  get ownCid(): number | undefined {
    return this.#association?.ownCid;
  }

  /** Takes in a record of the peer. */
  take(record: DtlsRecord): void {
    if (this.#isOver) return;
    this.#orFail(() => {
      if (record.epoch === 0 && record.type !== ContentType.WithCid) this.#takePlain(record);
      else if (record.epoch === protectedEpoch) this.#takeProtected(record);
    });
  }

  /** Sends the last flight again, because the peer lacks it. */
  repeat(): void {
    this.#flights.repeat();
  }

  /** Ends the handshake without a word. */
  stop(): void {
    this.#end();
    this.#keys?.master.fill(0);
    this.#association?.destroy();
  }

  #end(): void {
    this.#isOver = true;
    this.#flights.stop();
  }

  /** Handles the next message of the peer. @throws {DtlsFailure} when it does not fit */
  protected abstract handle(message: HandshakeMessage): void;
  /** Called when the peer's Finished is right. `complete` or a last flight follows. */
  protected abstract finished(): void;
  /** Whether an alert without protection is believed. */
  protected abstract readonly heedsPlainAlerts: boolean;
  /** A fragment of an earlier message came again. */
  protected abstract repeated(fragment: Fragment): void;
  /** Who sends the Finished that is expected. */
  protected abstract readonly peer: 'client' | 'server';

  /** Adds a message to the transcript. */
  protected record(message: HandshakeMessage): void {
    const bytes = wholeMessage(message);
    this.#transcript.update(bytes);
    this.signature?.update(bytes);
  }

  /** The hash over all messages so far. */
  protected get transcriptHash(): Buffer {
    return this.#transcript.copy().digest();
  }

  /** The next message of an own flight, which is added to the transcript. */
  protected message(type: number, body: Buffer = Buffer.alloc(0)): HandshakeMessage {
    const message = { type, sequence: this.#messageSequence++, body };
    this.record(message);
    return message;
  }

  /** Forgets the transcript: a HelloVerifyRequest and what it answers are not in it (RFC 6347 section 4.2.1). */
  protected restart(): void {
    this.#transcript = createHash('sha256');
  }

  /** ChangeCipherSpec and Finished. The keys must be there. */
  protected finish(): FlightItem[] {
    const own = this.peer === 'client' ? 'server' : 'client';
    const body = verifyData(this.#keys!.master, own, this.transcriptHash);
    return ['change-cipher-spec', this.message(MessageType.Finished, body)];
  }

  /** Makes the keys of epoch 1, and takes in what waited for them. */
  protected derive(keys: KeyParts): void {
    const { master, clientRandom, serverRandom, agreement } = keys;
    this.#keys = keys;
    const block = keyBlock(agreement.suite, master, clientRandom, serverRandom);
    this.#association = new Association({ ...agreement, keys: block }, this.parts.place);
    block.fill(0);
    const hex = (bytes: Buffer) => bytes.toString('hex');
    this.parts.keyLog?.(`CLIENT_RANDOM ${hex(clientRandom)} ${hex(master)}`);
  }

  /**
   * Sends a flight.
   * @param isLast no answer is expected, so it is repeated only by `repeat`
   */
  protected sendFlight(
    flight: readonly FlightItem[],
    isLast = false,
    most: number = handshakeLimits.transmissions,
  ): void {
    this.#flights.send(flight, isLast, most);
  }

  /** Keeps what is sent before there are keys to so many bytes in a record, too. */
  protected limitFragments(bytes: number): void {
    this.#flights.fragmentBytes = Math.min(this.#flights.fragmentBytes, bytes);
  }

  /** Ends the handshake with success. */
  protected complete(session: Session | undefined): void {
    this.#end();
    const repeat = this.#flights.isLast ? () => this.repeat() : undefined;
    this.parts.done({ association: this.#association!, session, repeat });
    // Who waits for clients has its own copy of what may be resumed. A client keeps its session itself.
    if (session && this.peer === 'server') return;
    session?.master.fill(0);
    this.#keys!.master.fill(0);
  }

  #takePlain({ type, fragment }: DtlsRecord): void {
    // ChangeCipherSpec needs no handling: the epoch of a record says which keys it has.
    if (type === ContentType.Alert && this.heedsPlainAlerts && fragment[0] === fatal)
      this.#fail(`the peer sent alert ${fragment[1]}`);
    if (type === ContentType.Handshake) this.#takeFragments(fragment, false);
  }

  #takeProtected(record: DtlsRecord): void {
    if (!this.#association) {
      // A copy, because the caller may use its buffer again.
      if (this.#early.length < handshakeLimits.early)
        this.#early.push({
          ...record,
          cid: record.cid && ownBytes(record.cid),
          fragment: Buffer.from(record.fragment),
        });
      return;
    }
    const content = this.#association.open(record);
    if (!content) {
      this.#isUnverified = true;
      return;
    }
    if (content.type === ContentType.Handshake) this.#takeFragments(content.bytes, true);
    else if (content.type === ContentType.Alert && content.bytes[0] === fatal)
      this.#fail(`the peer sent alert ${content.bytes[1]}`);
  }

  /** Only Finished is protected, and it always is. */
  #takeFragments(bytes: Buffer, isProtected: boolean): void {
    for (const fragment of readFragments(bytes)) {
      if ((fragment.type === MessageType.Finished) !== isProtected) continue;
      if (fragment.sequence < this.#inbox.next) this.repeated(fragment);
      else this.#inbox.add(fragment);
    }
    for (let message = this.#inbox.take(); message && !this.#isOver; message = this.#inbox.take()) {
      if (message.type === MessageType.Finished) this.#takeFinished(message);
      else this.handle(message);
      if (this.#association)
        for (const record of this.#early.splice(0)) if (!this.#isOver) this.#takeProtected(record);
    }
  }

  #takeFinished(message: HandshakeMessage): void {
    const right = verifyData(this.#keys!.master, this.peer, this.transcriptHash);
    if (message.body.length !== right.length || !timingSafeEqual(message.body, right))
      throw new DtlsFailure(Alert.DecryptError, 'Finished does not verify');
    this.record(message);
    this.finished();
  }

  #fail(reason: string): void {
    this.stop();
    this.parts.failed(reason, false);
  }

  /** Runs a step. An error of the peer ends the handshake, with an alert. */
  #orFail(step: () => void): void {
    try {
      step();
    } catch (thrown) {
      if (!(thrown instanceof DtlsFailure)) throw thrown;
      this.#flights.alert(thrown.alert);
      this.#fail(thrown.message);
    }
  }

  /** Ends the handshake without a word to anybody: the peer begins again by itself. */
  protected drop(): void {
    this.stop();
    this.parts.dropped?.();
  }

  /** Runs the first step of the handshake. */
  protected begin(step: () => void): void {
    this.#orFail(step);
  }
}
