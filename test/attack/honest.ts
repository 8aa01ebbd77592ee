// A process of honest devices at work: `node honest.ts GATEWAY COUNT SEED COAPS-PORT`. Four of five are OMA DM devices, the others LwM2M
// clients. Some more shake hands over DTLS and ask for something. Prints `ready`, starts all on a line of input, prints `attached`, and then works: sessions, bootstraps, registrations.
// Each piece of work is a line of JSON: what it was, how many milliseconds it took, and whether it succeeded.
import { setTimeout as pause } from 'node:timers/promises';
import { checkConfig } from '../../src/base/config.ts';
import { seededEntropy } from '../../src/base/entropy.ts';
import type { Events } from '../../src/base/events.ts';
import { deviceConfigSchema } from '../../src/device/config.ts';
import { Device } from '../../src/device/device.ts';
import { LwM2mDevice } from '../../src/device/lwm2m-device.ts';
import { succeeded } from '../../src/dm/client-session.ts';
import { deviceId, secrets } from '../bench/crowd.ts';
import { BenchClient } from '../bench/dtls-client.ts';
import { type Deed, isLwm2m, protectedDevices } from './deed.ts';

/** Milliseconds between two pieces of work of one device, at least and at most. */
const pauses = [400, 1600] as const;

const [gateway = '', count = '1', seed = '1', coaps = '5684'] = process.argv.slice(2);
const chance = seededEntropy(Number(seed));
const tell = (deed: Deed) => void process.stdout.write(`${JSON.stringify(deed)}\n`);

/** A firmware update from an image of the gateway is a deed, too: the DM server orders it. */
const eventsOf = (device: string, isPresent: () => boolean): Events => ({
  emit: (name, fields) => {
    // An update ends as failed when the device begins anew.
    if (!isPresent() || (name !== 'device.updated' && name !== 'device.update-failed')) return;
    const { reason } = fields as { reason?: string };
    const ok = name === 'device.updated';
    tell({ deed: 'image', milliseconds: 0, ok, device, ...(reason !== undefined && { reason }) });
  },
});

function newDevice(at: number): Device | LwM2mDevice {
  const id = deviceId(at);
  const config = checkConfig(
    deviceConfigSchema,
    {
      device: { id, ...(!isLwm2m(at) && { 'factory-secret': secrets.factory(id), encoding: 'wbxml' }) },
      network: { gateway, interface: '127.0.0.1' },
      ...(isLwm2m(at) && { lwm2m: {} }),
    },
    'attack',
  );
  const surroundings = { events: eventsOf(id, () => devices[at] === device) };
  const device: Device | LwM2mDevice = isLwm2m(at)
    ? new LwM2mDevice(config, surroundings)
    : new Device(config, surroundings);
  return device;
}

const devices: (Device | LwM2mDevice)[] = [];
for (let at = 0; at < Number(count); at++) devices.push(newDevice(at));

/** Begins again without memory and at another port, as after a factory reset. */
async function beginAnew(at: number): Promise<void> {
  const before = devices[at];
  devices.splice(at, 1, newDevice(at));
  await before?.[Symbol.asyncDispose]();
  const device = devices[at]!;
  await device.start();
  await device.attached;
}

async function work(at: number): Promise<void> {
  for (;;) {
    await pause(pauses[0] + chance.uniform() * (pauses[1] - pauses[0]));
    const device = devices[at]!;
    const anew = chance.uniform() < 0.15;
    const deed = anew ? 'bootstrap' : device instanceof Device ? 'session' : 'registration';
    const began = performance.now();
    let reason: string | undefined;
    try {
      if (anew) await beginAnew(at);
      else if (device instanceof Device) {
        const outcome = await device.contactServer('gw-1');
        if (!succeeded(outcome)) reason = `${outcome.status}: ${outcome.reason}`;
      } else await device.update();
    } catch (thrown) {
      reason = String(thrown);
    }
    const milliseconds = performance.now() - began;
    const ok = reason === undefined;
    tell({ deed, milliseconds, ok, device: deviceId(at), ...(reason !== undefined && { reason }) });
  }
}

/** A device that comes over DTLS: from a port of its own each time, so that it is new to the gateway but for its address. */
async function workProtected(identity: string): Promise<never> {
  for (;;) {
    await pause(pauses[0] + chance.uniform() * (pauses[1] - pauses[0]));
    const began = performance.now();
    let reason: string | undefined;
    const client = await BenchClient.open(Number(coaps));
    try {
      const association = await client.connect(identity);
      const late = pause(20_000, 'late', { ref: false });
      if ((await Promise.race([client.load(association, 3, 1), late])) === 'late') reason = 'no answer';
      client.close(association);
    } catch (thrown) {
      reason = String(thrown);
    }
    await client[Symbol.asyncDispose]();
    const milliseconds = performance.now() - began;
    tell({
      deed: 'protected',
      milliseconds,
      ok: reason === undefined,
      device: identity,
      ...(reason !== undefined && { reason }),
    });
  }
}

// The CoAP package of the reference device may repeat a message after its socket was closed.
process.on('uncaughtException', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'ERR_SOCKET_DGRAM_NOT_RUNNING') throw error;
});
console.log('ready');
process.stdin.once('data', async () => {
  await Promise.all(devices.map((device) => device.start()));
  await Promise.all(devices.map((device) => device.attached));
  console.log('attached');
  for (const at of devices.keys()) void work(at);
  for (const identity of protectedDevices(devices.length)) void workProtected(identity);
});
