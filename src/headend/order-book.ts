import type { Clock } from '../base/clock.ts';
import type { Database } from '../base/database.ts';
import { PosternError } from '../base/errors.ts';
import { keepNumbersLow, type ReadableTable, readRows } from '../base/rows.ts';
import { type OutcomeView, outcomesJson, storedOutcomes } from './outcome-view.ts';
import { recordLimits } from './records.ts';

/** Kinds of orders: campaigns and images at a gateway, operations in one session, and the bootstrap of a device. */
export const orderKinds = [
  'CommandFanout',
  'DeviceTrigger',
  'ImageOperation',
  'Session',
  'Bootstrap',
] as const;
export type OrderKind = (typeof orderKinds)[number];

/**
 * - `sending`: this server has accepted the order; the party has not answered yet
 * - `running`: the party has taken the order and goes on with it. A bootstrap waits for the next session of the device
 * - `done`: it has ended; the result says how
 * - `failed`: it has ended without effect, or its result is an error
 * - `unknown`: nobody can say whether the party did it. A result that arrives later changes this
 */
export const orderStates = ['sending', 'running', 'done', 'failed', 'unknown'] as const;
export type OrderState = (typeof orderStates)[number];

/** An order from its acceptance to its end. */
export interface Order {
  /** Rises with each order. Pages of orders are addressed by it. */
  readonly number: number;
  readonly kind: OrderKind;
  /** The gateway; for `Session` the device or gateway. */
  readonly party: string;
  /** Name of the node on the gateway. For `Session` the correlator; for `Bootstrap` the device. */
  readonly name: string;
  /** Names this order and no other one. The gateway repeats it in the alert that reports the result. */
  readonly correlator: string;
  readonly state: OrderState;
  /** By this server's clock, ISO 8601. */
  readonly accepted: string;
  /** The party ends it at this time at the latest, ISO 8601. Absent when there is no such time. */
  readonly due?: string;
  /** ISO 8601. Absent while it has not ended. */
  readonly ended?: string;
  /** A DM status; for an image the result code of FUMO. */
  readonly status?: number;
  /** Why it failed, is unknown or waits for the party to come by itself, for a person. */
  readonly reason?: string;
  /** Outcomes of the operations of a `Session`. */
  readonly operations?: readonly OutcomeView[];
}

/** What is known of an order when it is accepted. */
export interface NewOrder {
  readonly kind: OrderKind;
  readonly party: string;
  readonly name: string;
  readonly correlator: string;
  readonly state?: 'sending' | 'running';
  /** Seconds after which the party ends it. */
  readonly seconds?: number | undefined;
}

/** How an order ended. */
export interface OrderEnd {
  readonly state: 'done' | 'failed' | 'unknown';
  readonly status?: number | undefined;
  readonly reason?: string | undefined;
  readonly operations?: readonly OutcomeView[] | undefined;
}

/** Orders of each kind that are remembered. The oldest are forgotten. */
export const orderLimits: Readonly<Record<OrderKind, number>> = {
  CommandFanout: 1000,
  DeviceTrigger: 1000,
  ImageOperation: 1000,
  Session: 1000,
  Bootstrap: recordLimits.assignments,
};

/** Orders of these kinds are done once: their name stands for one order until it is deleted. */
const once: Partial<Readonly<Record<OrderKind, { readonly what: string; readonly path: string }>>> = {
  CommandFanout: { what: 'a fan-out', path: 'fanouts' },
  DeviceTrigger: { what: 'a trigger', path: 'triggers' },
};

const interrupted = 'this server was restarted before the party answered';
const gatewayForgot = 'the gateway lost its state, or went back to an earlier one';

/** All orders that this server accepted. Durable and bounded. */
export class OrderBook {
  readonly #database: Database;
  readonly #clock: Clock;
  /** Orders that this process sends now, by number. Another one of state `sending` was interrupted by a restart. */
  readonly #sending = new Set<number>();

  constructor(database: Database, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
    keepNumbersLow(database, 'accepted_order', 'number');
  }

