import { persistently } from '../base/background.ts';
import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { inPackages } from '../dm/jobs.ts';
import type { Operation } from '../dm/server-session.ts';
import { noGateway } from './gateway-operations.ts';
import type { OrderBook, OrderEnd } from './order-book.ts';
import { type OutcomeView, outcomeView } from './outcome-view.ts';
import type { Parties, Party } from './parties.ts';
import type { SessionRequests } from './session-requests.ts';

export interface SessionOrdersParts {
  readonly parties: Parties;
  readonly sessionRequests: SessionRequests;
  readonly orders: OrderBook;
  readonly entropy: Entropy;
  readonly clock: Clock;
  readonly events: Events;
  /** Seconds that operations wait for a device that cannot be asked. */
  readonly patience: number;
}

/** Operations that wait for devices to come by themselves. */
export const waitingLimit = 1024;

/** What came of the operations of one session. */
export interface SessionAnswer {
  /** Names the order in the order book. */
  readonly correlator: string;
  /** Absent while they wait for a device that comes by itself: the order has the state then, and the outcomes later. */
  readonly operations?: OutcomeView[];
}

/** Operations in a session of one device or gateway, as orders: who lost the answer finds it in the order book. */
export class SessionOrders {
  readonly #parts: SessionOrdersParts;
  readonly #stop = new AbortController();
  #waiting = 0;

  constructor(parts: SessionOrdersParts) {
    this.#parts = parts;
  }

  /**
   * Asks a party for a session, does operations in it and returns their outcomes. Where a device cannot be asked, they wait for a
   * session that it opens itself, and this returns at once.
   * @param kind what the party must be
   * @throws {PosternError} `notFound` for another kind of party; `full` when too many operations wait for devices; otherwise as
   * `SessionRequests.perform`
   */
  async run(kind: Party['kind'], party: string, operations: readonly Operation[]): Promise<SessionAnswer> {
    const { orders, entropy } = this.#parts;
    this.#demand(kind, party);
    const correlator = Buffer.from(entropy.bytes(8)).toString('hex');
    const number = orders.begin({ kind: 'Session', party, name: correlator, correlator });
    const { promise: waits, resolve: told } = Promise.withResolvers<void>();
    // A gateway is asked at its broker. Only a device may come by itself.
    const isDevice = !this.#parts.parties.isGateway(party);
    const done = this.#perform(number, party, operations, isDevice ? told : undefined);
    const outcome = await Promise.race([done, waits]);
    if (outcome instanceof PosternError) throw outcome;
    return { correlator, ...(outcome && { operations: outcome }) };
  }

  /** Gives up what waits. */
  stop(): void {
    this.#stop.abort(new PosternError('unavailable', 'the server stops'));
  }

  /** Never rejects. Returns the error of operations that failed. */
  async #perform(
    number: number,
    party: string,
    operations: readonly Operation[],
    told: (() => void) | undefined,
  ): Promise<OutcomeView[] | PosternError> {
    const { sessionRequests, orders, patience: seconds } = this.#parts;
    let isBegun = false;
    let isWaiting = false;
    const outcomes: OutcomeView[] = [];
    const { signal } = this.#stop;
    const waits = (reason: string) => {
      if (isBegun) return;
      if (this.#waiting >= waitingLimit) throw new PosternError('full', 'too many orders wait for devices');
      this.#waiting++;
      isWaiting = true;
      orders.waits(number, `waits until the device comes by itself: ${reason}`, seconds);
      told?.();
    };
    const begin = () => {
      isBegun = true;
      if (isWaiting) orders.begun(number);
    };
    let end: OrderEnd;
    let failure: PosternError | undefined;
    try {
      await sessionRequests.perform(
        party,
        async function* () {
          begin();
          outcomes.push(...(yield* inPackages(operations)).map(outcomeView));
        },
        told && { seconds, waits, signal },
      );
      end = { state: 'done', operations: outcomes };
    } catch (thrown) {
      failure = asPosternError(thrown);
      const { dmStatus: status, message: reason } = failure;
      end = { state: isBegun ? 'unknown' : 'failed', status, reason };
    }
    if (isWaiting) this.#waiting--;
    const store = () => {
      orders.end(number, end);
      orders.sent(number);
    };
    try {
      store();
    } catch (thrown) {
      // Who waits for the answer gets the error. An order that waited has nobody to tell.
      if (isWaiting) void persistently(this.#parts, 'order', store, signal);
      else {
        orders.sent(number);
        failure = asPosternError(thrown);
      }
    }
    return failure ?? outcomes;
  }

  /** @throws {PosternError} `notFound` for another kind of party, and for one without an account */
  #demand(kind: Party['kind'], id: string): void {
    const { parties, sessionRequests } = this.#parts;
    if (kind === 'gateway' && !parties.isGateway(id))
      throw new PosternError('notFound', noGateway(parties, id));
    sessionRequests.demandAccount(id);
  }
}
