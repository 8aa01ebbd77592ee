import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { PosternError } from '../../src/base/errors.ts';
import { hashedName } from '../../src/base/hashed-name.ts';
import type { Operation } from '../../src/dm/server-session.ts';
import type { Gateway } from '../../src/gateway/gateway.ts';
import type { Headend } from '../../src/headend/headend.ts';
import { fileServer } from '../journeys/file-server.ts';
import { secrets } from '../journeys/site.ts';
import { insist, type Rig } from './rig.ts';

/** A journey that has to end well whichever write of whichever party fails. */
export interface Journey {
  readonly name: string;
  /** Parties with state: in each of them every write fails once. */
  readonly parties: readonly string[];
  /** Goes the journey to its end, and asserts that it is a good one. */
  readonly run: (rig: Rig) => Promise<void>;
}

const one = 'urn:dev:ops:1';
const two = 'urn:dev:ops:2';

/** How many alerts of one kind about one device the server has recorded. */
const told = (headend: Headend, kind: string, device: string, gateway?: string): number =>
  headend.records
    .alerts(1000)
    .filter((each) => each.kind === kind && each.device === device)
    .filter((each) => gateway === undefined || each.gateway === gateway).length;

/** Waits until the server has an alert, and until the gateway has nothing more to tell it. */
async function settled(rig: Rig, headend: Headend, gateway: Gateway, kind: string, device: string) {
  await rig.until(`${kind} of ${device}`, () => told(headend, kind, device) > 0);
  await quiet(rig, gateway);
}

const quiet = (rig: Rig, ...gateways: readonly Gateway[]) =>
  rig.until('the end of all alerts and sessions', () =>
    gateways.every((each) => each.status().outbox.waiting === 0 && each.status().sessions === 0),
  );

/** The device is attached, and the server was told that once. */
function assertAttached(headend: Headend, gateway: Gateway, device: string, via = 'gw-1'): void {
  const record = gateway.devices().find(({ deviceId }) => deviceId === device);
  assert.equal(record?.state, 'attached', `${device} is attached`);
  assert.equal(told(headend, 'DeviceAttach', device, via), 1, `the server is told of ${device} once`);
  const shown = headend.devices().find(({ id }) => id === device);
  assert.deepEqual([shown?.attached, shown?.gateway], [true, via], `the server shows ${device}`);
}

/** Gives an order until the party has done it. Returns the outcomes. */
const manage = (headend: Headend, id: string, operations: readonly Operation[], accepted = [200, 202]) =>
  insist(async () => {
    const outcomes = await headend.manage(id, operations);
    const refused = outcomes.find(({ status }) => !accepted.includes(status));
    if (refused) throw new PosternError('unavailable', `refused with ${refused.status}`);
    return outcomes;
  });

const replace = (uri: string, data: string): string =>
  `<Replace><CmdID>1</CmdID><Item><Target><LocURI>${uri}</LocURI></Target><Data>${data}</Data></Item></Replace>`;
const get = (uri: string): string =>
  `<Get><CmdID>2</CmdID><Item><Target><LocURI>${uri}</LocURI></Target></Item></Get>`;

/** Statuses of a device whose part of an order met the write that failed. 408: it could not go on with its session. */
const honest = ['408', '420', '500', '503', '510', '514'];

/**
 * Sends an order until it is taken. The operator deletes one of which nobody knows whether the gateway has it, and sees of one
 * whose answer was lost that the gateway has it.
 */
async function ordered(
  headend: Headend,
  kind: 'CommandFanout' | 'DeviceTrigger',
  name: string,
  send: () => Promise<unknown>,
): Promise<void> {
  await insist(async () => {
    const state = headend.orders.get(kind, 'gw-1', name)?.state;
    if (state === 'running' || state === 'done') return;
    if (state === 'unknown') await headend.deleteOrder(kind, 'gw-1', name);
    await send();
  });
}

/** Starts a fan-out, and waits for its result: each device is in it, with success or with the write that failed. */
async function fanOut(
  rig: Rig,
  headend: Headend,
  name: string,
  command: string,
  devices: readonly string[],
): Promise<void> {
  await ordered(headend, 'CommandFanout', name, () =>
    headend.fanOut('gw-1', { name, targets: {}, returnFormat: 0, command }),
  );
  const result = () => headend.records.result('CommandFanout', 'gw-1', name)?.result;
  await rig.until(`result of ${name}`, () => result() !== undefined);
  const xml = result()!;
  assert.match(xml, new RegExp(`Total="${devices.length}" Done="\\d+" Failed="\\d+" Pending="0"`));
  for (const device of devices) assert.ok(xml.includes(`ID="${device}"`), `${device} is in ${xml}`);
  for (const [, status = ''] of xml.matchAll(/Group Status="(\d+)"/g))
    assert.ok(status === '200' || honest.includes(status), xml);
}

