import { transaction } from '../base/database.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { publicUrl } from '../base/public-url.ts';
import { softwareVersion } from '../base/version.ts';
import { forgetfulNodes } from '../dm/node-store.ts';
import { StoredBranch } from '../dm/stored-branch.ts';
import { Acls } from '../dm/stored-nodes.ts';
import { ManagementTree } from '../dm/tree.ts';
import type { TreeBranch } from '../dm/tree-branch.ts';
import { managementObjects } from '../mo/catalogue.ts';
import { devDetail, devDetailNodes } from '../mo/dev-detail.ts';
import { devInfo, devInfoNodes } from '../mo/dev-info.ts';
import { type Accounts, type DmAccount, readAccount } from '../mo/dm-acc.ts';
import { gwConfigBudget, gwConfigDefaults, gwConfigFacts } from '../mo/gw-config.ts';
import { MoId } from '../mo/identifiers.ts';
import { Inbox } from '../mo/inbox.ts';
import { RenamedBranch } from '../mo/renamed-branch.ts';
import { type GatewayObject, renamed, type Vocabulary } from '../mo/vocabulary.ts';
import type { TndsNode } from '../wire/syncml/tnds.ts';
import type { GatewayConfig } from './config.ts';
import { CertificateBranch } from './northbound/certificate-branch.ts';
import type { CertificateKeeper } from './northbound/certificate-keeper.ts';
import { OwnerBranch } from './northbound/owner-branch.ts';
import type { Ownership } from './northbound/ownership.ts';
import type { Authorisation } from './rights/authorisation.ts';
import { JoinBranch } from './southbound/join-branch.ts';
import type { Joins } from './southbound/joins.ts';
import type { GatewayState } from './state.ts';

/**
 * The gateway's own management tree, at first without branches. Its DM server may do everything that a node allows. To a
 * parent gateway this gateway is a device, so the parent may do the same.
 */
export function gatewayTree({ parent, 'dm-server': server }: GatewayConfig, { database }: GatewayState) {
  const holders = [server.id, ...(parent ? [parent.id] : [])].join('+');
  const all = ['Add', 'Delete', 'Exec', 'Get', 'Replace'].map((right) => `${right}=${holders}`).join('&');
  return new ManagementTree({}, new Acls(database, { '.': all }), (work) => transaction(database, work));
}

export interface GatewayBranchesParts {
  readonly config: GatewayConfig;
  readonly state: GatewayState;
  readonly tree: ManagementTree;
  readonly authorisation: Pick<Authorisation, 'may'>;
  readonly vocabulary: Vocabulary;
  readonly joins: Joins;
  /** The management objects of GwMO except GwConfig. */
  readonly objects: Readonly<Record<Exclude<GatewayObject, 'GwConfig'>, TreeBranch>>;
  /** GwTelemetry. */
  readonly telemetry: TreeBranch;
  /** How the gateway itself is updated, where it has slots. */
  /** Certificate at the broker, where this gateway has it by enrolment. */
  readonly certificate: CertificateKeeper | undefined;
  /** ServerID of the owner. */
  readonly ownServer: string;
  /** To whom this gateway belongs, where it has that certificate. */
  readonly ownership: Ownership | undefined;
  /** Checks an order to reset this gateway, and returns what is done when it is final. */
  readonly reset: (name: unknown, by: string) => () => void;
  readonly events: Events;
  readonly firmware:
    | { readonly branch: TreeBranch; readonly diagnostics: TreeBranch; readonly version: string }
    | undefined;
}

/** The branches of the gateway's own tree, by the names of their nodes. */
export function gatewayBranches(parts: GatewayBranchesParts): Readonly<Record<string, TreeBranch>> {
  const { config, state, vocabulary, joins, objects, firmware, certificate, ownServer } = parts;
  const { gateway, limits } = config;
  const { accounts, gwConfig } = state;
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
  for (const node of gwConfigFacts(vocabulary, limits.devices)) gwConfig.plant([node.name], node, true);
  // A state file of an earlier version lacks the nodes that a later version added.
  for (const node of gwConfigDefaults)
    if (!gwConfig.view([node.name])) gwConfig.plant([node.name], node, true);
  // What a DM server has set is kept. Its node has a version above 0.
  for (const node of gwConfigBudget(config.budget))
    if ((gwConfig.view([node.name])?.version ?? 0) === 0) gwConfig.plant([node.name], node, true);
  return {
    DevInfo: info,
    DevDetail: detail,
    DMAcc: accounts.branch,
    Inbox: new Inbox({ [MoId.DmAcc]: (root, by) => receiveAccount(accounts, parts, root, by) }),
    GwJoin: new JoinBranch(joins),
    GwTelemetry: parts.telemetry,
    ...(firmware && { FwUpdate: firmware.branch, GwDiagnostics: firmware.diagnostics }),
    ...(certificate && { GwCertificate: new CertificateBranch(certificate) }),
    GwOwner: new OwnerBranch({ ...parts, server: ownServer }),
    ...renamedObjects(vocabulary, { GwConfig: gwConfig, ...objects }),
  };
}

/** A DM server adds an account for another DM server. Only the server that added an account may replace it. */
function receiveAccount(
  accounts: Accounts,
  { tree, authorisation }: Pick<GatewayBranchesParts, 'tree' | 'authorisation'>,
  root: TndsNode,
  by: string,
): void {
  const account = readAccount(root);
  const isKnown = accounts.nodeName(account.serverId) !== undefined;
  if (isKnown && !authorisation.may(by, 'replace-account', account.serverId))
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

/**
 * Puts the account that the configuration gives. Its nonces continue from the last session.
 * @param isStart a gateway starts on a disk that takes no writes, too
 * @throws {PosternError} `storage`, unless the gateway starts
 */
export function knowServer(accounts: Accounts, config: GatewayConfig, isStart = false): void {
  const { gateway, mqtt, 'dm-server': server } = config;
  const known = accounts.find(server.id);
  const account: DmAccount = {
    ...known,
    serverId: server.id,
    // DM servers read it, and the URL may have a password.
    address: mqtt ? publicUrl(mqtt.url) : `urn:${server.id}`,
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
  };
  accounts.put(account, isStart);
}
