import type { Clock, Timer } from '../base/clock.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import type { Operation, OperationOutcome } from '../dm/server-session.ts';
import { DmStatus, isOk } from '../dm/status.ts';
import type { FanoutRunner } from '../mo/fanout-branch.ts';
import type { FanoutOrder } from '../mo/fanout-order.ts';
import { type DeviceOutcome, type FanoutSummary, summaryXml } from '../mo/fanout-result.ts';
import { FanoutState } from '../mo/gw-fanout.ts';
import type { Fanouts } from '../store/fanouts.ts';
import type { ManageOptions } from './proxy.ts';

export interface FanOutParts {
  readonly fanouts: Fanouts;
  readonly clock: Clock;
  readonly events: Events;
  /** Reads the order of a fan-out again, after a restart. */
  readonly order: (name: string) => FanoutOrder;
  readonly manage: (
    deviceId: string,
    operations: readonly Operation[],
    options: ManageOptions,
  ) => Promise<readonly OperationOutcome[]>;
  /** A fan-out has ended: its result is to go to the DM server. */
  readonly ended: (name: string, correlator: string | undefined, result: string) => void;
}

/** Devices in session for one fan-out at one time; fan-outs that run at one time. */
export const fanOutLimits = { parallel: 16, running: 8 } as const;

interface Running {
  readonly order: FanoutOrder;
  readonly waiting: string[];
  readonly done: Promise<void>;
  stop(state: number): void;
}

/**
 * Fan-out (GwMO): one command set, many devices, one result. Targets are those of the start. How each device stands is
 * durable before it is acted on, so a restart goes on where it was: a device whose session had begun with a command that
 * cannot be done twice is reported as unknown, and not asked again.
 */
export class FanOut implements AsyncDisposable, FanoutRunner {
  readonly #parts: FanOutParts;
  readonly #running = new Map<string, Running>();
  readonly #stop = new AbortController();

  constructor(parts: FanOutParts) {
    this.#parts = parts;
  }

