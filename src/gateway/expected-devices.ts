import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { hashedName } from '../base/hashed-name.ts';
import type { ExpectedDevices } from '../mo/gw-device-inventory.ts';
import { paths } from '../wire/resources.ts';
import { isForOscore } from '../wire/secure/transport-keys.ts';
import type { DeviceAddresses } from './southbound/device-addresses.ts';
import type { DeviceLocator } from './southbound/device-locator.ts';
import type { Credentials } from './store/credentials.ts';

/** Devices that the DM server bootstraps to this gateway (GwMO section 8.4.1), until they attach. */
export function expectedDevices({
  credentials,
  locator,
  addresses,
  events,
  hasOscore,
}: {
  readonly credentials: Credentials;
  readonly locator: Pick<DeviceLocator, 'uriFor'>;
  readonly addresses: Pick<DeviceAddresses, 'httpUriOf'>;
  readonly events: Events;
  /** Whether this gateway serves OSCORE. */
  readonly hasOscore: boolean;
}): ExpectedDevices {
  return {
    names: () =>
      credentials
        .list()
        .filter(({ origin, attached }) => origin === 'server' && !attached)
        .map(({ deviceId }) => hashedName(deviceId)),
    named: (name) => {
      const found = credentials.named(name);
      return found?.origin === 'server' && !found.attached ? found : undefined;
    },
    demandRoom: () => {
      if (credentials.size >= credentials.limit)
        throw new PosternError(
          'full',
          `the limit of ${credentials.limit} devices with credentials is reached`,
        );
    },
    add: (device) => {
      if (!hasOscore && isForOscore(device.transport?.identity ?? ''))
        throw new PosternError('notAllowed', 'this gateway does not serve OSCORE');
      // Over HTTP there is no key for DTLS or OSCORE, and an account that has one would not be served there.
      const { transport: _, ...keyless } = device;
      const isOverHttp = addresses.httpUriOf(device.deviceId) !== undefined;
      credentials.put({ ...(isOverHttp ? keyless : device), origin: 'server', attached: false });
      events.emit('device.expected', { device: device.deviceId });
    },
    remove: (deviceId) => credentials.delete(deviceId),
    // Of a device that is being added, nothing is stored yet.
    addressFor: ({ deviceId, transport }) =>
      addresses.httpUriOf(deviceId) ??
      locator.uriFor(
        deviceId,
        paths.sessions,
        [...credentials.keys.of(deviceId), ...(transport ? [transport] : [])].some(
          ({ identity }) => !isForOscore(identity),
        ),
      ),
  };
}
