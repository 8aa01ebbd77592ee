import { failed, guarded } from '../../base/background.ts';
import { BoundedMap } from '../../base/bounded-map.ts';
import { type Clock, type Monotonic, plus, type Timer } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { OutgoingAlert } from '../../dm/client-session.ts';
import { isOk } from '../../dm/status.ts';
import {
  agedReport,
  type DeviceValue,
  encodeReport,
  isDate,
  isReportable,
  reportOverhead,
  sizeOfDevice,
  sizeOfValue,
  telemetryAlert,
  valueLimits,
} from '../../mo/telemetry-report.ts';
import type { Vocabulary } from '../../mo/vocabulary.ts';
import type { StoredReport, TelemetryRows } from '../store/telemetry-rows.ts';
import { refusalsUntilAside } from './alert-deliveries.ts';

/** Octets of one report, of the reports of one session; values of one report; reports that wait. */
export const reportLimits = {
  bytes: 16 * 1024,
  session: 128 * 1024,
  values: valueLimits.report,
  waiting: 4096,
} as const;
/**
 * Part of a report that one device may fill. One that sends more has reports of its own for a time, in milliseconds. Devices that are
 * remembered for that.
 */
const talkative = { part: 1 / 4, time: 600_000, remembered: 256 } as const;
/** Milliseconds for which a report waits at least, and half of those at most, before it is written to the disk. */
const writeAfter = 60_000;
/** Milliseconds for which the times of a report are true that are relative to when it was made. */
const freshFor = 1000;
/** Milliseconds until a report that was not accepted is sent again. They double with each attempt. */
const retry = { first: 1000, cap: 300_000 } as const;

export interface TelemetryReportsParts {
  readonly rows: TelemetryRows;
  readonly vocabulary: Vocabulary;
  /** Most octets of all reports that wait. */
  readonly limit: number;
  /** Whether the data budget of the uplink leaves room for telemetry. */
  readonly isAllowed: () => boolean;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** What an observation says of the reports of its values. */
export interface Reporting {
  /** ServerID of the DM server that is told. */
  readonly server: string;
  /** Name of the observation, by which its values are counted. */
  readonly name: string;
  /** Seconds that a value waits for others at most. */
  readonly period: number;
  /** Values after which they are reported before that. 0: no number. */
  readonly count: number;
}

/** Values for one server that are in no report yet. */
interface Gathering extends Lane {
  readonly values: DeviceValue[];
  /** Octets of values, by device. */
  readonly devices: Map<string, number>;
  readonly counts: Map<string, number>;
  bytes: number;
  /** What the wall clock was ahead of the other one when the first value came. */
  readonly skew: number;
  due: Monotonic;
  timer: Timer;
}

/** Whose values stand in a report: for one server, of one talkative device, or of all others. */
interface Lane {
  readonly server: string;
  readonly talkative?: string | undefined;
}

/** A report that no server has confirmed. */
interface Report extends Omit<StoredReport, 'number'>, Lane {
  /** Number of its row; undefined while it is in memory alone. */
  number?: number;
  /** When it was made. */
  readonly since: Monotonic;
  refusals: number;
}

/** A server that did not accept a report. */
interface Later {
  readonly count: number;
  /** When it gets the next one. */
  readonly notBefore: Monotonic;
  readonly timer: Timer;
}

/**
 * Reports of values for DM servers. Values gather until their report is due, full, or has enough of them. Reports wait in memory, and
 * on the disk when they have waited for a minute: an uplink that is up costs no write. Their octets are bounded. Beyond the
 * bound, the oldest of the server that has most goes, and its values are counted; the next report says how many. A device that sends
 * more than others counts as a server of its own there, so it does not displace their values. A restart forgets which did.
 *
 * The numbers of reports begin anew in each run of the gateway, and so does their epoch. A report that is sent twice has the same
 * number in the same epoch, after a restart too.
 */
export class TelemetryReports {
  readonly #parts: TelemetryReportsParts;
  readonly #epoch: string;
  /** By lane. */
  readonly #gathering = new Map<string, Gathering>();
  /** Until when a device is talkative, by lane. */
  readonly #talkative = new BoundedMap<string, Monotonic>(talkative.remembered);
  /** The oldest first. */
  #reports: Report[];
  #bytes = 0;
  /** Values that were dropped, and of which no report has said so, by server. */
  readonly #lost = new Map<string, number>();
  /** Servers for which values were dropped since one took a report. */
  readonly #toldOfDrops = new Set<string>();
  readonly #later = new Map<string, Later>();
  readonly #sending = new Set<Report>();
  /** Numbers of rows of reports that servers have. */
  readonly #gone = new Set<number>();
  #sequence = 0;
  #timer: Timer | undefined;
  #wake: () => void = () => {};
  /** Values that were dropped since the start. */
  dropped = 0;

