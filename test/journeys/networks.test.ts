import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import { Lab, labSkip, type Machine, type Party } from '../peers/lab.ts';
import type { LabRoles } from '../peers/lab-party.ts';
import { firstPackage } from '../wire/syncml/messages.ts';
import { secrets } from './site.ts';

/** Most of the time of these tests is waiting, so several run at once. */
const options = { timeout: 150_000, skip: labSkip, concurrency: 3 };

const deviceId = 'urn:dev:net:1';
const clientId = 'urn:dev:net:2';
const firmware = [{ name: 'Get', uri: './DevDetail/FwV' }] as const;
type Gateway = Party<Awaited<ReturnType<LabRoles['gateway']>>>;

const party = (id: string) => ({
  id,
  'client-secret': secrets.gatewayClient,
  'server-secret': secrets.gatewayServer,
});
const startServer = (machine: Machine, host: string) =>
  machine.start('server', host, {
    headend: { id: 'dm.example', state: ':memory:', 'session-timeout': 60 },
    gateway: [party('gw-1'), party('gw-2')],
  });
const startGateway = (machine: Machine, id: string, uplink: object, more: object = {}): Promise<Gateway> =>
  machine.start('gateway', {
    gateway: { id, state: ':memory:' },
    coap: { leisure: 50, 'insecure-plain-coap': true },
    coaps: {},
    'dm-server': { ...party('dm.example') },
    bootstrap: {
      device: [deviceId, 'gw-2'].map((one) => ({
        id: one,
        'factory-secret': secrets.factory(one),
        gateway: one === 'gw-2',
      })),
    },
    lwm2m: { device: [{ id: clientId }], 'insecure-no-security': true },
    ...uplink,
    ...more,
  });
const startDevice = async (machine: Machine, network: object = {}) => {
  const device = await machine.start('device', {
    device: { id: deviceId, 'factory-secret': secrets.factory(deviceId) },
    network,
  });
  await device.call('attached');
  return device;
};
const startClient = async (machine: Machine, network: object = {}, lifetime = 300) => {
  const client = await machine.start('client', {
    device: { id: clientId },
    network,
    lwm2m: { lifetime },
  });
  await client.call('attached');
  return client;
};

/** The gateway asks its device and its LwM2M client, of its own accord. */
async function assertReaches(gateway: Gateway, ids: readonly string[] = [deviceId, clientId]): Promise<void> {
  await Promise.all(
    ids.map(async (id) => {
      const [outcome] = await gateway.call('manage', id, firmware, 60_000);
      assert.deepEqual([outcome?.status, outcome?.results[0]?.data], [200, '1.0.0'], id);
    }),
  );
}
const proven = (gateway: Gateway) => gateway.events.until('registration.proven', { device: clientId });

/** A machine with a gateway, and one with devices, on one network of IPv6 link-local addresses. */
function twoMachines(lab: Lab): [Machine, Machine] {
  const [gateway, devices] = [lab.machine('gateway'), lab.machine('devices')];
  lab.cable(gateway, 'lan0', devices, 'port0');
  return [gateway, devices];
}

