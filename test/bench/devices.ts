// A process of reference End Devices for the benchmarks: `node devices.ts GATEWAY FIRST COUNT [server]`. Prints `ready`, waits
// for a line on its input, starts all devices at once, prints `attached SECONDS` when the last one is attached, and stays. With
// `server` the devices have an account at the DM server as well.
import { checkConfig } from '../../src/base/config.ts';
import type { Events } from '../../src/base/events.ts';
import { deviceConfigSchema } from '../../src/device/config.ts';
import { Device } from '../../src/device/device.ts';
import { deviceAddress, deviceId, secrets } from './crowd.ts';

const [gateway = '', first = '0', count = '1', withServer] = process.argv.slice(2);
const silent: Events = { emit: () => {} };

const devices = Array.from({ length: Number(count) }, (_, at) => {
  const number = Number(first) + at;
  const id = deviceId(number);
  const config = checkConfig(
    deviceConfigSchema,
    {
      device: { id, 'factory-secret': secrets.factory(id), encoding: 'wbxml' },
      network: { gateway, interface: deviceAddress(number) },
      ...(withServer && {
        'dm-server': {
          id: 'dm.example',
          'client-secret': secrets.client(id),
          'server-secret': secrets.server(id),
        },
      }),
    },
    'bench',
  );
  return new Device(config, { events: silent });
});

console.log('ready');
process.stdin.once('data', async () => {
  const began = performance.now();
  await Promise.all(devices.map((device) => device.start()));
  await Promise.all(devices.map((device) => device.attached));
  console.log(`attached ${((performance.now() - began) / 1000).toFixed(2)}`);
});
process.on('SIGTERM', () => process.exit(0));
