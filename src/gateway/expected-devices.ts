import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { hashedName } from '../base/hashed-name.ts';
import type { ExpectedDevices } from '../mo/gw-device-inventory.ts';
import { paths } from '../wire/resources.ts';
import { isForOscore } from '../wire/secure/transport-keys.ts';
import type { DeviceLocator } from './southbound/device-locator.ts';
import type { Credentials } from './store/credentials.ts';

/** Devices that the DM server bootstraps to this gateway (GwMO section 8.4.1), until they attach. */
export function expectedDevices(
  credentials: Credentials,
  locator: DeviceLocator,
  events: Events,
  hasOscore: boolean,
): ExpectedDevices {
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
      credentials.put({ ...device, origin: 'server', attached: false });
      events.emit('device.expected', { device: device.deviceId });
    },
    remove: (deviceId) => credentials.delete(deviceId),
    // Of a device that is being added, nothing is stored yet.
    addressFor: ({ deviceId, transport }) =>
      locator.uriFor(
        deviceId,
        paths.sessions,
        [...credentials.keys.of(deviceId), ...(transport ? [transport] : [])].some(
          ({ identity }) => !isForOscore(identity),
        ),
      ),
  };
}