  /**
   * Accepts an order. An earlier image, session or bootstrap of this name is replaced. Returns the number of the order.
   * @throws {PosternError} `conflict` when a fan-out or trigger of this name exists at this gateway and did not fail
   */
  begin({ kind, party, name, correlator, state = 'sending', seconds }: NewOrder): number {
    const database = this.#database;
    const now = Math.round(this.#clock.wall());
    const due = seconds === undefined ? null : now + seconds * 1000;
    const number = database.transaction(() => {
      const before = this.get(kind, party, name);
      const named = once[kind];
      if (before && named && before.state !== 'failed')
        throw new PosternError(
          'conflict',
          `${named.what} named ${name} exists at ${party} since ${before.accepted}, and its state is ${before.state} (GET /${named.path}/${party}/${name}); take another name, or DELETE it first`,
        );
      this.remove(kind, party, name);
      const { lastInsertRowid } = database
        .prepare(
          'INSERT INTO accepted_order (kind, party, name, correlator, state, accepted, due) VALUES (?, ?, ?, ?, ?, ?, ?)',
        )
        .run(kind, party, name, correlator, state, now, due);
      database
        .prepare(
          `DELETE FROM accepted_order WHERE kind = ? AND number <=
             (SELECT number FROM accepted_order WHERE kind = ? ORDER BY number DESC LIMIT 1 OFFSET ?)`,
        )
        .run(kind, kind, orderLimits[kind]);
      return Number(lastInsertRowid);
    });
    if (state === 'sending') this.#sending.add(number);
    return number;
  }

  /** The party has taken the order. Its result may have come before. */
  taken(number: number): void {
    this.#database
      .prepare("UPDATE accepted_order SET state = 'running' WHERE number = ? AND state = 'sending'")
      .run(number);
  }

  /**
   * The party cannot be asked now. The order waits until the party comes by itself.
   * @param seconds for which it waits at most
   */
  waits(number: number, reason: string, seconds: number): void {
    this.#database
      .prepare("UPDATE accepted_order SET reason = ?, due = ? WHERE number = ? AND state = 'sending'")
      .run(reason, Math.round(this.#clock.wall()) + seconds * 1000, number);
  }

  /** The party has come, and may do the order from now on. */
  begun(number: number): void {
    this.#database
      .prepare("UPDATE accepted_order SET reason = NULL WHERE number = ? AND state = 'sending'")
      .run(number);
  }

  /** To be called when an order is not sent any more and all that is known of it is stored. */
  sent(number: number): void {
    this.#sending.delete(number);
  }

  /** Stores how an order ended. A result that came before stays. */
  end(number: number, { state, status, reason, operations }: OrderEnd): void {
    this.#database
      .prepare(
        `UPDATE accepted_order SET state = ?, ended = ?, status = ?, reason = ?, operations = ?
         WHERE number = ? AND state IN ('sending', 'running', 'unknown', 'failed')`,
      )
      .run(
        state,
        Math.round(this.#clock.wall()),
        status ?? null,
        reason ?? null,
        operations ? outcomesJson(operations) : null,
        number,
      );
  }

  /** Ends the order to which the gateway reported a result. The result of an earlier order of this name changes nothing. */
  resulted(
    kind: OrderKind,
    party: string,
    name: string,
    correlator: string | undefined,
    end: OrderEnd,
  ): void {
    const order = this.get(kind, party, name);
    if (order && order.correlator === correlator) this.end(order.number, end);
  }

  /** A gateway has lost its state. What it does of the orders that run there is not known. */
  lost(gateway: string): void {
    this.#database
      .prepare(
        "UPDATE accepted_order SET state = 'unknown', reason = ? WHERE party = ? AND state = 'running' AND kind <> 'Bootstrap'",
      )
      .run(gatewayForgot, gateway);
  }

  /** Forgets an order. */
  remove(kind: OrderKind, party: string, name: string): void {
    this.#database
      .prepare('DELETE FROM accepted_order WHERE kind = ? AND party = ? AND name = ?')
      .run(kind, party, name);
  }

  /** Returns the order of this name that was accepted last. */
  get(kind: OrderKind, party: string, name: string): Order | undefined {
    return this.#read('WHERE kind = ? AND party = ? AND name = ?', kind, party, name)[0];
  }

  /** Returns an order by its correlator. */
  find(correlator: string): Order | undefined {
    return this.#read('WHERE correlator = ?', correlator)[0];
  }

  /** Lists the orders of one kind, the latest last. */
  list(kind: OrderKind): Order[] {
    return this.#read('WHERE kind = ? ORDER BY number', kind);
  }

  /** Lists orders of all kinds, the latest first: at most `limit`, and only numbers below `before`. */
  latest(limit: number, before = Number.MAX_SAFE_INTEGER): Order[] {
    return this.#read('WHERE number < ? ORDER BY number DESC LIMIT ?', before, limit);
  }

  #read(where: string, ...parameters: (string | number)[]): Order[] {
    return readRows(this.#database, orderTable, where, ...parameters).map((order) =>
      order.state === 'sending' && !this.#sending.has(order.number)
        ? // With a reason it waited for the party, which has not got it.
          { ...order, state: order.reason === undefined ? 'unknown' : 'failed', reason: interrupted }
        : order,
    );
  }
}

const date = (milliseconds: number): string => new Date(milliseconds).toISOString();

const orderTable: ReadableTable<Order> = {
  table: 'accepted_order',
  key: ['number'],
  read: (row) => {
    const { due } = row.optionalInteger('due');
    const { ended } = row.optionalInteger('ended');
    const { operations } = row.optionalText('operations');
    return {
      number: row.integer('number'),
      kind: row.oneOf('kind', orderKinds),
      party: row.text('party'),
      name: row.text('name'),
      correlator: row.text('correlator'),
      state: row.oneOf('state', orderStates),
      accepted: date(row.time('accepted')),
      ...(due !== undefined && { due: date(due) }),
      ...(ended !== undefined && { ended: date(ended) }),
      ...row.optionalInteger('status'),
      ...row.optionalText('reason'),
      ...(operations !== undefined && { operations: row.json('operations', storedOutcomes) }),
    };
  },
};
