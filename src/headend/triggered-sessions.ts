import { background, persistently } from '../base/background.ts';
import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock } from '../base/clock.ts';
import type { Database } from '../base/database.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { keepNumbersLow, type ReadableTable, readRows } from '../base/rows.ts';
import type { Jobs } from '../dm/jobs.ts';
import type { Operation } from '../dm/server-session.ts';
import { DmStatus } from '../dm/status.ts';
import { type OutcomeView, outcomesJson, outcomeView, storedOutcomes } from './outcome-view.ts';

/** State of the session that a trigger requested from one device. */
export interface TriggeredDevice {
  readonly device: string;
  /** 0 until the session has ended, 200 when its operations are done, otherwise the DM status of the error. */
  readonly status: number;
  /** Outcomes of the operations, in their order. Empty unless `status` is 200. */
  readonly operations: readonly OutcomeView[];
}

/** A trigger that a gateway has accepted. */
interface Trigger {
  readonly gateway: string;
  /** Unique per gateway. A later trigger of the same name takes the place of an earlier one. */
  readonly name: string;
  readonly devices: readonly string[];
  /** Those of them without an account here, such as LwM2M clients. They open no session: 404. */
  readonly strangers: ReadonlySet<string>;
  /** The operations of each session. */
  readonly operations: readonly Operation[];
  /** Seconds that each device may take to open its session and finish the operations. */
  readonly deadline: number;
}

/** Triggers whose sessions are remembered. The oldest is dropped, and its sessions are given up. */
export const triggerLimit = 64;

export interface TriggeredSessionsParts {
  readonly jobs: Jobs;
  readonly clock: Clock;
  readonly events: Events;
  readonly database: Database;
}

/**
 * Keeps the operations of triggered sessions until the devices open these sessions, and remembers the outcomes. The
 * outcomes are durable. The operations are not: a session that had not ended when this server stopped ends with 503,
 * because nobody knows how far it came.
 */
export class TriggeredSessions {
  readonly #parts: TriggeredSessionsParts;
  readonly #triggers = new BoundedMap<string, Map<string, TriggeredDevice>>(triggerLimit, (key) =>
    this.#forget(key),
  );
  /** Stops the sessions of one trigger. */
  readonly #stops = new Map<string, AbortController>();
  readonly #stop = new AbortController();

  constructor(parts: TriggeredSessionsParts) {
    this.#parts = parts;
    keepNumbersLow(parts.database, 'triggered_session', 'number');
    for (const { gateway, name, ...session } of readRows(parts.database, sessionTable, 'ORDER BY number')) {
      const key = keyOf(gateway, name);
      const known = this.#triggers.get(key) ?? new Map<string, TriggeredDevice>();
      known.set(session.device, session.status === 0 ? { ...session, status: interrupted } : session);
      this.#triggers.set(key, known);
    }
  }

  /** Queues the operations for every device of a trigger. Does not wait for the sessions. */
  begin({ gateway, name, devices, strangers, operations, deadline }: Trigger): void {
    const { database, events, clock } = this.#parts;
    this.drop(gateway, name);
    const key = keyOf(gateway, name);
    const sessions = new Map<string, TriggeredDevice>(
      devices.map((device) => [device, { device, status: 0, operations: [] }]),
    );
    const control = new AbortController();
    this.#stops.set(key, control);
    this.#triggers.set(key, sessions);
    const signal = AbortSignal.any([this.#stop.signal, control.signal]);
    const store = () =>
      database.transaction(() => {
        const insert = database.prepare(
          "INSERT OR IGNORE INTO triggered_session (gateway, name, device, status, operations) VALUES (?, ?, ?, 0, '[]')",
        );
        for (const device of devices) insert.run(gateway, name, device);
      });
    const stored = persistently({ clock, events }, 'trigger', store, signal);
    for (const device of devices)
      void background(events, 'trigger', async () => {
        const ended: TriggeredDevice = strangers.has(device)
          ? { device, status: DmStatus.NotFound, operations: [] }
          : await this.#run(device, operations, deadline, signal);
        sessions.set(device, ended);
        await stored;
        const write = () => this.#store(gateway, name, ended);
        await persistently({ clock, events }, 'trigger', write, signal);
      });
  }

  /** Returns the sessions of a trigger, one per device. Undefined when the trigger is unknown or dropped. */
  of(gateway: string, name: string): TriggeredDevice[] | undefined {
    const found = this.#triggers.get(keyOf(gateway, name));
    return found && [...found.values()];
  }

  /** Gives up the sessions of a trigger, and forgets it. */
  drop(gateway: string, name: string): void {
    const key = keyOf(gateway, name);
    this.#triggers.delete(key);
    this.#forget(key);
  }

  /** Gives up all sessions that have not ended. */
  stop(): void {
    this.#stop.abort(new PosternError('unavailable', 'the server stops'));
  }

  #forget(key: string): void {
    this.#stops.get(key)?.abort(new PosternError('unavailable', 'the trigger was deleted'));
    this.#stops.delete(key);
    const [gateway = '', name = ''] = key.split(' ');
    const { database, events } = this.#parts;
    // A row that stays is one more trigger after the next start.
    void background(events, 'trigger', () =>
      database.prepare('DELETE FROM triggered_session WHERE gateway = ? AND name = ?').run(gateway, name),
    );
  }

  #store(gateway: string, name: string, { device, status, operations }: TriggeredDevice): void {
    this.#parts.database
      .prepare(
        'UPDATE triggered_session SET status = ?, operations = ? WHERE gateway = ? AND name = ? AND device = ?',
      )
      .run(status, outcomesJson(operations), gateway, name, device);
  }

  /** Does the operations in the next session of a device. Never rejects. */
  async #run(
    device: string,
    operations: readonly Operation[],
    deadline: number,
    stop: AbortSignal,
  ): Promise<TriggeredDevice> {
    const { clock, jobs } = this.#parts;
    const giveUp = new AbortController();
    const timer = clock.after(deadline * 1000, () =>
      giveUp.abort(new PosternError('timeout', `${device} opened no session in ${deadline} s`)),
    );
    try {
      const outcomes = await jobs.run(device, operations, AbortSignal.any([giveUp.signal, stop]));
      return { device, status: DmStatus.Ok, operations: outcomes.map(outcomeView) };
    } catch (thrown) {
      return { device, status: asPosternError(thrown).dmStatus, operations: [] };
    } finally {
      timer.cancel();
    }
  }
}

/** DM status of a session that had not ended when this server stopped. */
const interrupted = new PosternError('unavailable', '').dmStatus;

/** Neither the name of a gateway nor that of a trigger has a space. */
const keyOf = (gateway: string, name: string): string => `${gateway} ${name}`;

const sessionTable: ReadableTable<TriggeredDevice & { readonly gateway: string; readonly name: string }> = {
  table: 'triggered_session',
  key: ['number'],
  read: (row) => ({
    gateway: row.text('gateway'),
    name: row.text('name'),
    device: row.text('device'),
    status: row.integer('status'),
    operations: row.json('operations', storedOutcomes),
  }),
};
