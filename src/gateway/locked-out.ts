import type { DeviceRecord } from '../mo/device-record.ts';
import type { GatewayConfig } from './config.ts';
import type { LiveSettings } from './live-settings.ts';
import type { DeviceContexts } from './southbound/device-contexts.ts';
import type { DeviceLocator } from './southbound/device-locator.ts';
import type { Joins } from './southbound/joins.ts';
import type { Credentials } from './store/credentials.ts';

export interface LockedOutParts {
  readonly config: Pick<GatewayConfig, 'coap'>;
  readonly live: LiveSettings;
  readonly joins: Pick<Joins, 'has'>;
  readonly credentials: Pick<Credentials, 'get' | 'keys'>;
  readonly contexts: Pick<DeviceContexts, 'has'> | undefined;
  readonly locator: Pick<DeviceLocator, 'isReached'>;
}

/**
 * Why a directly attached device is locked out: this gateway would refuse whatever it says, until it is bootstrapped anew or is in
 * a list again. One line for a person; undefined where that is not known. Its record stays until somebody deletes it.
 */
export const lockedOutBy =
  ({ config, live, joins, credentials, contexts, locator }: LockedOutParts) =>
  ({ deviceId, protocol, address }: DeviceRecord): string | undefined => {
    const { clients, bootstrap, keyed, certificates } = live.current;
    if (protocol === 'LwM2M')
      return clients.has(deviceId) || joins.has(deviceId, 'LwM2M')
        ? undefined
        : 'locked out: it is not in lwm2m.device, and has not joined';
    if (protocol !== 'OMA-DM') return undefined;
    if (credentials.get(deviceId) === undefined)
      return bootstrap.has(deviceId)
        ? 'its account has ended; it is bootstrapped anew when it speaks'
        : 'locked out: its account has ended, and no list has it';
    if (address.startsWith('http') || config.coap['insecure-plain-coap'] || bootstrap.has(deviceId))
      return undefined;
    const hasKey =
      keyed.has(deviceId) ||
      joins.has(deviceId, protocol) ||
      credentials.keys.of(deviceId).length > 0 ||
      (contexts?.has(deviceId) ?? false) ||
      // An authority may have given it a certificate.
      (certificates?.trust.authorities.size ?? 0) > 0 ||
      locator.isReached(deviceId);
    return hasKey ? undefined : 'locked out: it has no key any more, and plain CoAP is not allowed';
  };
