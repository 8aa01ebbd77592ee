import { background } from '../base/background.ts';
import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock } from '../base/clock.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import type { Jobs } from '../dm/jobs.ts';
import type { Operation, OperationOutcome } from '../dm/server-session.ts';
import { DmStatus } from '../dm/status.ts';

/** State of the session that a trigger requested from one device. */
export interface TriggeredDevice {
  readonly device: string;
  /** 0 until the session has ended, 200 when its operations are done, otherwise the DM status of the error. */
  readonly status: number;
  /** One per operation, in their order. Empty unless `status` is 200. */
  readonly outcomes: readonly OperationOutcome[];
}

/** A trigger that a gateway has accepted. */
interface Trigger {
  readonly gateway: string;
  /** Unique per gateway. A later trigger of the same name takes the place of an earlier one. */
  readonly name: string;
  readonly devices: readonly string[];
  /** The operations of each session. */
  readonly operations: readonly Operation[];
  /** Seconds that each device may take to open its session and finish the operations. */
  readonly deadline: number;
}

/** Triggers whose sessions are remembered. The oldest is dropped. */
const triggerLimit = 64;

/** Keeps the operations of triggered sessions until the devices open these sessions, and remembers the outcomes. */
export class TriggeredSessions {
  readonly #jobs: Jobs;
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #triggers = new BoundedMap<string, Map<string, TriggeredDevice>>(triggerLimit);
  readonly #stop = new AbortController();

  constructor(jobs: Jobs, clock: Clock, events: Events) {
    this.#jobs = jobs;
    this.#clock = clock;
    this.#events = events;
  }

  /** Queues the operations for every device of a trigger. Does not wait for the sessions. */
  begin({ gateway, name, devices, operations, deadline }: Trigger): void {
    const sessions = new Map<string, TriggeredDevice>(
      devices.map((device) => [device, { device, status: 0, outcomes: [] }]),
    );
    this.#triggers.set(keyOf(gateway, name), sessions);
    for (const device of devices)
      void background(this.#events, 'trigger', () => this.#run(sessions, device, operations, deadline));
  }

  /** Returns the sessions of a trigger, one per device. Undefined when the trigger is unknown or dropped. */
  of(gateway: string, name: string): TriggeredDevice[] | undefined {
    const found = this.#triggers.get(keyOf(gateway, name));
    return found && [...found.values()];
  }

  /** Gives up all sessions that have not ended. */
  stop(): void {
    this.#stop.abort(new PosternError('unavailable', 'the server stops'));
  }

  async #run(
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

const keyOf = (gateway: string, name: string): string => `${gateway} ${name}`;