/** CoAP over DTLS: the key that seals its associations is made at the first start. */
const coaps = { port: 0, device: [{ identity: one, key: 'hex:00112233445566778899aabbccddeeff' }] };

const lwm2m = (id: string) => ({ lwm2m: { device: [{ id }], 'insecure-no-security': true } });

export const journeys: readonly Journey[] = [
  {
    name: 'local bootstrap: the device proves its factory secret, attaches, and leaves again',
    parties: ['gw-1', 'headend', one],
    run: async (rig) => {
      const headend = await rig.headend();
      const gateway = await rig.gateway('gw-1', [one], { coaps });
      const device = await rig.device(one, gateway, { factory: true });
      await device.attached;
      await settled(rig, headend, gateway, 'DeviceAttach', one);
      assertAttached(headend, gateway, one);
      await rig.compareAll();
      await insist(async () => {
        if (device.servers.length > 0) await device.detach();
      });
      await settled(rig, headend, gateway, 'DeviceDetach', one);
      assert.deepEqual([gateway.devices(), told(headend, 'DeviceDetach', one)], [[], 1]);
    },
  },
  {
    name: 'assisted bootstrap: the DM server gives the device its account for the gateway, and manages it in transparent mode',
    parties: ['gw-1', 'headend', one],
    run: async (rig) => {
      const headend = await rig.headend([one]);
      const gateway = await rig.gateway('gw-1', []);
      const device = await rig.device(one, gateway, { server: true });
      await device.attached;
      await settled(rig, headend, gateway, 'DeviceAttach', one);
      assertAttached(headend, gateway, one);
      await manage(headend, one, [
        { name: 'Get', uri: './DevInfo/Man' },
        { name: 'Replace', uri: './Settings/Label', data: 'pump house' },
        { name: 'Replace', uri: './Settings?prop=ACL', data: 'Get=*&Replace=dm.example' },
      ]);
      assert.equal(device.value('Settings', 'Label'), 'pump house');
      await quiet(rig, gateway);
    },
  },
  {
    name: 'assisted bootstrap again: the device moves to another gateway',
    parties: ['gw-1', 'gw-2', 'headend', one],
    run: async (rig) => {
      const headend = await rig.headend([one]);
      const first = await rig.gateway('gw-1', []);
      const second = await rig.gateway('gw-2', []);
      await (await rig.device(one, first, { server: true })).attached;
      await settled(rig, headend, first, 'DeviceAttach', one);
      await rig.stop(one);
      const moved = await rig.device(one, second, { server: true });
      await moved.attached;
      await rig.until('the move', () => told(headend, 'DeviceAttach', one, 'gw-2') > 0);
      // The list of devices to let go is worked off when the gateway comes the next time.
      await insist(async () => {
        if (first.devices().length > 0)
          await headend.manage('gw-1', [{ name: 'Get', uri: './DevInfo/DevId' }]);
      });
      await rig.until('the old gateway lets it go', () => first.devices().length === 0);
      await quiet(rig, first, second);
      assertAttached(headend, second, one, 'gw-2');
      // A device that could not replace its account as a whole is given the new one besides the old one.
      for (const server of ['dm.example', 'gw-2']) assert.ok(moved.servers.includes(server), server);
    },
  },
  {
    name: 'proxy mode: the gateway does one order on two devices',
    parties: ['gw-1', 'headend', one],
    run: async (rig) => {
      const headend = await rig.headend();
      const gateway = await rig.gateway('gw-1', [one, two]);
      for (const id of [one, two]) await (await rig.device(id, gateway, { factory: true })).attached;
      for (const id of [one, two]) await settled(rig, headend, gateway, 'DeviceAttach', id);
      await fanOut(rig, headend, 'label', get('./DevDetail/FwV') + replace('./Settings/Label', 'x'), [
        one,
        two,
      ]);
      const exec =
        '<Exec><CmdID>1</CmdID><Item><Target><LocURI>./FwUpdate/Update</LocURI></Target></Item></Exec>';
      // An order with an Exec must not be done twice: what has begun is recorded before.
      await ordered(headend, 'CommandFanout', 'once', () =>
        headend.fanOut('gw-1', { name: 'once', targets: {}, returnFormat: 0, command: exec }),
      );
      await rig.until(
        'result of the Exec',
        () => headend.records.result('CommandFanout', 'gw-1', 'once') !== undefined,
      );
      await quiet(rig, gateway);
      for (const id of [one, two]) assertAttached(headend, gateway, id);
    },
  },
  {
    name: 'triggers: the gateway asks a device for a session with the DM server',
    parties: ['gw-1', 'headend', one],
    run: async (rig) => {
      const headend = await rig.headend([one]);
      const gateway = await rig.gateway('gw-1', []);
      const device = await rig.device(one, gateway, { server: true });
      await device.attached;
      await settled(rig, headend, gateway, 'DeviceAttach', one);
      const operations = [{ name: 'Replace', uri: './Settings/Label', data: 'awake' }] as const;
      await ordered(headend, 'DeviceTrigger', 'morning', () =>
        headend.trigger('gw-1', { name: 'morning', targets: {}, devices: [one], deadline: 60, operations }),
      );
      await rig.until(
        'result of the trigger',
        () => headend.records.result('DeviceTrigger', 'gw-1', 'morning') !== undefined,
      );
      await rig.until('the session', () => headend.triggered('gw-1', 'morning')![0]!.status !== 0);
      await quiet(rig, gateway);
      assertAttached(headend, gateway, one);
    },
  },
  {
    name: 'adaptation mode: an LwM2M client is bootstrapped, registers, is managed, and leaves',
    parties: ['gw-1', 'headend'],
    run: async (rig) => {
      const headend = await rig.headend();
      const gateway = await rig.gateway('gw-1', [], lwm2m(one));
      const client = await rig.client(one, gateway);
      await client.attached;
      await insist(() => client.update());
      await settled(rig, headend, gateway, 'DeviceAttach', one);
      assertAttached(headend, gateway, one);
      await fanOut(rig, headend, 'read', get('./3303/0/5700') + replace('./3311/0/5850', 'true'), [one]);
      await rig.compareAll();
      await client.detach().catch(() => {});
      if (gateway.devices().length > 0)
        await manage(headend, 'gw-1', [
          { name: 'Delete', uri: `./GwDeviceInventory/Records/${hashedName(one)}` },
        ]);
      await rig.until('the end', () => gateway.devices().length === 0);
      await quiet(rig, gateway);
    },
  },
  {
    name: 'images: one is loaded, one is pushed, a device updates from it, both are removed',
    parties: ['gw-1', 'headend', one],
    run: async (rig) => {
      const file = Buffer.alloc(100_000, 'image');
      const hash = createHash('sha256').update(file).digest('hex');
      await using files = await fileServer(file, [60_000]);
      const headend = await rig.headend();
      const gateway = await rig.gateway('gw-1', [one]);
      const device = await rig.device(one, gateway, { factory: true });
      await device.attached;
      await settled(rig, headend, gateway, 'DeviceAttach', one);
      // The operator looks at the result, and orders again what has failed.
      await insist(async () => {
        const { correlator } = await headend.stageImage('gw-1', {
          name: 'fw',
          version: '2',
          url: files.url,
          hash,
        });
        const result = () => {
          const found = headend.records.result('ImageOperation', 'gw-1', 'fw');
          return found?.correlator === correlator ? found.result : undefined;
        };
        await rig.until('result of the image', () => result() !== undefined);
        if (result() !== '<ImageResult Code="200"/>') throw new PosternError('unavailable', result() ?? '');
      });
      await insist(async () => {
        await headend.stageImage('gw-1', { name: 'pushed', data: Buffer.alloc(30_000, 'x') });
        const [state] = await headend.manage('gw-1', [
          { name: 'Get', uri: './GwImageInventory/Images/pushed/State' },
        ]);
        if (state?.results[0]?.data !== '2') throw new PosternError('unavailable', 'not stored');
      });
      const url = replace('./FwUpdate/DownloadAndUpdate/PkgURL', 'gw-image:fw');
      const exec =
        '<Exec><CmdID>3</CmdID><Item><Target><LocURI>./FwUpdate/DownloadAndUpdate</LocURI></Target></Item></Exec>';
      await fanOut(rig, headend, 'update', url + exec, [one]);
      await rig.compareAll();
      for (const name of ['fw', 'pushed'])
        await manage(
          headend,
          'gw-1',
          [{ name: 'Delete', uri: `./GwImageInventory/Images/${name}` }],
          [200, 404],
        );
      await quiet(rig, gateway);
      assert.equal(gateway.status().images.used, 0, 'no byte of an image is left');
    },
  },
  {
    name: 'the gateway itself is managed: settings, rights, a group, an account, an Atomic that fails, a device that is removed',
    parties: ['gw-1', 'headend'],
    run: async (rig) => {
      const headend = await rig.headend();
      const gateway = await rig.gateway('gw-1', [one]);
      const device = await rig.device(one, gateway, { factory: true });
      await device.attached;
      await settled(rig, headend, gateway, 'DeviceAttach', one);
      await insist(() => headend.putGroup('gw-1', { id: 'all', devices: [one, two] }));
      await manage(headend, 'gw-1', [
        { name: 'Replace', uri: './GwConfig/DetachAlert', data: 'false' },
        {
          name: 'Replace',
          uri: './GwDeviceInventory/Groups?prop=ACL',
          data: 'Get=*&Add=dm.example&Delete=dm.example&Replace=dm.example',
        },
        { name: 'Replace', uri: './GwConfig/PresenceAlert', data: 'false' },
      ]);
      const remove = { name: 'Delete', uri: `./GwDeviceInventory/Records/${hashedName(one)}` } as const;
      const fails = { name: 'Replace', uri: './GwConfig/MaxEndDevices', data: '1' } as const;
      await headend.manage('gw-1', [{ name: 'Atomic', operations: [remove, fails] }]).catch(() => {});
      assertAttached(headend, gateway, one);
      await rig.compareAll();
      await rig.stop(one);
      await manage(headend, 'gw-1', [remove], [200, 404]);
      await quiet(rig, gateway);
      assert.deepEqual(gateway.devices(), []);
      assert.equal(told(headend, 'DeviceDetach', one), 0, 'the server itself removed it');
      const [setting] = await manage(headend, 'gw-1', [{ name: 'Get', uri: './GwConfig/DetachAlert' }]);
      assert.equal(setting?.results[0]?.data, 'false');
    },
  },
  {
    name: 'hierarchy: a device behind a child gateway attaches, is managed by a fan-out, and leaves',
    parties: ['gw-1', 'gw-2', 'headend', one],
    run: async (rig) => {
      const headend = await rig.headend();
      const first = await rig.gateway('gw-1', ['gw-2']);
      const parent = {
        id: 'gw-1',
        uri: `coaps://127.0.0.1:${first.coapsPort}`,
        'factory-secret': secrets.factory('gw-2'),
      };
      const second = await rig.gateway('gw-2', [one], { mqtt: undefined, parent });
      await settled(rig, headend, first, 'DeviceAttach', 'gw-2');
      const device = await rig.device(one, second, { factory: true });
      await device.attached;
      await settled(rig, headend, first, 'DeviceAttach', one);
      await quiet(rig, first, second);
      assertAttached(headend, first, one, 'gw-2');
      assertAttached(headend, first, 'gw-2', 'gw-1');
      await fanOut(rig, headend, 'deep', replace('./Settings/Label', 'deep'), [one]);
      await quiet(rig, first, second);
      await rig.compareAll();
      await insist(async () => {
        if (device.servers.length > 0) await device.detach();
      });
      await settled(rig, headend, first, 'DeviceDetach', one);
      await quiet(rig, first, second);
      assert.equal(told(headend, 'DeviceDetach', one), 1);
      assert.deepEqual(second.devices(), []);
    },
  },
  {
    name: 'presence: a device falls silent, the server is told, and it comes back',
    parties: ['gw-1', 'headend'],
    run: async (rig) => {
      const headend = await rig.headend();
      const gateway = await rig.gateway('gw-1', [one], { limits: { 'device-expiry': 60 } });
      await (await rig.device(one, gateway, { factory: true })).attached;
      await settled(rig, headend, gateway, 'DeviceAttach', one);
      await rig.stop(one);
      const state = (wanted: string) =>
        headend.records
          .alerts(1000)
          .filter(({ kind, body }) => kind === 'DevicePresence' && body.state === wanted).length;
      for (let round = 0; round < 40 && state('unreachable') === 0; round++) {
        await rig.clock.leap(60_000);
        await rig.changed();
      }
      await rig.until('unreachable', () => state('unreachable') > 0);
      await quiet(rig, gateway);
      assert.ok(headend.devices()[0]?.unreachable, 'the server shows it');
      await rig.compareAll();
      await (await rig.device(one, gateway, { factory: true })).attached;
      await rig.until('attached', () => state('attached') > 0);
      await quiet(rig, gateway);
      assertAttached(headend, gateway, one);
      assert.deepEqual([state('unreachable'), state('attached')], [1, 1]);
    },
  },
  {
    name: 'restart: gateway and DM server start again, and a fan-out reaches the device',
    parties: ['gw-1', 'headend', one],
    run: async (rig) => {
      const headend = await rig.headend();
      const gateway = await rig.gateway('gw-1', [one], { coaps });
      const { coapPort } = gateway;
      await (await rig.device(one, gateway, { factory: true })).attached;
      await settled(rig, headend, gateway, 'DeviceAttach', one);
      await rig.stop('gw-1');
      await rig.stop('headend');
      await rig.stop(one);
      const later = await rig.headend();
      const coap = { port: coapPort, leisure: 50, 'insecure-plain-coap': true };
      const again = await rig.gateway('gw-1', [one], { coap, coaps });
      await (await rig.device(one, again, { factory: true })).attached;
      await fanOut(rig, later, 'again', get('./DevInfo/Man'), [one]);
      await quiet(rig, again);
      assertAttached(later, again, one);
    },
  },
];
