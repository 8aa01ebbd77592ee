import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { checkConfig } from '../../../src/base/config.ts';
import { type Entropy, seededEntropy } from '../../../src/base/entropy.ts';
import { asPosternError } from '../../../src/base/errors.ts';
import { hashedName } from '../../../src/base/hashed-name.ts';
import { composeGateway, type GatewayParts } from '../../../src/gateway/composition.ts';
import { type GatewayConfig, gatewayConfigSchema } from '../../../src/gateway/config.ts';
import { expectedNodes } from '../../../src/mo/gw-device-inventory.ts';
import { encodeTnds, TndsMediaType } from '../../../src/wire/syncml/tnds.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { FailingDisk } from './failing-disk.ts';

const server = 'dm.example';
const devices = ['urn:dev:ops:1', 'urn:dev:ops:2', 'urn:dev:ops:3', 'urn:dev:ops:4'];

const config = (state: string): GatewayConfig =>
  checkConfig(
    gatewayConfigSchema,
    {
      gateway: { id: 'gw-1', state },
      coap: { port: 0, interfaces: ['lo'], 'insecure-plain-coap': true },
      mqtt: { url: 'mqtt://127.0.0.1:1' },
      'dm-server': { id: server, 'client-secret': 'a-secret-of-gw', 'server-secret': 'a-secret-of-dm' },
      lwm2m: { 'insecure-no-security': true, device: [] },
      bootstrap: { device: devices.map((id) => ({ id, 'factory-secret': 'a-factory-secret' })) },
      // Fewer than there are devices: the oldest registration is deleted for a new one, and the inventory can be full.
      limits: { outbox: 20, devices: 3 },
    },
    'test',
  );

const compose = (state: string): GatewayParts =>
  composeGateway(config(state), {
    events: new EventRecorder(),
    clock: new HandClock(),
    entropy: seededEntropy(1),
  });

/** What a gateway believes: all of its tables and caches, and all nodes and ACLs of its tree. */
function beliefs({ state, tree }: GatewayParts) {
  const nodes: Record<string, unknown> = {};
  const walk = (path: readonly string[]) => {
    const view = tree.view(path);
    const { children = [], value, ...rest } = view ?? { format: 'null', access: [] };
    // How long ago a device was heard and when a node changed are no part of what is compared.
    nodes[path.join('/')] = {
      ...rest,
      // Octets are a Buffer before they are stored, and a Uint8Array when they are read.
      value: value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value,
      acl: view?.access.includes('Get') ? tree.getAcl(path, server) : '',
      timeStamp: undefined,
    };
    for (const child of [...children].toSorted()) walk([...path, child]);
  };
  for (const branch of ['DevInfo', 'DMAcc', 'GwConfig', 'GwDeviceInventory', 'GwFanout']) walk([branch]);
  const byId = (a: { deviceId: string }, b: { deviceId: string }) => (a.deviceId < b.deviceId ? -1 : 1);
  return {
    devices: [...state.inventory.values()].toSorted(byId),
    names: state.inventory.names().toSorted(),
    credentials: state.credentials.list().toSorted(byId),
    registrations: [...(state.registrations?.values() ?? [])].toSorted(byId),
    outbox: state.outbox.peek(100).map(({ run: _, ...entry }) => entry),
    nodes,
  };
}

type Step = (gateway: GatewayParts, pick: <T>(choices: readonly T[]) => T) => void | Promise<void>;

