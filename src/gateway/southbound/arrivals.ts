import { BoundedMap } from '../../base/bounded-map.ts';
import type { Clock, Monotonic } from '../../base/clock.ts';
import { type PeerAddress, rememberedDevices } from './device-addresses.ts';

interface Arrival {
  readonly at: Monotonic;
  /** Absent over HTTP. */
  readonly from: PeerAddress | undefined;
}

const isAt = (from: PeerAddress | undefined, { address, port }: PeerAddress): boolean =>
  from?.address === address && from.port === port;

/** The last proven message of each device, and who waits for the next one. */
export class Arrivals {
  readonly #clock: Clock;
  readonly #start: Monotonic;
  readonly #last: BoundedMap<string, Arrival>;
  readonly #stop = new AbortController();
  readonly #waiting = new Map<string, Set<(from: PeerAddress | undefined) => void>>();

  /** @param limit maximum number of remembered devices. The device heard longest ago is forgotten first */
  constructor(clock: Clock, limit: number = rememberedDevices) {
    this.#clock = clock;
    this.#last = new BoundedMap(limit);
    this.#start = clock.now();
  }

  /** To be called when a device has proved itself by a message from this address. */
  heard(deviceId: string, from: PeerAddress | undefined): void {
    this.#last.set(deviceId, { at: this.#clock.now(), from });
    for (const settle of this.#waiting.get(deviceId) ?? []) settle(from);
  }

  /** When the device was heard last; the start of the gateway, if the device was not heard since. */
  lastOf(deviceId: string): Monotonic {
    return this.#last.get(deviceId)?.at ?? this.#start;
  }

  /** Whether the last message of a device came from this address, and not before `since`. */
  hasCome(deviceId: string, peer: PeerAddress, since: Monotonic): boolean {
    const last = this.#last.get(deviceId);
    return last !== undefined && isAt(last.from, peer) && last.at >= since;
  }

  /** Ends all waiting. */
  stop(): void {
    this.#stop.abort();
  }

  /**
   * Waits for a message of a device since `since`. Resolves with whether it came from this address. Resolves with false
   * after `timeout` milliseconds, or when the signal is aborted.
   */
  async next(
    deviceId: string,
    peer: PeerAddress,
    { since, timeout, signal }: { since: Monotonic; timeout: number; signal?: AbortSignal | undefined },
  ): Promise<boolean> {
    if (this.lastOf(deviceId) >= since) return this.hasCome(deviceId, peer, since);
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const waiters = this.#waiting.get(deviceId) ?? new Set();
    const settle = (from: PeerAddress | undefined) => resolve(isAt(from, peer));
    const giveUp = () => resolve(false);
    const end = signal ? AbortSignal.any([signal, this.#stop.signal]) : this.#stop.signal;
    waiters.add(settle);
    this.#waiting.set(deviceId, waiters);
    const timer = this.#clock.after(timeout, giveUp);
    end.addEventListener('abort', giveUp, { once: true });
    if (end.aborted) giveUp();
    try {
      return await promise;
    } finally {
      timer.cancel();
      end.removeEventListener('abort', giveUp);
      waiters.delete(settle);
      if (waiters.size === 0) this.#waiting.delete(deviceId);
    }
  }
}
