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
 * `ordered`: the gateway does not have it. `given`: it was sent, and the answer was not heard yet. `accepted`: the gateway has it.
 * `withdrawing`: a transfer is taken back, which the gateway has not confirmed yet. `done`: the gateway has told its end, or was
 * revoked. `refused`: by the gateway, or the transfer failed. `cancelled`: the order was taken back.
 */
export const departureStates = [
  'ordered',
  'given',
  'accepted',
  'withdrawing',
  'done',
  'refused',
  'cancelled',
] as const;
/** States of an order that has not ended, in SQL. */
const open = "('ordered', 'given', 'accepted', 'withdrawing')";
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
    if (next && (this.#open(gateway)?.state ?? 'ordered') !== 'ordered')
      throw new PosternError('conflict', `${gateway} has accepted an order; take it back first`);
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

  /**
   * Takes an order back. A transfer that the gateway may have is `withdrawing` until the gateway confirms it: it does as long as it
   * has not taken its next owner. @throws {PosternError} `notFound`; `conflict` when the gateway may have begun to wipe itself
   */
  cancel(gateway: string, order: Departure['order']): void {
    const found = this.#open(gateway);
    if (found?.order !== order) throw new PosternError('notFound', `${gateway} has no order to leave`);
    if (found.state === 'ordered') this.#end(gateway, 'cancelled');
    else if (order === 'transfer') this.#set(found.number, 'withdrawing');
    else throw new PosternError('conflict', `${gateway} has accepted the order, or may have`);
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
    if ((this.#open(gateway)?.state ?? 'accepted') !== 'accepted') this.#parts.notifier.ask(gateway, gateway);
  }

  /**
   * In a session with a gateway: gives it its order, or takes it back. The gateway takes an order that it has already, and takes one
   * back that it does not have.
   */
  async *work(gateway: string): Work {
    const order = this.#open(gateway);
    if (order?.state === 'ordered' || order?.state === 'given') yield* this.#give(order);
    const now = this.#open(gateway);
    if (now?.state === 'withdrawing') yield* this.#withdraw(now);
  }

  async *#give(order: Departure): Work {
    this.#set(order.number, 'given');
    const [outcome] = yield [this.#operation(order)];
    const status = outcome?.status ?? 0;
    // It may have been taken back meanwhile.
    if (this.#open(order.gateway)?.state !== 'given') return;
    if (isOk(status)) this.#set(order.number, 'accepted');
    else if (isFinal(status)) this.#refused(order, `the gateway answers with ${status}`);
    else if (status > 0) this.#set(order.number, 'ordered');
  }

  async *#withdraw({ number, gateway, order }: Departure): Work {
    const [outcome] = yield [{ name: 'Exec', uri: './GwOwner/Withdraw' }];
    const status = outcome?.status ?? 0;
    if (this.#open(gateway)?.number !== number) return;
    if (isOk(status)) return this.#end(gateway, 'cancelled');
    if (!isFinal(status)) return;
    // It has its next owner, and tells so, or it cannot take an order back.
    const reason = `it cannot be taken back: the gateway answers with ${status}`;
    this.#set(number, 'accepted', reason);
    this.#parts.events.emit('gateway.departure-refused', { gateway, order, reason });
  }

  #operation({ order, gateway }: Departure): Operation {
    const uri = `./GwOwner/${order === 'transfer' ? 'Transfer' : 'Decommission'}`;
    if (order === 'decommission') return { name: 'Exec', uri };
    const row = this.#parts.database
      .prepare(`SELECT next FROM departure WHERE gateway = ? AND state IN ${open}`)
      .get(gateway);
    const next = this.#parts.sealing.open(row?.next as Uint8Array, gateway);
    return { name: 'Exec', uri, format: 'chr', data: next?.toString() ?? '' };
  }

  /** A gateway says that it is gone, or that it could not be passed on. Joins the caller's transaction. */
  alerted(gateway: string, kind: string, reason: string): void {
    const found = this.#open(gateway);
    if (kind !== 'transfer') this.revoke(gateway, kind === 'transferred' ? 'transfer' : 'decommission');
    else if (found?.state === 'withdrawing') this.#end(gateway, 'cancelled', reason);
    else if (found?.order === 'transfer') this.#refused(found, reason);
  }

  /**
   * Ends the account of a gateway at once. Joins the caller's transaction.
   * @param kind how it has left, where no order says so
   */
  revoke(gateway: string, kind: Departure['order'] = 'decommission'): void {
    const { database, records, parties, gone, events } = this.#parts;
    const { by = 'the gateway itself', order = kind } = this.#open(gateway) ?? {};
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
    return readRows(this.#parts.database, table, `WHERE gateway = ? AND state IN ${open}`, gateway)[0];
  }

  #refused({ gateway, order }: Departure, reason: string): void {
    const { database, events } = this.#parts;
    database.transaction(() => {
      this.#end(gateway, 'refused', reason);
      database.afterCommit(() => events.emit('gateway.departure-refused', { gateway, order, reason }));
    });
  }

  #set(number: number, state: Departure['state'], reason?: string): void {
    this.#parts.database
      .prepare(`UPDATE departure SET state = ?, reason = ? WHERE number = ? AND state IN ${open}`)
      .run(state, reason ?? null, number);
  }

  /** Ends the order of a gateway. Its secrets are deleted. */
  #end(gateway: string, state: Departure['state'], reason?: string): void {
    this.#parts.database
      .prepare(
        `UPDATE departure SET state = ?, reason = ?, ended = ?, next = NULL WHERE gateway = ? AND state IN ${open}`,
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
        `DELETE FROM departure WHERE number = (SELECT min(number) FROM departure WHERE state NOT IN ${open})`,
      )
      .run();
    if (Number(changes) === 0) throw new PosternError('full', 'too many gateways have orders to leave');
  }
}

/** Whether a status stays the same when the operation is repeated. A state of class 5, or a disk that takes nothing, passes. */
const isFinal = (status: number): boolean => status >= 400 && status < 500 && status !== 420;

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
