import { setImmediate as turn } from 'node:timers/promises';
import { background, failed, guarded, persistently } from '../../base/background.ts';
import type { Clock, Monotonic, Timer } from '../../base/clock.ts';
import { type Database, transaction } from '../../base/database.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { DmStatus } from '../../dm/status.ts';
import { CampaignState } from '../../mo/campaign.ts';
import type { DeviceRecord } from '../../mo/device-record.ts';
import type { ObservationCounts, ObservationRunner } from '../../mo/observation-branch.ts';
import { type ObservationOrder, observationDefaults } from '../../mo/observation-order.ts';
import { isTarget, listedIn, type TargetChoice } from '../../mo/targets.ts';
import type { TelemetryReports } from '../northbound/telemetry-reports.ts';
import type { Observer, ReportedValue } from '../southbound/observer.ts';
import type { Observations } from '../store/observations.ts';
import { ValuePoller } from './value-poller.ts';
import type { Manage } from './waiting-work.ts';

export interface TelemetryParts {
  readonly database: Database;
  readonly observations: Observations;
  readonly reports: Pick<TelemetryReports, 'add'>;
  /** Observes LwM2M clients; undefined where LwM2M is not configured. */
  readonly observer: Pick<Observer, 'wish' | 'stateOf'> | undefined;
  /** Manages OMA DM devices. */
  readonly manage: Manage;
  /** Where the targets of the observations of a server are chosen from. */
  readonly choice: (server: string) => TargetChoice;
  /** Whether a server may act on a device: the device sees the gateway alone. */
  readonly mayActOn: (server: string, device: string) => boolean;
  readonly record: (device: string) => DeviceRecord | undefined;
  /** ServerID of the DM server that is told what clients send unasked, where no observation says otherwise. */
  readonly ownServer: string;
  readonly clock: Clock;
  readonly events: Events;
}

/** Observations that run, devices whose refusal is remembered for each, and devices that are judged in one turn of the event loop. */
export const telemetryLimits = { running: 64, refusals: 1024, perTurn: 64 } as const;
/**
 * Milliseconds between two reviews, in which members of groups and rights are read again; and between two writes of what is left of a
 * lifetime.
 */
const times = { review: 300_000, write: 3_600_000 } as const;

interface Running {
  readonly order: ObservationOrder;
  /** Devices that are observed, or to be observed: all are attached to this gateway itself. */
  readonly devices: Set<string>;
  /** Why other targets cannot be observed, by DevId. */
  readonly refused: Map<string, string>;
  /** As `listedIn`. */
  listed: ReadonlySet<string> | undefined;
  /** Its lifetime began now, with so many seconds of it. */
  readonly since: Monotonic;
  readonly rest: number;
  end: Timer | undefined;
}

/** Whether a path is one of an LwM2M client. */
const isLwm2mPath = (path: string): boolean => /^(\/\d{1,5}){1,4}$/.test(path);

/**
 * Observes values of devices for DM servers, by their orders in `./GwTelemetry`. LwM2M clients tell their values; OMA DM devices are
 * asked for them. A device that attaches and fits is taken in; one that leaves, or fits no more, is dropped. A device behind child
 * gateways is observed by an order in the tree of the gateway that it is attached to, to which the DM server has an account of its
 * own (docs/gwmo.md).
 *
 * Orders are durable. After a restart they are set up again.
 */
export class Telemetry implements ObservationRunner {
  readonly #parts: TelemetryParts;
  readonly #running = new Map<string, Running>();
  /** States of observations that do not run any more. */
  readonly #ended = new Map<string, number>();
  /** Names of the observations of each device. */
  readonly #ofDevice = new Map<string, Set<string>>();
  readonly #poller: ValuePoller;
  readonly #stop = new AbortController();
  #review: Timer | undefined;
  #write: Timer | undefined;

