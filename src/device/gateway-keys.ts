import type { Events } from '../base/events.ts';
import type { TransportKey } from '../mo/device-record.ts';
import type { Accounts, DmAccount } from '../mo/dm-acc.ts';
import { coapBase } from '../wire/coap/uri.ts';
import {
  factoryIdentity,
  factoryKey,
  isForOscore,
  issuedContext,
  ofDevice,
} from '../wire/secure/transport-keys.ts';
import { bootstrapPath } from './bootstraps.ts';
import type { StackKey, StackSecurity } from './coap-stack.ts';
import type { DeviceConfig } from './config.ts';
import { type DeviceContext, factoryContextOf } from './protected-datagrams.ts';
import { isDirect, isSamePlace } from './server-sessions.ts';

const discoveryPath = '/.well-known/core';

export interface GatewayKeysParts {
  readonly config: DeviceConfig;
  readonly accounts: Accounts;
  readonly events: Events;
  /** Deletes the account for a gateway that does not take its key. */
  readonly forget: (serverId: string) => void;
  /** Called when the gateway has ended the association of an account, or does not take its key: the device must attach again. */
  readonly lost: () => void;
}

/**
 * The keys with which the device opens associations. The factory secret gives the key for the bootstrap, and for discovery before
 * it. All else needs the key in the account for the gateway.
 */
export class GatewayKeys implements StackSecurity {
  readonly #parts: GatewayKeysParts;

  constructor(parts: GatewayKeysParts) {
    this.#parts = parts;
  }

  readonly keyFor = (base: string, path: string): StackKey | undefined => {
    const own = this.#ownAt(base);
    if (path === bootstrapPath) return this.#factoryKey();
    if (own && !isForOscore(own.identity)) return own;
    return path === discoveryPath ? this.#factoryKey() : undefined;
  };

  /** The security context for a request, where the device uses OSCORE. Discovery goes without: a new gateway knows no context. */
  readonly contextFor = (
    path: string,
    { address, port }: { readonly address: string; readonly port: number },
  ): DeviceContext | undefined => {
    if (path === discoveryPath) return undefined;
    if (path === bootstrapPath) return factoryContextOf(this.#parts.config);
    const own = this.#ownAt(coapBase(address, port));
    if (!own || !isForOscore(own.identity)) return undefined;
    const { identity, key } = own;
    return { name: 'gateway', identity, parameters: ofDevice(issuedContext(identity, Buffer.from(key))) };
  };

  /** The key in the account for the gateway at a place. */
  #ownAt(base: string): TransportKey | undefined {
    const { transport } =
      this.#parts.accounts
        .list()
        .find((account) => isDirect(account) && isSamePlace(account.address, base)) ?? {};
    return transport && 'key' in transport ? transport : undefined;
  }

  readonly opened = (base: string): void => {
    const { config, events } = this.#parts;
    events.emit('device.association-opened', { device: config.device.id, gateway: base });
  };

  readonly lost = (base: string, identity: string): void => {
    const { config, events, lost } = this.#parts;
    events.emit('device.association-ended', { device: config.device.id, gateway: base });
    if (this.#accountWith(identity)) lost();
  };

  /** The gateway does not know the key any more. The device gives its account up if there is another way to get one. */
  readonly refused = (_base: string, identity: string): void => {
    const { config, accounts, forget, lost } = this.#parts;
    const account = this.#accountWith(identity);
    const hasOtherWay = config.device['factory-secret'] !== undefined || !accounts.list().every(isDirect);
    if (!account || !hasOtherWay) return;
    forget(account.serverId);
    lost();
  };

  #accountWith(identity: string): DmAccount | undefined {
    return this.#parts.accounts.list().find(({ transport }) => transport?.identity === identity);
  }

  #factoryKey(): StackKey | undefined {
    const { id, 'factory-secret': secret } = this.#parts.config.device;
    return secret === undefined ? undefined : { identity: factoryIdentity(id), key: factoryKey(secret, id) };
  }
}
