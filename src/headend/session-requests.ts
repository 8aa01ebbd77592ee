import type { Clock } from '../base/clock.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import { inPackages, type Jobs } from '../dm/jobs.ts';
import type { Operation, OperationOutcome, Work } from '../dm/server-session.ts';
import type { Notifier } from './notifier.ts';
import type { Parties } from './parties.ts';
import type { Reachability } from './reachability.ts';

export interface SessionRequestsParts {
  readonly parties: Parties;
  readonly reachability: Reachability;
  readonly notifier: Notifier;
  readonly jobs: Jobs;
  readonly clock: Clock;
  /** Seconds that a party may take to open the session and finish its operations. */
  readonly sessionTimeout: number;
}

/** Has parties open sessions and does operations in these sessions. */
export class SessionRequests {
  readonly #parts: SessionRequestsParts;

  constructor(parts: SessionRequestsParts) {
    this.#parts = parts;
  }

  /**
   * Asks a device or gateway for a session by Package #0 and does operations in its next session. Returns one outcome
   * per operation, in their order.
   * @throws {PosternError} as `perform`
   */
  async run(partyId: string, operations: readonly Operation[]): Promise<readonly OperationOutcome[]> {
    const outcomes: OperationOutcome[] = [];
    await this.perform(partyId, async function* () {
      outcomes.push(...(yield* inPackages(operations)));
    });
    return outcomes;
  }

  /**
   * As `run`, for work of several rounds.
   * @throws {PosternError} `notFound` when the party has no account for this server or no known gateway leads to it;
   * `timeout` after `sessionTimeout`; otherwise as `Notifier.sendPackage0` and `Jobs.perform`
   */
  async perform(partyId: string, work: () => Work): Promise<void> {
    const { notifier, jobs, clock, sessionTimeout } = this.#parts;
    const brokerGateway = this.brokerGatewayFor(partyId);
    const giveUp = new AbortController();
    const timer = clock.after(sessionTimeout * 1000, () =>
      giveUp.abort(
        new PosternError(
          'timeout',
          `${partyId} opened no session in ${sessionTimeout} s, or did not prove itself in it; session.failed in the log has more`,
        ),
      ),
    );
    try {
      const done = jobs.perform(partyId, work, giveUp.signal);
      // The session may begin before the gateway reports that Package #0 is delivered. So delivery is not awaited here.
      notifier.sendPackage0(partyId, brokerGateway).catch((thrown) => giveUp.abort(asPosternError(thrown)));
      await done;
    } finally {
      timer.cancel();
    }
  }

  /**
   * The broker gateway through which a party is reached.
   * @throws {PosternError} `notFound` when the party has no account for this server or no known gateway leads to it
   */
  brokerGatewayFor(partyId: string): string {
    const { parties, reachability } = this.#parts;
    const party = parties.get(partyId);
    if (!party)
      throw new PosternError(
        'notFound',
        `${partyId} has no account for this server; its gateway can work on it by a fan-out`,
      );
    const way = reachability.wayTo(partyId) ?? (party.kind === 'gateway' ? partyId : undefined);
    if (way === undefined)
      throw new PosternError('notFound', `${partyId} is behind no gateway that is known`);
    return way;
  }
}
