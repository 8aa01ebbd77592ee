import type { Clock } from '../base/clock.ts';
import { type Database, keepLatest } from '../base/database.ts';
import type { Entropy } from '../base/entropy.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import { keepNumbersLow, type ReadableTable, readRows } from '../base/rows.ts';
import { valueText } from '../dm/server-session.ts';
import { DmStatus, isOk } from '../dm/status.ts';
import { demandDone, noGateway } from './gateway-operations.ts';
import {
  type ObservationRequest,
  observationNode,
  observationOperations,
  observationQuestions,
} from './observation-operations.ts';
import type { Parties } from './parties.ts';
import type { SessionRequests } from './session-requests.ts';

/**
 * - `running`: the gateway has taken it
 * - `unknown`: nobody can say whether the gateway has it, because the session broke off
 * - `lost`: the gateway has lost its state, or went back to an earlier one
 */
export const observationStates = ['running', 'unknown', 'lost'] as const;

/** An observation that this server has ordered. */
export interface ObservationRecord {
  readonly gateway: string;
  readonly name: string;
  readonly state: (typeof observationStates)[number];
  /** By this server's clock, ISO 8601. */
  readonly ordered: string;
}

/** How an observation stands at its gateway. */
export interface ObservationStatus {
  /** 0: idle, 1: running, 2: its lifetime is over, 3: stopped. */
  readonly state: number;
  readonly observed: number;
  readonly waiting: number;
  readonly refused: number;
  /** Why devices cannot be observed: JSON, as the gateway says. */
  readonly refusals: string;
}

export interface ObservationDeskParts {
  readonly database: Database;
  readonly parties: Parties;
  readonly sessionRequests: SessionRequests;
  readonly entropy: Entropy;
  readonly clock: Clock;
}

/** Observations that are remembered. The oldest are forgotten. */
export const observationLimit = 1000;

/** Orders observations at gateways, and remembers them. Durable and bounded. */
export class ObservationDesk {
  readonly #parts: ObservationDeskParts;

  constructor(parts: ObservationDeskParts) {
    this.#parts = parts;
    keepNumbersLow(parts.database, 'ordered_observation', 'number');
  }

  /**
   * Starts an observation at a gateway. One of this name is replaced there.
   * @throws {PosternError} `notFound` for an unknown gateway, `conflict` or `full` when the gateway refused an operation; otherwise
   *   as `SessionRequests.perform`. An observation of which nobody knows whether the gateway has it is remembered then too.
   */
  async order(gateway: string, request: ObservationRequest): Promise<ObservationRecord> {
    const { database, sessionRequests, entropy, clock } = this.#parts;
    const { name } = request;
    this.#demandGateway(gateway);
    sessionRequests.brokerGatewayFor(gateway);
    const correlator = Buffer.from(entropy.bytes(8)).toString('hex');
    database.transaction(() => {
      database
        .prepare(
          `INSERT INTO ordered_observation (gateway, name, state, ordered) VALUES (?, ?, 'unknown', ?)
           ON CONFLICT (gateway, name) DO UPDATE SET state = excluded.state, ordered = excluded.ordered`,
        )
        .run(gateway, name, Math.round(clock.wall()));
      keepLatest(database, 'ordered_observation', observationLimit);
    });
    try {
      await database.settled();
      demandDone(gateway, await sessionRequests.run(gateway, observationOperations(request, correlator)));
    } catch (thrown) {
      const { code } = asPosternError(thrown);
      // It was refused, and one of this name that was there before was deleted first.
      if (code === 'conflict' || code === 'full') this.#forget(gateway, name);
      throw thrown;
    }
    database
      .prepare("UPDATE ordered_observation SET state = 'running' WHERE gateway = ? AND name = ?")
      .run(gateway, name);
    const record = this.get(gateway, name);
    if (!record) throw new PosternError('notFound', `the observation ${name} was ended meanwhile`);
    return record;
  }

  /** Lists the observations of a gateway, the latest last. @throws {PosternError} `notFound` */
  list(gateway: string): ObservationRecord[] {
    this.#demandGateway(gateway);
    return readRows(this.#parts.database, observationTable, 'WHERE gateway = ? ORDER BY number', gateway);
  }

  get(gateway: string, name: string): ObservationRecord | undefined {
    const where = 'WHERE gateway = ? AND name = ?';
    return readRows(this.#parts.database, observationTable, where, gateway, name)[0];
  }

  /**
   * Asks a gateway how an observation stands.
   * @throws {PosternError} `notFound` when it has none of this name; otherwise as `SessionRequests.perform`
   */
  async status(gateway: string, name: string): Promise<ObservationStatus> {
    const { sessionRequests } = this.#parts;
    this.#demandGateway(gateway);
    const outcomes = await sessionRequests.run(gateway, observationQuestions(name));
    const [state, observed, waiting, refused, refusals = '[]'] = outcomes.map(({ status, results }) =>
      isOk(status) ? String(valueText(results[0]?.data ?? '')) : undefined,
    );
    if (state === undefined) throw new PosternError('notFound', `${gateway} has no observation ${name}`);
    return {
      state: Number(state),
      observed: Number(observed ?? 0),
      waiting: Number(waiting ?? 0),
      refused: Number(refused ?? 0),
      refusals,
    };
  }

  /**
   * Ends an observation at its gateway, and forgets it here.
   * @throws {PosternError} as `SessionRequests.perform`, `conflict` when the gateway refused it
   */
  async end(gateway: string, name: string): Promise<void> {
    const { sessionRequests } = this.#parts;
    this.#demandGateway(gateway);
    const uri = observationNode(name);
    const [outcome] = await sessionRequests.run(gateway, [{ name: 'Delete', uri }]);
    const { status = DmStatus.NotExecuted } = outcome ?? {};
    if (!isOk(status) && status !== DmStatus.NotFound)
      throw new PosternError('conflict', `${gateway} answered the Delete of ${name} with ${status}`);
    this.#forget(gateway, name);
  }

  /** A gateway has lost its state. Joins the caller's transaction. */
  lost(gateway: string): void {
    this.#parts.database
      .prepare("UPDATE ordered_observation SET state = 'lost' WHERE gateway = ?")
      .run(gateway);
  }

  #forget(gateway: string, name: string): void {
    this.#parts.database
      .prepare('DELETE FROM ordered_observation WHERE gateway = ? AND name = ?')
      .run(gateway, name);
  }

  #demandGateway(id: string): void {
    const { parties } = this.#parts;
    if (!parties.isGateway(id)) throw new PosternError('notFound', noGateway(parties, id));
  }
}

const observationTable: ReadableTable<ObservationRecord> = {
  table: 'ordered_observation',
  key: ['number'],
  read: (row) => ({
    gateway: row.text('gateway'),
    name: row.text('name'),
    state: row.oneOf('state', observationStates),
    ordered: new Date(row.time('ordered')).toISOString(),
  }),
};
