import { type Clock, pause } from '../../base/clock.ts';
import { asPosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';

/** One condition of a healthy gateway. Returns why it does not hold, or undefined when it holds. */
export type HealthCheck = () => Promise<string | undefined> | string | undefined;

export interface HealthGateParts {
  readonly checks: readonly HealthCheck[];
  /** Milliseconds within which all conditions must hold. */
  readonly deadline: number;
  readonly clock: Clock;
  readonly events: Events;
}

/** Milliseconds between two rounds of checks. */
const interval = 1000;

/**
 * Waits until all conditions hold in one round of checks. Returns undefined then; at the deadline it returns why a
 * condition did not hold.
 * @throws the reason of the signal when it is aborted
 */
export async function passHealthGate(
  { checks, deadline, clock, events }: HealthGateParts,
  signal: AbortSignal,
): Promise<string | undefined> {
  const begun = clock.now();
  let last: string | undefined;
  for (;;) {
    let complaint: string | undefined;
    for (const check of checks) complaint ??= await complaintOf(check);
    if (complaint === undefined) return undefined;
    if (complaint !== last) events.emit('update.not-healthy-yet', { reason: complaint });
    last = complaint;
    if (clock.now() - begun + interval > deadline) return complaint;
    await pause(clock, interval, signal);
  }
}

/** A check that throws complains of what it threw. */
async function complaintOf(check: HealthCheck): Promise<string | undefined> {
  try {
    return await check();
  } catch (thrown) {
    return asPosternError(thrown).message;
  }
}
