import { background, persistently } from '../../base/background.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import { unlessAborted } from '../../base/unless-aborted.ts';
import { DmStatus } from '../../dm/status.ts';
import { type CampaignOrder, CampaignState } from '../../mo/campaign.ts';
import type { CampaignRunner } from '../../mo/campaign-branch.ts';
import type { CampaignSummary, DeviceOutcome } from '../../mo/campaign-result.ts';
import { campaignDefaults } from '../../mo/targets.ts';
import type { CampaignRun } from '../store/campaigns.ts';
import {
  boundedResult,
  cancelled,
  noAccount,
  outcomesOfUnread,
  permissionDenied,
  toOutcome,
  unknownOutcome,
} from './campaign-outcomes.ts';
import {
  type Attempt,
  type AttemptOptions,
  type CampaignParts,
  campaignEvents,
  campaignLimits,
  type Outcome,
} from './campaign-parts.ts';
import { FewPerTurn } from './few-per-turn.ts';
import { acceptedOf, dropAll, type Running, takeLater, type Unit, unitsOf } from './running-campaign.ts';
import { StoredTogether } from './stored-together.ts';

/**
 * Performs one order on many devices and reports one result. Fan-outs and triggers are campaigns. The devices are
 * chosen at the start.
 *
 * The state of each device is durable. After a restart, pending devices continue. Devices already started are retried
 * if the order may be repeated; otherwise their outcome is 500 and they are left alone.
 */
export class Campaign<O extends CampaignOrder> implements AsyncDisposable, CampaignRunner<O> {
  readonly #parts: CampaignParts<O>;
  readonly #running = new Map<string, Running<O>>();
  /** Names of campaigns that could not be continued yet, because the disk takes nothing. */
  readonly #unresumed = new Set<string>();
  readonly #stop = new AbortController();
  readonly #outcomes: StoredTogether;
  readonly #beginning: FewPerTurn;

