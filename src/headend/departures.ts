import type { Clock } from '../base/clock.ts';
import type { Database } from '../base/database.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { type ReadableTable, readRows } from '../base/rows.ts';
import type { Sealer } from '../base/sealing.ts';
import type { Operation, Work } from '../dm/server-session.ts';
import { isOk } from '../dm/status.ts';
import type { EnrolmentRecords } from './enrolment-records.ts';
import type { Notifier } from './notifier.ts';
import { type ReleaseParts, releaseDevices } from './released-devices.ts';

/**
 * `ordered`: the gateway has not accepted it. `accepted`: it has. `done`: the gateway has told its end, or was revoked.
 * `refused`: by the gateway, or the transfer failed. `cancelled`: the order was taken back.
 */
export const departureStates = ['ordered', 'accepted', 'done', 'refused', 'cancelled'] as const;
export const departureOrders = ['decommission', 'transfer'] as const;

/** An order that a gateway leaves this server, and what came of it. */
export interface Departure {
  readonly number: number;
  readonly gateway: string;
  /** ID of the key of the board. */
  readonly key: string;
  readonly order: (typeof departureOrders)[number];
  readonly state: (typeof departureStates)[number];
  /** Who ordered it, as the order says. */
  readonly by: string;
  /** Why it was refused. */
  readonly reason?: string;
  /** Milliseconds since 1970. */
  readonly ordered: number;
  readonly ended?: number;
}

/** What the next owner of a gateway needs, as `./GwOwner/Transfer` takes it (docs/gwmo.md). */
export type NextOwner = Readonly<Record<string, string | boolean>> & {
  readonly server: string;
  readonly code: string;
};

export interface DeparturesParts extends ReleaseParts {
  readonly database: Database;
  readonly records: EnrolmentRecords;
  readonly sealing: Sealer;
  readonly notifier: Pick<Notifier, 'ask'>;
  /** Called when a gateway is gone: its board is to be told. */
  readonly gone: (gateway: string) => void;
  readonly clock: Clock;
  readonly events: Events;
}

/** Most orders that are kept. The oldest that has ended is deleted for a new one. */
export const departureLimit = 65_536;

/**
 * Orders that gateways leave this server: decommissioned, or passed to another owner. Durable. An order waits for a gateway
 * that is offline. When the gateway has told its end, or by force at once, its account is void, its certificate is not renewed,
 * and its name waits for a code or a person.
 */
export class Departures {
  readonly #parts: DeparturesParts;

  constructor(parts: DeparturesParts) {
    this.#parts = parts;
  }

