import { BoundedMap } from '../../../base/bounded-map.ts';
import type { Clock } from '../../../base/clock.ts';
import type { Entropy } from '../../../base/entropy.ts';
import { PosternError } from '../../../base/errors.ts';
import { Acceptor, type HalfOpenLimits } from './acceptor.ts';
import { Alert, alertBytes, fatal, warning } from './alerts.ts';
import { type Association, type Candidate, cidBytes, type Place, type Received } from './association.ts';
import { AssociationTable, keyOf } from './association-table.ts';
import type { Certificates } from './certificates.ts';
import type { ServedCertificates } from './client-handshake.ts';
import { Connector } from './connector.ts';
import type { Established } from './handshake.ts';

import { MessageType } from './messages.ts';
import { ContentType, type DtlsRecord, headerBytes, recordsOf } from './record.ts';
import { type Session, Sessions } from './sessions.ts';
import { suites as allSuites, type Suite } from './suites.ts';
import type { Surroundings } from './surroundings.ts';
import { TimerWheel } from './timer-wheel.ts';

/** Bounds of one endpoint. */
export interface DtlsLimits {
  readonly associations: number;
  /** Sessions that clients may resume. */
  readonly sessions: number;
  readonly halfOpen: HalfOpenLimits;
  /** Handshakes that this end has begun. */
  readonly outgoing: number;
  /** Associations whose last flight may be sent again. */
  readonly lingering: number;
}

export const dtlsDefaults: DtlsLimits = {
  associations: 10_000,
  sessions: 10_000,
  halfOpen: { entries: 1024, perAddress: 64, perPrefix: 512 },
  outgoing: 256,
  lingering: 1024,
};

/** What an endpoint needs from its surroundings. */
export interface DtlsParts {
  readonly clock: Clock;
  readonly entropy: Entropy;
  /** Sends one datagram. */
  readonly send: (datagram: Buffer, place: Place) => void;
  /** Gets the content of each record of application data. */
  readonly received: (association: Association, content: Buffer) => void;
  /** Called when a handshake that a client began has succeeded. */
  readonly opened?: (association: Association) => void;
  /** Called when an association has ended, unless it was closed from here. */
  readonly closed?: (association: Association, reason: string) => void;
  /** Called before the sequence numbers of an association run out that are reserved, for each record until there are more. */
  readonly runningOut?: (association: Association) => void;
  /**
   * Called for the newest record of a peer that came from elsewhere than those before. `confirm` is to follow when the peer is
   * known to receive there.
   */
  readonly moved?: (association: Association) => void;
  /** Called when a handshake that a client began has ended without success. */
  readonly refused?: (place: Place, reason: string) => void;
  /** Absent, the endpoint is a client only. */
  readonly server?: {
    /** The key of an identity; undefined when it is unknown. */
    readonly keyOf: (identity: string) => Uint8Array | undefined;
    /** What certificates and raw public keys need, as it is now. Absent or undefined, they are not served. */
    readonly certificates?: () => Certificates | undefined;
    /** Whether a client at this address, which receives there, may begin a handshake. All may if absent. */
    readonly admits?: (address: string) => boolean;
  };
  /** Suites that are accepted and offered, the preferred one first; all by default. */
  readonly suites?: readonly Suite[];
  readonly limits?: Partial<DtlsLimits>;
  /** Gets master secrets in the format of NSS, for analysers of captures. */
  readonly keyLog?: (line: string) => void;
}

/** How many times the bytes that came from a new place may be sent to it, until the peer is known to receive there. */
const amplification = 3;
/** When so few reserved sequence numbers are left, more are reserved. */
const reserveBelow = 512;

/** What a client proves itself with. */
export interface ClientCredentials {
  readonly identity: string;
  /** The pre-shared key. Absent with certificates. */
  readonly key?: Uint8Array;
  readonly certificates?: ServedCertificates;
  /** A session of an earlier handshake with the same server and identity. */
  readonly session?: Session | undefined;
  /** Whether the server is to use a connection ID in its records; true by default. */
  readonly wantsCid?: boolean;
}

