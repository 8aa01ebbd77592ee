import type { Database } from '../base/database.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import type { ManagementTree } from '../dm/tree.ts';
import { type Accounts, type DmAccount, readAccount } from '../mo/dm-acc.ts';
import { derivedKey } from '../wire/secure/transport-keys.ts';
import type { TndsNode } from '../wire/syncml/tnds.ts';
import type { Discovered } from './coap-messages.ts';
import type { DeviceConfig } from './config.ts';
import { isDirect, isSamePlace } from './server-sessions.ts';

/** Stands for the factory where an ACL expects a ServerID. ServerIDs have no slash. */
const byFactory = '/factory';

export interface AccountKeeperParts {
  readonly config: DeviceConfig;
  readonly accounts: Accounts;
  readonly tree: ManagementTree;
  readonly database: Database;
  readonly events: Events;
}

/** The accounts of a device: which ones it takes and from whom, and what rights the servers get by them. */
export class AccountKeeper {
  readonly #parts: AccountKeeperParts;

  constructor(parts: AccountKeeperParts) {
    this.#parts = parts;
  }

  /** The account for the gateway that was found. */
  at({ base, secure = base }: Discovered): DmAccount | undefined {
    return this.#parts.accounts
      .list()
      .find((account) => isDirect(account) && isSamePlace(account.address, secure));
  }

  /** The account for a gateway, which is a server with a coap URI. */
  ofGateway(): DmAccount | undefined {
    return this.#parts.accounts.list().find(isDirect);
  }

  /** Deletes the account for a server, when the gateway does not know this device any more or the device leaves it. */
  forget(serverId: string): void {
    const name = this.#parts.accounts.nodeName(serverId);
    if (name !== undefined)
      this.#parts.database.transaction(() => this.#parts.accounts.branch.delete([name]));
    this.#parts.events.emit('device.account-dropped', {
      device: this.#parts.config.device.id,
      server: serverId,
    });
  }

  /** Lets a DM server of the device add accounts, which no gateway may do, and trusts it. */
  trustWithAccounts(serverId: string): void {
    this.#parts.tree.grant(['Inbox'], ['Add'], serverId);
    this.#trust(serverId);
  }

  /** Lets a server change settings and update the firmware. */
  #trust(serverId: string): void {
    this.#parts.tree.grant(['Settings'], ['Replace'], serverId);
    this.#parts.tree.grant(['FwUpdate'], ['Add', 'Replace', 'Exec'], serverId);
  }

  /**
   * Puts an account into the tree. It replaces an earlier account for the same server only if `by` may replace that one,
   * which means that the same party gave both.
   * @param by ServerID of the server that gave the account, or `byBootstrap`
   * @throws {PosternError} `malformed`, `forbidden`
   */
  receive(root: TndsNode, by: string): void {
    const account = this.#withKey(readAccount(root), by);
    if (!URL.canParse(account.address))
      throw new PosternError('malformed', 'the address of the account is not a URI');
    const known = this.#parts.accounts.nodeName(account.serverId);
    if (known !== undefined && !this.#parts.tree.permits(['DMAcc', known], 'Replace', by))
      throw new PosternError(
        'forbidden',
        `another party gave the account for ${account.serverId}, so it cannot be replaced`,
      );
    const name = this.#parts.accounts.put(account);
    this.#parts.tree.setAcl(['DMAcc', name], `Get=*&Replace=${by}&Delete=${by}`);
    // A device that is bootstrapped to a gateway is managed by it (GwMO section 8.4), so the gateway is a trusted server.
    if (isDirect(account)) this.#trust(account.serverId);
  }

  /** The account with its key for DTLS, which may have to be derived from the secret towards the server that gave the account. */
  #withKey(account: DmAccount, by: string): DmAccount {
    const { transport, ...rest } = account;
    if (!transport || 'key' in transport) return account;
    const { identity, salt } = transport;
    const shared = this.#parts.accounts.find(by)?.own.secret;
    return shared === undefined
      ? rest
      : { ...rest, transport: { identity, key: derivedKey(shared, salt, identity) } };
  }

  /** Puts the account of the configuration into the tree, unless there is one for this server already. */
  takeOfFactory(): void {
    const server = this.#parts.config['dm-server'];
    if (!server) return;
    if (this.#parts.accounts.find(server.id)) return;
    this.trustWithAccounts(server.id);
    const name = this.#parts.accounts.put({
      serverId: server.id,
      address: `urn:${server.id}`,
      own: {
        name: this.#parts.config.device.id,
        secret: server['client-secret'],
        nonce: new Uint8Array(),
        schemes: server['client-auth'],
      },
      peer: {
        name: server.id,
        secret: server['server-secret'],
        nonce: new Uint8Array(),
        schemes: server['server-auth'],
      },
    });
    this.#parts.tree.setAcl(['DMAcc', name], `Get=*&Replace=${byFactory}`);
  }
}
