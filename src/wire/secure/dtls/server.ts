import { BoundedMap } from '../../../base/bounded-map.ts';
import { PosternError } from '../../../base/errors.ts';
import { Acceptor } from './acceptor.ts';
import { Alert, alertBytes, fatal, warning } from './alerts.ts';
import { type Association, type Candidate, cidBytes, type Place, type Received } from './association.ts';
import { AssociationTable, keyOf } from './association-table.ts';
import { type DtlsLimits, type DtlsParts, dtlsDefaults, type Initiator } from './endpoint-parts.ts';
import type { Established } from './handshake.ts';
import { MessageType } from './messages.ts';
import { ContentType, type DtlsRecord, headerBytes, recordsOf } from './record.ts';
import { Sessions } from './sessions.ts';
import { suites as allSuites } from './suites.ts';
import type { Surroundings } from './surroundings.ts';
import { TimerWheel } from './timer-wheel.ts';

/** How many times the bytes that came from a new place may be sent to it, until the peer is known to receive there. */
const amplification = 3;
/** When so few reserved sequence numbers are left, more are reserved. */
const reserveBelow = 512;

/**
 * One DTLS 1.2 endpoint (RFC 6347) without a socket, which waits for clients. Datagrams come in by `receive` and go out by
 * `DtlsParts.send`. No datagram makes it throw. Records that do not verify are dropped without an answer (RFC 6347 section
 * 4.1.2.7).
 */
export class DtlsServer {
  protected readonly parts: DtlsParts;
  protected readonly limits: DtlsLimits;
  protected readonly surroundings: Surroundings;
  protected initiator: Initiator | undefined;
  readonly #wheel: TimerWheel;
  readonly #sessions: Sessions;
  readonly #associations: AssociationTable;
  /** Sends the last flight of a handshake again, for peers that may lack it. */
  readonly #lingering: BoundedMap<Association, () => void>;
  readonly #acceptor: Acceptor | undefined;
  #stopped = false;

