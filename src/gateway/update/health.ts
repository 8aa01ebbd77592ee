import { type Clock, pause } from '../../base/clock.ts';
import type { Events } from '../../base/events.ts';

/** One thing that must hold for a gateway to be healthy: resolves with why it does not, or with nothing. */
export type HealthCheck = () => Promise<string | undefined> | string | undefined;

export interface HealthGateParts {
  readonly checks: readonly HealthCheck[];
  /** Milliseconds. */
  readonly deadline: number;
  readonly clock: Clock;
  readonly events: Events;
}

/** Milliseconds between looks. */
const interval = 1000;

/**
 * Waits until everything holds at the same time. Answers with nothing, or at the deadline with what did not hold.
 * @throws the reason of the signal
 */
export async function passHealthGate(
  { checks, deadline, clock, events }: HealthGateParts,
  signal: AbortSignal,
): Promise<string | undefined> {
  const begun = clock.now();
  let last: string | undefined;
  for (;;) {
    let complaint: string | undefined;
    for (const check of checks) complaint ??= await check();
    if (complaint === undefined) return undefined;
    if (complaint !== last) events.emit('update.not-healthy-yet', { reason: complaint });
    last = complaint;
    if (clock.now() - begun + interval > deadline) return complaint;
    await pause(clock, interval, signal);
  }
}
