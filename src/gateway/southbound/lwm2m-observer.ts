import { background } from '../../base/background.ts';
import { type Clock, plus } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { Remote } from '../../wire/coap/message.ts';
import type { Registration } from '../store/registrations.ts';
import type { Arrivals } from './arrivals.ts';
import type { PeerAddress } from './device-addresses.ts';
import type { LwM2mReporting } from './lwm2m-reporting.ts';
import { ObservedClient } from './observed-client.ts';
import type { ObservationState, ObservationWish, Observer } from './observer.ts';
import { awakeFor } from './presence.ts';

export interface LwM2mObserverParts {
  /** The registration of a client that is attached here. */
  readonly clientOf: (device: string) => Registration | undefined;
  readonly arrivals: Pick<Arrivals, 'hasCome'>;
  readonly reporting: LwM2mReporting;
  readonly values: Observer['values'];
  /** Called when a notification has proved where a client is. */
  readonly heard: (device: string, from: PeerAddress) => void;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Clients with which observations are set up at a time. */
const atATime = 32;

/** Observes resources of the LwM2M clients that are registered here. Whoever wishes bounds the number of clients. */
export class LwM2mObserver implements Observer, AsyncDisposable {
  readonly values: Observer['values'];
  readonly #parts: LwM2mObserverParts;
  readonly #clients = new Map<string, ObservedClient>();
  /** Clients that are to be settled, in order. */
  readonly #waiting = new Set<string>();
  readonly #running = new Map<string, Promise<void>>();
  readonly #stop = new AbortController();

  constructor(parts: LwM2mObserverParts) {
    this.#parts = parts;
    this.values = parts.values;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new PosternError('unavailable', 'the gateway stops'));
    this.#waiting.clear();
    await Promise.all(this.#running.values());
    for (const client of this.#clients.values()) client.left();
    this.#clients.clear();
  }

  wish(device: string, wishes: readonly ObservationWish[]): void {
    if (this.#stop.signal.aborted) return;
    const known = this.#clients.get(device);
    if (!known && wishes.length === 0) return;
    const client = known ?? this.#clientOf(device);
    client.wish(wishes);
    this.#due(device);
  }

  stateOf(device: string, name: string): ObservationState | undefined {
    return this.#clients.get(device)?.stateOf(name);
  }

  /** To be called when a client was heard: it may have registered anew, or be awake. */
  heard(device: string): void {
    if (this.#clients.has(device)) this.#due(device);
  }

  /** To be called when a client is no longer attached. Its wishes wait until it is again. */
  detached(device: string): void {
    const client = this.#clients.get(device);
    client?.left();
    if (client?.isIdle) this.#clients.delete(device);
  }

  #clientOf(device: string): ObservedClient {
    const { reporting, values, heard, clientOf, clock, entropy, events } = this.#parts;
    const client = new ObservedClient(device, {
      reporting,
      values: (name, found) => values(device, name, found),
      heard: ({ address, port }: Remote) =>
        heard(device, { address, port, heardOn: clientOf(device)?.heardOn }),
      due: () => this.#due(device),
      clock,
      entropy,
      events,
    });
    this.#clients.set(device, client);
    return client;
  }

  /** Settles a client as soon as there is room, if it listens and there is anything to do. */
  #due(device: string): void {
    if (this.#stop.signal.aborted || !this.#isDue(device)) {
      if (this.#clients.get(device)?.isIdle && !this.#running.has(device)) this.#clients.delete(device);
      return;
    }
    this.#waiting.add(device);
    this.#next();
  }

  #isDue(device: string): boolean {
    const { clientOf, arrivals, clock } = this.#parts;
    const registration = clientOf(device);
    if (!registration || !this.#clients.get(device)?.isDue(registration)) return false;
    return !registration.queueMode || arrivals.hasCome(device, registration, plus(clock.now(), -awakeFor));
  }

  #next(): void {
    for (const device of this.#waiting) {
      if (this.#running.size >= atATime) return;
      if (this.#running.has(device)) continue;
      this.#waiting.delete(device);
      this.#running.set(device, this.#settle(device));
    }
  }

  async #settle(device: string): Promise<void> {
    const { signal } = this.#stop;
    await background(
      this.#parts.events,
      'device-work',
      async () => {
        const registration = this.#parts.clientOf(device);
        if (registration) await this.#clients.get(device)?.settle(registration, signal);
      },
      signal,
    );
    this.#running.delete(device);
    if (signal.aborted) return;
    // What was wished meanwhile.
    this.#due(device);
    this.#next();
  }
}