  constructor(parts: TelemetryParts) {
    this.#parts = parts;
    const { manage, record, clock, events } = parts;
    this.#poller = new ValuePoller({
      manage,
      isReachable: (device) => record(device)?.state === 'attached',
      values: (device, order, values) => this.#report(order, device, values),
      clock,
      events,
    });
  }

  /** Continues the observations that were running when the gateway stopped. */
  resume(): void {
    for (const { order, state, rest } of this.#parts.observations.all())
      if (state === CampaignState.Running) this.#run(order, rest);
      else this.#ended.set(order.name, state);
  }

  /** Ends all work. It continues after the next start. */
  stop(): void {
    this.#stop.abort();
    this.#review?.cancel();
    this.#write?.cancel();
    this.#poller.stop();
    for (const { end } of this.#running.values()) end?.cancel();
    this.#writeRests();
  }

  /** Numbers for people: observations that run, and devices that are observed or to be observed. */
  get summary(): { readonly observations: number; readonly devices: number } {
    return { observations: this.#running.size, devices: this.#ofDevice.size };
  }

  admit({ name }: ObservationOrder): number {
    if (this.#running.has(name)) throw new PosternError('conflict', `the observation ${name} is running`);
    if (this.#running.size >= telemetryLimits.running)
      throw new PosternError('full', `${telemetryLimits.running} observations are running already`);
    return DmStatus.Ok;
  }

  record(order: ObservationOrder): void {
    this.#parts.observations.begin(order);
  }

  launch(order: ObservationOrder): void {
    const { name, server } = order;
    this.#parts.events.emit('telemetry.begun', { name, server });
    this.#ended.delete(name);
    this.#run(order, order.lifetime);
  }

  cancel(name: string): number {
    if (!this.#running.has(name)) return DmStatus.NotFound;
    this.#end(name, CampaignState.Cancelled, 'its server has stopped it');
    return DmStatus.Ok;
  }

  erase(name: string): void {
    this.#parts.observations.delete(name);
  }

  abandon(name: string): void {
    this.#ended.delete(name);
    this.#release(name);
  }

  /** Ends the observations of servers that have no account any more. */
  endOf(isGone: (server: string) => boolean): void {
    for (const { order, state } of this.#parts.observations.all())
      if (state === CampaignState.Running && isGone(order.server))
        this.#end(order.name, CampaignState.Cancelled, 'its server has no account any more');
  }

  /** To be called when a device is attached, or its record has changed. */
  attached(device: string): void {
    const record = this.#parts.record(device);
    if (record) for (const running of this.#running.values()) this.#judge(running, record);
  }

  /** To be called when a device is no longer attached to this gateway itself. */
  detached(device: string): void {
    for (const name of this.#ofDevice.get(device) ?? []) this.#leave(this.#running.get(name), device);
  }

  /** Takes values of an LwM2M client. `name` is undefined for those that it sent unasked. */
  values(device: string, name: string | undefined, values: readonly ReportedValue[]): void {
    if (name !== undefined) {
      const { order, devices } = this.#running.get(name) ?? {};
      if (order && devices?.has(device)) this.#report(order, device, values);
      return;
    }
    const orders = [...(this.#ofDevice.get(device) ?? [])].flatMap(
      (each) => this.#running.get(each)?.order ?? [],
    );
    const covers = ({ paths }: ObservationOrder, path: string) =>
      paths.some((above) => path === above || path.startsWith(`${above}/`));
    const told = new Set<ReportedValue>();
    for (const [, ofServer] of Map.groupBy(orders, ({ server }) => server)) {
      const wanted = values.filter(({ path }) => ofServer.some((order) => covers(order, path)));
      for (const value of wanted) told.add(value);
      const [order] = ofServer;
      if (order && wanted.length > 0) this.#report(order, device, wanted);
    }
    const { ownServer, reports } = this.#parts;
    const rest = values.filter((value) => !told.has(value)).map((value) => ({ device, ...value }));
    if (rest.length > 0)
      reports.add({ server: ownServer, name: '', period: observationDefaults.period, count: 0 }, rest);
  }

  counts(name: string): ObservationCounts {
    const running = this.#running.get(name);
    const state = running ? CampaignState.Running : (this.#ended.get(name) ?? CampaignState.Idle);
    const refusals = new Map(running?.refused);
    let observed = 0;
    let waiting = 0;
    for (const device of running?.devices ?? []) {
      const found = this.#stateOf(device, name);
      if (found?.state === 'observing') observed++;
      else if (found?.state === 'refused') refusals.set(device, found.reason);
      else waiting++;
    }
    // Of a group only members that are attached count: their number is not for whoever may not read the group any more.
    for (const device of running?.order.targets.named ?? [])
      if (!running?.devices.has(device) && !this.#parts.record(device)) waiting++;
    return { state, observed, waiting, refusals };
  }

  #stateOf(device: string, name: string) {
    return this.#poller.stateOf(device, name) ?? this.#parts.observer?.stateOf(device, name);
  }

  #report(
    { server, name, period, count }: ObservationOrder,
    device: string,
    values: readonly ReportedValue[],
  ): void {
    this.#parts.reports.add(
      { server, name, period, count },
      values.map(({ path, value, at }) => ({ device, path, value, at })),
    );
  }

  #run(order: ObservationOrder, rest: number): void {
    const { clock, events } = this.#parts;
    const { name } = order;
    this.#release(name);
    const over = () => this.#end(name, CampaignState.Done, 'its lifetime is over');
    const running: Running = {
      order,
      devices: new Set(),
      refused: new Map(),
      listed: undefined,
      since: clock.now(),
      rest,
      end:
        rest === 0
          ? undefined
          : clock.after(
              rest * 1000,
              () => void persistently({ clock, events }, 'telemetry', over, this.#stop.signal),
            ),
    };
    this.#running.set(name, running);
    this.#reviewOne(running);
    this.#review ??= clock.after(times.review, () => this.#reviewAll());
    this.#write ??= clock.after(
      times.write,
      guarded(events, 'telemetry', () => this.#writeAll()),
    );
  }

  #end(name: string, state: number, reason: string): void {
    this.#parts.observations.setState(name, state);
    this.#parts.database.afterCommit(() => {
      this.#ended.set(name, state);
      this.#release(name);
      this.#parts.events.emit('telemetry.ended', { name, reason });
    });
  }

  /** Ends the work on an observation. */
  #release(name: string): void {
    const running = this.#running.get(name);
    if (!running) return;
    this.#running.delete(name);
    running.end?.cancel();
    for (const device of running.devices) this.#leave(running, device);
    this.#poller.end(name);
  }

  #reviewAll(): void {
    this.#review = undefined;
    if (this.#running.size === 0) return;
    for (const running of this.#running.values()) this.#reviewOne(running);
    this.#review = this.#parts.clock.after(times.review, () => this.#reviewAll());
  }

  #reviewOne(running: Running): void {
    void background(this.#parts.events, 'telemetry', () => this.#judgeAll(running), this.#stop.signal);
  }

  /** Judges all devices, few in each turn of the event loop. */
  async #judgeAll(running: Running): Promise<void> {
    const { choice, record } = this.#parts;
    const { order, refused, devices } = running;
    const where = choice(order.server);
    running.listed = listedIn(order.targets, where);
    const targets = running.listed ?? Array.from(where.records(), ({ deviceId }) => deviceId);
    let judged = 0;
    for (const device of new Set([...devices, ...refused.keys(), ...targets])) {
      if (++judged % telemetryLimits.perTurn === 0) await turn();
      if (this.#stop.signal.aborted || this.#running.get(order.name) !== running) return;
      const found = record(device);
      if (found) this.#judge(running, found);
      else refused.delete(device);
    }
  }

  /** Takes a device into an observation, or out of it. */
  #judge(running: Running, record: DeviceRecord): void {
    const { order, listed, devices, refused } = running;
    const { deviceId } = record;
    const isMeant = isTarget(record, order.targets, listed, this.#parts.choice(order.server));
    const reason = isMeant ? this.#refusal(order, record) : undefined;
    refused.delete(deviceId);
    if (reason !== undefined && refused.size < telemetryLimits.refusals) refused.set(deviceId, reason);
    if (!isMeant || reason !== undefined) this.#leave(running, deviceId);
    else if (!devices.has(deviceId)) this.#enter(running, record);
  }

  /** Why a target cannot be observed. */
  #refusal({ server, paths }: ObservationOrder, record: DeviceRecord): string | undefined {
    const { mayActOn, observer } = this.#parts;
    // The gateway that the device is attached to is the last one on the way.
    const holder = record.via?.split('/').at(-1);
    if (holder !== undefined)
      return `it is behind ${holder}: order the same observation at ${holder}, in its own GwTelemetry; sessions with ${holder} go through this gateway`;
    if (!mayActOn(server, record.deviceId)) return `${server} has no right to Exec at its record`;
    if (record.protocol !== 'LwM2M') return undefined;
    if (!observer) return 'this gateway has no LwM2M';
    return paths.some(isLwm2mPath) ? undefined : 'no path is one of LwM2M';
  }

  #enter({ order, devices }: Running, { deviceId, protocol }: DeviceRecord): void {
    devices.add(deviceId);
    const names = this.#ofDevice.get(deviceId) ?? new Set();
    this.#ofDevice.set(deviceId, names.add(order.name));
    if (protocol === 'LwM2M') this.#wish(deviceId);
    else this.#poller.add(deviceId, order);
  }

  #leave(running: Running | undefined, device: string): void {
    if (!running?.devices.delete(device)) return;
    const { name } = running.order;
    const names = this.#ofDevice.get(device);
    names?.delete(name);
    if (names?.size === 0) this.#ofDevice.delete(device);
    this.#poller.drop(device, name);
    this.#wish(device);
  }

  /** Tells the observer of LwM2M clients all that is wished of one. */
  #wish(device: string): void {
    const wishes = [...(this.#ofDevice.get(device) ?? [])].flatMap((name) => {
      const order = this.#running.get(name)?.order;
      return order ? [{ name, paths: order.paths.filter(isLwm2mPath), attributes: order.attributes }] : [];
    });
    this.#parts.observer?.wish(device, wishes);
  }

  #writeAll(): void {
    this.#writeRests();
    this.#write = this.#parts.clock.after(
      times.write,
      guarded(this.#parts.events, 'telemetry', () => this.#writeAll()),
    );
  }

  /** Writes what is left of lifetimes. Where the disk does not take it, they last longer. */
  #writeRests(): void {
    const { database, observations, clock, events } = this.#parts;
    const limited = [...this.#running.values()].filter(({ rest }) => rest > 0);
    if (limited.length === 0) return;
    try {
      transaction(database, () => {
        for (const { order, rest, since } of limited)
          observations.setRest(order.name, Math.max(1, Math.round(rest - (clock.now() - since) / 1000)));
      });
    } catch (thrown) {
      if (asPosternError(thrown).code !== 'storage') throw thrown;
      failed(events, 'telemetry', thrown);
    }
  }
}