  constructor(parts: TelemetryReportsParts) {
    this.#parts = parts;
    this.#epoch = Buffer.from(parts.entropy.bytes(8)).toString('hex');
    this.#reports = parts.rows.all().map((row) => ({ ...row, since: parts.clock.now(), refusals: 0 }));
    for (const { body } of this.#reports) this.#bytes += body.length;
  }

  /** Sets who delivers the reports. */
  deliverBy(client: { wake(): void }): void {
    this.#wake = guarded(this.#parts.events, 'telemetry', () => client.wake());
  }

  /** Values that no server has confirmed. */
  get buffered(): number {
    let sum = 0;
    for (const { counted } of this.#reports) sum += counted;
    for (const { values } of this.#gathering.values()) sum += values.length;
    return sum;
  }

  /** Takes values for a server. */
  add({ server, name, period, count }: Reporting, values: readonly DeviceValue[]): void {
    const { clock, events } = this.#parts;
    for (const value of values) {
      if (!isReportable(value)) {
        this.#lose(server, 1);
        continue;
      }
      const size = sizeOfValue(value);
      const isNew = (to: Gathering) => !to.devices.has(value.device);
      const of = this.#laneFor(server, value.device, size);
      const lane = keyOf(of);
      let to = this.#gathering.get(lane);
      if (to && to.bytes + size + (isNew(to) ? sizeOfDevice(value.device) : 0) > reportLimits.bytes) {
        this.#close(lane);
        to = undefined;
      }
      const due = plus(clock.now(), period * 1000);
      if (!to || due < to.due) {
        const close = guarded(events, 'telemetry', () => this.#close(lane));
        to?.timer.cancel();
        const fresh = {
          ...of,
          values: [],
          devices: new Map<string, number>(),
          counts: new Map(),
          bytes: reportOverhead,
          skew: this.#skew,
        };
        to = { ...(to ?? fresh), due, timer: clock.after(period * 1000, close) };
        this.#gathering.set(lane, to);
      }
      if (isNew(to)) to.bytes += sizeOfDevice(value.device);
      to.bytes += size;
      to.devices.set(value.device, (to.devices.get(value.device) ?? 0) + size);
      to.values.push(value);
      const ofOrder = (to.counts.get(name) ?? 0) + 1;
      to.counts.set(name, ofOrder);
      if (ofOrder === count || to.values.length === reportLimits.values) this.#close(lane);
    }
  }

  #laneFor(server: string, device: string, size: number): Lane {
    const own = { server, talkative: device };
    const now = this.#parts.clock.now();
    const shared = (this.#gathering.get(server)?.devices.get(device) ?? 0) + size;
    if (shared > reportLimits.bytes * talkative.part)
      this.#talkative.set(keyOf(own), plus(now, talkative.time));
    return (this.#talkative.get(keyOf(own)) ?? now) > now ? own : { server };
  }

  /** ServerIDs of the servers that get a report now. */
  servers(): string[] {
    if (this.#reports.length === 0 || !this.#parts.isAllowed()) return [];
    const now = this.#parts.clock.now();
    const servers = new Set(this.#reports.map(({ server }) => server));
    return [...servers].filter((server) => (this.#later.get(server)?.notBefore ?? now) <= now);
  }

  /** Whether a report waits for another server than this one. */
  hasOthers(own: string): boolean {
    return this.#reports.some(({ server }) => server !== own);
  }

  /** The alerts of the next session with a server, the oldest report first. `ended` must follow. */
  take(server: string): OutgoingAlert[] {
    const taken: Report[] = [];
    let bytes = 0;
    if (this.servers().includes(server))
      for (const report of this.#reports) {
        if (report.server !== server) continue;
        bytes += report.body.length;
        if (taken.length > 0 && bytes > reportLimits.session) break;
        taken.push(report);
      }
    return taken.map((report) => {
      this.#sending.add(report);
      const age = this.#parts.clock.now() - report.since;
      return {
        ...telemetryAlert(
          this.#parts.vocabulary,
          age < freshFor ? report.body : agedReport(report.body, age),
        ),
        settled: (status) => this.#settled(report, status),
      };
    });
  }

  /** A session with a server has ended, in which the alerts of `take` were sent. Those without an answer are sent again. */
  ended(server: string): void {
    const unanswered = [...this.#sending].filter((report) => report.server === server);
    for (const report of unanswered) this.#sending.delete(report);
    if (unanswered.length > 0) this.#postpone(server);
  }

  /** Drops what is for servers that have no account any more. */
  endOf(isGone: (server: string) => boolean): void {
    const all = [...this.#gathering.values(), ...this.#reports];
    const servers = new Set(all.map(({ server }) => server));
    for (const server of servers) if (isGone(server)) this.#forget(server);
  }

  #forget(server: string): void {
    for (const [lane, gathering] of this.#gathering) {
      if (gathering.server !== server) continue;
      gathering.timer.cancel();
      this.#gathering.delete(lane);
    }
    this.#lost.delete(server);
    this.#toldOfDrops.delete(server);
    this.#recovered(server);
    for (const report of this.#reports.filter((each) => each.server === server)) this.#remove(report);
    this.#writeSoon();
  }

  /** Closes the reports and writes them, so that they are sent after the next start. */
  stop(): void {
    for (const server of [...this.#gathering.keys(), ...this.#lost.keys()]) this.#close(server);
    this.#wake = () => {};
    for (const server of [...this.#later.keys()]) this.#recovered(server);
    this.#timer?.cancel();
    this.#write(0);
    this.#timer?.cancel();
  }

  /** @param lane of values, or a server for which values were lost */
  #close(lane: string): void {
    const { server = lane, talkative, values = [], timer, skew = 0 } = this.#gathering.get(lane) ?? {};
    timer?.cancel();
    this.#gathering.delete(lane);
    const dropped = this.#lost.get(server) ?? 0;
    if (values.length + dropped === 0) return;
    this.#lost.delete(server);
    const number = { epoch: this.#epoch, sequence: ++this.#sequence };
    const now = this.#parts.clock.wall();
    // The clock was set since these values came.
    const dated = isDate(now)
      ? values.map((each) => (isDate(each.at) ? each : { ...each, at: each.at + this.#skew - skew }))
      : values;
    const body = encodeReport({ ...number, dropped, values: dated }, now);
    const since = this.#parts.clock.now();
    this.#reports.push({ server, talkative, counted: values.length, dropped, body, since, refusals: 0 });
    this.#bytes += body.length;
    this.#makeRoom();
    this.#writeSoon();
    this.#wake();
  }

  get #skew(): number {
    const { clock } = this.#parts;
    return clock.wall() - clock.now();
  }

  #makeRoom(): void {
    while (this.#bytes > this.#parts.limit || this.#reports.length > reportLimits.waiting) {
      const bytes = new Map<string, number>();
      const idle = this.#reports.filter((report) => !this.#sending.has(report));
      for (const report of idle) {
        const lane = keyOf(report);
        bytes.set(lane, (bytes.get(lane) ?? 0) + report.body.length);
      }
      const most = Math.max(...bytes.values());
      const oldest = idle.find((report) => bytes.get(keyOf(report)) === most);
      // All are under way.
      if (!oldest) return;
      this.#drop(oldest);
    }
  }

  #drop(report: Report): void {
    this.#remove(report);
    this.#lose(report.server, report.counted, report.dropped);
  }

  /** @param known those of which a report said so that is dropped itself: they are counted already */
  #lose(server: string, values: number, known = 0): void {
    const before = this.#lost.get(server) ?? 0;
    this.#lost.set(server, before + values + known);
    this.dropped += values;
    if (this.#toldOfDrops.has(server)) return;
    this.#toldOfDrops.add(server);
    this.#parts.events.emit('telemetry.dropped', { server, values: this.dropped });
  }

  #remove(report: Report): void {
    const at = this.#reports.indexOf(report);
    if (at < 0) return;
    this.#reports.splice(at, 1);
    this.#bytes -= report.body.length;
    if (report.number !== undefined) this.#gone.add(report.number);
  }

  #settled(report: Report, status: number): void {
    this.#sending.delete(report);
    const { server, body, counted: values } = report;
    if (isOk(status)) {
      this.#recovered(server);
      this.#toldOfDrops.delete(server);
      this.#remove(report);
      if (this.#gone.size > 0) this.#writeSoon();
      this.#parts.events.emit('telemetry.delivered', { server, values, bytes: body.length });
      return;
    }
    this.#parts.events.emit('telemetry.refused', { server, status, values });
    // 420, like all of class 5, is a state of the server that passes.
    if (status >= 400 && status < 500 && status !== 420 && ++report.refusals >= refusalsUntilAside)
      this.#drop(report);
    this.#postpone(server);
  }

  #postpone(server: string): void {
    const { clock } = this.#parts;
    const before = this.#later.get(server);
    const now = clock.now();
    if (before && before.notBefore > now) return;
    const count = (before?.count ?? 0) + 1;
    const delay = Math.min(retry.cap, retry.first * 2 ** Math.min(count - 1, 20));
    const timer = clock.after(delay, () => this.#wake());
    this.#later.set(server, { count, notBefore: plus(now, delay), timer });
  }

  #recovered(server: string): void {
    this.#later.get(server)?.timer.cancel();
    this.#later.delete(server);
  }

  #writeSoon(): void {
    this.#timer ??= this.#parts.clock.after(
      writeAfter,
      guarded(this.#parts.events, 'telemetry', () => this.#write()),
    );
  }

  /** Writes what has waited for long enough, and deletes what is gone, in one transaction. */
  #write(age: number = writeAfter / 2): void {
    const { rows, events, clock } = this.#parts;
    this.#timer = undefined;
    const unwritten = this.#reports.filter(({ number }) => number === undefined);
    const fresh = unwritten.filter(({ since }) => clock.now() - since >= age);
    if (fresh.length < unwritten.length) this.#writeSoon();
    if (fresh.length + this.#gone.size === 0) return;
    try {
      for (const [at, number] of rows.change(fresh, this.#gone).entries()) fresh[at]!.number = number;
      this.#gone.clear();
    } catch (thrown) {
      if (asPosternError(thrown).code !== 'storage') throw thrown;
      failed(events, 'telemetry', thrown);
      this.#writeSoon();
    }
  }
}

/** A ServerID has no NUL. */
const keyOf = ({ server, talkative: device }: Lane): string =>
  device === undefined ? server : `${server}\0${device}`;
