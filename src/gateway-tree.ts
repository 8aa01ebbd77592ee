import type { DatabaseSync } from 'node:sqlite';
import { softwareVersion } from './base/version.ts';
import { forgetfulNodes } from './dm/node-store.ts';
import { StoredBranch } from './dm/stored-branch.ts';
import { ManagementTree, type TreeBranch } from './dm/tree.ts';
import type { GatewayConfig } from './gateway-config.ts';
import { devDetail, devDetailNodes } from './mo/dev-detail.ts';
import { devInfo, devInfoNodes } from './mo/dev-info.ts';
import type { Accounts } from './mo/dm-acc.ts';
import { gwConfigNodes } from './mo/gw-config.ts';
import { type ExpectedDevices, InventoryBranch } from './mo/gw-device-inventory.ts';
import { transaction } from './store/database.ts';
import type { Inventory } from './store/inventory.ts';
import { Acls } from './store/nodes.ts';

export interface GatewayTreeParts {
  readonly config: GatewayConfig;
  readonly database: DatabaseSync;
  readonly accounts: Accounts;
  readonly gwConfig: StoredBranch;
  readonly inventory: Inventory;
  readonly expected: ExpectedDevices;
  /** Detaches a device at the DM server's word, and answers with how to take that back. */
  readonly remove: (deviceId: string) => () => void;
  readonly fanout: TreeBranch;
}

/** The gateway's own management tree, in which its DM server may do everything that a node allows. */
export function gatewayTree(parts: GatewayTreeParts): ManagementTree {
  const { config, database, accounts, gwConfig, inventory, expected, remove, fanout } = parts;
  const { gateway, limits, 'dm-server': server } = config;
  const info = new StoredBranch('DevInfo', devInfo.root, forgetfulNodes, { type: devInfo.id });
  info.plant([], devInfoNodes({ deviceId: gateway.id, manufacturer: 'Postern', model: 'DM Gateway' }));
  const detail = new StoredBranch('DevDetail', devDetail.root, forgetfulNodes, { type: devDetail.id });
  detail.plant(
    [],
    devDetailNodes({
      type: 'gateway',
      firmware: softwareVersion,
      software: softwareVersion,
      hardware: process.arch,
    }),
  );
  // Nodes that a later version brought are missing in what an earlier one kept.
  for (const node of gwConfigNodes(limits.devices).children ?? [])
    if (!gwConfig.view([node.name])) gwConfig.plant([node.name], node);
  const branches = {
    DevInfo: info,
    DevDetail: detail,
    DMAcc: accounts.branch,
    GwConfig: gwConfig,
    GwDeviceInventory: new InventoryBranch(inventory, expected, remove),
    GwFanout: fanout,
  };
  const all = ['Add', 'Delete', 'Exec', 'Get', 'Replace'].map((right) => `${right}=${server.id}`).join('&');
  return new ManagementTree(branches, new Acls(database, { '.': all }), (work) =>
    transaction(database, work),
  );
}

/** Puts the account that the configuration gives; its nonces go on from the last session. */
export function knowServer(accounts: Accounts, config: GatewayConfig): void {
  const { gateway, mqtt, 'dm-server': server } = config;
  const known = accounts.find(server.id);
  accounts.put({
    ...known,
    serverId: server.id,
    address: mqtt.url,
    own: {
      name: gateway.id,
      secret: server['client-secret'],
      nonce: known?.own.nonce ?? new Uint8Array(),
      schemes: server['client-auth'],
    },
    peer: {
      name: server.id,
      secret: server['server-secret'],
      nonce: known?.peer.nonce ?? new Uint8Array(),
      schemes: server['server-auth'],
    },
  });
}
