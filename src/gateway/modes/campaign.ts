import type { Clock, Timer } from '../../base/clock.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { DmStatus, isOk } from '../../dm/status.ts';
import { type CampaignOrder, CampaignState } from '../../mo/campaign.ts';
import type { CampaignRunner } from '../../mo/campaign-branch.ts';
import { type CampaignSummary, type DeviceOutcome, summaryXml } from '../../mo/campaign-result.ts';
import type { Campaigns, CampaignTarget } from '../store/campaigns.ts';

export type Outcome = Omit<DeviceOutcome, 'device'>;

/**
 * What an attempt at a device came to: its end; that the device took it and reports later; or that it could not be reached
 * now, and is tried again after this many milliseconds or when it is heard.
 */
export type Attempt =
  | { readonly kind: 'ended'; readonly outcome: Outcome }
  | { readonly kind: 'accepted'; readonly outcome: Outcome }
  | { readonly kind: 'later'; readonly after: number };

export interface AttemptOptions {
  /** Hears that something may have been done from now on. */
  readonly begun: () => void;
  /** The gateway ends. */
  readonly signal: AbortSignal;
  /** How often this device was tried before. */
  readonly attempts: number;
}

const campaignEvents = {
  fanout: { started: 'fanout.started', ended: 'fanout.ended' },
  trigger: { started: 'trigger.started', ended: 'trigger.ended' },
} as const;

export interface CampaignParts<O extends CampaignOrder> {
  /** For the log. */
  readonly kind: keyof typeof campaignEvents;
  readonly campaigns: Campaigns;
  readonly clock: Clock;
  readonly events: Events;
  /** Reads the order of a campaign again, after a restart. */
  readonly order: (name: string, server: string) => O;
  /** Whether an attempt that the end of the gateway broke off may be made again. */
  readonly isRepeatable: (order: O) => boolean;
  /** Whether this DM server may have the gateway act on this device in its place. */
  readonly mayActOn: (server: string, device: string) => boolean;
  /** The child gateway that a device is behind, if it is not attached here. */
  readonly childOf: (device: string) => string | undefined;
  readonly attempt: (device: string, order: O, options: AttemptOptions) => Promise<Attempt>;
  /** Has a child gateway do it with devices of its own; what it says nothing of is unknown. */
  readonly delegate: (
    child: string,
    devices: readonly string[],
    order: O,
    options: AttemptOptions,
  ) => Promise<readonly DeviceOutcome[]>;
  /** A campaign has ended: its result is to go to the DM server that started it. */
  readonly ended: (
    run: { name: string; server: string; correlator: string | undefined },
    result: string,
  ) => void;
}

/** Devices, or child gateways, at work for one campaign at one time; campaigns of a kind that run at one time. */
export const campaignLimits = { parallel: 64, running: 8, resultCharacters: 256 * 1024 } as const;

/** What is done in one go: a device, or all those behind one child gateway. */
interface Unit {
  readonly devices: readonly string[];
  readonly child: string | undefined;
  attempts: number;
}

interface Running<O> {
  readonly order: O;
  readonly waiting: Unit[];
  /** Devices that are tried again later. */
  readonly later: Map<string, { readonly unit: Unit; readonly timer: Timer }>;
  /** Devices that took it and have still to report. */
  readonly accepted: Map<string, Outcome>;
  active: number;
  deadline: Timer;
  readonly finished: PromiseWithResolvers<void>;
}

/** Status of a device of which nobody knows whether it did what it was told. */
const unknownOutcome: Outcome = { status: DmStatus.CommandFailed, parts: [] };

/**
 * One order for many devices, one result: what fan-out and triggers have in common. Targets are those of the start. How
 * each device stands is durable, so a restart goes on where it was: a device that an order had begun with which cannot be
 * done twice is reported as unknown, and not asked again.
 */
export class Campaign<O extends CampaignOrder> implements AsyncDisposable, CampaignRunner<O> {
  readonly #parts: CampaignParts<O>;
  readonly #running = new Map<string, Running<O>>();
  readonly #stop = new AbortController();

  constructor(parts: CampaignParts<O>) {
    this.#parts = parts;
  }

