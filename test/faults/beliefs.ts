import type { Database } from '../../src/base/database.ts';
import { rights } from '../../src/dm/acl.ts';
import type { ManagementTree } from '../../src/dm/tree.ts';
import type { GatewayParts } from '../../src/gateway/composition.ts';
import type { GatewayStatus } from '../../src/gateway/status.ts';
import { Campaigns } from '../../src/gateway/store/campaigns.ts';
import { UpdateRecords } from '../../src/gateway/store/update-record.ts';
import type { HeadendParts } from '../../src/headend/composition.ts';

/** Everything that a party believes, and that a restart must not change. Two dumps are compared as a whole. */
export type Beliefs = Readonly<Record<string, unknown>>;

/** Parties whose rights in a tree are part of the dump. */
const holders = ['dm.example', 'gw-1', 'gw-2', '/bootstrap', '/factory'];

const hex = (value: Uint8Array): string => Buffer.from(value).toString('hex');
/** Octets become text: a Buffer before they are stored is a Uint8Array when they are read. */
const plain = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value, function replaced(this: Record<string, unknown>, key, given) {
      const own = this[key];
      return own instanceof Uint8Array ? hex(own) : given;
    }) ?? 'null',
  );
const sorted = <T>(values: Iterable<T>, key: (value: T) => string): T[] =>
  [...values].toSorted((a, b) => (key(a) < key(b) ? -1 : 1));

/**
 * Nodes that are no part of the state: time of the last message, octets of the uplink. Expected devices have an address that
 * comes from the network, and are compared as credentials.
 */
const passing = /\/LastSeen$|^GwConfig\/DataUsed$|\/Expected\//;

/** All nodes of a tree by their paths, with all properties and with the rights that each party has there. */
function nodesOf(tree: ManagementTree): Beliefs {
  const nodes: Record<string, unknown> = {};
  const walk = (path: readonly string[]) => {
    const name = path.join('/');
    const view = passing.test(name) ? undefined : tree.view(path);
    if (!view) return;
    const { children = [], ...rest } = view;
    const permitted = holders.map((holder) =>
      rights.filter((right) => tree.permits(path, right, holder)).join(),
    );
    nodes[name] = [plain(rest), permitted.join(' ')];
    for (const child of [...children].toSorted()) walk([...path, child]);
  };
  walk([]);
  return nodes;
}

/** Where it could not be stored at the start, an epoch is stored with the first alert. Another start begins another one. */
const isEpochStored = ({ database, epoch }: GatewayParts['state']): boolean =>
  database.prepare('SELECT 1 FROM epoch WHERE value = ?').get(epoch.value) !== undefined;

/** What a gateway believes: all tables, caches and branches, and the status. */
export function gatewayBeliefs(
  { state, tree, objects }: GatewayParts,
  { devices, outbox, images }: GatewayStatus,
): Beliefs {
  const campaigns = (['fanout', 'trigger'] as const).map((kind) => {
    const stored = new Campaigns(state.database, kind);
    return stored.runs().map((run) => ({ ...run, targets: stored.targets(run.name) }));
  });
  return {
    devices: sorted(state.inventory.values(), ({ deviceId }) => deviceId).map((record) => ({
      ...record,
      lastSeen: 0,
    })),
    names: state.inventory.names().toSorted(),
    credentials: plain(sorted(state.credentials.list(), ({ deviceId }) => deviceId)),
    registrations: sorted(state.registrations?.values() ?? [], ({ deviceId }) => deviceId),
    byLocation: [...(state.registrations?.values() ?? [])]
      .map(({ location }) => [location, state.registrations?.at(location)?.deviceId])
      .toSorted(),
    // Each start is another run.
    outbox: state.outbox.peek(100).map(({ run: _, ...entry }) => entry),
    epoch: isEpochStored(state) ? state.epoch.value : undefined,
    campaigns,
    update: new UpdateRecords(state.database).get() ?? null,
    images: [...(tree.view(['GwImageInventory', 'Images'])?.children ?? [])]
      .toSorted()
      .map((name) => [objects.images.status(name), objects.images.ready(name)?.hash]),
    status: { devices, outbox: { ...outbox, dropped: 0, refused: 0 }, images },
    nodes: nodesOf(tree),
  };
}

/** Thrown to take back a probe. */
class Probed extends Error {}

/** What `probe` returns, which changes what it looks at. The changes are taken back. */
function probing<T>(database: Database, probe: () => T): T | undefined {
  let found: T | undefined;
  try {
    database.transaction(() => {
      found = probe();
      throw new Probed();
    });
  } catch (thrown) {
    if (!(thrown instanceof Probed)) throw thrown;
  }
  return found;
}

/** What a DM server believes: its alert desk, records, results, associations, nonces, and the devices as it shows them. */
export function headendBeliefs(parts: HeadendParts): Beliefs {
  const { database, orders, parties, records, reachability, sequences, serverId } = parts;
  const counted = database.prepare('SELECT gateway, epoch, sequence FROM alert_epoch ORDER BY number').all();
  return {
    alerts: records.alerts(1000),
    results: (['CommandFanout', 'DeviceTrigger', 'ImageOperation'] as const).map((kind) =>
      records.results(kind),
    ),
    // Of an order that is being sent a fresh start says that its outcome is unknown.
    orders: orders
      .latest(1000)
      .filter(({ state, reason }) => state !== 'sending' && !reason?.startsWith('this server was restarted')),
    assignments: records.assignments(),
    associations: sorted(parties.associations(), ({ device }) => device),
    accounts: plain(parties.list().map((party) => parties.account(serverId, party))),
    // The last number of each epoch is a repetition, and the next one is not.
    sequences: counted.map(({ gateway, epoch, sequence }) => [
      { gateway, epoch, sequence },
      ...[0, 1].map((more) =>
        probing(database, () => sequences.record(String(gateway), String(epoch), Number(sequence) + more)),
      ),
    ]),
    devices: reachability.devices().filter(({ attached }) => attached),
    pending: database.prepare('SELECT * FROM pending_detach ORDER BY gateway, device').all(),
  };
}

/** What a device believes: all nodes of its tree, accounts and settings among them. */
export const deviceBeliefs = (tree: ManagementTree): Beliefs => ({ nodes: nodesOf(tree) });
