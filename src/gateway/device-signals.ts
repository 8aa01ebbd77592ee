import { guarded } from '../base/background.ts';
import type { Events } from '../base/events.ts';
import type { PeerAddress } from './southbound/device-addresses.ts';
import type { Observer } from './southbound/observer.ts';
import type { Finding } from './southbound/presence.ts';

/** What a part of the gateway wants to hear of devices. */
export interface DeviceListener {
  /** A device proved itself, from this address; without an address over HTTP, which does not lead back to a device. */
  heard?(deviceId: string, from: PeerAddress | undefined): void;
  /** The gateway asks a device for a message. */
  asked?(deviceId: string): void;
  /** What it came to when the gateway asked a device whether it is there, or sent it something. */
  found?(deviceId: string, finding: Finding): void;
  /** A device is attached, or its record has changed; also one behind a child gateway. */
  attached?(deviceId: string): void;
  /** A device is no longer attached here. */
  detached?(deviceId: string): void;
  /** A device has sent values: of an observation by its name, or unasked. */
  valued?(...sent: Parameters<Observer['values']>): void;
  /** An update that a device had accepted has ended. `result` is a result code of FUMO. */
  updateEnded?(deviceId: string, correlator: string | undefined, result: number): void;
}

/**
 * Passes what one part of the gateway notices of a device on to the parts that act on it. So these parts need not know each
 * other. Listeners hear in the order in which they were added.
 */
export class DeviceSignals implements Required<DeviceListener> {
  readonly #listeners: DeviceListener[] = [];
  readonly #events: Events;

  constructor(events: Events) {
    this.#events = events;
  }

  add(...listeners: readonly DeviceListener[]): void {
    this.#listeners.push(...listeners);
  }

  heard(deviceId: string, from: PeerAddress | undefined): void {
    this.#tell((listener) => listener.heard?.(deviceId, from));
  }

  asked(deviceId: string): void {
    this.#tell((listener) => listener.asked?.(deviceId));
  }

  found(deviceId: string, finding: Finding): void {
    this.#tell((listener) => listener.found?.(deviceId, finding));
  }

  attached(deviceId: string): void {
    this.#tell((listener) => listener.attached?.(deviceId));
  }

  detached(deviceId: string): void {
    this.#tell((listener) => listener.detached?.(deviceId));
  }

  valued(...sent: Parameters<Observer['values']>): void {
    this.#tell((listener) => listener.valued?.(...sent));
  }

  /** Joins the caller's transaction, so what a listener throws goes to the caller: a result is not lost. */
  updateEnded(deviceId: string, correlator: string | undefined, result: number): void {
    for (const listener of this.#listeners) listener.updateEnded?.(deviceId, correlator, result);
  }

  /** Where one listener fails, the others hear all the same, and so does the device whose message was noticed. */
  #tell(call: (listener: DeviceListener) => void): void {
    for (const listener of this.#listeners) guarded(this.#events, 'device-work', call)(listener);
  }
}
