import { createHmac } from 'node:crypto';
import type { Admission } from '../../base/admission.ts';
import { background, failed, guarded } from '../../base/background.ts';
import type { Clock, Timer } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import type { Events } from '../../base/events.ts';
import { Type } from '../coap/codec.ts';
import type { CoapEndpoint } from '../coap/endpoint.ts';
import type { Remote } from '../coap/message.ts';
import { remoteKey } from '../coap/peer.ts';
import { Association, type AssociationState } from './dtls/association.ts';
import { isStillTrusted } from './dtls/certificate-check.ts';
import type { Certificates } from './dtls/certificates.ts';
import { DtlsServer } from './dtls/server.ts';

/** Sequence numbers that an association may use after what is stored of it, in one run of the process. */
export const reservedBlock = 1024;
/**
 * Milliseconds after which new associations are stored, all together. Those that ended before are never written: a device that comes
 * and goes again and again wears no flash. After a power cut, those that were not stored yet shake hands again.
 */
const storeAfter = 5000;
/** Milliseconds in which an association that ends may still get an answer. */
const farewell = 2000;
/** Milliseconds for the answer to a ping. It is shorter than the time after which a ping is sent again. */
const probeTime = 1900;

/** An association as it comes out of the store. */
export interface StoredAssociation {
  readonly state: AssociationState;
  /** `credentialMark` of the pre-shared key with which it was opened; empty with a certificate or a raw public key. */
  readonly credential: string;
  /** Nothing was received after it was stored. */
  readonly isClean: boolean;
}

/** Where associations outlive the process. */
export interface AssociationStore {
  /** What was stored. To be called once in a run: it counts the blocks of sequence numbers that earlier runs may have used. */
  load(): readonly StoredAssociation[];
  /** Stores associations instead of earlier ones of the same identities. */
  save(associations: readonly StoredAssociation[]): void;
  remove(identity: string): void;
  /** Resolves when what was saved survives a power cut. */
  settled(): Promise<void>;
}

export interface CoapTransportParts {
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** The pre-shared key of an identity; undefined when it is unknown. */
  readonly keyOf: (identity: string) => Uint8Array | undefined;
  /**
   * Whose key an identity names, and of what kind it is; by default the identity itself.
   * @param proof of a certificate or a raw public key; undefined for a pre-shared key
   */
  readonly ownerOf?: (
    identity: string,
    proof: string | undefined,
  ) => Pick<Remote, 'identity' | 'credential' | 'party'>;
  /** Called when the pre-shared key of an identity has opened an association. */
  readonly opened?: (identity: string) => void;
  /** What certificates and raw public keys need, as it is now; undefined where they are not served. */
  readonly certificates?: () => Certificates | undefined;
  /** The entry that handshakes share with all other datagrams of strangers. */
  readonly admission: Admission;
  /** Most associations. */
  readonly associations: number;
  readonly store: AssociationStore;
}

/** What a socket of one local address gives to the transport. */
export interface SecureSocket {
  /** Sends one datagram. */
  readonly send: (datagram: Buffer, port: number, address: string) => void;
  /** Gets the content of each record, which is a datagram of CoAP. */
  readonly received: (content: Buffer, address: string, port: number) => void;
  /** The CoAP endpoint above the transport. */
  readonly endpoint: CoapEndpoint;
}

/**
 * DTLS between the sockets and the CoAP endpoints of a gateway (RFC 7252 section 9.1). All local addresses share their
 * associations. To CoAP a peer is its association: it keeps exchanges and observations when the address of the peer changes.
 *
 * A CoAP ping through an association shows two things: that the peer receives at a new address, and that the peer is there now
 * and no record is repeated that an earlier run of this process has received.
 */
export class CoapTransport {
  readonly #parts: CoapTransportParts;
  readonly #dtls: DtlsServer;
  /** By local address. */
  readonly #sockets = new Map<string, SecureSocket>();
  readonly #byKey = new Map<string, Association>();
  readonly #probing = new Set<Association>();
  readonly #reserving = new Set<Association>();
  /** Those of which the store has nothing, or not the place. */
  readonly #unstored = new Set<Association>();
  /** By key: those that end with the next datagram to them. */
  readonly #retiring = new Map<string, { readonly end: () => void; readonly timer: Timer }>();
  /** Keys of peers that associations had before their last `renew`. */
  readonly #formerKeys = new WeakMap<Association, string>();
  /** What the store had, until it is restored. */
  #stored: readonly StoredAssociation[];
  #storing: Timer | undefined;
  #opened = 0;

