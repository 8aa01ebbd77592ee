import { type Clock, type Monotonic, pause, plus } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import { asPosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { backoff } from '../base/retry.ts';

/** What `untilAttached` needs from the device. */
export interface AttachmentParts {
  readonly deviceId: string;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** Aborted when the device stops. */
  readonly signal: AbortSignal;
}

const retry = { first: 1000, cap: 60_000, jitter: 0.5 } as const;
/** Most seconds that a gateway can have a device wait. It may have room before. */
const mostRetryAfter = 5;
/** Milliseconds between two looks at the own address. */
const lookEvery = 5000;

/**
 * Calls `attach` until it succeeds or the device stops, with growing delays in between. A gateway that says when to try again
 * is not asked before, and up to half as long after that, so that a crowd does not come back at once. Each failure is an event
 * with its reason and the time until the next attempt. Never rejects.
 */
export async function untilAttached(parts: AttachmentParts, attach: () => Promise<void>): Promise<void> {
  const { deviceId, clock, entropy, events, signal } = parts;
  const delays = backoff(retry, entropy);
  while (!signal.aborted) {
    try {
      await attach();
      return;
    } catch (thrown) {
      if (signal.aborted) return;
      const { code, message, retryAfter = 0 } = asPosternError(thrown);
      const asked = Math.min(retryAfter, mostRetryAfter) * 1000 * (1 + entropy.uniform() / 2);
      const delay = Math.max(delays.next().value, asked);
      events.emit('device.attach-failed', {
        device: deviceId,
        code,
        reason: message,
        retryInSeconds: Math.round(delay / 100) / 10,
      });
      await pause(clock, delay, signal).catch(() => {});
    }
  }
}

/** What `untilMoved` needs from the device. */
export interface MoveWatch extends Pick<AttachmentParts, 'deviceId' | 'clock' | 'events' | 'signal'> {
  /** The own address as the gateway sees it; undefined while there is no way to the gateway. */
  readonly address: () => string | undefined;
}

/**
 * Resolves when the own address has changed: a new lease, the next temporary IPv6 address, another network. The gateway
 * cannot know the new address before it hears from the device. Resolves at the time `until` at the latest.
 * @throws the reason of the signal when it is aborted
 */
export async function untilMoved(
  { deviceId, clock, events, signal, address }: MoveWatch,
  until = Number.POSITIVE_INFINITY as Monotonic,
): Promise<void> {
  let known = address();
  for (let now = clock.now(); now < until; now = clock.now()) {
    await pause(clock, Math.min(lookEvery, until - now), signal);
    const current = address();
    if (known !== undefined && current !== undefined && current !== known) {
      events.emit('device.address-changed', { device: deviceId, address: current });
      return;
    }
    known ??= current;
  }
}

type AttachedParts = AttachmentParts & Pick<MoveWatch, 'address'> & { readonly attachEvery: number };

/**
 * Keeps a device attached: attaches it again when its own address has changed, when its gateway does not answer, and after
 * `attachEvery` milliseconds.
 */
export class Attachment {
  readonly #parts: AttachedParts;
  readonly #attach: () => Promise<void>;
  #staying = new AbortController();

  constructor(parts: AttachedParts, attach: () => Promise<void>) {
    this.#parts = parts;
    this.#attach = attach;
  }

  /** Runs until the device stops. Never rejects. */
  async run(): Promise<void> {
    const { signal } = this.#parts;
    while (!signal.aborted) {
      await untilAttached(this.#parts, this.#attach);
      this.#staying = new AbortController();
      const either = AbortSignal.any([signal, this.#staying.signal]);
      const until = plus(this.#parts.clock.now(), this.#parts.attachEvery);
      await untilMoved({ ...this.#parts, signal: either }, until).catch(() => {});
    }
  }

  /** Attaches again. Does nothing while the device attaches already. */
  again(): void {
    this.#staying.abort();
  }
}

/** The time half a lifetime from now, which leaves time for two more tries. `lifetime` is in seconds. */
export const halfway = (clock: Clock, lifetime: number): Monotonic => plus(clock.now(), lifetime * 500);
