import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock } from '../base/clock.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Jobs } from '../dm/jobs.ts';
import type { Operation, OperationOutcome } from '../dm/server-session.ts';
import { DmStatus } from '../dm/status.ts';

/** What a device's own session came to that a trigger asked for. */
export interface TriggeredDevice {
  readonly device: string;
  /** 0 while nothing is known, 200, or the error's status. */
  readonly status: number;
  readonly outcomes: readonly OperationOutcome[];
}

/** Triggers whose sessions are remembered; the oldest is forgotten. */
const triggerBound = 64;

/** Sessions that triggers asked for: what is to be done in each waits for its device until a deadline. */
export class TriggeredSessions {
  readonly #jobs: Jobs;
  readonly #clock: Clock;
  readonly #known = new BoundedMap<string, Map<string, TriggeredDevice>>(triggerBound);
  readonly #stop = new AbortController();

  constructor(jobs: Jobs, clock: Clock) {
    this.#jobs = jobs;
    this.#clock = clock;
  }

  /** `deadline` is in seconds. */
  begin(key: string, devices: readonly string[], operations: readonly Operation[], deadline: number): void {
    const sessions = new Map<string, TriggeredDevice>(
      devices.map((device) => [device, { device, status: 0, outcomes: [] }]),
    );
    this.#known.set(key, sessions);
    for (const device of devices) void this.#await(sessions, device, operations, deadline);
  }

  of(key: string): TriggeredDevice[] | undefined {
    const found = this.#known.get(key);
    return found && [...found.values()];
  }

  stop(): void {
    this.#stop.abort(new PosternError('unavailable', 'the server stops'));
  }

  async #await(
    sessions: Map<string, TriggeredDevice>,
    device: string,
    operations: readonly Operation[],
    deadline: number,
  ): Promise<void> {
    const giveUp = new AbortController();
    const timer = this.#clock.after(deadline * 1000, () =>
      giveUp.abort(new PosternError('timeout', `${device} opened no session in ${deadline} s`)),
    );
    try {
      const signal = AbortSignal.any([giveUp.signal, this.#stop.signal]);
      const outcomes = await this.#jobs.run(device, operations, signal);
      sessions.set(device, { device, status: DmStatus.Ok, outcomes });
    } catch (thrown) {
      sessions.set(device, { device, status: asPosternError(thrown).dmStatus, outcomes: [] });
    } finally {
      timer.cancel();
    }
  }
}
