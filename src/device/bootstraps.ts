import type { Database } from '../base/database.ts';
import type { Entropy } from '../base/entropy.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { readNamedFile } from '../base/named-file.ts';
import { execute } from '../dm/commands.ts';
import { DmStatus } from '../dm/status.ts';
import type { ManagementTree } from '../dm/tree.ts';
import { requestBootstrap } from '../mo/bootstrap-request.ts';
import { type Accounts, accountNodes, type DmAccount } from '../mo/dm-acc.ts';
import { provisionedAccounts } from '../mo/provisioned-accounts.ts';
import { factoryIdentity } from '../wire/secure/transport-keys.ts';
import { verifyBootstrap } from '../wire/syncml/bootstrap-security.ts';
import { decodeDocument, isSupported } from '../wire/syncml/codec.ts';
import { decodeProvisioning, ProvisioningMediaType } from '../wire/syncml/provisioning.ts';
import type { TndsNode } from '../wire/syncml/tnds.ts';
import { AppliedBootstraps } from './applied-bootstraps.ts';
import type { Discovered } from './coap-messages.ts';
import { type CoapStack, inWords } from './coap-stack.ts';
import type { DeviceConfig } from './config.ts';

/**
 * Stands for a bootstrap where an ACL expects a ServerID. ServerIDs have no slash, so no server can pretend to be a
 * bootstrap.
 */
export const byBootstrap = '/bootstrap';

/** What `Bootstraps` needs from the device. */
export interface BootstrapsParts {
  readonly config: DeviceConfig;
  readonly tree: ManagementTree;
  readonly accounts: Accounts;
  readonly database: Database;
  readonly coap: CoapStack;
  readonly entropy: Entropy;
  readonly events: Events;
  /** Puts an account into the tree with the rights of `by`, a ServerID or `byBootstrap`. */
  readonly receive: (account: TndsNode, by: string) => void;
}

/** Milliseconds for one exchange with the bootstrap server. */
const timeout = 20_000;
export const bootstrapPath = '/dm/bs';

/** Gets the device its accounts: from the local bootstrap server, or from a document of the configuration. */
export class Bootstraps {
  readonly #parts: BootstrapsParts;
  readonly #applied: AppliedBootstraps;

  constructor(parts: BootstrapsParts) {
    this.#parts = parts;
    this.#applied = new AppliedBootstraps(parts.database);
  }

  /**
   * Asks the local bootstrap server for a bootstrap and applies it (GwMO section 8.4.2).
   * @param found the gateway's address and resources
   * @throws {PosternError} `unavailable` without a factory secret or a bootstrap server; `unauthorized` when the server
   *   refuses, or when the bootstrap is not authentic or is an old one; `timeout`
   */
  async ask(found: Discovered): Promise<void> {
    const { config, coap, entropy, events } = this.#parts;
    const { id, 'factory-secret': secret } = config.device;
    if (secret === undefined || !found.links.some(({ target }) => target === bootstrapPath))
      throw new PosternError(
        'unavailable',
        'no factory secret, or no bootstrap server on this gateway: the device waits for assisted bootstrap by its DM server',
      );
    const base = found.secure ?? found.base;
    const ask = (options: Readonly<Record<number, Uint8Array>>, payload?: Uint8Array) =>
      coap.request({
        method: 'POST',
        base,
        path: bootstrapPath,
        query: `id=${id}`,
        options,
        timeout,
        ...(payload && { payload }),
      });
    const issued = await requestBootstrap(
      id,
      secret,
      entropy,
      async (options, payload) => {
        const answer = await ask(options, payload);
        if (answer.code === '0.00')
          throw new PosternError('unavailable', `the bootstrap server gave ${inWords(answer.code)}`);
        return {
          ...answer,
          isSuccess: answer.code === '2.04',
          description: `${answer.code}: ${Buffer.from(answer.payload).toString()}`,
        };
      },
      // A challenge is for the address and port that asked for the links.
      found.secure === undefined ? found.challenge : undefined,
    ).finally(() => coap.release(base, factoryIdentity(id)));
    const added = await this.#apply(issued.document, issued.mediaType, issued.security);
    if (added?.bootstrapNonce !== issued.nonce)
      throw new PosternError('unauthorized', 'the bootstrap does not repeat the nonce of this request');
    events.emit('device.bootstrapped', { device: id, server: added.serverId });
  }

