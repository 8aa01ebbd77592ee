import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock } from '../base/clock.ts';
import type { Events } from '../base/events.ts';
import { FairBudget, type FairRates } from '../base/fair-budget.ts';
import { ToldCauses } from '../base/told-causes.ts';

/**
 * For a rate of one gateway: seconds of it that may come at once; gateways whose rates may be used up at the same time; gateways
 * that are remembered, some 300 bytes each. Bytes of a message that cost one token. Of that rate: the part for packages of
 * parties that have not proved themselves through this gateway, and seconds of this part that may come at once.
 */
export const budgetLimits = {
  burst: 3,
  gateways: 6,
  remembered: 4096,
  bytes: 16 * 1024,
  unproven: { part: 0.2, burst: 5 },
} as const;

/** Reports that messages are refused, each by gateway and limit. */
const reports = { period: 60_000, causes: budgetLimits.remembered } as const;

/**
 * Decides which messages of gateways are looked at, before anything of them is parsed but their envelope. A gateway that sends more than its rate
 * shares a tenth of the total with all others that do so. The rest is for the other gateways.
 */
export class GatewayBudget {
  readonly #clock: Pick<Clock, 'now'>;
  readonly #events: Events;
  readonly #budget: FairBudget;
  readonly #unproven: FairBudget;
  readonly #refused = new BoundedMap<string, number>(budgetLimits.remembered);
  readonly #reports: ToldCauses;

  /** @param rate messages a second of one gateway, of up to 16 KiB; a larger one counts as several */
  constructor(rate: number, clock: Pick<Clock, 'now'>, events: Events) {
    const { unproven, remembered } = budgetLimits;
    this.#clock = clock;
    this.#events = events;
    this.#reports = new ToldCauses(reports, clock);
    this.#budget = new FairBudget(ratesOf(rate, budgetLimits.burst), remembered, clock.now());
    // A gateway itself and the devices behind it have budgets apart.
    const strangers = ratesOf(rate * unproven.part, unproven.burst);
    this.#unproven = new FairBudget(strangers, 2 * remembered, clock.now());
  }

  /** Whether a message is looked at. If not, it is counted, and told once a minute for each gateway and cause. */
  admits(gateway: string, bytes: number): boolean {
    const tokens = 1 + Math.floor(bytes / budgetLimits.bytes);
    const limit = this.#budget.lacking(gateway, this.#clock.now(), tokens);
    if (limit !== undefined) this.#refuse(gateway, limit);
    return limit === undefined;
  }

  /**
   * Whether a package is looked at whose party has not proved itself through this gateway. To begin a session costs the most of all
   * that a gateway can cause, and anyone can invent a name. If not, it is counted and told as in `admits`.
   * @param device undefined for a package of the gateway itself
   */
  admitsUnproven(gateway: string, device: string | undefined): boolean {
    // A topic holds no space, so this is no other gateway.
    const source = device === undefined ? `${gateway} itself` : gateway;
    const isAdmitted = this.#unproven.take(source, this.#clock.now());
    if (!isAdmitted) this.#refuse(gateway, 'unproven');
    return isAdmitted;
  }

  #refuse(gateway: string, limit: string): void {
    this.#refused.set(gateway, this.refusedOf(gateway) + 1);
    const refused = this.#reports.count(`${gateway} ${limit}`);
    if (refused !== undefined) this.#events.emit('gateway.over-rate', { gateway, limit, refused });
  }

  /** The gateways whose messages were not looked at, with an account here or without. */
  refusedGateways(): string[] {
    return [...this.#refused.keys()];
  }

  /** How many messages of a gateway were not looked at. */
  refusedOf(gateway: string): number {
    return this.#refused.get(gateway) ?? 0;
  }
}

function ratesOf(rate: number, seconds: number): FairRates {
  const own = { rate, burst: Math.ceil(rate * seconds) };
  return { own, all: { rate: rate * budgetLimits.gateways, burst: own.burst * budgetLimits.gateways } };
}