  constructor(parts: DtlsParts) {
    const { clock, server, suites = allSuites, keyLog } = parts;
    const limits = { ...dtlsDefaults, ...parts.limits };
    this.parts = parts;
    this.limits = limits;
    this.#wheel = new TimerWheel(clock);
    this.#sessions = new Sessions(limits.sessions);
    this.#lingering = new BoundedMap(limits.lingering);
    this.#associations = new AssociationTable(limits, (association, reason, isReachable) => {
      if (isReachable) this.#warn(association, Alert.CloseNotify);
      this.#ended(association, reason);
    });
    const { entropy, send } = parts;
    const surroundings: Surroundings = { clock, entropy, send, keyLog, wheel: this.#wheel };
    this.surroundings = surroundings;
    this.#acceptor =
      server &&
      new Acceptor({
        surroundings,
        settings: {
          keyOf: server.keyOf,
          certificates: server.certificates ?? (() => undefined),
          suites,
          sessions: this.#sessions,
          newCid: () => this.newCid(),
        },
        halfOpen: limits.halfOpen,
        admits: server.admits ?? (() => true),
        opened: (established) => {
          if (established.session) this.#sessions.set(established.session);
          this.adopt(established);
          parts.opened?.(established.association);
        },
        refused: (...args) => parts.refused?.(...args),
      });
  }

  /** How much state is kept, for metrics and for the tests of the bounds. */
  get footprint() {
    return {
      associations: this.#associations.size,
      sessions: this.#sessions.size,
      halfOpen: this.#acceptor?.size ?? 0,
      outgoing: this.initiator?.size ?? 0,
      lingering: this.#lingering.size,
    };
  }

  /** The association with the peer at this address and port. */
  at(address: string, port: number): Association | undefined {
    return this.#associations.at(keyOf({ address, port }));
  }

  /** Takes in one datagram that came from this place. */
  receive(datagram: Buffer, place: Place): void {
    for (const record of recordsOf(datagram, cidBytes)) {
      if (this.#stopped) return;
      if (record.epoch > 0) this.#receiveProtected(record, place);
      else if (!record.cid) this.#receivePlain(record, place);
    }
  }

  /**
   * Sends application data to the peer.
   * @param isProbe it goes to the candidate alone, if there is one: its answer then shows that the peer receives there
   * @throws {PosternError} `tooLarge` for more than the peer takes in one record; `unavailable` when the association has ended
   */
  send(association: Association, content: Buffer, isProbe = false): void {
    if (!this.#associations.has(association))
      throw new PosternError('unavailable', 'the association has ended');
    this.#sendRecord(association, ContentType.ApplicationData, content, isProbe);
  }

  /** Takes in an association that was stored. */
  restore(association: Association): void {
    this.#associations.add(association);
  }

  /** All associations. */
  get associations(): IterableIterator<Association> {
    return this.#associations.values();
  }

  /** The peer receives at its candidate: it is there from now on. */
  confirm(association: Association, candidate: Candidate): void {
    if (association.candidate !== candidate) return;
    association.candidate = undefined;
    this.#associations.move(association, candidate.place);
  }

  /** Ends an association, and tells the peer so (RFC 5246 section 7.2.1). */
  close(association: Association): void {
    if (!this.#associations.has(association)) return;
    this.#warn(association, Alert.CloseNotify);
    this.#forget(association);
  }

  /** The associations of peers that proved this identity, the one heard last at the end. */
  of(identity: string): readonly Association[] {
    return this.#associations.of(identity);
  }

  /**
   * Ends what an identity has: its associations, and the session that it could resume.
   * @param spared an association that does not end yet
   */
  revoke(identity: string, spared?: Association): void {
    this.#sessions.forget(identity);
    for (const association of this.of(identity)) {
      if (association === spared) continue;
      this.#warn(association, Alert.CloseNotify);
      this.#ended(association, 'what it was opened with is no longer valid');
    }
  }

  /** Drops all state without a word. */
  stop(): void {
    this.#stopped = true;
    this.#wheel.stop();
    this.#acceptor?.stop();
    this.initiator?.stop();
  }

  #receivePlain(record: DtlsRecord, place: Place): void {
    const outgoing = this.initiator?.at(keyOf(place));
    if (outgoing) outgoing.take(record);
    else this.#acceptor?.take(record, place);
  }

  #receiveProtected(record: DtlsRecord, place: Place): void {
    const association = record.cid
      ? this.#associations.withCid(record.cid.readUIntBE(0, cidBytes))
      : this.#associations.at(keyOf(place));
    const received = association?.open(record);
    if (association && received) {
      if (received.isNewest)
        this.#locate(association, place, record.fragment.length + headerBytes + cidBytes);
      this.#deliver(association, received);
      return;
    }
    const remote = keyOf(place);
    (this.initiator?.at(remote) ?? this.#acceptor?.at(remote))?.take(record);
  }

  /** Notes where the newest record came from. Only one with a connection ID may come from elsewhere. */
  #locate(association: Association, place: Place, bytes: number): void {
    const { candidate } = association;
    // A server has one place. What comes by another way does not move it.
    if (association.isClient || isSame(place, association.place)) {
      association.candidate = undefined;
      return;
    }
    const room = amplification * bytes;
    if (candidate && isSame(place, candidate.place)) candidate.room += room;
    else association.candidate = { place, room };
    this.parts.moved?.(association);
  }

  #deliver(association: Association, { type, bytes }: Received): void {
    this.#associations.touch(association);
    if (type === ContentType.ApplicationData) {
      this.#lingering.delete(association);
      this.parts.received(association, bytes);
    } else if (type === ContentType.Handshake) this.#answerHandshake(association, bytes[0]);
    else if (type === ContentType.Alert) this.#takeAlert(association, bytes);
  }

  /** The peer lacks the last flight, or wants to renegotiate, which is refused (RFC 5246 section 7.2.2). */
  #answerHandshake(association: Association, type: number | undefined): void {
    if (type === MessageType.Finished) {
      if (association.left > 0) this.#lingering.get(association)?.();
    } else if (type === MessageType.ClientHello || type === MessageType.HelloRequest)
      this.#warn(association, Alert.NoRenegotiation);
  }

  #takeAlert(association: Association, [level, description]: Buffer): void {
    if (description === Alert.CloseNotify) {
      this.#warn(association, Alert.CloseNotify);
      this.#ended(association, 'the peer closed it');
    } else if (level === fatal) {
      // A session with a fatal alert is not resumed (RFC 5246 section 7.2.2).
      this.#sessions.forget(association.identity);
      this.#ended(association, `the peer sent alert ${description}`);
    }
  }

  protected adopt({ association, repeat }: Established): void {
    this.#associations.add(association);
    if (repeat) this.#lingering.set(association, repeat);
  }

  #ended(association: Association, reason: string): void {
    this.#forget(association);
    this.parts.closed?.(association, reason);
  }

  #forget(association: Association): void {
    this.#associations.delete(association);
    this.#lingering.delete(association);
    association.destroy();
  }

  /** Sends an alert. Without a sequence number for it none is sent: whatever ends, ends all the same. */
  #warn(association: Association, description: number): void {
    if (association.left > 0)
      this.#sendRecord(association, ContentType.Alert, alertBytes(description, warning));
  }

  #sendRecord(association: Association, type: number, content: Buffer, isProbe = false): void {
    const { entropy, send, runningOut } = this.parts;
    const { candidate, place } = association;
    if (association.left <= reserveBelow) runningOut?.(association);
    const record = association.seal(type, content, entropy);
    // Somebody may copy each record of the peer from elsewhere before it arrives. The peer must get its answers all the same.
    if (!candidate || !isProbe) send(record, place);
    if (!candidate || record.length > candidate.room) return;
    candidate.room -= record.length;
    send(record, candidate.place);
  }

  /** A random connection ID that no association has. */
  protected newCid(): number {
    for (;;) {
      const cid = Buffer.from(this.parts.entropy.bytes(cidBytes)).readUIntBE(0, cidBytes);
      if (!this.#associations.withCid(cid)) return cid;
    }
  }
}

const isSame = (one: Place, other: Place): boolean =>
  one.port === other.port && one.address === other.address && one.local === other.local;
