import { background } from '../base/background.ts';
import { BoundedMap } from '../base/bounded-map.ts';
import { type Clock, type Monotonic, plus } from '../base/clock.ts';
import type { Database } from '../base/database.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { hashedName } from '../base/hashed-name.ts';
import { type ReadableTable, readRows } from '../base/rows.ts';
import { isOk } from '../dm/status.ts';
import { nodeAt, type Vocabulary } from '../mo/vocabulary.ts';
import type { Notifier } from './notifier.ts';
import type { Parties } from './parties.ts';
import type { Reachability } from './reachability.ts';
import type { SessionRequests } from './session-requests.ts';

export interface ChildWaysParts {
  readonly database: Database;
  readonly parties: Parties;
  readonly reachability: Reachability;
  readonly notifier: Pick<Notifier, 'sendPackage0'>;
  readonly sessionRequests: Pick<SessionRequests, 'run'>;
  readonly vocabulary: Vocabulary;
  readonly clock: Clock;
  readonly events: Events;
}

/**
 * `asking`: children of one broker gateway that are asked at a time. `asked`: children of which it is remembered when they were
 * asked. `depth`: gateways above one another, as in `Reachability`.
 */
export const childWayLimits = { asking: 8, asked: 4096, depth: 5 } as const;
/** Milliseconds until a child is asked again. */
const askAgain = 10_000;

/**
 * Which child gateways are behind which broker gateway. Only such a child counts as the way (`via`) of a package.
 *
 * A child with an account here proves it by a session of its own through the broker gateway. The proof is durable, so that a
 * restart of this server asks nobody. A child without an account cannot prove anything to this server: its parent's report in a
 * session counts, or its record in the inventory of the parent.
 */
export class ChildWays {
  readonly #parts: ChildWaysParts;
  readonly #asked = new BoundedMap<string, Monotonic>(childWayLimits.asked);
  /** How many children are asked, by broker gateway. Has those alone of which one is asked. */
  readonly #asking = new Map<string, number>();

  constructor(parts: ChildWaysParts) {
    this.#parts = parts;
  }

  /** Takes the proofs of the last run. To be called when all accounts are known. A proof without an account is forgotten. */
  restore(): void {
    const { database, parties, reachability } = this.#parts;
    for (const { gateway, way } of readRows(database, table))
      if (parties.isGateway(gateway)) reachability.prove(gateway, way);
      else this.#store(gateway, undefined);
  }

  /** A gateway has proved itself through a broker gateway, which may be itself. */
  proved(gateway: string, brokerGateway: string): void {
    const { reachability } = this.#parts;
    if (reachability.isProvedThrough(gateway, brokerGateway)) return;
    reachability.prove(gateway, brokerGateway);
    this.#store(gateway, gateway === brokerGateway ? undefined : brokerGateway);
  }

  /**
   * Demands that a package may name a gateway as its way. Asks for the proof that is missing.
   * @throws {PosternError} `forbidden` for a gateway elsewhere, or for a device; `unavailable` when the proof may come soon
   */
  demand(child: string, brokerGateway: string): void {
    const { parties, reachability } = this.#parts;
    if (child === brokerGateway || this.#isBehind(child, brokerGateway)) return;
    const party = parties.get(child);
    const isForeign = party ? party.kind === 'device' : reachability.isElsewhere(child, brokerGateway);
    if (isForeign || reachability.hasOwnConnection(child))
      throw new PosternError('forbidden', `${child} is not behind ${brokerGateway}`);
    this.ask(child, brokerGateway);
    throw new PosternError('unavailable', `${child} has not proved that it is behind ${brokerGateway}`);
  }

  /** Asks for the proof that a child is behind a broker gateway, unless it has it or has just been asked. Does not wait. */
  ask(child: string, brokerGateway: string): void {
    const { clock, events } = this.#parts;
    const key = `${brokerGateway} ${child}`;
    const asking = this.#asking.get(brokerGateway) ?? 0;
    const now = clock.now();
    if (this.#isBehind(child, brokerGateway) || asking >= childWayLimits.asking) return;
    if ((this.#asked.get(key) ?? now) > now) return;
    this.#asked.set(key, plus(now, askAgain));
    this.#asking.set(brokerGateway, asking + 1);
    void background(events, 'notification', async () => {
      try {
        await this.#ask(child, brokerGateway);
      } catch (thrown) {
        const { message: reason } = asPosternError(thrown);
        events.emit('notification.failed', { gateway: brokerGateway, reason });
      } finally {
        const left = (this.#asking.get(brokerGateway) ?? 1) - 1;
        if (left > 0) this.#asking.set(brokerGateway, left);
        else this.#asking.delete(brokerGateway);
      }
    });
  }

  async #ask(child: string, brokerGateway: string): Promise<void> {
    const { parties, notifier } = this.#parts;
    if (parties.get(child)) await notifier.sendPackage0(child, brokerGateway);
    else if (parties.isGateway(brokerGateway)) await this.#readRecord(child, brokerGateway);
  }

  /** The report of the parent may have been lost with the state of this server. So the parent's inventory is read. */
  async #readRecord(child: string, brokerGateway: string): Promise<void> {
    const { parties, sessionRequests, vocabulary } = this.#parts;
    const record = `${nodeAt(vocabulary, 'GwDeviceInventory', 'Records')}/${hashedName(child)}`;
    const [type, path] = await sessionRequests.run(
      brokerGateway,
      ['ComponentType', 'Gateway'].map((leaf) => ({ name: 'Get' as const, uri: `${record}/${leaf}` })),
    );
    const isChild =
      isOk(type?.status ?? 0) && Number(type?.results[0]?.data) === vocabulary.componentTypes[1];
    if (!isChild || parties.gatewayOf(child) !== undefined) return;
    const above = isOk(path?.status ?? 0) ? String(path?.results[0]?.data) : brokerGateway;
    parties.associate(child, above.split('/').at(-1) ?? brokerGateway);
  }

  /** Follows what parents report, up to a gateway whose own proof counts. */
  #isBehind(child: string, brokerGateway: string): boolean {
    const { parties, reachability } = this.#parts;
    let at = child;
    for (let depth = 0; depth < childWayLimits.depth; depth++) {
      if (at === brokerGateway) return true;
      if (reachability.hasOwnConnection(at)) return false;
      if (parties.get(at)) return parties.isGateway(at) && reachability.isProvedThrough(at, brokerGateway);
      const parent = parties.gatewayOf(at);
      if (parent === undefined) return false;
      at = parent;
    }
    return false;
  }

  /** A proof that the disk does not take is given anew after a restart. */
  #store(gateway: string, way: string | undefined): void {
    const { database } = this.#parts;
    try {
      if (way === undefined) database.prepare('DELETE FROM proved_way WHERE gateway = ?').run(gateway);
      else
        database.prepare('INSERT OR REPLACE INTO proved_way (gateway, way) VALUES (?, ?)').run(gateway, way);
    } catch (thrown) {
      if (asPosternError(thrown).code !== 'storage') throw thrown;
    }
  }
}

const table: ReadableTable<{ readonly gateway: string; readonly way: string }> = {
  table: 'proved_way',
  key: ['gateway'],
  read: (row) => ({ gateway: row.text('gateway'), way: row.text('way') }),
};
