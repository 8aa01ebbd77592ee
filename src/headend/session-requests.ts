import type { Clock } from '../base/clock.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import { inPackages, type Jobs } from '../dm/jobs.ts';
import type { Operation, OperationOutcome, Work } from '../dm/server-session.ts';
import type { Notifier } from './notifier.ts';
import type { Parties, Party } from './parties.ts';
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

/** What is to be done where a device cannot be asked for a session. */
export interface Patience {
  /** Seconds that the work waits for the device to come by itself. */
  readonly seconds: number;
  /** Called when it waits, with the reason. */
  readonly waits: (reason: string) => void;
  /** Gives the work up, with the signal's reason. */
  readonly signal: AbortSignal;
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
   * As `run`, for work of several rounds. A device that cannot be asked for a session may still come by itself.
   * @param patience how long the work waits for such a device; `sessionTimeout` without it
   * @throws {PosternError} `notFound` when the party has no account for this server, and, without `patience`, when no known gateway
   * leads to it; `timeout` after `sessionTimeout`; otherwise as `Notifier.sendPackage0` and `Jobs.perform`
   */
  async perform(partyId: string, work: () => Work, patience?: Patience): Promise<void> {
    const { notifier, jobs, clock, sessionTimeout } = this.#parts;
    const brokerGateway = patience ? this.#wayTo(partyId) : this.brokerGatewayFor(partyId);
    const giveUp = new AbortController();
    const late = (seconds: number) =>
      clock.after(seconds * 1000, () =>
        giveUp.abort(
          new PosternError(
            'timeout',
            `${partyId} opened no session in ${seconds} s, or did not prove itself in it; session.failed in the log has more`,
          ),
        ),
      );
    let timer = late(sessionTimeout);
    let isOver = false;
    const wait = (reason: string) => {
      if (!patience || isOver) return;
      timer.cancel();
      timer = late(patience.seconds);
      try {
        patience.waits(reason);
      } catch (thrown) {
        giveUp.abort(asPosternError(thrown));
      }
    };
    const stop = () => giveUp.abort(patience?.signal.reason);
    patience?.signal.addEventListener('abort', stop);
    try {
      const done = jobs.perform(partyId, work, giveUp.signal);
      // The session may begin before the gateway reports that Package #0 is delivered. So delivery is not awaited here.
      if (brokerGateway === undefined) wait('no gateway is known that it is behind');
      else
        notifier.sendPackage0(partyId, brokerGateway).then(
          (reason) => reason !== undefined && wait(reason),
          (thrown) => giveUp.abort(asPosternError(thrown)),
        );
      await done;
    } finally {
      isOver = true;
      timer.cancel();
      patience?.signal.removeEventListener('abort', stop);
    }
  }

  /**
   * The broker gateway through which a party is reached.
   * @throws {PosternError} `notFound` when the party has no account for this server or no known gateway leads to it
   */
  brokerGatewayFor(partyId: string): string {
    const way = this.#wayTo(partyId);
    if (way === undefined)
      throw new PosternError('notFound', `${partyId} is behind no gateway that is known`);
    return way;
  }

  /** @throws {PosternError} `notFound` when the party has no account for this server */
  demandAccount(partyId: string): Party {
    const party = this.#parts.parties.get(partyId);
    if (!party)
      throw new PosternError(
        'notFound',
        `${partyId} has no account for this server; its gateway can work on it by a fan-out`,
      );
    return party;
  }

  /** @throws {PosternError} `notFound` when the party has no account for this server */
  #wayTo(partyId: string): string | undefined {
    const { reachability } = this.#parts;
    const party = this.demandAccount(partyId);
    return reachability.wayTo(partyId) ?? (party.kind === 'gateway' ? partyId : undefined);
  }
}