  /**
   * Applies a bootstrap, either of the DM profile or a Client Provisioning document. Returns the account that it added,
   * or the last account of the list when it only replaced one.
   * @throws {PosternError} `unauthorized` when its MAC is wrong, it was applied before, it is for another device or one
   *   of its commands failed; `malformed`, `unsupportedFormat`
   */
  async #apply(document: Uint8Array, mediaType: string, security: string): Promise<DmAccount | undefined> {
    const { config, tree, accounts, receive } = this.#parts;
    const { 'factory-secret': network, pin } = config.device;
    verifyBootstrap(document, security, { network, pin });
    if (this.#applied.has(document))
      throw new PosternError('unauthorized', 'this bootstrap was applied before');
    const before = new Set(accounts.list().map(({ serverId }) => serverId));
    await tree.atomically(async () => {
      if (isSupported(mediaType)) await this.#applyMessage(document, mediaType);
      else if (mediaType === ProvisioningMediaType.Wbxml || mediaType === ProvisioningMediaType.Xml)
        for (const account of provisionedAccounts(decodeProvisioning(document)))
          receive(accountNodes('provisioned', account), byBootstrap);
      else throw new PosternError('unsupportedFormat', `bootstraps of type ${mediaType} are not supported`);
    });
    this.#applied.add(document);
    return accounts.list().find(({ serverId }) => !before.has(serverId)) ?? accounts.list().at(-1);
  }

  /** Applies a bootstrap of the DM profile: commands without an answer (OMA DM bootstrap 1.2.1, section 5.4). */
  async #applyMessage(document: Uint8Array, mediaType: string): Promise<void> {
    const { config, tree } = this.#parts;
    const { header, commands } = decodeDocument(document, mediaType);
    if (header.target.locUri !== config.device.id)
      throw new PosternError('unauthorized', `the bootstrap is for another device, ${header.target.locUri}`);
    for (const command of commands)
      for (const { items } of await execute({ tree, serverId: byBootstrap }, command)) {
        const failed = items.find(({ status }) => status !== DmStatus.Ok);
        if (failed)
          throw new PosternError(
            'unauthorized',
            `the bootstrap was not applied: ${failed.status} ${failed.reason ?? ''}`,
          );
      }
  }

  /**
   * Applies the bootstrap document of the configuration, unless it was applied at an earlier start. Returns its account,
   * or `undefined` when there was nothing to apply.
   * @throws {PosternError} `configuration` when the file cannot be read or its bootstrap cannot be applied
   */
  async applyBrought(): Promise<DmAccount | undefined> {
    const { config, events } = this.#parts;
    const { bootstrap } = config;
    if (!bootstrap) return undefined;
    let document: Uint8Array;
    try {
      document = readNamedFile(bootstrap.file);
    } catch (cause) {
      const { message } = asPosternError(cause);
      throw new PosternError('configuration', `bootstrap.file: ${bootstrap.file} ${message}`, { cause });
    }
    const [mediaType = ''] = bootstrap.type.split(';');
    try {
      if (this.#applied.has(document)) return undefined;
      const added = await this.#apply(document, mediaType.trim(), bootstrap.type);
      if (added) events.emit('device.bootstrapped', { device: config.device.id, server: added.serverId });
      return added;
    } catch (thrown) {
      throw new PosternError('configuration', `bootstrap.file: ${asPosternError(thrown).message}`, {
        cause: thrown,
      });
    }
  }
}
