import { BoundedMap } from './bounded-map.ts';
import { type Clock, pause } from './clock.ts';
import { type Entropy, systemEntropy } from './entropy.ts';
import { asPosternError } from './errors.ts';
import type { Events } from './events.ts';
import { backoff } from './retry.ts';

/**
 * All kinds of work that runs in the background: nobody waits for its result, so nobody else would see its error. The
 * field `work` of `background.failed` in docs/events.toml says what each of them is.
 */
export const works = [
  'admin-api',
  'alerts',
  'api',
  'bootstrap',
  'campaign',
  'certificate',
  'coap-datagram',
  'coap-response',
  'device',
  'device-coap',
  'device-firmware',
  'device-work',
  'enrolment',
  'http',
  'image',
  'interfaces',
  'log',
  'lwm2m-update',
  'mqtt-link',
  'mqtt-message',
  'notification',
  'observers',
  'order',
  'package',
  'parent-link',
  'presence',
  'registration',
  'session-end',
  'state',
  'telemetry',
  'timer',
  'trigger',
  'uncaught',
  'update',
  'uplink',
  'watchdog',
] as const;
export type BackgroundWork = (typeof works)[number];

/** How often a kind of work failed for one reason since the start. */
export interface BackgroundFailure {
  readonly work: BackgroundWork;
  /** The latest one, where `limits.reasons` is exceeded. */
  readonly reason: string;
  readonly failures: number;
}

/** Reasons that are told apart for each kind of work; the rest is counted together. Characters of a reason. */
const limits = { reasons: 8, characters: 300 } as const;
/** Milliseconds between attempts at work that is repeated. */
const retry = { first: 1000, cap: 60_000, jitter: 0.5 } as const;

/** Failures of each party: a party has one `Events` for all of its parts. */
const ledgers = new WeakMap<Events, BoundedMap<string, BackgroundFailure>>();

/** The failures of background work since the start. `events` is what the parts of the party emit to. */
export const failuresOf = (events: Events): readonly BackgroundFailure[] => [
  ...(ledgers.get(events)?.values() ?? []),
];

/**
 * Counts a failure of background work, and emits `background.failed` for the first, tenth, hundredth, … failure with
 * the same reason. Never throws.
 */
export function failed(events: Events, work: BackgroundWork, thrown: unknown): void {
  try {
    const ledger = ledgers.get(events) ?? new BoundedMap(works.length * (limits.reasons + 1));
    ledgers.set(events, ledger);
    const { message, stack } = asPosternError(thrown);
    const reason = message.slice(0, limits.characters);
    const ofWork = [...ledger.values()].filter((each) => each.work === work);
    const named = `${work} ${reason}`;
    const key = ledger.has(named) || ofWork.length < limits.reasons ? named : work;
    const failures = (ledger.get(key)?.failures ?? 0) + 1;
    ledger.set(key, { work, reason, failures });
    if (/^10*$/.test(String(failures))) events.emit('background.failed', { work, reason, failures, stack });
  } catch {
    // The place that takes all errors has nowhere to report its own.
  }
}

/**
 * Runs work in the background. An error is counted by `failed`, unless `signal` is aborted: then the work was meant to
 * end. Never rejects.
 */
export async function background(
  events: Events,
  work: BackgroundWork,
  run: () => unknown,
  signal?: AbortSignal,
): Promise<void> {
  try {
    await run();
  } catch (thrown) {
    if (!signal?.aborted) failed(events, work, thrown);
  }
}

/** Makes a callback for a timer, socket or stream that never throws: errors are counted by `failed`. */
export const guarded =
  <Args extends unknown[]>(events: Events, work: BackgroundWork, callback: (...args: Args) => unknown) =>
  (...args: Args): void => {
    try {
      const result = callback(...args);
      if (result instanceof Promise) result.catch((thrown) => failed(events, work, thrown));
    } catch (thrown) {
      failed(events, work, thrown);
    }
  };

export interface PersistentParts {
  readonly clock: Clock;
  /** The system's random numbers when absent. */
  readonly entropy?: Entropy;
  readonly events: Events;
}

/**
 * Runs work until it has succeeded once or `signal` is aborted. Each error is counted by `failed`, and the work is
 * repeated after a delay that grows from a second to a minute. Returns whether it has succeeded. Never rejects.
 */
export async function persistently(
  { clock, entropy = systemEntropy, events }: PersistentParts,
  work: BackgroundWork,
  run: () => unknown,
  signal: AbortSignal,
): Promise<boolean> {
  const delays = backoff(retry, entropy);
  while (!signal.aborted) {
    try {
      await run();
      return true;
    } catch (thrown) {
      if (signal.aborted) return false;
      failed(events, work, thrown);
      await pause(clock, delays.next().value, signal).catch(() => {});
    }
  }
  return false;
}
