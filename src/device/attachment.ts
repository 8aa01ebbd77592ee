import { type Clock, pause } from '../base/clock.ts';
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

/**
 * Calls `attach` until it succeeds or the device stops, with growing delays in between. Each failure is an event with
 * its reason and the time until the next attempt. Never rejects.
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
      const { code, message } = asPosternError(thrown);
      const delay = delays.next().value;
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
