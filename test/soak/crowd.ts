// A process of reference devices that come, go and move: `node crowd.ts GATEWAY FIRST COUNT SEED PER-SECOND`. Prints `ready`,
// starts all devices on a line of input, prints `attached`, and then `did WHAT ok` or `did WHAT failed` for each change.
import { setTimeout as pause } from 'node:timers/promises';
import { checkConfig } from '../../src/base/config.ts';
import { seededEntropy } from '../../src/base/entropy.ts';
import type { Events } from '../../src/base/events.ts';
import { deviceConfigSchema } from '../../src/device/config.ts';
import { Device } from '../../src/device/device.ts';
import { deviceId, secrets } from '../bench/crowd.ts';

const [gateway = '', first = '0', count = '1', seed = '1', perSecond = '1'] = process.argv.slice(2);
const silent: Events = { emit: () => {} };
const chance = seededEntropy(Number(seed));
/** Milliseconds that a device stays silent before it comes back. */
const silence = 30_000;

function newDevice(at: number): Device {
  const id = deviceId(Number(first) + at);
  const config = checkConfig(
    deviceConfigSchema,
    {
      device: { id, 'factory-secret': secrets.factory(id), encoding: 'wbxml' },
      network: { gateway, interface: '127.0.0.1' },
    },
    'soak',
  );
  return new Device(config, { events: silent });
}

const devices = Array.from({ length: Number(count) }, (_, at) => newDevice(at));
const busy = new Set<number>();

/** The device of this number begins again without memory and at another port, as after a factory reset. */
async function beginAnew(at: number): Promise<void> {
  await devices[at]?.[Symbol.asyncDispose]();
  const device = newDevice(at);
  devices[at] = device;
  await device.start();
  await device.attached;
}

const changes: Readonly<Record<string, (at: number) => Promise<void>>> = {
  session: async (at) => void (await devices[at]?.contactServer('gw-1')),
  leave: async (at) => {
    await devices[at]?.detach();
    await beginAnew(at);
  },
  move: beginAnew,
  silence: async (at) => {
    await devices[at]?.[Symbol.asyncDispose]();
    await pause(silence);
    await beginAnew(at);
  },
};
const names = Object.keys(changes);

async function change(at: number): Promise<void> {
  const what = names[Math.floor(chance.uniform() * names.length)] ?? '';
  busy.add(at);
  try {
    await changes[what]?.(at);
    console.log(`did ${what} ok`);
  } catch {
    console.log(`did ${what} failed`);
  } finally {
    busy.delete(at);
  }
}

process.on('unhandledRejection', () => {});
// The CoAP package of the reference device may repeat a message after its socket was closed.
process.on('uncaughtException', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'ERR_SOCKET_DGRAM_NOT_RUNNING') throw error;
});
console.log('ready');
// A run that was broken off leaves nothing behind.
process.stdin.once('end', () => process.exit());
process.stdin.once('data', async () => {
  await Promise.all(devices.map((device) => device.start()));
  await Promise.all(devices.map((device) => device.attached));
  console.log('attached');
  setInterval(() => {
    const at = Math.floor(chance.uniform() * devices.length);
    if (!busy.has(at)) void change(at);
  }, 1000 / Number(perSecond));
});
