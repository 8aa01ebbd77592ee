// A process of honest devices at work: `node honest.ts CROWD`, with the JSON of a `Crowd`. Of five, three are OMA DM devices, one
// has an account for the DM server besides, and one is an LwM2M client. Beside them are devices and child gateways with keys. Prints `ready`, starts all on a line of input, prints
// `attached`, and then works: sessions, bootstraps, registrations, discovery, and questions over HTTP. Each piece of work is a line of JSON: what it was,
// how many milliseconds it took, and whether it succeeded. A line `newcomer N` lets a further device attach.
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { SystemClock } from '../../src/base/clock.ts';
import { checkConfig } from '../../src/base/config.ts';
import { seededEntropy } from '../../src/base/entropy.ts';
import { type Events, noEvents } from '../../src/base/events.ts';
import { CoapStack } from '../../src/device/coap-stack.ts';
import { deviceConfigSchema } from '../../src/device/config.ts';
import { Device } from '../../src/device/device.ts';
import { LwM2mDevice } from '../../src/device/lwm2m-device.ts';
import { succeeded } from '../../src/dm/client-session.ts';
import { GatewayMode } from '../../src/mo/device-record.ts';
import { deviceAttachAlert, deviceDetachAlert } from '../../src/mo/gateway-alerts.ts';
import { ownVocabulary } from '../../src/mo/vocabulary.ts';
import { Code, codeText, isSuccess } from '../../src/wire/coap/codes.ts';
import { deviceId, secrets } from '../bench/crowd.ts';
import { key } from '../bench/dtls-client.ts';
import { firstMessage, xml } from './attacker.ts';
import { ChildParty } from './child-party.ts';
import {
  behind,
  bootstrapped,
  type Deed,
  discoverers,
  hasOscore,
  hasServer,
  honestChildren,
  isLwm2m,
  type KeyedPlace,
  newcomerId,
  oscoreOf,
  protectedDevices,
  wandering,
} from './deed.ts';
import { KeyedParty } from './keyed-party.ts';

/** Honest devices, and where they are. */
export interface Crowd {
  readonly devices: number;
  readonly seed: number;
  /** The gateway's address for devices at IPv4 addresses, and for those at IPv6 ones. */
  readonly gateways: Readonly<Record<4 | 6, string>>;
  /** The port of CoAP, and the URL of the HTTP binding. */
  readonly port: number;
  readonly http: string;
  /** Address and port of CoAP over DTLS, over IPv4. */
  readonly coaps: { readonly host: string; readonly port: number };
  readonly keyed: readonly KeyedPlace[];
  /** Addresses of the devices, which take turns. */
  readonly addresses: readonly string[];
  /** Milliseconds between two pieces of work of one device, at least and at most. */
  readonly pauses: readonly [number, number];
}

const crowd = JSON.parse(process.argv[2] ?? '{}') as Crowd;
const chance = seededEntropy(crowd.seed);
const tell = (deed: Deed) => void process.stdout.write(`${JSON.stringify(deed)}\n`);
/** The longest that discovery waits for an answer, in milliseconds: the leisure of 5 s, and time for a busy machine. */
const discoveryTimeout = 8000;

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

/** The HTTP binding is asked over IPv4. */
const httpAddress = crowd.addresses.find((address) => !address.includes(':'))!;
const addressOf = (at: number): string => crowd.addresses[at % crowd.addresses.length]!;

/** Where a device is, and how it reaches the gateway. */
function networkOf(at: number) {
  const address = addressOf(at);
  return { gateway: crowd.gateways[address.includes(':') ? 6 : 4], interface: address };
}

