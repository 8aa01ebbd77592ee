import type { Admission } from '../../base/admission.ts';
import { background, failed, guarded } from '../../base/background.ts';
import type { Clock, Timer } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import type { Events } from '../../base/events.ts';
import { presentable } from '../../base/presentable.ts';
import { ToldCauses } from '../../base/told-causes.ts';
import { isEmpty, Type } from '../coap/codec.ts';
import type { CoapEndpoint } from '../coap/endpoint.ts';
import type { Remote } from '../coap/message.ts';
import { remoteKey } from '../coap/peer.ts';
import { deviceOf, type Owner, remoteOf } from './association-owner.ts';
import {
  type AssociationStore,
  credentialMark,
  reservedBlock,
  type StoredAssociation,
} from './association-store.ts';
import { Association, type Place } from './dtls/association.ts';
import { tableFull } from './dtls/association-table.ts';
import { isStillTrusted } from './dtls/certificate-check.ts';
import type { Certificates } from './dtls/certificates.ts';
import { DtlsEndpoint } from './dtls/endpoint.ts';
import { mostContent } from './dtls/server-choice.ts';
import { OwnAssociation } from './own-association.ts';

/**
 * Milliseconds after which new associations are stored, all together. Those that ended before are never written: a device that comes
 * and goes again and again wears no flash. After a power cut, those that were not stored yet shake hands again.
 */
