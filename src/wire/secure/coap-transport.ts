import type { Admission } from '../../base/admission.ts';
import { failed } from '../../base/background.ts';
import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import type { Events } from '../../base/events.ts';
import type { CoapEndpoint } from '../coap/endpoint.ts';
import type { Remote } from '../coap/message.ts';
import { remoteKey } from '../coap/peer.ts';
import type { Association, Place } from './dtls/association.ts';
import { DtlsEndpoint } from './dtls/endpoint.ts';

export interface CoapTransportParts {
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** The pre-shared key of an identity; undefined when it is unknown. */
  readonly keyOf: (identity: string) => Uint8Array | undefined;
  /** The entry that handshakes share with all other datagrams of strangers. */
  readonly admission: Admission;
  /** Most associations. */
  readonly associations: number;
}

/** What a socket of one local address gives to the transport. */
export interface SecureSocket {
  /** Sends one datagram. */
  readonly send: (datagram: Buffer, port: number, address: string) => void;
  /** Gets the content of each record, which is a datagram of CoAP. */
  readonly received: (content: Buffer, address: string, port: number) => void;
  /** The CoAP endpoint above the transport, once there is one. */
  readonly endpoint: () => CoapEndpoint;
}

/**
 * DTLS between the sockets and the CoAP endpoints of a gateway (RFC 7252 section 9.1). All local addresses share their
 * associations. To CoAP a peer is its association: it keeps exchanges and observations when the address of the peer changes.
 */
export class CoapTransport {
  readonly #events: Events;
  readonly #dtls: DtlsEndpoint;
  /** By local address. */
  readonly #sockets = new Map<string, SecureSocket>();
  readonly #remotes = new WeakMap<Association, Remote>();
  readonly #byKey = new Map<string, Association>();
  #opened = 0;

  constructor({ keyOf, admission, associations, ...machine }: CoapTransportParts) {
    const { events } = machine;
    this.#events = events;
    this.#dtls = new DtlsEndpoint({
      ...machine,
      send: (datagram, { address, port, local }) => this.#sockets.get(local)?.send(datagram, port, address),
      received: ({ place }, content) =>
        this.#sockets.get(place.local)?.received(content, place.address, place.port),
      opened: (association) => this.#welcome(association),
      closed: (association, reason) => {
        this.#forget(association);
        const { address } = association.place;
        events.emit('dtls.closed', { identity: association.identity, peer: address, reason });
      },
      refused: ({ address }, reason) => events.emit('dtls.refused', { peer: address, reason }),
      server: { keyOf, admits: (address) => admission.admits(address) },
      limits: { associations, sessions: associations },
    });
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
    } catch (thrown) {
      failed(this.#events, 'coap-datagram', thrown);
    }
  }

  /** Who is at an address and port. */
  remoteOf(address: string, port: number): Remote {
    const association = this.#dtls.at(address, port);
    const remote = association && this.#remotes.get(association);
    return remote ?? { address, port, key: remoteKey(address, port) };
  }

  /** Whether there is an association with the peer at this address and port. */
  reaches(address: string, port: number): boolean {
    return this.#dtls.at(address, port) !== undefined;
  }

  /** Ends what an identity has. Its next handshake needs its key. */
  revoke(identity: string): void {
    this.#dtls.revoke(identity);
  }

  stop(): void {
    this.#dtls.stop();
    this.#sockets.clear();
  }

  /** Makes the association known to CoAP. Its handshake is the proof that the peer receives at its address. */
  #welcome(association: Association): void {
    const { place, identity } = association;
    const { address, port }: Place = place;
    const remote = { address, port, key: `dtls ${this.#opened++}`, identity };
    this.#remotes.set(association, remote);
    this.#byKey.set(remote.key, association);
    this.#sockets.get(place.local)?.endpoint().vouch(remote);
    this.#events.emit('dtls.opened', { identity, peer: address });
  }

  #forget(association: Association): void {
    const remote = this.#remotes.get(association);
    if (remote) this.#byKey.delete(remote.key);
  }
}
