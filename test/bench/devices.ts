// A process of reference End Devices for the benchmarks: `devices.ts GATEWAY FIRST COUNT [--server]`. It starts them all at
// once, says `attached SECONDS` when each is, and stays.
import { checkConfig } from '../../src/base/config.ts';
import type { Events } from '../../src/base/events.ts';
import { deviceConfigSchema } from '../../src/device/config.ts';
import { Device } from '../../src/device/device.ts';
import { deviceId, secrets } from './crowd.ts';

const [gateway = '', first = '0', count = '1', withServer] = process.argv.slice(2);
const silent: Events = { emit: () => {} };

const devices = Array.from({ length: Number(count) }, (_, at) => {
  const id = deviceId(Number(first) + at);
  const config = checkConfig(
    deviceConfigSchema,
    {
      device: { id, 'factory-secret': secrets.factory(id), encoding: 'wbxml' },
      network: { gateway, interface: '127.0.0.1' },
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
