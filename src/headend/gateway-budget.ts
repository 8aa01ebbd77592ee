import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock, Monotonic } from '../base/clock.ts';
import type { Events } from '../base/events.ts';
import { FairBudget } from '../base/fair-budget.ts';

/**
 * For a rate of one gateway: seconds of it that may come at once; gateways whose rates may be used up at the same time; gateways
 * that are remembered, some 300 bytes each. Bytes of a message that cost one token.
 */
export const budgetLimits = { burst: 3, gateways: 6, remembered: 4096, bytes: 16 * 1024 } as const;

/** Milliseconds until it is told again that messages of a gateway are refused. */
const tellEvery = 60_000;

interface Refused {
  count: number;
  untold: number;
  readonly toldAt: Map<string, Monotonic>;
}

/**
 * Decides which messages of gateways are looked at, before anything of them is parsed. A gateway that sends more than its rate
 * shares a tenth of the total with all others that do so. The rest is for the other gateways.
 */
export class GatewayBudget {
  readonly #clock: Pick<Clock, 'now'>;
  readonly #events: Events;
  readonly #budget: FairBudget;
  readonly #refused = new BoundedMap<string, Refused>(budgetLimits.remembered);

  /** @param rate messages a second of one gateway, of up to 16 KiB; a larger one counts as several */
  constructor(rate: number, clock: Pick<Clock, 'now'>, events: Events) {
    const own = { rate, burst: rate * budgetLimits.burst };
    const all = { rate: rate * budgetLimits.gateways, burst: own.burst * budgetLimits.gateways };
    this.#clock = clock;
    this.#events = events;
    this.#budget = new FairBudget({ own, all }, budgetLimits.remembered, clock.now());
  }

  /** Whether a message is looked at. If not, it is counted, and told once a minute for each gateway and cause. */
  admits(gateway: string, bytes: number): boolean {
    const now = this.#clock.now();
    const tokens = 1 + Math.floor(bytes / budgetLimits.bytes);
    const limit = this.#budget.lacking(gateway, now, tokens);
    if (limit === undefined) return true;
    const refused = this.#refused.get(gateway) ?? { count: 0, untold: 0, toldAt: new Map() };
    refused.count++;
    refused.untold++;
    const toldAt = refused.toldAt.get(limit);
    if (toldAt === undefined || now - toldAt >= tellEvery) {
      refused.toldAt.set(limit, now);
      this.#events.emit('gateway.over-rate', { gateway, limit, refused: refused.untold });
      refused.untold = 0;
    }
    this.#refused.set(gateway, refused);
    return false;
  }

  /** The gateways whose messages were not looked at, with an account here or without. */
  refusedGateways(): string[] {
    return [...this.#refused.keys()];
  }

  /** How many messages of a gateway were not looked at. */
  refusedOf(gateway: string): number {
    return this.#refused.get(gateway)?.count ?? 0;
  }
}