const storeAfter = 5000;
/** Milliseconds in which it is told once that there is no room for further associations. */
const fullToldEvery = 3_600_000;
/** Milliseconds in which an association that ends may still get an answer. */
const farewell = 2000;
/** Milliseconds for the answer to a ping. It is shorter than the time after which a ping is sent again. */
const probeTime = 1900;
/** Most associations that are pinged at one time. The others wait, so that 5,000 devices after a power cut do not repeat in vain. */
const mostProbes = 512;

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
  readonly ownerOf?: (identity: string, proof: string | undefined) => Owner;
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
  /**
   * Gets the content of each record, which is a datagram of CoAP, and whose association it came through. The address does not say
   * that: several peers may have associations at one address and port.
   */
  readonly received: (content: Buffer, remote: Remote) => void;
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
  readonly #dtls: DtlsEndpoint;
  /** The association that this end opens. */
  readonly own: OwnAssociation;
  /** By local address. */
  readonly #sockets = new Map<string, SecureSocket>();
  readonly #byKey = new Map<string, Association>();
  readonly #probing = new Set<Association>();
  /** Those that are pinged next. */
  readonly #toProbe = new Set<Association>();
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
  readonly #full: ToldCauses;
  #moved: (former: Place, remote: Remote, local: string) => void = () => {};

  constructor(parts: CoapTransportParts) {
    const { clock, entropy, events, keyOf, certificates, admission, associations, store } = parts;
    this.#parts = parts;
    this.#full = new ToldCauses({ period: fullToldEvery, causes: 1 }, clock);
    this.#dtls = new DtlsEndpoint({
      clock,
      entropy,
      send: (datagram, { address, port, local }) => this.#sockets.get(local)?.send(datagram, port, address),
      received: (association, content) => this.#received(association, content),
      opened: (association) => this.#welcome(association),
      moved: (association) => this.#probe(association),
      runningOut: (association) => this.#reserve(association),
      closed: (association, reason) => this.#forget(association, reason),
      refused: ({ address }, reason, claimed) => {
        const { identity: owner } = this.#parts.ownerOf?.(claimed, undefined) ?? { identity: claimed };
        // Whose identity this is, if anybody's: then the key is wrong. The sender does not learn it.
        const device = this.#parts.keyOf(claimed) ? owner : undefined;
        const named = claimed && {
          identity: presentable(claimed),
          ...(device !== undefined && { device }),
        };
        events.emit('dtls.refused', { peer: address, reason, ...named });
      },
      server: {
        keyOf,
        ...(certificates && { certificates }),
        admits: (address, tokens) => admission.admits(address, tokens),
      },
      limits: { associations, sessions: associations },
    });
    this.own = new OwnAssociation({
      dtls: this.#dtls,
      opened: (association, owner) => {
        const { identity, place } = association;
        this.#own(association, owner);
        events.emit('dtls.opened', { identity, peer: place.address, ...deviceOf(association) });
      },
      forget: (association, reason) => this.#forget(association, reason),
    });
    this.#stored = store.load();
  }

  /**
   * Takes up the associations of earlier runs. To be called once, when what `load` counted is durable: without that, another run
   * could use the same sequence numbers.
   * @param heardAt when a device was heard last: at the bound, those that were silent for longest give way, as before the restart
   */
  restore(heardAt: (device: string) => number): void {
    const at = (association: Association) => heardAt(remoteOf(association)?.identity ?? '');
    const all = this.#stored.flatMap((stored) => this.#restored(stored) ?? []);
    this.#stored = [];
    for (const each of all.toSorted((one, other) => at(one) - at(other))) this.#dtls.restore(each);
  }

  /** Sets what is called when a peer has moved: after it has answered at its new place. */
  onMoved(listener: (former: Place, remote: Remote, local: string) => void): void {
    this.#moved = listener;
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
      this.#dtls.send(association, content, this.#probing.has(association) && isEmpty(content, Type.CON));
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

  /** Whether the association of a peer with this key has not ended. */
  has(key: string): boolean {
    return this.#byKey.has(key);
  }

  /** Whether there is an association with the peer at this address and port. */
  reaches(address: string, port: number): boolean {
    return this.#dtls.at(address, port) !== undefined;
  }

  /**
   * Ends what an identity has, as `revoke`. The association that was heard last ends after the next datagram to it, or after
   * `farewell` milliseconds: it waits for the answer to what it asked.
   */
  retire(identity: string): void {
    const last = this.#dtls.of(identity).at(-1);
    const key = remoteOf(last)?.key;
    this.#dtls.revoke(identity, last);
    if (key === undefined) return;
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
    const all = [...this.#dtls.associations].filter(({ isClient }) => !isClient);
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
      if (!isEmpty(content, Type.RST)) return;
    }
    socket.received(content, remote);
  }

  #socketOf({ place, candidate }: Association): SecureSocket | undefined {
    return this.#sockets.get(place.local) ?? (candidate && this.#sockets.get(candidate.place.local));
  }

  /** Pings the peer once. Its answer confirms its new place, and that a restored association is fresh. */
  #probe(association: Association): void {
    const socket = this.#socketOf(association);
    const { candidate } = association;
    const remote = remoteOf(association);
    if (!socket || !remote || this.#probing.has(association)) return;
    if (this.#probing.size >= mostProbes) {
      this.#toProbe.add(association);
      return;
    }
    this.#toProbe.delete(association);
    this.#probing.add(association);
    void background(this.#parts.events, 'coap-datagram', async () => {
      // A ping that could not be sent says nothing. The next record leads to another one.
      const isThere = await socket.endpoint.pingTo(remote, probeTime).catch(() => false);
      this.#probing.delete(association);
      for (const next of this.#toProbe) {
        this.#toProbe.delete(next);
        this.#probe(next);
        break;
      }
      if (!isThere) return;
      if (association.isStale) association.refresh();
      if (candidate) this.#follow(association, candidate);
    });
  }

  #follow(association: Association, candidate: NonNullable<Association['candidate']>): void {
    const { place: former } = association;
    this.#dtls.confirm(association, candidate);
    const { address, port } = association.place;
    const remote = remoteOf(association);
    if (!remote || association.place !== candidate.place) return;
    association.owner = { ...remote, address, port } satisfies Remote;
    this.#storeLater(association);
    this.#parts.events.emit('dtls.moved', {
      identity: association.identity,
      peer: address,
      before: former.address,
    });
    this.#moved(former, association.owner as Remote, association.place.local);
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
    const { identity, proof } = association;
    this.#own(association, this.#parts.ownerOf?.(identity, proof) ?? { identity });
  }

  #own(association: Association, { identity, credential, party }: Owner): void {
    const { place, peerLimit } = association;
    const { address, port } = place;
    const datagramBytes = peerLimit < mostContent ? peerLimit : undefined;
    const key = `dtls ${this.#opened++}`;
    // With a spread each of them would take more memory.
    const remote: Remote = { address, port, key, identity, credential, party, datagramBytes };
    association.owner = remote;
    this.#byKey.set(remote.key, association);
  }

  #restored({ state, credential, isClean }: StoredAssociation): Association | undefined {
    const { identity, proof, sent } = state;
    const isValid =
      proof === undefined ? credential === this.#credentialOf(identity) : this.#isTrusted(identity, proof);
    if (!isValid) {
      this.#parts.store.remove(state);
      return undefined;
    }
    const association = Association.restore(state, sent + reservedBlock, !isClean);
    state.keys.fill(0);
    this.#adopt(association);
    return association;
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
    this.#storing ??= clock.after(storeAfter, () => {
      this.#storing = undefined;
      void background(events, 'state', async () => {
        const all = [...this.#unstored];
        // Where nothing can be stored, they live until the process ends.
        this.#unstored.clear();
        store.save(all.map((each) => this.#record(each, each.reserved - reservedBlock, false)));
        // Nothing else may be written for long. A power cut would take what is not synced.
        await store.settled();
      });
    });
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
    const { identity, place, isClient } = association;
    const { events, store } = this.#parts;
    const device = deviceOf(association);
    if (reason === tableFull && this.#full.count('') !== undefined)
      events.emit('dtls.full', { associations: this.#parts.associations });
    const ended = this.own.end(association);
    this.#byKey.delete(remoteOf(association)?.key ?? '');
    this.#byKey.delete(this.#formerKeys.get(association) ?? '');
    association.owner = undefined;
    this.#unstored.delete(association);
    this.#toProbe.delete(association);
    try {
      if (!isClient) store.remove(association);
    } catch (thrown) {
      failed(events, 'state', thrown);
    }
    events.emit('dtls.closed', { identity, peer: place.address, reason, ...device });
    ended?.(reason);
  }
}
