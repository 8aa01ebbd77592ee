import type { Remote } from '../wire/coap/message.ts';

/** What a part of the gateway wants to hear of devices. */
export interface DeviceListener {
  /** A device proved itself, from this address. */
  heard?(deviceId: string, remote: Remote): void;
  /** A device is no longer attached here. */
  detached?(deviceId: string): void;
  /** An update that a device had accepted has ended. `result` is a result code of FUMO. */
  updateEnded?(deviceId: string, correlator: string | undefined, result: number): void;
}

/**
 * Passes what one part of the gateway notices of a device on to the parts that act on it. So these parts need not know each
 * other. Listeners hear in the order in which they were added.
 */
export class DeviceSignals implements Required<DeviceListener> {
  readonly #listeners: DeviceListener[] = [];

  add(...listeners: readonly DeviceListener[]): void {
    this.#listeners.push(...listeners);
  }

  heard(deviceId: string, remote: Remote): void {
    for (const listener of this.#listeners) listener.heard?.(deviceId, remote);
  }

  detached(deviceId: string): void {
    for (const listener of this.#listeners) listener.detached?.(deviceId);
  }

  updateEnded(deviceId: string, correlator: string | undefined, result: number): void {
    for (const listener of this.#listeners) listener.updateEnded?.(deviceId, correlator, result);
  }
}