function newDevice(at: number): Device | LwM2mDevice {
  const id = deviceId(at);
  const server = {
    id: 'dm.example',
    'client-secret': secrets.client(id),
    'server-secret': secrets.server(id),
  };
  const config = checkConfig(
    deviceConfigSchema,
    {
      device: { id, ...(!isLwm2m(at) && { 'factory-secret': secrets.factory(id), encoding: 'wbxml' }) },
      network: networkOf(at),
      ...(isLwm2m(at) && { lwm2m: {} }),
      ...(hasOscore(at) && { oscore: oscoreOf(at) }),
      ...(hasServer(at) && { 'dm-server': server }),
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
for (let at = 0; at < crowd.devices; at++) devices.push(newDevice(at));

/** Begins again without memory and at another port, as after a factory reset. */
async function beginAnew(at: number): Promise<void> {
  const before = devices[at];
  devices.splice(at, 1, newDevice(at));
  await before?.[Symbol.asyncDispose]();
  const device = devices[at]!;
  await device.start();
  await device.attached;
}

async function session(device: Device, server: string): Promise<void> {
  const outcome = await device.contactServer(server);
  if (!succeeded(outcome)) throw new Error(`${outcome.status}: ${outcome.reason}`);
}

/** Does a piece of work, and tells what came of it. */
async function measured(deed: Deed['deed'], device: string, work: () => Promise<unknown>): Promise<void> {
  const began = performance.now();
  let reason: string | undefined;
  try {
    await work();
  } catch (thrown) {
    reason = String(thrown);
  }
  const milliseconds = performance.now() - began;
  const ok = reason === undefined;
  tell({ deed, milliseconds, ok, device, ...(reason !== undefined && { reason }) });
}

async function work(at: number): Promise<void> {
  const [least, most] = crowd.pauses;
  for (;;) {
    await pause(least + chance.uniform() * (most - least));
    const device = devices[at]!;
    const id = deviceId(at);
    const lot = chance.uniform();
    if (lot < 0.15 && !hasServer(at)) await measured('bootstrap', id, () => beginAnew(at));
    else if (!(device instanceof Device)) await measured('registration', id, () => device.update());
    else if (hasServer(at) && lot < 0.5) await measured('tunnel', id, () => session(device, 'dm.example'));
    else await measured('session', id, () => session(device, 'gw-1'));
  }
}

/** Looks for the gateway by multicast from the address of a device, again and again. */
async function discover(at: number): Promise<void> {
  // Loopback has one address for multicast.
  const address = addressOf(at).startsWith('127.') ? '127.0.0.1' : addressOf(at);
  const stack = new CoapStack(new SystemClock(), address, () => ({ code: '4.04' }));
  await stack.open();
  for (;;) {
    await measured('discovery', `discoverer-${at}`, async () => {
      const found = await stack.discover(crowd.port, 'rt=oma.dm.bs', discoveryTimeout);
      if (!found) throw new Error('no gateway answered');
    });
    await pause(crowd.pauses[0] * chance.uniform());
  }
}

/** A device sends the first message of a session over HTTP, without a proof, and gets a challenge. */
async function askOverHttp(at: number): Promise<void> {
  for (;;) {
    await pause(crowd.pauses[0] + chance.uniform() * (crowd.pauses[1] - crowd.pauses[0]));
    await measured('http', `http-${at}`, async () => {
      const type = { 'content-type': 'application/vnd.syncml.dm+xml' };
      const options = { method: 'POST', headers: type, localAddress: httpAddress, timeout: 30_000 };
      const outgoing = request(crowd.http, { ...options, agent: false });
      outgoing.on('timeout', () => outgoing.destroy(new Error('no answer')));
      // After the beginning of the answer, its reader meets the error.
      outgoing.on('error', () => {});
      outgoing.end(firstMessage(deviceId(at), '1', 1));
      const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
      const text = Buffer.concat(await answer.toArray()).toString();
      if (!text.includes('<Chal>')) throw new Error(`${answer.statusCode}: ${text.slice(0, 100)}`);
    });
  }
}

/** A device that has never been here attaches. It stays, and does nothing. */
async function newcomer(at: number): Promise<void> {
  const id = newcomerId(at);
  const config = checkConfig(
    deviceConfigSchema,
    {
      device: { id, 'factory-secret': secrets.factory(id), encoding: 'wbxml' },
      network: networkOf(at),
    },
    'attack',
  );
  const device = new Device(config, { events: noEvents });
  await measured('newcomer', id, async () => {
    await device.start();
    await device.attached;
  });
}

const rest = () => pause(crowd.pauses[0] + chance.uniform() * (crowd.pauses[1] - crowd.pauses[0]));
/** A device that the gateway gives its security context of OSCORE. It begins anew, and then its former context ends. */
async function workBootstrapped(at: number): Promise<void> {
  const id = bootstrapped[at]!;
  const config = checkConfig(
    deviceConfigSchema,
    {
      device: { id, 'factory-secret': secrets.factory(id), encoding: 'wbxml', security: 'oscore' },
      network: networkOf(at),
    },
    'attack',
  );
  const begin = async () => {
    const device = new Device(config, { events: noEvents });
    await device.start();
    await device.attached;
    return device;
  };
  let device = await begin();
  for (let count = 1; ; count++) {
    await rest();
    if (count % 5 > 0) await measured('session', id, () => session(device, 'gw-1'));
    else
      await measured('bootstrap', id, async () => {
        await device[Symbol.asyncDispose]();
        device = await begin();
      });
  }
}

const placeOf = (id: string): KeyedPlace => crowd.keyed.find((place) => place.id === id)!;
const time = { method: Code.GET, path: ['time'] };

/**
 * A device that shakes hands over DTLS again and again, from the same port, and sends a package through the tunnel. Its association
 * is there while it rests.
 */
async function workProtected(identity: string): Promise<void> {
  const party = await KeyedParty.open(crowd.coaps, placeOf(identity));
  for (;;) {
    await rest();
    await measured('protected', identity, async () => {
      await party.connect({ identity, key });
      for (let count = 0; count < 3; count++) await party.ask(time);
    });
    await rest();
    await measured('package', identity, async () => {
      const { code, payload } = await party.ask({
        method: Code.POST,
        path: ['dm', 't', 'dm.example'],
        query: [`id=${identity}`],
        options: [xml],
        payload: firstMessage(identity, '1', 1, { server: 'dm.example' }),
      });
      if (!isSuccess(code)) throw new Error(`${codeText(code)} ${Buffer.from(payload).toString()}`);
    });
  }
}

const behindChild = { mode: GatewayMode.Transparent, bootstrap: 'local' } as const;

/** A child gateway that reports of one device that it is there, and of another that it comes and goes. */
async function workAsChild(child: ChildParty): Promise<void> {
  const attached = (deviceId: string, sequence: number) =>
    deviceAttachAlert(ownVocabulary, { ...behindChild, sequence, deviceId });
  const [stays, wanders] = [behind(child.id), wandering(child.id)];
  for (let sequence = 1; ; sequence++) {
    await measured('child', child.id, async () => {
      const comesOrGoes =
        sequence % 2 === 1
          ? attached(wanders, sequence)
          : deviceDetachAlert(ownVocabulary, { sequence, deviceId: wanders, reason: 'left' });
      const statuses = await child.report([attached(stays, sequence), comesOrGoes]);
      if (!statuses.every((status) => status === 200)) throw new Error(`statuses ${statuses}`);
    });
    await rest();
  }
}

async function begin(): Promise<void> {
  await Promise.all(devices.map((device) => device.start()));
  const children = await Promise.all(
    honestChildren.map(async (id) => new ChildParty(id, await KeyedParty.open(crowd.coaps, placeOf(id)))),
  );
  await Promise.all([
    ...devices.map((device) => device.attached),
    ...children.map((child) => child.attach()),
  ]);
  console.log('attached');
  for (const at of devices.keys()) void work(at);
  for (const at of bootstrapped.keys()) void workBootstrapped(at);
  for (const identity of protectedDevices) void workProtected(identity);
  for (const child of children) void workAsChild(child);
  for (let at = 0; at < discoverers; at++) {
    void discover(at);
    void askOverHttp(at);
  }
}

// The CoAP package of the reference device may repeat a message after its socket was closed.
process.on('uncaughtException', (error: NodeJS.ErrnoException) => {
  // The program that reads has ended.
  if (error.code === 'EPIPE') process.exit();
  if (error.code !== 'ERR_SOCKET_DGRAM_NOT_RUNNING') throw error;
});
console.log('ready');
createInterface(process.stdin).on('line', (line) => {
  const [what, number] = line.split(' ');
  if (what === 'newcomer') void newcomer(Number(number));
  else void begin();
});
