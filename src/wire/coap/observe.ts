import { Standing } from '../../base/admission.ts';
import type { Clock, Monotonic } from '../../base/clock.ts';
import { plus } from '../../base/clock.ts';
import { FairMap } from '../../base/fair-map.ts';
import { ownBytes } from '../../base/own-bytes.ts';
import type { CoapEndpoint } from './endpoint.ts';
import type { CoapRequest, Handler, Remote } from './message.ts';
import { Option, sorted, uint, uintOption } from './options.ts';

/**
 * Bounds of one observable resource. Beyond them a GET of a proven peer gets its response but is not registered. Peers that have
 * not proved themselves have a table of their own, where the oldest gives way.
 */
export interface ObserveLimits {
  /** Most observers of the resource that are proven. */
  readonly observers: number;
  /** Most observers with the same remote. */
  readonly observersPerPeer: number;
  /** Most others: in all, of one address, and of one prefix. */
  readonly unproven: { readonly entries: number; readonly perAddress: number; readonly perPrefix: number };
  /**
   * Milliseconds between confirmable notifications, by which the server notices that an observer has left. At most
   * 24 hours (RFC 7641 section 4.5).
   */
  readonly confirmEvery: number;
}

export const observeDefaults: ObserveLimits = {
  observers: 1024,
  observersPerPeer: 8,
  unproven: { entries: 256, perAddress: 16, perPrefix: 64 },
  confirmEvery: 3_600_000,
};

interface Observer {
  readonly remote: Remote;
  readonly token: Uint8Array;
  readonly request: CoapRequest;
  /** To be called when the observer is dropped. Until then the endpoint keeps the account of its peer. */
  readonly release: () => void;
  /** Message ID of the last notification, by which a Reset is matched. -1 before the first one. */
  messageId: number;
  nextConfirmable: Monotonic;
  /** A notification is being made or is on its way. Newer state waits until it is settled (RFC 7641 section 4.5.2). */
  inFlight: boolean;
  /** The resource changed while a notification was in flight. */
  stale: boolean;
}

/** Server side of RFC 7641 for one resource: registers observers and notifies them when the resource changes. */
export class Observable {
  readonly #clock: Clock;
  readonly #limits: ObserveLimits;
  readonly #endpoint: CoapEndpoint;
  readonly #represent: Handler;
  readonly #proven = new Map<string, Observer>();
  readonly #unproven: FairMap<Observer>;
  #sequence = 1;

  /** `represent` returns the current state of the resource as the response to a GET. */
  constructor(
    endpoint: CoapEndpoint,
    clock: Clock,
    represent: Handler,
    limits: ObserveLimits = observeDefaults,
  ) {
    this.#endpoint = endpoint;
    this.#clock = clock;
    this.#represent = represent;
    this.#limits = limits;
    this.#unproven = new FairMap(limits.unproven, (key, observer) => {
      if (!this.#promote(key, observer)) observer.release();
    });
    endpoint.resetListeners.add((remote, messageId) => this.#reset(remote, messageId));
  }

  /** Number of observers. */
  get size(): number {
    return this.#proven.size + this.#unproven.size;
  }

  /** Whether the endpoint has stopped, so that nobody can be notified any more. */
  get ended(): boolean {
    return this.#endpoint.stopped;
  }