  /** Goes on with what was running when the gateway ended. */
  resume(): void {
    const { campaigns, order, isRepeatable } = this.#parts;
    for (const { name, state, server } of campaigns.runs()) {
      if (state !== CampaignState.Running) continue;
      const found = order(name, server);
      const isLost = !isRepeatable(found);
      for (const { device, state: at } of campaigns.targets(name))
        if (at === 'begun' && isLost) this.#settle(name, device, unknownOutcome);
        else if (at === 'begun') campaigns.setTarget(name, device, 'pending');
      this.#run(found);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new PosternError('unavailable', 'the gateway stops'));
    const running = [...this.#running.values()];
    for (const each of running) {
      takeLater(each);
      each.deadline.cancel();
      this.#pump(each);
    }
    await Promise.all(running.map(({ finished }) => finished.promise));
  }

  /**
   * Starts a campaign. Answers with 202, and the result comes later; with 200 when there is no device to reach.
   * @throws {PosternError} `conflict` while it runs, `full` when too many do
   */
  start(order: O, correlator: string | undefined): number {
    const { campaigns, events, kind } = this.#parts;
    const { name, devices, server } = order;
    if (this.#running.has(name)) throw new PosternError('conflict', `${kind} ${name} is running`);
    if (this.#running.size >= campaignLimits.running)
      throw new PosternError('full', `${campaignLimits.running} campaigns are running`);
    const state = devices.length === 0 ? CampaignState.Done : CampaignState.Running;
    campaigns.begin({ name, state, server, correlator }, devices);
    events.emit(campaignEvents[kind].started, { name, devices: devices.length, server });
    if (devices.length === 0) return DmStatus.Ok;
    this.#run(order);
    return DmStatus.AcceptedForProcessing;
  }

  /** Devices that were not reached yet are left alone. Answers with 200, or 404 when it does not run. */
  cancel(name: string): number {
    const running = this.#running.get(name);
    if (!running) return DmStatus.NotFound;
    this.#parts.campaigns.setState(name, CampaignState.Cancelled);
    this.#giveUp(running, DmStatus.OperationCancelled);
    return DmStatus.Ok;
  }

  /** It is deleted: what runs is cancelled, and nobody is told. */
  forget(name: string): void {
    const running = this.#running.get(name);
    this.#parts.campaigns.delete(name);
    if (running) this.#giveUp(running, DmStatus.OperationCancelled);
  }

  /** A device was heard: what waits for it need not wait longer. */
  heard(device: string): void {
    for (const running of this.#running.values()) {
      const found = running.later.get(device);
      if (!found) continue;
      found.timer.cancel();
      running.later.delete(device);
      running.waiting.unshift(found.unit);
      this.#pump(running);
    }
  }

  /** A device that took an order says what it came to. False when nobody waits for it. */
  reported(device: string, correlator: string | undefined, status: number): boolean {
    for (const [name, running] of this.#running) {
      const accepted = running.accepted.get(device);
      if (!accepted || (correlator !== undefined && correlator !== name)) continue;
      running.accepted.delete(device);
      this.#settle(name, device, { ...accepted, status });
      this.#pump(running);
      return true;
    }
    return false;
  }

  devices(name: string): readonly string[] {
    return this.#parts.campaigns.targets(name).map(({ device }) => device);
  }

  outcome(name: string, device: string): DeviceOutcome | undefined {
    const target = this.#parts.campaigns.target(name, device);
    return target && toOutcome(target)[0];
  }

  counts(name: string): Omit<CampaignSummary, 'outcomes'> {
    const { campaigns } = this.#parts;
    const { total, done, failed } = campaigns.counts(name);
    return {
      state: campaigns.run(name)?.state ?? CampaignState.Idle,
      total,
      done,
      failed,
      pending: total - done - failed,
    };
  }

  summary(name: string): CampaignSummary {
    return { ...this.counts(name), outcomes: this.#parts.campaigns.targets(name).flatMap(toOutcome) };
  }

  #run(order: O): void {
    const { campaigns, clock, childOf, mayActOn } = this.#parts;
    const { name, server } = order;
    const targets = campaigns.targets(name);
    const pending = targets.filter(({ state }) => state === 'pending').map(({ device }) => device);
    const byRight = Map.groupBy(pending, (device) => mayActOn(server, device));
    campaigns.inTransaction(() => {
      for (const device of byRight.get(false) ?? [])
        this.#settle(name, device, { status: DmStatus.PermissionDenied, parts: [] });
    });
    const units = [...Map.groupBy(byRight.get(true) ?? [], childOf)].flatMap(([child, devices]): Unit[] =>
      child === undefined
        ? devices.map((device) => ({ devices: [device], child, attempts: 0 }))
        : [{ devices, child, attempts: 0 }],
    );
    const running: Running<O> = {
      order,
      waiting: units,
      later: new Map(),
      accepted: new Map(
        targets.flatMap(({ device, state, outcome }) =>
          state === 'accepted' ? [[device, JSON.parse(outcome ?? '{}') as Outcome] as const] : [],
        ),
      ),
      active: 0,
      deadline: clock.after(order.deadline, () => this.#giveUp(running, DmStatus.RequestTimeout)),
      finished: Promise.withResolvers(),
    };
    this.#running.set(name, running);
    this.#pump(running);
  }

  /** Those that wait get the status that says why they were not reached; those at work come to their own end. */
  #giveUp(running: Running<O>, status: number): void {
    const { name } = running.order;
    const { campaigns } = this.#parts;
    const left = [...running.waiting.splice(0), ...takeLater(running)];
    campaigns.inTransaction(() => {
      for (const { devices } of left)
        for (const device of devices) this.#settle(name, device, { status, parts: [] });
      // What a device accepted stands as that.
      for (const [device, outcome] of running.accepted) this.#settle(name, device, outcome);
    });
    running.accepted.clear();
    this.#pump(running);
  }

  /** Starts what there is room for, and ends the campaign when nothing is left. */
  #pump(running: Running<O>): void {
    const isStopped = this.#stop.signal.aborted;
    while (!isStopped && running.active < campaignLimits.parallel) {
      const unit = running.waiting.shift();
      if (!unit) break;
      running.active++;
      void this.#work(running, unit).finally(() => {
        running.active--;
        this.#pump(running);
      });
    }
    const { waiting, later, accepted, active } = running;
    if (active > 0) return;
    if (isStopped) running.finished.resolve();
    else if (waiting.length === 0 && later.size === 0 && accepted.size === 0) this.#finish(running);
  }

  async #work(running: Running<O>, unit: Unit): Promise<void> {
    const { campaigns, isRepeatable, attempt, delegate } = this.#parts;
    const { order } = running;
    const { signal } = this.#stop;
    const isRepeated = isRepeatable(order);
    const options: AttemptOptions = {
      signal,
      attempts: unit.attempts++,
      begun: () => {
        if (isRepeated) return;
        campaigns.inTransaction(() => {
          for (const device of unit.devices) campaigns.setTarget(order.name, device, 'begun');
        });
      },
    };
    try {
      if (unit.child === undefined) {
        const [device = ''] = unit.devices;
        this.#attempted(running, unit, device, await attempt(device, order, options));
        return;
      }
      const outcomes = await delegate(unit.child, unit.devices, order, options);
      const said = new Map(outcomes.map(({ device, ...outcome }) => [device, outcome]));
      campaigns.inTransaction(() => {
        for (const device of unit.devices)
          this.#settle(order.name, device, said.get(device) ?? unknownOutcome);
      });
    } catch (thrown) {
      // What the end of the gateway broke off goes on after the next start.
      if (signal.aborted) return;
      const status = asPosternError(thrown).dmStatus;
      campaigns.inTransaction(() => {
        for (const device of unit.devices) this.#settle(order.name, device, { status, parts: [] });
      });
    }
  }