describe('a site with IPv6 only', options, () => {
  test('devices and a child gateway find their gateways by link-local addresses, and all are reached', async (t) => {
    const lab = new Lab(t);
    const [top, child, devices] = ['top', 'child', 'devices'].map((name) => lab.machine(name)) as [
      Machine,
      Machine,
      Machine,
    ];
    lab.cable(top, 'lan0', child, 'up0');
    lab.cable(child, 'lan0', devices, 'port0');
    for (const machine of [top, child, devices]) machine.ip('address', 'del', '127.0.0.1/8', 'dev', 'lo');
    const server = await startServer(top, '::1');
    await startGateway(top, 'gw-1', { mqtt: { url: await server.call('url') } });
    const uri = `coaps://[${top.linkLocal('lan0')}%25up0]`;
    const second = await startGateway(child, 'gw-2', {
      parent: { id: 'gw-1', uri, 'factory-secret': secrets.factory('gw-2') },
    });
    await server.events.until('alert.device-attach', { device: 'gw-2' });
    await startDevice(devices);
    await startClient(devices);
    await Promise.all(
      [deviceId, clientId].map((device) =>
        server.events.until('alert.device-attach', { device, gateway: 'gw-2' }),
      ),
    );
    await assertReaches(second);
    const { correlator } = await server.call('fanOut', 'gw-1', {
      name: 'all',
      command: '<Get><CmdID>1</CmdID><Item><Target><LocURI>./DevDetail/FwV</LocURI></Target></Item></Get>',
      targets: {},
      returnFormat: 2,
    });
    await server.events.until('alert.command-fanout', { correlator });
    assert.match((await server.call('results'))[0] ?? '', /Total="2" Done="2" Failed="0" Pending="0"/);
    const own = await server.call('manage', 'gw-2', [{ name: 'Get', uri: './DevInfo/DevId' }]);
    assert.equal(own[0]?.results[0]?.data, 'gw-2', 'Package #0 came down to the child');
  });

  for (const address of ['2001:db8::1', 'link-local'])
    test(`a device that is told the address of its gateway: ${address}`, async (t) => {
      const lab = new Lab(t);
      const [machine, devices] = twoMachines(lab);
      machine.address('lan0', '2001:db8::1/64');
      devices.address('port0', '2001:db8::7/64');
      const server = await startServer(machine, '::1');
      const gateway = await startGateway(machine, 'gw-1', { mqtt: { url: await server.call('url') } });
      const host = address === 'link-local' ? `${machine.linkLocal('lan0')}%25port0` : address;
      const network = { gateway: `coap://[${host}]` };
      await startDevice(devices, network);
      await startClient(devices, network);
      await proven(gateway);
      await assertReaches(gateway);
    });

  test('a gateway that restarts reaches its devices at link-local addresses before they speak', async (t) => {
    const lab = new Lab(t);
    const [machine, devices] = twoMachines(lab);
    const folder = mkdtempSync(join(tmpdir(), 'postern-link-local-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const server = await startServer(machine, '::1');
    const uplink = { mqtt: { url: await server.call('url') } };
    const state = { gateway: { id: 'gw-1', state: join(folder, 'state.db') } };
    const before = await startGateway(machine, 'gw-1', uplink, state);
    await startDevice(devices);
    await startClient(devices);
    await proven(before);
    await assertReaches(before);
    await before[Symbol.asyncDispose]();
    await assertReaches(await startGateway(machine, 'gw-1', uplink, state));
  });

  test('a device that is told an address or an interface of its own', async (t) => {
    const lab = new Lab(t);
    const [machine, devices] = twoMachines(lab);
    const server = await startServer(machine, '::1');
    const gateway = await startGateway(machine, 'gw-1', { mqtt: { url: await server.call('url') } });
    await startDevice(devices, { interface: 'port0' });
    await startClient(devices, { interface: `${devices.linkLocal('port0')}%port0` });
    await proven(gateway);
    await assertReaches(gateway);
  });

  test('a client of HTTP at a link-local address is answered', async (t) => {
    const lab = new Lab(t);
    const [machine, devices] = twoMachines(lab);
    const server = await startServer(machine, '::1');
    const id = firstPackage.header.source.locUri;
    const gateway = await startGateway(
      machine,
      'gw-1',
      { mqtt: { url: await server.call('url') } },
      {
        http: {
          host: '::',
          port: 0,
          'insecure-plain-http': true,
          device: [{ id, 'client-secret': 'pw', 'server-secret': 'spw' }],
        },
      },
    );
    const asker = await devices.start('asker');
    const body = encodeMessage(firstPackage, MediaType.Xml).toString();
    const host = `${machine.linkLocal('lan0')}%port0`;
    const port = await gateway.call('httpPort');
    assert.equal(await asker.call('post', host, port, '/dm', MediaType.Xml, body), 200);
  });

  test('the demo runs on a machine without IPv4', async (t) => {
    const lab = new Lab(t);
    const machine = lab.machine('demo');
    machine.ip('address', 'del', '127.0.0.1/8', 'dev', 'lo');
    const folder = mkdtempSync(join(tmpdir(), 'postern-demo6-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
    const said = await machine.node(main, ['demo', '--once'], { XDG_RUNTIME_DIR: folder });
    assert.match(said, /serves devices at coaps:\/\/\[::1\]:5684/);
    assert.match(said, /Everything is running/);
  });
});

describe('devices behind a router, with interfaces = []', options, () => {
  for (const [family, local, gatewayOf, router, device] of [
    ['IPv4', '192.0.2.1/24', 'coap://192.0.2.1', ['192.0.2.254/24', '203.0.113.254/24'], '203.0.113.7/24'],
    [
      'IPv6',
      '2001:db8:1::1/64',
      'coap://[2001:db8:1::1]',
      ['2001:db8:1::fe/64', '2001:db8:3::fe/64'],
      '2001:db8:3::7/64',
    ],
  ] as const)
    test(`${family}: they attach, and the gateway's own requests reach them`, async (t) => {
      const lab = new Lab(t);
      const [machine, between, devices] = ['gateway', 'router', 'devices'].map((name) =>
        lab.machine(name),
      ) as [Machine, Machine, Machine];
      lab.cable(machine, 'lan0', between, 'a0');
      lab.cable(between, 'b0', devices, 'port0');
      machine.address('lan0', local);
      between.address('a0', router[0]);
      between.address('b0', router[1]);
      devices.address('port0', device);
      between.set('net.ipv4.ip_forward', '1');
      between.set('net.ipv6.conf.all.forwarding', '1');
      const via = (cidr: string) => ['route', 'add', 'default', 'via', cidr.split('/')[0]!] as const;
      const version = family === 'IPv6' ? ['-6'] : [];
      machine.ip(...version, ...via(router[0]));
      devices.ip(...version, ...via(router[1]));
      const server = await startServer(machine, '127.0.0.1');
      const gateway = await startGateway(machine, 'gw-1', { mqtt: { url: await server.call('url') } });
      await startDevice(devices, { gateway: gatewayOf });
      await startClient(devices, { gateway: gatewayOf });
      await proven(gateway);
      await assertReaches(gateway);
    });
});

describe('an address that changes is followed', options, () => {
  /** Gives an interface another address instead of the one that it has. */
  const rotate = (machine: Machine, name: string, from: string, to: string) => {
    machine.ip('address', 'del', from, 'dev', name);
    machine.address(name, to);
  };

  for (const [family, ofGateway, before, after] of [
    ['IPv4', '192.0.2.1/24', '192.0.2.7/24', '192.0.2.8/24'],
    ['IPv6', '2001:db8::1/64', '2001:db8::7/64', '2001:db8::8/64'],
  ] as const)
    test(`that of devices, ${family}`, async (t) => {
      const lab = new Lab(t);
      const [machine, devices] = twoMachines(lab);
      machine.address('lan0', ofGateway);
      devices.address('port0', before);
      const server = await startServer(machine, '127.0.0.1');
      const gateway = await startGateway(machine, 'gw-1', { mqtt: { url: await server.call('url') } });
      const host = ofGateway.split('/')[0]!;
      const network = { gateway: `coap://${host.includes(':') ? `[${host}]` : host}` };
      const device = await startDevice(devices, network);
      const client = await startClient(devices, network);
      await proven(gateway);
      const told = [
        device.events.next('device.attach-done'),
        gateway.events.next('registration.proven', { device: clientId }),
      ];
      rotate(devices, 'port0', before, after);
      await Promise.all(told);
      await assertReaches(gateway);
      for (const { events } of [device, client]) assert.equal(events.count('device.address-changed'), 1);
    });

  test('that of a gateway: its device finds it again when it does not answer any more', async (t) => {
    const lab = new Lab(t);
    const [machine, devices] = twoMachines(lab);
    machine.address('lan0', '192.0.2.1/24');
    devices.address('port0', '192.0.2.7/24');
    const server = await startServer(machine, '127.0.0.1');
    const gateway = await startGateway(machine, 'gw-1', { mqtt: { url: await server.call('url') } });
    const device = await startDevice(devices, { interface: '192.0.2.7' });
    const listening = gateway.events.next('coap.listening', { address: '192.0.2.2' });
    rotate(machine, 'lan0', '192.0.2.1/24', '192.0.2.2/24');
    await listening;
    const again = device.events.next('device.attach-done');
    // The order wakes the device from the new address. Its session goes to the old one, and fails.
    gateway.call('manage', deviceId, firmware, 10_000).catch(() => {});
    await device.events.next('device.notified');
    await again;
    await assertReaches(gateway, [deviceId]);
  });

  test('that of a child gateway', async (t) => {
    const lab = new Lab(t);
    const [top, child] = twoMachines(lab);
    top.address('lan0', '2001:db8::1/64');
    child.address('port0', '2001:db8::7/64');
    const server = await startServer(top, '::1');
    await startGateway(top, 'gw-1', { mqtt: { url: await server.call('url') } });
    const second = await startGateway(child, 'gw-2', {
      parent: { id: 'gw-1', uri: 'coaps://[2001:db8::1]', 'factory-secret': secrets.factory('gw-2') },
    });
    await server.events.until('alert.device-attach', { device: 'gw-2' });
    const ask = async () => {
      const [own] = await server.call('manage', 'gw-2', [{ name: 'Get', uri: './DevInfo/DevId' }]);
      assert.equal(own?.results[0]?.data, 'gw-2');
    };
    await ask();
    const told = second.events.next('dm.session-ended', { server: 'gw-1' });
    rotate(child, 'port0', '2001:db8::7/64', '2001:db8::8/64');
    await told;
    await ask();
  });
});
