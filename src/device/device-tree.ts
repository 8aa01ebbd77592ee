import type { Clock } from '../base/clock.ts';
import { type Database, transaction } from '../base/database.ts';
import { softwareVersion } from '../base/version.ts';
import { forgetfulNodes } from '../dm/node-store.ts';
import { StoredBranch } from '../dm/stored-branch.ts';
import { Acls, Nodes } from '../dm/stored-nodes.ts';
import { ManagementTree } from '../dm/tree.ts';
import { devDetail, devDetailNodes } from '../mo/dev-detail.ts';
import { devInfo, devInfoNodes } from '../mo/dev-info.ts';
import type { Accounts } from '../mo/dm-acc.ts';
import { MoId } from '../mo/identifiers.ts';
import { Inbox, type Receiver } from '../mo/inbox.ts';
import { interior, leaf } from '../wire/syncml/ddf.ts';
import type { TndsNode } from '../wire/syncml/tnds.ts';
import { byBootstrap } from './bootstraps.ts';
import type { DeviceConfig } from './config.ts';
import { Firmware, type FirmwareParts } from './firmware.ts';

/** What `deviceTree` needs from the device. */
export interface DeviceTreeParts {
  readonly config: DeviceConfig;
  readonly database: Database;
  readonly accounts: Accounts;
  readonly clock: Clock;
  /** Called with an account that was added to the Inbox. */
  readonly receive: Receiver;
  readonly update: Pick<FirmwareParts, 'events' | 'fetch' | 'report'>;
}

/** Settings of the reference device that a server may change. */
const settings = interior(['Get'], 'Settings of the device', {
  Label: leaf('chr', ['Get', 'Replace'], 'Name given by the operator'),
  ReportInterval: leaf('int', ['Get', 'Replace'], 'Seconds between reports'),
  LocationUpdate: leaf(
    'bool',
    ['Get', 'Replace'],
    'Whether the device reports to its DM server that it has moved to another gateway',
  ),
});

const initialSettings: readonly TndsNode[] = [
  { name: 'Label', format: 'chr', value: 'not named yet' },
  { name: 'ReportInterval', format: 'int', value: '3600' },
  { name: 'LocationUpdate', format: 'bool', value: 'true' },
];

/**
 * Makes the management tree of the reference device. At first only a bootstrap may add accounts; `Device` widens the ACLs
 * when it trusts a server.
 */
export function deviceTree({ config, database, accounts, clock, receive, update }: DeviceTreeParts): {
  tree: ManagementTree;
  firmware: Firmware;
} {
  const nodes = new Nodes(database);
  const { id, manufacturer, model, firmware } = config.device;
  const info = new StoredBranch('DevInfo', devInfo.root, forgetfulNodes, { type: devInfo.id });
  info.plant([], devInfoNodes({ deviceId: id, manufacturer, model }));
  const detail = new StoredBranch('DevDetail', devDetail.root, forgetfulNodes, { type: devDetail.id });
  detail.plant([], devDetailNodes({ type: 'device', firmware, software: softwareVersion, hardware: '1' }));
  const updates = new Firmware({ deviceId: id, nodes, detail, clock, ...update });
  const own = new StoredBranch('Settings', settings, nodes, { clock });
  for (const node of initialSettings) if (!own.view([node.name])) own.plant([node.name], node);
  const inbox = new Inbox({ [MoId.DmAcc]: receive });
  const branches = {
    DevInfo: info,
    DevDetail: detail,
    DMAcc: accounts.branch,
    Settings: own,
    FwUpdate: updates.branch,
    Inbox: inbox,
  };
  const acls = new Acls(database, {
    '.': 'Get=*',
    './Inbox': `Add=${byBootstrap}`,
    './Settings': 'Get=*',
  });
  const tree = new ManagementTree(branches, acls, (work) => transaction(database, work));
  return { tree, firmware: updates };
}