  /** Goes on with what was running when the gateway ended. */
  resume(): void {
    const { fanouts, order } = this.#parts;
    for (const { name, state } of fanouts.runs()) {
      if (state !== FanoutState.Running) continue;
      const found = order(name);
      const repeatable = !hasExec(found.operations);
      for (const { device, state: at } of fanouts.targets(name))
        if (at === 'begun' && !repeatable) this.#settle(name, device, { status: unknownOutcome, parts: [] });
        else if (at === 'begun') fanouts.setTarget(name, device, 'pending');
      this.#run(found);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new PosternError('unavailable', 'the gateway stops'));
    await Promise.all([...this.#running.values()].map(({ done }) => done));
  }

  /**
   * Starts a fan-out. Answers with 202, and the result comes later; with 200 when there is no device to reach.
   * @throws {PosternError} `conflict` while it runs, `full` when too many do
   */
  start(order: FanoutOrder, correlator: string | undefined): number {
    const { fanouts, events } = this.#parts;
    const { name, devices } = order;
    if (this.#running.has(name)) throw new PosternError('conflict', `fan-out ${name} is running`);
    if (this.#running.size >= fanOutLimits.running)
      throw new PosternError('full', `${fanOutLimits.running} fan-outs are running`);
    const state = devices.length === 0 ? FanoutState.Done : FanoutState.Running;
    fanouts.begin({ name, state, correlator }, devices);
    events.emit('info', 'fanout.started', { fanout: name, devices: devices.length });
    if (devices.length === 0) return DmStatus.Ok;
    this.#run(order);
    return DmStatus.AcceptedForProcessing;
  }

  /** Devices that were not reached yet are left alone. Answers with 200, or 404 when it does not run. */
  cancel(name: string): number {
    const running = this.#running.get(name);
    if (!running) return DmStatus.NotFound;
    running.stop(FanoutState.Cancelled);
    return DmStatus.Ok;
  }

  /** It is deleted: what runs is cancelled, and nobody is told. */
  forget(name: string): void {
    this.#running.get(name)?.stop(FanoutState.Cancelled);
    this.#parts.fanouts.delete(name);
  }

  summary(name: string): FanoutSummary {
    const { fanouts } = this.#parts;
    const targets = fanouts.targets(name);
    const ended = targets.flatMap(({ device, outcome }) =>
      outcome === undefined ? [] : [{ ...(JSON.parse(outcome) as DeviceOutcome), device }],
    );
    const done = ended.filter(({ status }) => isOk(status)).length;
    return {
      state: fanouts.run(name)?.state ?? FanoutState.Idle,
      total: targets.length,
      done,
      failed: ended.length - done,
      pending: targets.length - ended.length,
      outcomes: ended,
    };
  }

  #run(order: FanoutOrder): void {
    const { fanouts, clock } = this.#parts;
    const waiting = fanouts
      .targets(order.name)
      .filter(({ state }) => state === 'pending')
      .map(({ device }) => device);
    const deadline = clock.after(order.deadline, () => stop(FanoutState.Done));
    /** Those that wait get the status that says why they were not reached. */
    const stop = (state: number) => {
      const status = state === FanoutState.Cancelled ? DmStatus.OperationCancelled : DmStatus.RequestTimeout;
      for (const device of waiting.splice(0)) this.#settle(order.name, device, { status, parts: [] });
      if (state === FanoutState.Cancelled) fanouts.setState(order.name, state);
    };
    const workers = Array.from({ length: Math.min(fanOutLimits.parallel, waiting.length) }, () =>
      this.#work(order, waiting),
    );
    const done = Promise.all(workers).then(() => this.#finish(order.name, deadline));
    this.#running.set(order.name, { order, waiting, done, stop });
  }

  async #work({ name, operations, timeout }: FanoutOrder, waiting: string[]): Promise<void> {
    const { fanouts, manage } = this.#parts;
    const { signal } = this.#stop;
    for (let device = waiting.shift(); device !== undefined && !signal.aborted; device = waiting.shift()) {
      const reached = device;
      const begun = () => fanouts.setTarget(name, reached, 'begun');
      try {
        const outcomes = await manage(reached, operations, { timeout, begun, signal });
        this.#settle(name, reached, outcomeOf(outcomes));
      } catch (thrown) {
        // What the end of the gateway broke off goes on after the next start.
        if (signal.aborted) return;
        this.#settle(name, reached, { status: asPosternError(thrown).dmStatus, parts: [] });
      }
    }
  }

  #settle(name: string, device: string, outcome: Omit<DeviceOutcome, 'device'>): void {
    this.#parts.fanouts.setTarget(name, device, 'ended', JSON.stringify(outcome));
  }

  #finish(name: string, deadline: Timer): void {
    deadline.cancel();
    const running = this.#running.get(name);
    this.#running.delete(name);
    const { fanouts, events, ended } = this.#parts;
    const run = fanouts.run(name);
    if (this.#stop.signal.aborted || !running || !run) return;
    if (run.state === FanoutState.Running) fanouts.setState(name, FanoutState.Done);
    const summary = this.summary(name);
    events.emit('info', 'fanout.ended', { fanout: name, done: summary.done, failed: summary.failed });
    ended(name, run.correlator, summaryXml(summary, running.order.returnFormat));
  }
}

/** Status of a device of which nobody knows whether it did what it was told. */
const unknownOutcome = DmStatus.CommandFailed;

const hasExec = (operations: readonly Operation[]): boolean =>
  operations.some((operation) =>
    'operations' in operation ? hasExec(operation.operations) : operation.name === 'Exec',
  );

/** The first status that is no success stands for the whole. */
function outcomeOf(outcomes: readonly OperationOutcome[]): Omit<DeviceOutcome, 'device'> {
  const all = outcomes.flatMap((outcome) => [outcome, ...(outcome.parts ?? [])]);
  const failed = all.find(({ status }) => !isOk(status));
  return {
    status: failed?.status ?? DmStatus.Ok,
    parts: all.map(({ status, results }) => ({
      status,
      results: results.map(({ uri, data }) => ({
        uri,
        data: typeof data === 'string' ? data : Buffer.from(data).toString('base64'),
      })),
    })),
  };
}