  constructor(parts: CoapTransportParts) {
    const { clock, entropy, events, keyOf, certificates, admission, associations, store } = parts;
    this.#parts = parts;
    this.#dtls = new DtlsServer({
      clock,
      entropy,
      send: (datagram, { address, port, local }) => this.#sockets.get(local)?.send(datagram, port, address),
      received: (association, content) => this.#received(association, content),
      opened: (association) => this.#welcome(association),
      moved: (association) => this.#probe(association),
      runningOut: (association) => this.#reserve(association),
      closed: (association, reason) => this.#forget(association, reason),
      refused: ({ address }, reason) => events.emit('dtls.refused', { peer: address, reason }),
      server: {
        keyOf,
        ...(certificates && { certificates }),
        admits: (address, tokens) => admission.admits(address, tokens),
      },
      limits: { associations, sessions: associations },
    });
    this.#stored = store.load();
  }

  /**
   * Takes up the associations of earlier runs. To be called once, when what `load` counted is durable: without that, another run
   * could use the same sequence numbers.
   */
  restore(): void {
    for (const stored of this.#stored) this.#restore(stored);
    this.#stored = [];
  }

  /** How much state is kept. */
  get footprint() {
    return this.#dtls.footprint;
  }

  /** Begins to serve a local address. */
  open(local: string, socket: SecureSocket): void {
    this.#sockets.set(local, socket);
  }

  /** Ends that a local address is served. Its associations stay: the address may come back. */
  shut(local: string): void {
    this.#sockets.delete(local);
  }

  /** Takes in a datagram of a socket. */
  receive(datagram: Buffer, address: string, port: number, local: string): void {
    this.#dtls.receive(datagram, { address, port, local });
  }

  /** Sends a datagram of CoAP to the peer with this key. Without an association it is lost, as datagrams may be. */
  send(content: Buffer, key: string): void {
    const association = this.#byKey.get(key);
    if (!association) return;
    try {
      this.#dtls.send(association, content);
      this.#retiring.get(key)?.end();
    } catch (thrown) {
      failed(this.#parts.events, 'coap-datagram', thrown);
    }
  }

  /** Who is at an address and port. */
  remoteOf(address: string, port: number): Remote {
    const association = this.#dtls.at(address, port);
    return remoteOf(association) ?? { address, port, key: remoteKey(address, port) };
  }

  /** Whether there is an association with the peer at this address and port. */
  reaches(address: string, port: number): boolean {
    return this.#dtls.at(address, port) !== undefined;
  }

  /**
   * Ends what an identity has, as `revoke`, after the next datagram to it, or after `farewell` milliseconds: it waits for the
   * answer to what it asked.
   */
  retire(identity: string): void {
    const key = [...this.#byKey].find(([, association]) => association.identity === identity)?.[0];
    if (key === undefined) {
      this.revoke(identity);
      return;
    }
    const end = guarded(this.#parts.events, 'coap-datagram', () => {
      this.#retiring.get(key)?.timer.cancel();
      this.#retiring.delete(key);
      this.revoke(identity);
    });
    this.#retiring.set(key, { end, timer: this.#parts.clock.after(farewell, end) });
  }

  /**
   * Asks again whose an identity is, for the association that it has. To CoAP that is another peer from now on, because a peer never
   * changes. What is under way with the former one goes on through the same association.
   */
  renew(identity: string): void {
    for (const association of this.#dtls.associations) {
      const former = remoteOf(association);
      if (association.identity !== identity || !former) continue;
      this.#byKey.delete(this.#formerKeys.get(association) ?? '');
      this.#formerKeys.set(association, former.key);
      this.#adopt(association);
    }
  }

  /** Ends what an identity has. Its next handshake needs its key. */
  revoke(identity: string): void {
    this.#dtls.revoke(identity);
  }

  /**
   * Ends the associations that were opened with a certificate or a raw public key which does not count any more: its authority or
   * the key was removed, or it has expired.
   */
  review(): void {
    for (const { identity, proof } of [...this.#dtls.associations])
      if (proof !== undefined && !this.#isTrusted(identity, proof)) this.#dtls.revoke(identity);
  }

  /** Stores all associations as they are, and ends without a word to the peers. */
  stop(): void {
    this.#storing?.cancel();
    for (const { timer } of this.#retiring.values()) timer.cancel();
    const all = [...this.#dtls.associations];
    this.#dtls.stop();
    this.#sockets.clear();
    try {
      // A restored one that is still stale is stored as such.
      this.#parts.store.save(
        all.map((association) => this.#record(association, association.used, !association.isStale)),
      );
    } catch (thrown) {
      failed(this.#parts.events, 'state', thrown);
    }
  }

  #received(association: Association, content: Buffer): void {
    const socket = this.#socketOf(association);
    const remote = remoteOf(association);
    if (!socket || !remote) return;
    if (!socket.endpoint.isProven(remote))
      socket.endpoint.vouch(remote, remote.party ?? remote.identity ?? association.identity);
    if (association.isStale) {
      this.#probe(association);
      if (!isReset(content)) return;
    }
    socket.received(content, remote.address, remote.port);
  }

  #socketOf({ place, candidate }: Association): SecureSocket | undefined {
    return this.#sockets.get(place.local) ?? (candidate && this.#sockets.get(candidate.place.local));
  }

  /** Pings the peer once. Its answer confirms its new place, and that a restored association is fresh. */
  #probe(association: Association): void {
    const socket = this.#socketOf(association);
    const { candidate, place } = association;
    if (!socket || this.#probing.has(association)) return;
    this.#probing.add(association);
    void background(this.#parts.events, 'coap-datagram', async () => {
      // A ping that could not be sent says nothing. The next record leads to another one.
      const isThere = await socket.endpoint.ping(place.address, place.port, probeTime).catch(() => false);
      this.#probing.delete(association);
      if (!isThere) return;
      if (association.isStale) association.refresh();
      if (candidate) this.#follow(association, candidate);
    });
  }

  #follow(association: Association, candidate: NonNullable<Association['candidate']>): void {
    const { address: former } = association.place;
    this.#dtls.confirm(association, candidate);
    const { address, port } = association.place;
    const remote = remoteOf(association);
    if (!remote || association.place !== candidate.place) return;
    association.owner = { ...remote, address, port } satisfies Remote;
    this.#storeLater(association);
    this.#parts.events.emit('dtls.moved', { identity: association.identity, peer: address, before: former });
  }

  #welcome(association: Association): void {
    association.reserved = reservedBlock;
    this.#adopt(association);
    this.#storeLater(association);
    const { identity, place } = association;
    this.#parts.events.emit('dtls.opened', { identity, peer: place.address, ...deviceOf(association) });
    if (association.proof === undefined) this.#parts.opened?.(identity);
  }

  /** Makes the association known to CoAP. */
  #adopt(association: Association): void {
    const { place, identity, proof } = association;
    const { address, port } = place;
    const owner = this.#parts.ownerOf?.(identity, proof) ?? { identity };
    const remote = { address, port, key: `dtls ${this.#opened++}`, ...owner };
    association.owner = remote satisfies Remote;
    this.#byKey.set(remote.key, association);
  }

  #restore({ state, credential, isClean }: StoredAssociation): void {
    const { identity, proof, sent } = state;
    const isValid =
      proof === undefined ? credential === this.#credentialOf(identity) : this.#isTrusted(identity, proof);
    if (!isValid) {
      this.#parts.store.remove(identity);
      return;
    }
    const association = Association.restore(state, sent + reservedBlock, !isClean);
    this.#adopt(association);
    this.#dtls.restore(association);
  }

  /** Reserves the next block. The numbers of the block are used when that is durable. */
  #reserve(association: Association): void {
    if (this.#reserving.has(association)) return;
    this.#reserving.add(association);
    void background(this.#parts.events, 'state', async () => {
      try {
        this.#parts.store.save([this.#record(association, association.reserved, false)]);
        this.#unstored.delete(association);
        await this.#parts.store.settled();
        association.reserved += reservedBlock;
      } finally {
        this.#reserving.delete(association);
      }
    });
  }

  #storeLater(association: Association): void {
    const { clock, events, store } = this.#parts;
    this.#unstored.add(association);
    this.#storing ??= clock.after(
      storeAfter,
      guarded(events, 'state', () => {
        this.#storing = undefined;
        const all = [...this.#unstored];
        // Where nothing can be stored, they live until the process ends.
        this.#unstored.clear();
        store.save(all.map((each) => this.#record(each, each.reserved - reservedBlock, false)));
      }),
    );
  }

  #record(association: Association, sent: number, isClean: boolean): StoredAssociation {
    const { identity, proof } = association;
    const credential = proof === undefined ? (this.#credentialOf(identity) ?? '') : '';
    return { state: association.state(sent), credential, isClean };
  }

  #credentialOf(identity: string): string | undefined {
    const key = this.#parts.keyOf(identity);
    return key && credentialMark(key);
  }

  #isTrusted(identity: string, proof: string): boolean {
    const { certificates, clock } = this.#parts;
    return isStillTrusted({ identity, proof }, certificates?.()?.trust, clock.wall());
  }

  #forget(association: Association, reason: string): void {
    const { identity, place } = association;
    const { events, store } = this.#parts;
    const device = deviceOf(association);
    this.#byKey.delete(remoteOf(association)?.key ?? '');
    this.#byKey.delete(this.#formerKeys.get(association) ?? '');
    association.owner = undefined;
    this.#unstored.delete(association);
    try {
      store.remove(identity);
    } catch (thrown) {
      failed(events, 'state', thrown);
    }
    events.emit('dtls.closed', { identity, peer: place.address, reason, ...device });
  }
}

/** What CoAP knows of the peer of an association. */
const remoteOf = (association: Association | undefined): Remote | undefined =>
  association?.owner as Remote | undefined;

/** The device in an event about an association, where its name is not the identity. */
function deviceOf(association: Association): { readonly device?: string } {
  const device = remoteOf(association)?.identity;
  return device === undefined || device === association.identity ? {} : { device };
}

/** Tells keys apart without giving them away. */
const credentialMark = (key: Uint8Array): string =>
  createHmac('sha256', key).update('postern association').digest('base64url').slice(0, 16);

/** Whether a datagram is a Reset (RFC 7252 section 4.2). */
const isReset = (content: Buffer): boolean => content.length === 4 && ((content[0]! >> 4) & 3) === Type.RST;