  /** Handles a GET: registers the observer (Observe 0), deregisters it (Observe 1), or only returns the state. */
  readonly handle: Handler = async (request) => {
    const wish = uintOption(request.message.options, Option.Observe);
    const { key: peer, identity = '' } = request.remote;
    const key = `${peer} ${identity} ${Buffer.from(request.message.token).toString('hex')}`;
    if (wish === 1) this.#delete(key);
    const response = await this.#represent(request);
    if (wish !== 0 || request.multicast || !response || !this.#register(key, request)) return response;
    return { ...response, options: sorted([...response.options, uint(Option.Observe, this.#sequence)]) };
  };

  /** Notifies all observers that the resource changed. */
  changed(): void {
    this.#sequence = (this.#sequence + 1) & 0xffffff;
    for (const [key, observer] of this.#unproven.entries())
      if (this.#promote(key, observer)) this.#unproven.delete(key);
    for (const [key, observer] of this.#proven) void this.#notify(key, observer);
    for (const [key, observer] of this.#unproven.entries()) void this.#notify(key, observer);
  }

  #register(key: string, request: CoapRequest): boolean {
    const { remote, message, standing } = request;
    this.#delete(key);
    const observer: Observer = {
      remote: { address: remote.address, port: remote.port, key: remote.key },
      token: ownBytes(message.token),
      request,
      release: this.#endpoint.retain(remote),
      messageId: -1,
      nextConfirmable: plus(this.#clock.now(), this.#limits.confirmEvery),
      inFlight: false,
      stale: false,
    };
    if (standing !== Standing.Proven) this.#unproven.set(key, remote.address, observer);
    else if (!this.#add(key, observer)) {
      observer.release();
      return false;
    }
    return true;
  }

  /** Adds an observer whose peer is proven. Returns false when there is no room. */
  #add(key: string, observer: Observer): boolean {
    const { observers, observersPerPeer } = this.#limits;
    if (!this.#proven.has(key)) {
      if (this.#proven.size >= observers) return false;
      let ofPeer = 0;
      for (const { remote } of this.#proven.values()) if (remote.key === observer.remote.key) ofPeer++;
      if (ofPeer >= observersPerPeer) return false;
    }
    this.#proven.set(key, observer);
    return true;
  }

  /** Takes an observer over whose peer has proved itself since. Returns whether it is among the proven now. */
  #promote(key: string, observer: Observer): boolean {
    return this.#endpoint.isProven(observer.remote) && this.#add(key, observer);
  }

  #has(key: string): boolean {
    return this.#proven.has(key) || this.#unproven.has(key);
  }

  #delete(key: string): void {
    for (const observers of [this.#proven, this.#unproven]) {
      observers.get(key)?.release();
      observers.delete(key);
    }
  }

  /** Notifies one observer. One that cannot be notified is dropped; it can register again. Never rejects. */
  async #notify(key: string, observer: Observer): Promise<void> {
    try {
      await this.#send(key, observer);
    } catch (thrown) {
      this.#delete(key);
      this.#endpoint.failed('observers', thrown);
    }
  }

  async #send(key: string, observer: Observer): Promise<void> {
    if (observer.inFlight) {
      observer.stale = true;
      return;
    }
    // An unproven observer gets one datagram for each change, and the next one only after it has acknowledged this one. Its
    // address may be forged.
    const isProven = this.#endpoint.isProven(observer.remote);
    const confirmable = !isProven || observer.nextConfirmable <= this.#clock.now();
    if (confirmable) observer.nextConfirmable = plus(this.#clock.now(), this.#limits.confirmEvery);
    observer.inFlight = true;
    const response = await this.#represent(observer.request);
    if (!response || !this.#has(key)) return;
    const notification = {
      ...response,
      options: sorted([...response.options, uint(Option.Observe, this.#sequence)]),
    };
    const sealed = observer.request.seal ? await observer.request.seal(notification) : notification;
    if (!this.#has(key)) return;
    const { messageId, fate } = this.#endpoint.notify(observer.remote, observer.token, sealed, confirmable);
    observer.messageId = messageId;
    const delivery = await fate;
    observer.inFlight = false;
    if (delivery === 'reset' || delivery === 'lost') this.#delete(key);
    else if (observer.stale) {
      observer.stale = false;
      await this.#send(key, observer);
    }
  }

  #reset(remote: Remote, messageId: number): void {
    for (const observers of [this.#proven, this.#unproven])
      for (const [key, observer] of observers.entries())
        if (observer.remote.key === remote.key && observer.messageId === messageId) this.#delete(key);
  }
}
