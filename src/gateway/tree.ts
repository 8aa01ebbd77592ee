import type { DatabaseSync } from 'node:sqlite';
import { transaction } from '../base/database.ts';
import { PosternError } from '../base/errors.ts';
import { softwareVersion } from '../base/version.ts';
import { forgetfulNodes } from '../dm/node-store.ts';
import { StoredBranch } from '../dm/stored-branch.ts';
import { Acls } from '../dm/stored-nodes.ts';
import { ManagementTree } from '../dm/tree.ts';
import type { TreeBranch } from '../dm/tree-branch.ts';
import { managementObjects } from '../mo/catalogue.ts';
import { devDetail, devDetailNodes } from '../mo/dev-detail.ts';
import { devInfo, devInfoNodes } from '../mo/dev-info.ts';
import { type Accounts, readAccount } from '../mo/dm-acc.ts';
import { gwConfigDefaults, gwConfigFacts } from '../mo/gw-config.ts';
import { MoId } from '../mo/identifiers.ts';
import { Inbox } from '../mo/inbox.ts';
import { RenamedBranch } from '../mo/renamed-branch.ts';
import { type GatewayObject, renamed, type Vocabulary } from '../mo/vocabulary.ts';
import type { TndsNode } from '../wire/syncml/tnds.ts';
import type { GatewayConfig } from './config.ts';

export interface GatewayTreeParts {
  readonly config: GatewayConfig;
  readonly database: DatabaseSync;
  readonly accounts: Accounts;
  readonly gwConfig: StoredBranch;
  readonly vocabulary: Vocabulary;
  /** The management objects of GwMO but for GwConfig. */
  readonly objects: Readonly<Record<Exclude<GatewayObject, 'GwConfig'>, TreeBranch>>;
  /** How the gateway itself is updated, where it can be. */
  readonly firmware: { readonly branch: TreeBranch; readonly version: string } | undefined;
}

/** The gateway's own management tree, in which its DM server may do everything that a node allows. */
export function gatewayTree(parts: GatewayTreeParts): ManagementTree {
  const { config, database, accounts, gwConfig, vocabulary, objects, firmware } = parts;
  const { gateway, limits, 'dm-server': server } = config;
  const info = new StoredBranch('DevInfo', devInfo.root, forgetfulNodes, { type: devInfo.id });
  info.plant([], devInfoNodes({ deviceId: gateway.id, manufacturer: 'Postern', model: 'DM Gateway' }));
  const detail = new StoredBranch('DevDetail', devDetail.root, forgetfulNodes, { type: devDetail.id });
  detail.plant(
    [],
    devDetailNodes({
      type: 'gateway',
      firmware: firmware?.version ?? softwareVersion,
      software: softwareVersion,
      hardware: process.arch,
    }),
  );
  for (const node of gwConfigFacts(vocabulary, limits.devices)) gwConfig.plant([node.name], node);
  // Nodes that a later version brought are missing in what an earlier one kept.
  for (const node of gwConfigDefaults) if (!gwConfig.view([node.name])) gwConfig.plant([node.name], node);
  const inbox = new Inbox({ [MoId.DmAcc]: (root, by) => receiveAccount(accounts, tree, root, by) });
  const branches = {
    DevInfo: info,
    DevDetail: detail,
    DMAcc: accounts.branch,
    Inbox: inbox,
    ...(firmware && { FwUpdate: firmware.branch }),
    ...renamedObjects(vocabulary, { GwConfig: gwConfig, ...objects }),
  };
  // To a parent gateway this one is a device: it does what its DM server may do.
  const holders = [server.id, ...(config.parent ? [config.parent.id] : [])].join('+');
  const all = ['Add', 'Delete', 'Exec', 'Get', 'Replace'].map((right) => `${right}=${holders}`).join('&');
  const tree: ManagementTree = new ManagementTree(branches, new Acls(database, { '.': all }), (work) =>
    transaction(database, work),
  );
  return tree;
}

/** A DM server makes another known; an account stays with the hand that gave it. */
function receiveAccount(accounts: Accounts, tree: ManagementTree, root: TndsNode, by: string): void {
  const account = readAccount(root);
  const known = accounts.nodeName(account.serverId);
  if (known !== undefined && (account.serverId === by || !tree.permits(['DMAcc', known], 'Replace', by)))
    throw new PosternError('forbidden', `the account for ${account.serverId} is not yours to replace`);
  const name = accounts.put(account);
  tree.setAcl(['DMAcc', name], `Get=*&Replace=${by}&Delete=${by}`);
}

function renamedObjects({ names }: Vocabulary, objects: Readonly<Record<string, TreeBranch>>) {
  if (Object.keys(names).length === 0) return objects;
  return Object.fromEntries(
    Object.entries(objects).map(([name, branch]) => {
      const description = managementObjects[name]?.root;
      return [renamed(names, name), description ? new RenamedBranch(branch, description, names) : branch];
    }),
  );
}

/** Puts the account that the configuration gives; its nonces go on from the last session. */
export function knowServer(accounts: Accounts, config: GatewayConfig): void {
  const { gateway, mqtt, 'dm-server': server } = config;
  const known = accounts.find(server.id);
  accounts.put({
    ...known,
    serverId: server.id,
    address: mqtt?.url ?? `urn:${server.id}`,
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