  /**
   * Orders that a gateway leaves. It takes the place of an order that the gateway has not accepted.
   * @param next the next owner; absent when the gateway is decommissioned
   * @throws {PosternError} `notFound` when no board is enrolled by this name; `conflict` when its account is in the
   *   configuration, or it has accepted an order
   */
  order(gateway: string, by: string, next?: NextOwner): Departure {
    const { database, records, sealing, parties, clock, events } = this.#parts;
    const holder = records.demandHolder(gateway);
    if (parties.configured(gateway))
      throw new PosternError(
        'conflict',
        `${gateway} has an account in the configuration; delete its entry [[gateway]] first`,
      );
    const order = next ? 'transfer' : 'decommission';
    if (next && this.#open(gateway)?.state === 'accepted')
      throw new PosternError('conflict', `${gateway} has accepted an order`);
    database.transaction(() => {
      this.#end(gateway, 'cancelled', 'another order took its place');
      this.#makeRoom();
      const sealed = next && sealing.seal(Buffer.from(JSON.stringify(next)), gateway);
      database
        .prepare(
          "INSERT INTO departure (gateway, key, kind, state, by, next, ordered) VALUES (?, ?, ?, 'ordered', ?, ?, ?)",
        )
        .run(gateway, holder.key, order, by, sealed ?? null, Math.round(clock.wall()));
      database.afterCommit(() => events.emit('gateway.departure-ordered', { gateway, by, order }));
    });
    return this.#open(gateway)!;
  }

  /** The latest order of a gateway. */
  latest(gateway: string): Departure | undefined {
    return readRows(
      this.#parts.database,
      table,
      'WHERE gateway = ? ORDER BY number DESC LIMIT 1',
      gateway,
    )[0];
  }

  /** Takes an order back. @throws {PosternError} `notFound`; `conflict` when the gateway has accepted it */
  cancel(gateway: string, order: Departure['order']): void {
    const open = this.#open(gateway);
    if (open?.order !== order) throw new PosternError('notFound', `${gateway} has no order to leave`);
    if (open.state === 'accepted') throw new PosternError('conflict', `${gateway} has accepted the order`);
    this.#end(gateway, 'cancelled');
  }

  /** Lists orders, the latest first: at most `limit`, and only numbers below `before`. */
  list(limit: number, before = Number.MAX_SAFE_INTEGER): Departure[] {
    return readRows(
      this.#parts.database,
      table,
      'WHERE number < ? ORDER BY number DESC LIMIT ?',
      before,
      limit,
    );
  }

  /** Asks a gateway that has come online for a session if it has an order. */
  gatewayOnline(gateway: string): void {
    if (this.#open(gateway)?.state === 'ordered') this.#parts.notifier.ask(gateway, gateway);
  }

  /** In a session with a gateway: gives it its order. The gateway takes an order that it has already. */
  async *work(gateway: string): Work {
    const open = this.#open(gateway);
    if (open?.state !== 'ordered') return;
    const [outcome] = yield [this.#operation(open)];
    const status = outcome?.status ?? 0;
    if (isOk(status)) this.#set(open.number, 'accepted');
    // A state of class 5, or a disk that takes nothing, passes.
    else if (status >= 400 && status < 500 && status !== 420)
      this.#refused(open, `the gateway answers with ${status}`);
  }

  #operation({ order, gateway }: Departure): Operation {
    const uri = `./GwOwner/${order === 'transfer' ? 'Transfer' : 'Decommission'}`;
    if (order === 'decommission') return { name: 'Exec', uri };
    const row = this.#parts.database
      .prepare("SELECT next FROM departure WHERE gateway = ? AND state IN ('ordered', 'accepted')")
      .get(gateway);
    const next = this.#parts.sealing.open(row?.next as Uint8Array, gateway);
    return { name: 'Exec', uri, format: 'chr', data: next?.toString() ?? '' };
  }

  /** A gateway says that it is gone, or that it could not be passed on. Joins the caller's transaction. */
  alerted(gateway: string, kind: string, reason: string): void {
    const open = this.#open(gateway);
    if (kind === 'transfer') {
      if (open?.order === 'transfer') this.#refused(open, reason);
    } else this.revoke(gateway);
  }

  /** Ends the account of a gateway at once. Joins the caller's transaction. */
  revoke(gateway: string): void {
    const { database, records, parties, gone, events } = this.#parts;
    const open = this.#open(gateway);
    const { by = 'the gateway itself', order = 'decommission' } = open ?? {};
    if (!records.holder(gateway)) return;
    this.#end(gateway, 'done');
    records.leave(gateway, `${order === 'transfer' ? 'passed to another owner' : 'decommissioned'} by ${by}`);
    releaseDevices(gateway, this.#parts);
    for (const rows of ['replacement', 'handover', 'pending_detach', 'proved_way'])
      database.prepare(`DELETE FROM ${rows} WHERE gateway = ?`).run(gateway);
    database.afterCommit(() => {
      parties.revoke(gateway);
      events.emit('gateway.departed', { gateway, by, order });
      gone(gateway);
    });
  }

  #open(gateway: string): Departure | undefined {
    return readRows(
      this.#parts.database,
      table,
      "WHERE gateway = ? AND state IN ('ordered', 'accepted')",
      gateway,
    )[0];
  }

  #refused({ gateway, order }: Departure, reason: string): void {
    const { database, events } = this.#parts;
    database.transaction(() => {
      this.#end(gateway, 'refused', reason);
      database.afterCommit(() => events.emit('gateway.departure-refused', { gateway, order, reason }));
    });
  }

  #set(number: number, state: Departure['state']): void {
    this.#parts.database
      .prepare("UPDATE departure SET state = ? WHERE number = ? AND state IN ('ordered', 'accepted')")
      .run(state, number);
  }

  /** Ends the order of a gateway. Its secrets are deleted. */
  #end(gateway: string, state: Departure['state'], reason?: string): void {
    this.#parts.database
      .prepare(
        "UPDATE departure SET state = ?, reason = ?, ended = ?, next = NULL WHERE gateway = ? AND state IN ('ordered', 'accepted')",
      )
      .run(state, reason ?? null, Math.round(this.#parts.clock.wall()), gateway);
  }

  /** @throws {PosternError} `full` */
  #makeRoom(): void {
    const { database } = this.#parts;
    const count = Number(database.prepare('SELECT count(*) AS n FROM departure').get()?.n);
    if (count < departureLimit) return;
    const { changes } = database
      .prepare(
        "DELETE FROM departure WHERE number = (SELECT min(number) FROM departure WHERE state NOT IN ('ordered', 'accepted'))",
      )
      .run();
    if (Number(changes) === 0) throw new PosternError('full', 'too many gateways have orders to leave');
  }
}

const table: ReadableTable<Departure> = {
  table: 'departure',
  key: ['number'],
  read: (row) => ({
    number: row.integer('number'),
    gateway: row.text('gateway'),
    key: row.text('key'),
    order: row.oneOf('kind', departureOrders),
    state: row.oneOf('state', departureStates),
    by: row.text('by'),
    ...row.optionalText('reason'),
    ordered: row.time('ordered'),
    ...row.optionalInteger('ended'),
  }),
};
