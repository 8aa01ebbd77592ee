import { guarded, type PersistentParts, persistently } from '../../base/background.ts';
import { type Monotonic, pause } from '../../base/clock.ts';
import { systemEntropy } from '../../base/entropy.ts';
import { backoff } from '../../base/retry.ts';

export interface SessionLanesParts extends PersistentParts {
  /** ServerID of the gateway's own DM server, whose alerts are gathered. It always has a lane. */
  readonly own: string;
  /** ServerIDs of the servers with which there is something to do now. Empty without an uplink. */
  readonly due: () => ReadonlySet<string>;
  /** False if `due` has no other server than the own one. It costs less to ask. */
  readonly mayHaveOthers: () => boolean;
  /** Whether a server asked for a session, or is to be contacted. */
  readonly isCalled: (server: string) => boolean;
  /** Whether alerts of the own server are due that do not wait for others. */
  readonly isUrgent: () => boolean;
  /** Runs one session with a server. Returns whether it failed. */
  readonly run: (server: string) => Promise<boolean>;
}

/** A lane: what is under way with one server. */
interface Lane {
  running: Promise<void>;
  /** The pause under way. `forAlerts`: it gathers alerts, so an urgent alert ends it; otherwise it follows a failure. */
  pausing?: { readonly forAlerts: boolean; readonly end: AbortController } | undefined;
}

/**
 * Milliseconds between sessions that only deliver alerts about devices (`deviceKinds`). The first session starts at once. While alerts
 * keep coming, the interval doubles from `first` to `cap`, so that many alerts need few sessions. After `cap` without
 * such a session, the interval starts again.
 */
const gathering = { first: 250, cap: 15_000 } as const;
/** Milliseconds between attempts after a failed session. */
const retry = { first: 1000, cap: 300_000, jitter: 0.5 } as const;
/** Servers with which there are sessions, or pauses after a failed one, at a time. The own server has a place besides. */
export const sessionLanes = 8;

/**
 * When the gateway has sessions with its DM servers: one at a time with each. No server waits for the sessions of another one, so one
 * that hangs does not keep back what the others are to get.
 */
export class SessionLanes implements AsyncDisposable {
  readonly #parts: SessionLanesParts;
  readonly #stop = new AbortController();
  readonly #lanes = new Map<string, Lane>();
  #starting: Promise<void> | undefined;
  /** `wake` was called since the lanes were started last. */
  #isWanted = false;
  /** When the last round of sessions with gathered alerts began. */
  #lastAlerts: Monotonic | undefined;
  /** Milliseconds from there until the next round. */
  #gathering = 0;

  constructor(parts: SessionLanesParts) {
    this.#parts = parts;
  }

  /** Aborted when the gateway stops. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  /** Starts to work where there is something to do. Ends pauses of servers for which there is something that does not wait. */
  wake(): void {
    this.#isWanted = true;
    if (this.signal.aborted) return;
    // The caller has done its own work already. An error here must not look like an error of that work.
    guarded(this.#parts.events, 'alerts', () => this.#endPauses())();
    this.#starting ??= persistently(this.#parts, 'alerts', () => this.#start(), this.signal).then(() => {
      this.#starting = undefined;
      if (this.#isWanted) this.wake();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all([...this.#lanes.values()].map(({ running }) => running));
  }

  #endPauses(): void {
    const { isCalled, isUrgent } = this.#parts;
    for (const [server, { pausing }] of this.#lanes)
      if (pausing && (isCalled(server) || (pausing.forAlerts && isUrgent()))) pausing.end.abort();
  }

  #start(): void {
    const { own, due, mayHaveOthers } = this.#parts;
    // Each device that attaches in a storm wakes.
    const isUnderWay = this.#lanes.has(own) && !mayHaveOthers();
    for (const server of isUnderWay ? [] : due()) {
      const others = this.#lanes.size - (this.#lanes.has(own) ? 1 : 0);
      if (this.#lanes.has(server) || (server !== own && others >= sessionLanes)) continue;
      const lane: Lane = { running: Promise.resolve() };
      this.#lanes.set(server, lane);
      lane.running = persistently(this.#parts, 'alerts', () => this.#work(server, lane), this.signal).then(
        () => {
          this.#lanes.delete(server);
          // There may be something again, or another server may have waited for the place.
          this.wake();
        },
      );
    }
    this.#isWanted = false;
  }

  /** Runs sessions with one server, one after the other, until there is nothing more to do. */
  async #work(server: string, lane: Lane): Promise<void> {
    const { own, due, run, entropy = systemEntropy } = this.#parts;
    let delays = backoff(retry, entropy);
    while (!this.signal.aborted && due().has(server)) {
      if (server === own) await this.#gather(lane);
      if (await run(server)) await this.#pause(lane, delays.next().value, false);
      else delays = backoff(retry, entropy);
    }
  }

  /** Waits so that alerts gather; see `gathering`. Does not wait when there is something urgent. */
  async #gather(lane: Lane): Promise<void> {
    const { own, clock, isCalled, isUrgent } = this.#parts;
    if (isCalled(own) || isUrgent()) return;
    const since = this.#lastAlerts === undefined ? gathering.cap : clock.now() - this.#lastAlerts;
    if (since >= gathering.cap) this.#gathering = 0;
    else if (since < this.#gathering) await this.#pause(lane, this.#gathering - since, true);
    this.#lastAlerts = clock.now();
    this.#gathering = Math.min(gathering.cap, Math.max(gathering.first, this.#gathering * 2));
  }

  async #pause(lane: Lane, delay: number, forAlerts: boolean): Promise<void> {
    const end = new AbortController();
    lane.pausing = { forAlerts, end };
    await pause(this.#parts.clock, delay, AbortSignal.any([this.signal, end.signal])).catch(() => {});
    lane.pausing = undefined;
  }
}
