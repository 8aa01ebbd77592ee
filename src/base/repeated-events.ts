import { hash } from 'node:crypto';
import { senderOf } from './address-prefix.ts';
import { BoundedMap } from './bounded-map.ts';
import type { Clock, Monotonic } from './clock.ts';
import type { EventFields, Severity } from './event-fields.ts';
import type { EventName } from './event-table.ts';

/**
 * Milliseconds in which the same cause and peer is told once. Causes and peers that are remembered, each as a hash, and
 * characters of each text that is kept for the count. Changes of a state (`online`) that are told within the time. Lines of one name: how many at once, and how many in a second after that. What any device may cause by a wrong message is a
 * warning; what happens to a device that is known here is an info, and there may be thousands of devices.
 */
export const repetitionLimits = {
  window: 60_000,
  causes: 1024,
  characters: 128,
  changes: 8,
  lines: { warn: { burst: 32, perSecond: 0.5 }, info: { burst: 2000, perSecond: 10 } },
} as const;

/** Fields that tell the cause of an event and the peer. Numbers of sessions, sizes and times differ each time. */
const causeFields = [
  ...['device', 'gateway', 'server', 'child', 'client', 'via', 'name', 'party', 'alert', 'topic', 'origin'],
  ...['reason', 'message', 'status', 'code', 'option', 'command', 'uri'],
] as const;

/** Tells how often an event has been left out, since the line that was written for it. */
export type TellRepetitions = (name: EventName, fields: EventFields) => void;

interface Told {
  readonly name: EventName;
  /** Those of the line that was written, cut, as JSON. A text of its own keeps no message of a peer in memory. */
  fields: string;
  readonly until: Monotonic;
  /** The latest state, of an event that tells one. Its changes that were written. */
  online: EventFields[string];
  changes: number;
  repeated: number;
}

interface Budget {
  lines: number;
  at: Monotonic;
  /** Events of any cause that were left out. */
  others: number;
}

/**
 * Decides which events that peers cause are written to the log. An event of a new cause or peer is, as long as the budget of
 * its name lasts. Any other event is counted, and the count is told after `window`. A flood of wrong messages from any number
 * of addresses thus fills no disk, and hides no event of another name.
 */
export class RepeatedEvents {
  readonly #clock: Pick<Clock, 'now' | 'after'>;
  readonly #tell: TellRepetitions;
  readonly #told: BoundedMap<string, Told>;
  readonly #budgets = new Map<EventName, Budget>();
  #isSweeping = false;

  constructor(clock: Pick<Clock, 'now' | 'after'>, tell: TellRepetitions) {
    this.#clock = clock;
    this.#tell = tell;
    this.#told = new BoundedMap(repetitionLimits.causes, (_, told) => this.#forget(told));
  }

  /** Whether this event is to be written. If not, it is counted. */
  admits(name: EventName, severity: Severity, fields: EventFields): boolean {
    this.#sweepLater();
    const key = causeOf(name, severity, fields);
    const told = this.#told.get(key);
    const budget = this.#budgetOf(name, severity);
    if (told && told.until > this.#clock.now()) {
      // The log tells the state that holds: a change is written, and a count has the latest.
      const isChange = fields.online !== told.online;
      if (isChange) {
        told.online = fields.online;
        told.fields = kept(fields);
      }
      if (isChange && told.changes < repetitionLimits.changes && budget.lines >= 1) {
        told.changes++;
        budget.lines--;
        return true;
      }
      told.repeated++;
      return false;
    }
    if (budget.lines < 1) {
      budget.others++;
      return false;
    }
    budget.lines--;
    if (told) this.#tellOf(told);
    const until = (this.#clock.now() + repetitionLimits.window) as Monotonic;
    const { online } = fields;
    this.#told.set(key, { name, fields: kept(fields), until, online, changes: 0, repeated: 0 });
    return true;
  }

  #budgetOf(name: EventName, severity: Severity): Budget {
    const { burst, perSecond } = repetitionLimits.lines[severity === 'info' ? 'info' : 'warn'];
    const now = this.#clock.now();
    const budget = this.#budgets.get(name) ?? { lines: burst, at: now, others: 0 };
    budget.lines = Math.min(burst, budget.lines + ((now - budget.at) / 1000) * perSecond);
    budget.at = now;
    this.#budgets.set(name, budget);
    return budget;
  }

  #sweepLater(): void {
    if (this.#isSweeping) return;
    this.#isSweeping = true;
    this.#clock.after(repetitionLimits.window, () => this.#sweep());
  }

  /** Tells the counts of what is over, and goes on as long as something is remembered. */
  #sweep(): void {
    this.#isSweeping = false;
    const now = this.#clock.now();
    for (const [key, told] of this.#told.entries()) {
      if (told.until > now) break;
      this.#told.delete(key);
      this.#tellOf(told);
    }
    for (const [name, budget] of this.#budgets) {
      if (budget.others > 0) this.#tell(name, { repeated: budget.others, others: true });
      budget.others = 0;
    }
    if (this.#told.size > 0) this.#sweepLater();
  }

  #tellOf({ name, fields, repeated }: Told): void {
    if (repeated > 0) this.#tell(name, { ...JSON.parse(fields), repeated });
  }

  #forget({ name, repeated }: Told): void {
    const budget = this.#budgets.get(name);
    if (budget) budget.others += repeated;
  }
}

/**
 * A hash of what the event says of its cause. The port of a peer is left out, since a peer may use any number of ports, and of
 * an IPv6 address all but the /64. So
 * is its whole address where the event is about a device that is known: anybody may send in its name, from any address.
 */
function causeOf(name: EventName, severity: Severity, fields: EventFields): string {
  const peer = severity === 'info' ? '' : senderOf(hostOf(String(fields.peer ?? '')));
  let cause = `${name} ${peer.length} ${peer}`;
  for (const field of causeFields) {
    const value = fields[field];
    if (value === undefined) continue;
    // Texts differ in numbers as well: `try again in 4 s`.
    const text = isSentence(field) ? String(value).replace(/\d+/g, '0') : String(value);
    // With its length, no text can pass for another field.
    cause += ` ${field} ${text.length} ${text}`;
  }
  return hash('sha256', cause, 'base64');
}

const isSentence = (field: string): boolean => field === 'reason' || field === 'message';

function kept(fields: EventFields): string {
  const cut: Record<string, EventFields[string]> = {};
  for (const field in fields) {
    const value = fields[field];
    cut[field] = typeof value === 'string' ? value.slice(0, repetitionLimits.characters) : value;
  }
  return JSON.stringify(cut);
}

/** `192.0.2.1` of `coap://192.0.2.1:5683/x`, `192.0.2.1:5683` and `192.0.2.1`. */
const hostOf = (peer: string): string =>
  peer
    .replace(/^[a-z+]+:\/\//, '')
    .replace(/\/.*$/, '')
    .replace(/^(\[[^\]]*\]|[^:]+):\d+$/, '$1')
    .replace(/^\[|\]$/g, '');
