import type { Clock } from '../base/clock.ts';
import type { Database } from '../base/database.ts';
import type { Entropy } from '../base/entropy.ts';
import type { Events } from '../base/events.ts';
import { openDatabase } from '../base/open-database.ts';
import { keyFileOf, PlatformSealing, type Sealer, Sealing } from '../base/sealing.ts';
import { StoredBranch } from '../dm/stored-branch.ts';
import { Nodes } from '../dm/stored-nodes.ts';
import { AccountsBranch } from '../mo/accounts-branch.ts';
import { Accounts, accountsDescription } from '../mo/dm-acc.ts';
import { gwConfig } from '../mo/gw-config.ts';
import type { Vocabulary } from '../mo/vocabulary.ts';
import type { GatewayConfig } from './config.ts';
import { Credentials } from './store/credentials.ts';
import { Epoch } from './store/epoch.ts';
import { Inventory } from './store/inventory.ts';
import { Outbox } from './store/outbox.ts';
import { Pins } from './store/pins.ts';
import { Registrations } from './store/registrations.ts';
import { gatewaySchema } from './store/schema.ts';
import { UpdateRecords } from './store/update-record.ts';

/** The durable state of a gateway, in one file. */
export interface GatewayState {
  readonly database: Database;
  readonly inventory: Inventory;
  readonly credentials: Credentials;
  /** Devices that joined. */
  readonly pins: Pins;
  readonly epoch: Epoch;
  readonly outbox: Outbox;
  readonly updates: UpdateRecords;
  readonly nodes: Nodes;
  /** Seals secrets in the file. */
  readonly sealing: Sealer;
  /** Where the key of `sealing` is, for messages. */
  readonly key: string;
  readonly accounts: Accounts;
  /** The branch of the accounts, for what follows when an account is deleted. */
  readonly accountsBranch: AccountsBranch;
  readonly gwConfig: StoredBranch;
  /** Of LwM2M clients; none where LwM2M is not configured. */
  readonly registrations: Registrations | undefined;
}

/** @throws {PosternError} `configuration` when the file cannot be used */
export function openState(
  config: GatewayConfig,
  vocabulary: Vocabulary,
  { clock, entropy, events }: { readonly clock: Clock; readonly entropy: Entropy; readonly events: Events },
): GatewayState {
  const { state, 'key-command': command } = config.gateway;
  const source = command ? { command } : { file: keyFileOf(state) };
  const platform =
    state === ':memory:'
      ? undefined
      : new PlatformSealing(source, entropy, (reason) =>
          events.emit('state.key-unusable', { file: keyFileOf(state), reason }),
        );
  const sealing = platform ?? new Sealing(entropy.bytes(32), entropy);
  const database = openDatabase(state, gatewaySchema);
  const nodes = new Nodes(database, sealing);
  const epoch = new Epoch(database, entropy);
  const outbox = new Outbox(database, config.limits.outbox, epoch);
  const accountsBranch = new AccountsBranch('DMAcc', accountsDescription, nodes, { clock });
  return {
    database,
    inventory: new Inventory(database, config.limits.devices),
    credentials: new Credentials(database, config.limits.devices, sealing),
    pins: new Pins(database, config.limits.devices),
    epoch,
    outbox,
    updates: new UpdateRecords(database),
    nodes,
    sealing,
    key: platform?.source ?? '',
    accounts: new Accounts(accountsBranch),
    accountsBranch,
    gwConfig: new StoredBranch('GwConfig', gwConfig.root, nodes, {
      type: vocabulary.objects.GwConfig,
      clock,
    }),
    registrations: config.lwm2m && new Registrations(database, config.limits.devices),
  };
}
