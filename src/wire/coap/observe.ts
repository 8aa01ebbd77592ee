import type { Clock, Monotonic } from '../../base/clock.ts';
import { plus } from '../../base/clock.ts';
import type { CoapEndpoint } from './endpoint.ts';
import type { CoapRequest, Handler, Remote } from './message.ts';
import { Option, sorted, uint, uintOption } from './options.ts';

/** Bounds of one observable resource. Beyond them a GET gets its response but is not registered. */
export interface ObserveLimits {
  /** Most observers of the resource. */
  readonly observers: number;
  /** Most observers with the same remote. */
  readonly observersPerPeer: number;
  /**
   * Milliseconds between confirmable notifications, by which the server notices that an observer has left. At most
   * 24 hours (RFC 7641 section 4.5).
   */
  readonly confirmEvery: number;
}

export const observeDefaults: ObserveLimits = {
  observers: 1024,
  observersPerPeer: 8,
  confirmEvery: 3_600_000,
};

interface Observer {
  readonly remote: Remote;
  readonly token: Uint8Array;
  readonly request: CoapRequest;
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
  readonly #observers = new Map<string, Observer>();
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
    endpoint.resetListeners.add((remote, messageId) => this.#reset(remote, messageId));
  }

  /** Number of observers. */
  get size(): number {
    return this.#observers.size;
  }

  /** Whether the endpoint has stopped, so that nobody can be notified any more. */
  get ended(): boolean {
    return this.#endpoint.stopped;
  }

  /** Handles a GET: registers the observer (Observe 0), deregisters it (Observe 1), or only returns the state. */
  readonly handle: Handler = async (request) => {
    const wish = uintOption(request.message.options, Option.Observe);
    const key = `${request.remote.key} ${Buffer.from(request.message.token).toString('hex')}`;
    if (wish === 1) this.#observers.delete(key);
    const response = await this.#represent(request);
    if (wish !== 0 || request.multicast || !response || !this.#register(key, request)) return response;
    return { ...response, options: sorted([...response.options, uint(Option.Observe, this.#sequence)]) };
  };

  /** Notifies all observers that the resource changed. */
  changed(): void {
    this.#sequence = (this.#sequence + 1) & 0xffffff;
    for (const [key, observer] of this.#observers) void this.#notify(key, observer);
  }

  #register(key: string, request: CoapRequest): boolean {
    const known = this.#observers.has(key);
    const ofPeer = [...this.#observers.values()].filter(({ remote }) => remote.key === request.remote.key);
    if (
      !known &&
      (this.#observers.size >= this.#limits.observers || ofPeer.length >= this.#limits.observersPerPeer)
    )
      return false;
    const { remote, message } = request;
    this.#observers.set(key, {
      remote: { address: remote.address, port: remote.port, key: remote.key },
      token: Buffer.from(message.token),
      request,
      messageId: -1,
      nextConfirmable: plus(this.#clock.now(), this.#limits.confirmEvery),
      inFlight: false,
      stale: false,
    });
    return true;
  }

  /** Notifies one observer. One that cannot be notified is dropped; it can register again. Never rejects. */
  async #notify(key: string, observer: Observer): Promise<void> {
    try {
      await this.#send(key, observer);
    } catch (thrown) {
      this.#observers.delete(key);
      this.#endpoint.failed('observers', thrown);
    }
  }

  async #send(key: string, observer: Observer): Promise<void> {
    if (observer.inFlight) {
      observer.stale = true;
      return;
    }
    const confirmable = observer.nextConfirmable <= this.#clock.now();
    if (confirmable) observer.nextConfirmable = plus(this.#clock.now(), this.#limits.confirmEvery);
    observer.inFlight = true;
    const response = await this.#represent(observer.request);
    if (!response || !this.#observers.has(key)) return;
    const { messageId, fate } = this.#endpoint.notify(
      observer.remote,
      observer.token,
      { ...response, options: sorted([...response.options, uint(Option.Observe, this.#sequence)]) },
      confirmable,
    );
    observer.messageId = messageId;
    const delivery = await fate;
    observer.inFlight = false;
    if (delivery === 'reset' || delivery === 'lost') this.#observers.delete(key);
    else if (observer.stale) {
      observer.stale = false;
      await this.#send(key, observer);
    }
  }

  #reset(remote: Remote, messageId: number): void {
    for (const [key, observer] of this.#observers)
      if (observer.remote.key === remote.key && observer.messageId === messageId) this.#observers.delete(key);
  }
}