/**
 * One DTLS 1.2 endpoint (RFC 6347) without a socket, server and client. Datagrams come in by `receive` and go out by
 * `DtlsParts.send`. No datagram makes it throw. Records that do not verify are dropped without an answer (RFC 6347 section
 * 4.1.2.7).
 */
export class DtlsEndpoint {
  readonly #parts: DtlsParts;
  readonly #wheel: TimerWheel;
  readonly #sessions: Sessions;
  readonly #associations: AssociationTable;
  /** Sends the last flight of a handshake again, for peers that may lack it. */
  readonly #lingering: BoundedMap<Association, () => void>;
  readonly #connector: Connector;
  readonly #acceptor: Acceptor | undefined;
  #stopped = false;

  constructor(parts: DtlsParts) {
    const { clock, server, suites = allSuites, keyLog } = parts;
    const limits = { ...dtlsDefaults, ...parts.limits };
    this.#parts = parts;
    this.#wheel = new TimerWheel(clock);
    this.#sessions = new Sessions(limits.sessions);
    this.#lingering = new BoundedMap(limits.lingering);
    this.#associations = new AssociationTable(limits.associations, (association, reason, isReachable) => {
      if (isReachable)
        this.#sendRecord(association, ContentType.Alert, alertBytes(Alert.CloseNotify, warning));
      this.#ended(association, reason);
    });
    const { entropy, send } = parts;
    const surroundings: Surroundings = { clock, entropy, send, keyLog, wheel: this.#wheel };
    this.#connector = new Connector(surroundings, limits.outgoing);
    this.#acceptor =
      server &&
      new Acceptor({
        surroundings,
        settings: {
          keyOf: server.keyOf,
          certificates: server.certificates ?? (() => undefined),
          suites,
          sessions: this.#sessions,
          newCid: () => this.#newCid(),
        },
        halfOpen: limits.halfOpen,
        admits: server.admits ?? (() => true),
        opened: (established) => {
          if (established.session) this.#sessions.set(established.session);
          this.#adopt(established);
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
      outgoing: this.#connector.size,
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
   * @throws {PosternError} `tooLarge` for more than the peer takes in one record; `unavailable` when the association has ended
   */
  send(association: Association, content: Buffer): void {
    if (!this.#associations.has(association))
      throw new PosternError('unavailable', 'the association has ended');
    this.#sendRecord(association, ContentType.ApplicationData, content);
  }

  /**
   * Begins an association as client. Resolves when the server has proved that it has the same key.
   * @throws {PosternError} as `Connector.connect`
   */
  async connect(place: Place, credentials: ClientCredentials): Promise<Established> {
    const { suites: all = allSuites } = this.#parts;
    const isCertified = credentials.certificates !== undefined;
    const suites = all.filter(({ exchange }) => (exchange === 'ecdhe-ecdsa') === isCertified);
    const { wantsCid = true, ...proof } = credentials;
    const cid = wantsCid ? this.#newCid() : undefined;
    return await this.#connector.connect(
      place,
      { ...proof, suites, cid },
      // At once, since the server's first data may be in the same datagram.
      (established) => this.#adopt(established),
    );
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
    this.#sendRecord(association, ContentType.Alert, alertBytes(Alert.CloseNotify, warning));
    this.#forget(association);
  }

  /** Ends what an identity has: its association, and the session that it could resume. */
  revoke(identity: string): void {
    this.#sessions.forget(identity);
    const association = this.#associations.of(identity);
    if (!association) return;
    this.#sendRecord(association, ContentType.Alert, alertBytes(Alert.CloseNotify, warning));
    this.#ended(association, 'what it was opened with is no longer valid');
  }

  /** Drops all state without a word, and rejects handshakes as client with `unavailable`. */
  stop(): void {
    this.#stopped = true;
    this.#wheel.stop();
    this.#acceptor?.stop();
    this.#connector.stop();
  }

  #receivePlain(record: DtlsRecord, place: Place): void {
    const outgoing = this.#connector.at(keyOf(place));
    if (outgoing) outgoing.take(record);
    else this.#acceptor?.take(record, place);
  }

  #receiveProtected(record: DtlsRecord, place: Place): void {
    const remote = keyOf(place);
    const association = record.cid
      ? this.#associations.withCid(record.cid.readUIntBE(0, cidBytes))
      : this.#associations.at(remote);
    const received = association?.open(record);
    if (association && received) {
      if (received.isNewest)
        this.#locate(association, place, record.fragment.length + headerBytes + cidBytes);
      this.#deliver(association, received);
    } else (this.#connector.at(remote) ?? this.#acceptor?.at(remote))?.take(record);
  }

  /** Notes where the newest record came from. Only one with a connection ID may come from elsewhere. */
  #locate(association: Association, place: Place, bytes: number): void {
    const { candidate } = association;
    if (isSame(place, association.place)) {
      association.candidate = undefined;
      return;
    }
    const room = amplification * bytes;
    if (candidate && isSame(place, candidate.place)) candidate.room += room;
    else association.candidate = { place, room };
    this.#parts.moved?.(association);
  }

  #deliver(association: Association, { type, bytes }: Received): void {
    this.#associations.touch(association);
    if (type === ContentType.ApplicationData) {
      this.#lingering.delete(association);
      this.#parts.received(association, bytes);
    } else if (type === ContentType.Handshake) this.#answerHandshake(association, bytes[0]);
    else if (type === ContentType.Alert) this.#takeAlert(association, bytes);
  }

  /** The peer lacks the last flight, or wants to renegotiate, which is refused (RFC 5246 section 7.2.2). */
  #answerHandshake(association: Association, type: number | undefined): void {
    if (type === MessageType.Finished) this.#lingering.get(association)?.();
    else if (type === MessageType.ClientHello || type === MessageType.HelloRequest)
      this.#sendRecord(association, ContentType.Alert, alertBytes(Alert.NoRenegotiation, warning));
  }

  #takeAlert(association: Association, [level, description]: Buffer): void {
    if (description === Alert.CloseNotify) {
      this.#sendRecord(association, ContentType.Alert, alertBytes(Alert.CloseNotify, warning));
      this.#ended(association, 'the peer closed it');
    } else if (level === fatal) {
      // A session with a fatal alert is not resumed (RFC 5246 section 7.2.2).
      this.#sessions.forget(association.identity);
      this.#ended(association, `the peer sent alert ${description}`);
    }
  }

  #adopt({ association, repeat }: Established): void {
    this.#associations.add(association);
    if (repeat) this.#lingering.set(association, repeat);
  }

  #ended(association: Association, reason: string): void {
    this.#forget(association);
    this.#parts.closed?.(association, reason);
  }

  #forget(association: Association): void {
    this.#associations.delete(association);
    this.#lingering.delete(association);
    association.destroy();
  }

  #sendRecord(association: Association, type: number, content: Buffer): void {
    const { entropy, send, runningOut } = this.#parts;
    const { candidate, place } = association;
    if (association.left <= reserveBelow) runningOut?.(association);
    const record = association.seal(type, content, entropy);
    if (candidate && record.length <= candidate.room) {
      candidate.room -= record.length;
      send(record, candidate.place);
    } else send(record, place);
  }

  /** A random connection ID that no association has. */
  #newCid(): number {
    for (;;) {
      const cid = Buffer.from(this.#parts.entropy.bytes(cidBytes)).readUIntBE(0, cidBytes);
      if (!this.#associations.withCid(cid)) return cid;
    }
  }
}

const isSame = (one: Place, other: Place): boolean =>
  one.port === other.port && one.address === other.address && one.local === other.local;
