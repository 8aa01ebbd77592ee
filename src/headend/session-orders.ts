import type { Entropy } from '../base/entropy.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import { inPackages } from '../dm/jobs.ts';
import type { Operation } from '../dm/server-session.ts';
import { noGateway } from './gateway-operations.ts';
import type { OrderBook } from './order-book.ts';
import { type OutcomeView, outcomeView } from './outcome-view.ts';
import type { Parties, Party } from './parties.ts';
import type { SessionRequests } from './session-requests.ts';

export interface SessionOrdersParts {
  readonly parties: Parties;
  readonly sessionRequests: SessionRequests;
  readonly orders: OrderBook;
  readonly entropy: Entropy;
}

/** What came of the operations of one session. */
export interface SessionAnswer {
  /** Names the order in the order book. */
  readonly correlator: string;
  readonly operations: OutcomeView[];
}

/** Operations in a session of one device or gateway, as orders: who lost the answer finds it in the order book. */
export class SessionOrders {
  readonly #parts: SessionOrdersParts;

  constructor(parts: SessionOrdersParts) {
    this.#parts = parts;
  }

  /**
   * Asks a party for a session, does operations in it and returns their outcomes.
   * @param kind what the party must be
   * @throws {PosternError} `notFound` for another kind of party; otherwise as `SessionRequests.perform`
   */
  async run(kind: Party['kind'], party: string, operations: readonly Operation[]): Promise<SessionAnswer> {
    const { sessionRequests, orders, entropy } = this.#parts;
    this.#demand(kind, party);
    sessionRequests.brokerGatewayFor(party);
    const correlator = Buffer.from(entropy.bytes(8)).toString('hex');
    const number = orders.begin({ kind: 'Session', party, name: correlator, correlator });
    let isBegun = false;
    const outcomes: OutcomeView[] = [];
    try {
      await sessionRequests.perform(party, async function* () {
        isBegun = true;
        outcomes.push(...(yield* inPackages(operations)).map(outcomeView));
      });
      orders.end(number, { state: 'done', operations: outcomes });
      return { correlator, operations: outcomes };
    } catch (thrown) {
      const { dmStatus: status, message: reason } = asPosternError(thrown);
      orders.end(number, { state: isBegun ? 'unknown' : 'failed', status, reason });
      throw thrown;
    } finally {
      orders.sent(number);
    }
  }

  /** @throws {PosternError} `notFound` for another kind of party. A party without an account is refused later. */
  #demand(kind: Party['kind'], id: string): void {
    const { parties } = this.#parts;
    if (kind === 'gateway' && !parties.isGateway(id))
      throw new PosternError('notFound', noGateway(parties, id));
  }
}