  #attempted(running: Running<O>, unit: Unit, device: string, attempt: Attempt): void {
    const { campaigns, clock } = this.#parts;
    const { name } = running.order;
    if (attempt.kind === 'ended') this.#settle(name, device, attempt.outcome);
    else if (attempt.kind === 'accepted') {
      campaigns.setTarget(name, device, 'accepted', undefined, JSON.stringify(attempt.outcome));
      running.accepted.set(device, attempt.outcome);
    } else {
      const timer = clock.after(attempt.after, () => this.heard(device));
      running.later.set(device, { unit, timer });
    }
  }

  #settle(name: string, device: string, outcome: Outcome): void {
    this.#parts.campaigns.setTarget(name, device, 'ended', outcome.status, JSON.stringify(outcome));
  }

  #finish(running: Running<O>): void {
    const { name, server, returnFormat } = running.order;
    if (this.#running.get(name) !== running) return;
    running.deadline.cancel();
    this.#running.delete(name);
    running.finished.resolve();
    const { campaigns, events, ended, kind } = this.#parts;
    const run = campaigns.run(name);
    if (!run) return;
    const summary = this.summary(name);
    // It has ended and is reported, or neither.
    campaigns.inTransaction(() => {
      if (run.state === CampaignState.Running) campaigns.setState(name, CampaignState.Done);
      ended({ name, server, correlator: run.correlator }, boundedResult(summary, returnFormat));
    });
    events.emit(campaignEvents[kind].ended, { name, done: summary.done, failed: summary.failed });
  }
}

/** What was to be tried again later is not any more. */
function takeLater({ later }: Pick<Running<unknown>, 'later'>): Unit[] {
  const units = [...later.values()].map(({ unit, timer }) => {
    timer.cancel();
    return unit;
  });
  later.clear();
  return units;
}

/** A result that no alert can hold is told by numbers alone; the detail can be fetched. */
function boundedResult(summary: CampaignSummary, returnFormat: number): string {
  const result = summaryXml(summary, returnFormat);
  return result.length <= campaignLimits.resultCharacters ? result : summaryXml(summary, 1);
}

const toOutcome = ({ device, state, outcome }: CampaignTarget): DeviceOutcome[] =>
  state === 'ended' && outcome !== undefined ? [{ ...(JSON.parse(outcome) as Outcome), device }] : [];

/** The first status that is no success stands for the whole. */
export const statusOfAll = (statuses: readonly number[]): number =>
  statuses.find((status) => !isOk(status)) ?? DmStatus.Ok;