  constructor(parts: CampaignParts<O>) {
    this.#parts = parts;
    this.#beginning = new FewPerTurn(parts.events, campaignLimits.perTurn, () => {
      for (const running of this.#running.values()) if (running.waiting.length > 0) this.#pump(running);
    });
    this.#outcomes = new StoredTogether(parts.campaigns, (store) => this.#store(store));
  }

  /** Continues the campaigns that were running when the gateway stopped. */
  resume(): void {
    for (const run of this.#parts.campaigns.runs()) {
      if (run.state !== CampaignState.Running) continue;
      this.#unresumed.add(run.name);
      void this.#store(() => {
        this.#resume(run);
        this.#unresumed.delete(run.name);
      });
    }
  }

  /** Devices that have accepted an order and have not reported, once for each campaign that waits for them. */
  get awaited(): readonly string[] {
    return [...this.#running.values()].flatMap(({ accepted }) => [...accepted.keys()]);
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
   * Whether a campaign may start now. Returns 202 when its result will be reported later. Returns 200 when the order has no
   * devices; then no result is reported.
   * @throws {PosternError} `conflict` while a campaign of this name runs, `full` when too many campaigns run
   */
  admit({ name, devices }: O): number {
    const { kind } = this.#parts;
    if (this.#running.has(name)) throw new PosternError('conflict', `${kind} ${name} is running`);
    if (this.#running.size >= campaignLimits.running)
      throw new PosternError('full', `${campaignLimits.running} campaigns are running already`);
    return devices.length === 0 ? DmStatus.Ok : DmStatus.AcceptedForProcessing;
  }

  /** Stores an admitted campaign, as part of the transaction under way. */
  record({ name, devices, server }: O, correlator: string | undefined): void {
    const state = devices.length === 0 ? CampaignState.Done : CampaignState.Running;
    this.#parts.campaigns.begin({ name, state, server, correlator }, devices);
  }

  /** Begins to work on a stored campaign. */
  launch(order: O): void {
    const { events, kind } = this.#parts;
    const { name, devices, server } = order;
    events.emit(campaignEvents[kind].started, { name, devices: devices.length, server });
    if (devices.length > 0) void this.#store(() => this.#run(order));
  }

  /** Cancels a campaign: devices not reached yet get the outcome 214. Returns 200, or 404 when it does not run. */
  cancel(name: string): number {
    const running = this.#running.get(name);
    if (!running) return DmStatus.NotFound;
    this.#giveUp(running, DmStatus.OperationCancelled, () =>
      this.#parts.campaigns.setState(name, CampaignState.Cancelled),
    );
    return DmStatus.Ok;
  }

  /** Deletes what is stored of a campaign, as part of the transaction under way. */
  erase(name: string): void {
    this.#parts.campaigns.delete(name);
  }

  /** Stops work on a campaign that was erased. Sessions with devices that are under way go on to their end. */
  abandon(name: string): void {
    const running = this.#running.get(name);
    if (!running) return;
    this.#running.delete(name);
    running.deadline.cancel();
    dropAll(running);
    this.#pump(running);
  }

  /** Ends the campaigns of servers that have no account any more. Nobody is there to hear of the result. */
  endOf(isGone: (server: string) => boolean): void {
    const { campaigns } = this.#parts;
    for (const { name, server, state } of campaigns.runs()) {
      if (state !== CampaignState.Running || !isGone(server)) continue;
      this.#running.get(name)?.control.abort(noAccount);
      this.abandon(name);
      void this.#store(() => campaigns.cancel(name, cancelled.status, JSON.stringify(cancelled)));
    }
  }

  /** To be called when a device was heard. Attempts that wait for it start now. */
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

  /**
   * Takes the final status of a device that had accepted an order. Returns false when no running campaign waits for it. Joins the
   * transaction under way.
   * @param correlator name of the campaign; undefined fits any
   * @throws {PosternError} `storage`; `unavailable` when a campaign may wait for it that could not be continued yet
   */
  reported(device: string, correlator: string | undefined, status: number): boolean {
    for (const [name, running] of this.#running) {
      const accepted = running.accepted.get(device);
      if (!accepted || (correlator !== undefined && correlator !== name)) continue;
      this.#settle(name, device, { ...accepted, status });
      this.#parts.campaigns.afterCommit(() => {
        running.accepted.delete(device);
        this.#pump(running);
      });
      return true;
    }
    if (this.#unresumed.size > 0) throw new PosternError('unavailable', 'a campaign is not continued yet');
    return false;
  }

  /** IDs of all devices of a campaign. */
  devices(name: string): readonly string[] {
    return this.#parts.campaigns.targets(name).map(({ device }) => device);
  }

  /** Outcome of a device; undefined while it has not ended. */
  outcome(name: string, device: string): DeviceOutcome | undefined {
    const target = this.#parts.campaigns.target(name, device);
    return target && toOutcome(target)[0];
  }

  counts(name: string): Omit<CampaignSummary, 'outcomes'> {
    const { campaigns } = this.#parts;
    const { total, done, failed } = campaigns.counts(name);
    const state = campaigns.run(name)?.state ?? CampaignState.Idle;
    return { state, total, done, failed, pending: total - done - failed };
  }

  summary(name: string): CampaignSummary {
    return { ...this.counts(name), outcomes: this.#parts.campaigns.targets(name).flatMap(toOutcome) };
  }

  #resume(run: CampaignRun): void {
    const { campaigns, order, isRepeatable } = this.#parts;
    const { name, server } = run;
    let found: O;
    try {
      found = order(name, server);
    } catch (thrown) {
      this.#endUnread(run, asPosternError(thrown).message);
      return;
    }
    const isLost = !isRepeatable(found);
    campaigns.inTransaction(() => {
      for (const { device, state } of campaigns.targets(name))
        if (state === 'begun' && isLost) this.#settle(name, device, unknownOutcome);
        else if (state === 'begun') campaigns.setTarget(name, device, 'pending');
    });
    this.#run(found);
  }

  /**
   * Ends a campaign whose nodes are gone or no longer hold an order: the DM server changed them, or they are corrupt.
   * Devices not reached yet get the outcome 215.
   */
  #endUnread({ name, server }: CampaignRun, reason: string): void {
    const { campaigns, events, kind } = this.#parts;
    campaigns.inTransaction(() => {
      for (const [device, outcome] of outcomesOfUnread(campaigns.targets(name)))
        this.#settle(name, device, outcome);
      this.#end(name, campaignDefaults.returnFormat);
    });
    events.emit(campaignEvents[kind].unreadable, { name, server, reason });
  }

  /** Starts work on all pending devices of a campaign. */
  #run(order: O): void {
    const { campaigns, clock, childOf } = this.#parts;
    const targets = campaigns.targets(order.name);
    const running: Running<O> = {
      order,
      waiting: unitsOf(targets, childOf),
      later: new Map(),
      accepted: acceptedOf(targets),
      active: 0,
      away: new Set(),
      deadline: clock.after(
        order.deadline,
        () =>
          void this.#store(() => {
            this.#giveUp(running, DmStatus.RequestTimeout);
            running.until.abort(new PosternError('timeout', 'the deadline has come'));
          }),
      ),
      control: new AbortController(),
      until: new AbortController(),
      givenUp: undefined,
      isEnding: false,
      finished: Promise.withResolvers(),
    };
    this.#running.set(order.name, running);
    this.#pump(running);
  }

  /**
   * Ends a campaign early. Devices not reached yet, and those that do not answer, get `status` as outcome. Devices in progress
   * continue to their end.
   * @param store what else is stored in the same transaction
   */
  #giveUp(running: Running<O>, status: number, store?: () => void): void {
    if (this.#isAbandoned(running)) return;
    const { name } = running.order;
    const { campaigns } = this.#parts;
    const left = [
      ...running.waiting,
      ...[...running.later.values()].map(({ unit }) => unit),
      ...running.away,
    ];
    campaigns.inTransaction(() => {
      store?.();
      for (const { devices } of left)
        for (const device of devices) this.#settle(name, device, { status, parts: [] });
      // For a device that accepted the order, 202 remains the outcome.
      for (const [device, outcome] of running.accepted) this.#settle(name, device, outcome);
    });
    running.givenUp = status;
    dropAll(running);
    this.#pump(running);
  }

  /** Starts as many units as `campaignLimits.parallel` allows, and ends the campaign when none is left. */
  #pump(running: Running<O>): void {
    const isStopped = this.#stop.signal.aborted;
    while (!isStopped && running.waiting.length > 0 && running.active < campaignLimits.parallel) {
      if (!this.#beginning.take()) return;
      const unit = running.waiting.shift()!;
      running.active++;
      void background(
        this.#parts.events,
        'campaign',
        () => this.#work(running, unit),
        this.#stop.signal,
      ).then(() => {
        if (!running.away.delete(unit)) running.active--;
        this.#pump(running);
      });
    }
    const { waiting, later, accepted, active, away } = running;
    if (active + away.size > 0) return;
    if (isStopped) running.finished.resolve();
    else if (waiting.length === 0 && later.size === 0 && accepted.size === 0) this.#finish(running);
  }

  /** Performs one unit of work and stores its outcome. */
  async #work(running: Running<O>, unit: Unit): Promise<void> {
    const { campaigns, isRepeatable, attempt, delegate, mayActOn } = this.#parts;
    const { order } = running;
    // Asked when the unit begins, since the right may have been taken away after the start, and few at a time.
    const denied = new Set(unit.devices.filter((device) => !mayActOn(order.server, device)));
    const allowed = unit.devices.filter((device) => !denied.has(device));
    unit.control = new AbortController();
    const signal = AbortSignal.any([this.#stop.signal, running.control.signal, unit.control.signal]);
    const isRepeated = isRepeatable(order);
    const options: AttemptOptions = {
      signal,
      until: running.until.signal,
      attempts: unit.attempts++,
      away: () => {
        if (signal.aborted || running.away.has(unit)) return;
        running.away.add(unit);
        running.active--;
        this.#pump(running);
      },
      begun: () => {
        if (running.away.delete(unit)) running.active++;
        if (isRepeated || this.#isAbandoned(running)) return;
        campaigns.inTransaction(() => {
          for (const device of allowed) campaigns.setTarget(order.name, device, 'begun');
        });
      },
    };
    const settle = (outcomeOf: (device: string) => Outcome) =>
      campaigns.inTransaction(() => {
        for (const device of unit.devices)
          this.#settle(order.name, device, denied.has(device) ? permissionDenied : outcomeOf(device));
      });
    let store = () => settle(() => unknownOutcome);
    try {
      const [device] = allowed;
      if (device !== undefined && unit.child === undefined) {
        const attempted = await unlessAborted(attempt(device, order, options), signal);
        store = () => this.#attempted(running, unit, device, attempted);
      } else if (device !== undefined && unit.child !== undefined) {
        const outcomes = await delegate(unit.child, allowed, order, options);
        const said = new Map(outcomes.map(({ device, ...outcome }) => [device, outcome]));
        store = () => settle((device) => said.get(device) ?? unknownOutcome);
      }
    } catch (thrown) {
      // A unit that was interrupted by the stop of the gateway continues after the next start.
      if (signal.aborted) return;
      const status = asPosternError(thrown).dmStatus;
      store = () => settle(() => ({ status, parts: [] }));
    }
    await this.#outcomes.store(() => {
      if (!this.#isAbandoned(running)) store();
    });
  }

  /** Stores what has happened. Repeats this until it succeeds, because the devices will not do it again. */
  async #store(store: () => void): Promise<void> {
    await persistently(this.#parts, 'campaign', store, this.#stop.signal);
  }

  /** A campaign of the same name may have taken its place in the meantime. */
  #isAbandoned(running: Running<O>): boolean {
    return this.#running.get(running.order.name) !== running;
  }

  #attempted(running: Running<O>, unit: Unit, device: string, attempt: Attempt): void {
    const { campaigns, clock } = this.#parts;
    const { name } = running.order;
    const { givenUp } = running;
    // Nobody waits for reports and later attempts any more.
    if (givenUp !== undefined && attempt.kind === 'later')
      this.#settle(name, device, { status: givenUp, parts: [] });
    else if (attempt.kind === 'ended' || (givenUp !== undefined && attempt.kind === 'accepted'))
      this.#settle(name, device, attempt.outcome);
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
    const { name, returnFormat } = running.order;
    if (this.#isAbandoned(running)) {
      running.finished.resolve();
      return;
    }
    if (running.isEnding) return;
    running.isEnding = true;
    running.deadline.cancel();
    void this.#store(() => {
      if (!this.#isAbandoned(running)) {
        this.#end(name, returnFormat);
        this.#running.delete(name);
      }
      running.finished.resolve();
    });
  }

  /** Stores that a campaign has ended, and reports its result. */
  #end(name: string, returnFormat: number): void {
    const { campaigns, events, ended, kind } = this.#parts;
    const run = campaigns.run(name);
    if (!run) return;
    const { server, correlator, state } = run;
    const summary = this.summary(name);
    // One transaction, so that a campaign never ends without its report.
    campaigns.inTransaction(() => {
      if (state === CampaignState.Running) campaigns.setState(name, CampaignState.Done);
      ended({ name, server, correlator }, boundedResult(summary, returnFormat));
    });
    events.emit(campaignEvents[kind].ended, { name, done: summary.done, failed: summary.failed });
  }
}