/** Everything that changes the state, as the parts of a gateway do it. */
const steps: Readonly<Record<string, Step>> = {
  bootstrap: ({ state }, pick) => {
    const deviceId = pick(devices);
    state.credentials.put({
      deviceId,
      clientName: deviceId,
      clientSecret: pick(['c1', 'c2']),
      clientNonce: new Uint8Array([1]),
      serverSecret: 's',
      serverNonce: new Uint8Array([2]),
      origin: 'local',
      attached: false,
    });
  },
  attach: ({ state, associations }, pick) => {
    const deviceId = pick(devices);
    const credential = state.credentials.get(deviceId);
    associations.attach({
      deviceId,
      mode: 0,
      origin: 'local',
      protocol: 'OMA-DM',
      address: 'coap://192.0.2.1:5683',
      isGateway: false,
      manufacturer: pick(['Maker', 'Caf\u001b']),
      ...(credential && { credential }),
    });
  },
  'a child reports a device': ({ associations }, pick) =>
    associations.attachBehind('gw-2', { deviceId: pick(devices), mode: 0, bootstrap: 'local' }),
  'a device leaves': ({ associations }, pick) => void associations.detach(pick(devices), 'left'),
  register: ({ state }, pick) => {
    const deviceId = pick(devices);
    state.registrations?.put({
      deviceId,
      location: pick(['l1', 'l2', 'l3']),
      address: '192.0.2.9',
      port: 5683,
      version: '1.1',
      lifetime: 60,
      queueMode: false,
      root: [],
      paths: [[3, 0]],
      formats: [],
    });
  },
  deregister: ({ state }, pick) => state.registrations?.delete(pick(devices)),
  'a package that changes settings and ACLs': async ({ tree }, pick) =>
    await tree.atomically(async () => {
      await tree.replace(
        ['GwConfig', 'AttachAlert'],
        { format: 'bool', value: pick(['true', 'false']) },
        server,
      );
      tree.replaceAcl(['GwConfig'], pick(['Get=*', `Get=*&Replace=${server}`]), server);
      await tree.replace(
        ['GwConfig', 'DetachAlert'],
        { format: 'bool', value: pick(['true', 'false']) },
        server,
      );
    }),
  'a package that expects a device and detaches another': async ({ tree, state }, pick) =>
    await tree.atomically(async () => {
      const deviceId = pick(devices);
      const node = hashedName(deviceId);
      if (!tree.view(['GwDeviceInventory', 'Expected', node])) {
        const root = expectedNodes({
          deviceId,
          clientName: deviceId,
          clientSecret: 'c',
          clientNonce: new Uint8Array([1]),
          serverSecret: 's',
          serverNonce: new Uint8Array([2]),
        });
        const value = encodeTnds({ root });
        const expected = ['GwDeviceInventory', 'Expected', node];
        await tree.add(expected, { format: 'xml', type: TndsMediaType.Xml, value }, server);
      } else await tree.delete(['GwDeviceInventory', 'Expected', node], server);
      const attached = pick(state.inventory.names().concat('none'));
      if (attached !== 'none' && tree.view(['GwDeviceInventory', 'Records', attached]))
        await tree.delete(['GwDeviceInventory', 'Records', attached], server);
    }),
  'a package that makes a group and a fan-out': async ({ tree }, pick) =>
    await tree.atomically(async () => {
      const fanOut = ['GwFanout', 'Fanout', pick(['f1', 'f2'])];
      if (tree.view(fanOut)) await tree.delete(fanOut, server);
      else {
        const command =
          '<Get><CmdID>1</CmdID><Item><Target><LocURI>./DevInfo/Man</LocURI></Target></Item></Get>';
        await tree.add([...fanOut, 'Command'], { format: 'xml', value: command }, server);
      }
      const group = ['GwDeviceInventory', 'Groups', pick(['g1', 'g2'])];
      if (tree.view(group)) await tree.delete(group, server);
      else await tree.add([...group, 'GroupID'], { format: 'chr', value: 'all' }, server);
    }),
  'an alert is delivered': ({ state }) => {
    const [first] = state.outbox.peek(1);
    if (first) state.outbox.remove(first.sequence);
  },
  'nonces change': ({ state }, pick) => {
    const credential = state.credentials.get(pick(devices));
    if (credential) state.credentials.put({ ...credential, serverNonce: new Uint8Array([pick([1, 2, 3])]) });
  },
};

const seed = Number(process.env.POSTERN_SEED ?? 1 + Math.floor(Math.random() * 1e6));

/** Makes one step after the other, one of them or all with a write that fails, and compares after each. */
async function try_(entropy: Entropy, folder: string, round: number): Promise<number> {
  using disk = new FailingDisk();
  const file = join(folder, `${round}.db`);
  const gateway = compose(file);
  const pick = <T>(choices: readonly T[]): T => choices[Math.floor(entropy.uniform() * choices.length)]!;
  const names = Object.keys(steps);
  let failures = 0;
  for (let at = 0; at < 25; at++) {
    const name = pick(names);
    const before = beliefs(gateway);
    disk.failAfter(Math.floor(entropy.uniform() * 12), {
      staysFull: entropy.uniform() < 0.3,
      endsTransaction: entropy.uniform() < 0.5,
    });
    let thrown: unknown;
    try {
      await steps[name]!(gateway, pick);
    } catch (error) {
      thrown = error;
    }
    const where = `seed ${seed}, round ${round}, step ${at}: ${name}`;
    if (disk.mend()) {
      failures++;
      assert.ok(thrown, `${where}: a refused write is said`);
      assert.equal(asPosternError(thrown).code, 'storage', where);
      assert.deepEqual(beliefs(gateway), before, `${where}: nothing has changed`);
    }
    // A start is slow: it is compared where something failed, and now and then.
    if (!thrown && at % 8 !== 0) continue;
    const copy = join(folder, `${round}-${at}.db`);
    const raw = new DatabaseSync(file);
    raw.exec(`VACUUM INTO '${copy}'`);
    raw.close();
    if (existsSync(`${file}.key`)) copyFileSync(`${file}.key`, `${copy}.key`);
    const fresh = compose(copy);
    assert.deepEqual(
      beliefs(gateway),
      beliefs(fresh),
      `${where}: a gateway that starts now believes the same`,
    );
    await fresh.state.database.close();
  }
  await gateway.state.database.close();
  return failures;
}

test('a write that fails, wherever, leaves memory and file as they were, for every table, branch and cache', async (t) => {
  t.diagnostic(`seed ${seed}`);
  const folder = mkdtempSync(join(tmpdir(), 'postern-unit-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const entropy = seededEntropy(seed);
  let failures = 0;
  for (let round = 0; round < 12; round++) failures += await try_(entropy, folder, round);
  t.diagnostic(`${failures} failed writes`);
  assert.ok(failures > 50, `${failures} failed writes`);
});
