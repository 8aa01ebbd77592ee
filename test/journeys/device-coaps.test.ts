import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { systemEntropy } from '../../src/base/entropy.ts';
import { noEvents } from '../../src/base/events.ts';
import { hashedName } from '../../src/base/hashed-name.ts';
import type { Device } from '../../src/device/device.ts';
import { SecureSocket } from '../../src/device/secure-socket.ts';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { accountOf, requestBootstrap } from '../../src/mo/bootstrap-request.ts';
import type { DmAccount } from '../../src/mo/dm-acc.ts';
import { expectedNodes } from '../../src/mo/gw-device-inventory.ts';
import { call } from '../../src/wire/coap/blockwise-client.ts';
import { Code, codeText, isSuccess } from '../../src/wire/coap/codes.ts';
import { Option, opaque, uintOption } from '../../src/wire/coap/options.ts';
import { factoryIdentity, factoryKey } from '../../src/wire/secure/transport-keys.ts';
import { encodeTnds, TndsMediaType } from '../../src/wire/syncml/tnds.ts';
import { startAedes } from '../peers/brokers.ts';
import { CoapPeer } from '../peers/coap-peer.ts';
import { freePair } from '../peers/free-pair.ts';
import { SocketEnd } from '../wire/secure/dtls/socket-end.ts';
import { type DeviceKind, gatewayConfig, Site, secrets } from './site.ts';

const id = 'urn:dev:ops:1';
const other = 'urn:dev:ops:2';
const limit = { timeout: 120_000 };
/** A device is served over DTLS. Over plain CoAP it finds that out, and no more. */
const secure = { coap: { port: 0, leisure: 50 } };

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-device-coaps-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

async function attached(device: Device): Promise<Device> {
  await device.start();
  await device.attached;
  return device;
}

/** The association that was opened last. */
const lastOpened = (site: Site) => site.gatewayEvents.all.findLast(({ name }) => name === 'dtls.opened')!;

const address = ({ coapsPort }: Gateway) => `coaps://127.0.0.1:${coapsPort}`;
const record = (deviceId: string) => `./GwDeviceInventory/Records/${hashedName(deviceId)}`;

/** The two ways to an account: by a factory secret (8.4.2), and by the DM server (8.4.1). */
const ways: readonly (readonly [string, DeviceKind])[] = [
  ['local', { factory: true, multicast: true }],
  ['server', { server: true, multicast: true }],
];

for (const [origin, kind] of ways)
  describe(`a device and a gateway over DTLS, bootstrap: ${origin}`, limit, () => {
    const factoryIds = kind.factory ? [id] : [];

    test('a blank device finds the gateway, is bootstrapped and managed through its association, and leaves', async () => {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      const headend = await site.headend([id]);
      const gateway = await site.gateway(factoryIds, secure);
      const device = await attached(site.device(id, gateway, kind));
      const alert = await site.headendEvents.until('alert.device-attach', { device: id });
      assert.equal(alert.fields.bootstrap, origin);
      const { security, securePort } = gateway.status().coap;
      assert.deepEqual([security.split(';')[0], securePort], ['DTLS', gateway.coapsPort]);
      assert.equal(site.gatewayEvents.count('coap.insecure'), 0);
      await site.deviceEvents.until('device.discovered', { gateway: address(gateway) });
      const { fields } = lastOpened(site);
      assert.match(String(fields.identity), /^gw:/);
      assert.equal(fields.device, id);
      // The gateway asks for a session by Package #0, which reaches the device through its association alone.
      const [outcome] = await gateway.manage(id, [{ name: 'Get', uri: './DevInfo/Man' }], 20_000);
      assert.equal(outcome?.results[0]?.data, 'Maker & Sons');
      const fanOut = { name: 'ask', command: order, targets: {}, returnFormat: 2 } as const;
      await headend.fanOut('gw-1', fanOut);
      await site.headendEvents.until('alert.command-fanout', { name: 'ask' });
      if (kind.server) {
        const label = [{ name: 'Replace', uri: './Settings/Label', data: 'pump' }] as const;
        assert.equal((await headend.manage(id, label))[0]?.status, 200);
        assert.equal(device.value('Settings', 'Label'), 'pump');
      }
      await device.detach();
      await site.gatewayEvents.until('dtls.closed', { device: id, identity: String(fields.identity) });
      await site.headendEvents.until('alert.device-detach', { device: id });
    });

    test('after a restart of the gateway the association goes on, and the gateway reaches the device', async (t) => {
      const folder = folderOf(t);
      await using broker = await startAedes();
      await using outer = new Site(broker.url);
      await outer.headend([id]);
      let port = 0;
      const start = async (site: Site) => {
        const ports = { coap: { port, leisure: 50 }, coaps: { port: port && port + 1 } };
        const state = { gateway: { id: 'gw-1', state: join(folder, 'gw.db') } };
        return await site.gateway(factoryIds, { ...ports, ...state });
      };
      port = await freePair();
      let site = new Site(broker.url);
      await attached(outer.device(id, await start(site), kind));
      await site[Symbol.asyncDispose]();
      site = new Site(broker.url);
      await using _site = site;
      const gateway = await start(site);
      const [outcome] = await gateway.manage(id, [{ name: 'Get', uri: './DevInfo/Man' }], 30_000);
      assert.equal(outcome?.status, 200);
      assert.equal(site.gatewayEvents.count('dtls.opened'), 0);
    });

    test('after its own restart a device opens a new association with its key, and is reached by it', async (t) => {
      const more = { state: join(folderOf(t), 'device.db') };
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      await site.headend([id]);
      const gateway = await site.gateway(factoryIds, secure);
      const first = await attached(site.device(id, gateway, { ...kind, more }));
      await first[Symbol.asyncDispose]();
      const opened = site.gatewayEvents.count('dtls.opened');
      await attached(site.device(id, gateway, { ...kind, more }));
      assert.equal(site.gatewayEvents.count('dtls.opened'), opened + 1);
      const [outcome] = await gateway.manage(id, [{ name: 'Get', uri: './DevInfo/Man' }], 20_000);
      assert.equal(outcome?.status, 200);
    });

    test('a device whose record the DM server deletes loses its association at once, and begins anew', async () => {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      const headend = await site.headend([id]);
      const gateway = await site.gateway(factoryIds, secure);
      await attached(site.device(id, gateway, kind));
      await site.headendEvents.until('alert.device-attach', { device: id });
      const { identity } = lastOpened(site).fields;
      const closed = site.gatewayEvents.next('dtls.closed', { identity: String(identity) });
      const dropped = site.deviceEvents.next('device.account-dropped', { device: id });
      const again = site.headendEvents.next('alert.device-attach', { device: id });
      const [deleted] = await headend.manage('gw-1', [{ name: 'Delete', uri: record(id) }]);
      assert.equal(deleted?.status, 200);
      await closed;
      await dropped;
      await again;
      assert.notEqual(lastOpened(site).fields.identity, identity);
    });
  });

const order = '<Get><CmdID>1</CmdID><Item><Target><LocURI>./DevInfo/Man</LocURI></Target></Item></Get>';

for (const [origin, kind] of ways)
  test(`two devices at once, each by its own key; bootstrap: ${origin}`, limit, async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await site.headend([id, other]);
    const gateway = await site.gateway(kind.factory ? [id, other] : [], secure);
    await Promise.all([id, other].map((each) => attached(site.device(each, gateway, kind))));
    for (const each of [id, other]) {
      const [outcome] = await gateway.manage(each, [{ name: 'Get', uri: './DevInfo/DevId' }], 20_000);
      assert.equal(outcome?.results[0]?.data, each);
    }
  });

test(
  'a device that is given the coaps URI of its gateway uses no plain CoAP, also with an account',
  limit,
  async (t) => {
    const more = { state: join(folderOf(t), 'device.db') };
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([id], secure);
    const top = { network: { gateway: address(gateway), interface: '127.0.0.1' } };
    const first = await attached(site.device(id, gateway, { factory: true, more, top }));
    await first[Symbol.asyncDispose]();
    await attached(site.device(id, gateway, { factory: true, more, top }));
    assert.equal(site.gatewayEvents.count('bootstrap.issued'), 1);
    const [outcome] = await gateway.manage(id, [{ name: 'Get', uri: './DevInfo/DevId' }], 20_000);
    assert.equal(outcome?.status, 200);
  },
);

describe(
  'a device with a factory secret and an account of its DM server, which is given the coaps URI of its gateway',
  limit,
  () => {
    const both = { factory: true, server: true };
    const at = (gateway: Gateway) => ({ network: { gateway: address(gateway), interface: '127.0.0.1' } });
    const label = [{ name: 'Replace', uri: './Settings/Label', data: 'pump' }] as const;

    test('is bootstrapped by its factory secret, attaches, and is managed by both; also after its restart', async (t) => {
      const more = { state: join(folderOf(t), 'device.db') };
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      const headend = await site.headend([id]);
      const gateway = await site.gateway([id], secure);
      const first = await attached(site.device(id, gateway, { ...both, more, top: at(gateway) }));
      const alert = await site.headendEvents.until('alert.device-attach', { device: id });
      assert.equal(alert.fields.bootstrap, 'local');
      assert.equal((await headend.manage(id, label))[0]?.status, 200);
      await first[Symbol.asyncDispose]();
      const again = await attached(site.device(id, gateway, { ...both, more, top: at(gateway) }));
      assert.equal((await headend.manage(id, label))[0]?.status, 200);
      assert.equal(again.value('Settings', 'Label'), 'pump');
      const [outcome] = await gateway.manage(id, [{ name: 'Get', uri: './DevInfo/DevId' }], 20_000);
      assert.equal(outcome?.status, 200);
      assert.deepEqual(
        [site.gatewayEvents.count('bootstrap.issued'), site.deviceEvents.count('device.attach-failed')],
        [1, 0],
      );
    });

    test('waits while the gateway does not list it, and attaches when it does', async () => {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      await site.headend([id]);
      const gateway = await site.gateway([other], secure);
      const device = site.device(id, gateway, { ...both, top: at(gateway) });
      await device.start();
      const failed = await site.deviceEvents.until('device.attach-failed', { device: id });
      assert.equal(failed.fields.code, 'unauthorized');
      gateway.reload(() => gatewayConfig(broker.url, [id, other], secure));
      await device.attached;
    });

    test('reports a move when it is attached to the next gateway', async (t) => {
      const more = { state: join(folderOf(t), 'device.db') };
      const party = (name: string) => ({
        ...{ id: name, 'client-secret': secrets.gatewayClient, 'server-secret': secrets.gatewayServer },
      });
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      await using next = new Site(broker.url);
      await site.headend([id], { gateway: [party('gw-1'), party('gw-2')] });
      const before = await site.gateway([id], secure);
      const first = await attached(site.device(id, before, { ...both, more, top: at(before) }));
      await site.headendEvents.until('alert.device-attach', { device: id, gateway: 'gw-1' });
      await first[Symbol.asyncDispose]();
      const after = await next.gateway([id], { ...secure, gateway: { id: 'gw-2', state: ':memory:' } });
      await attached(next.device(id, after, { ...both, more, top: at(after) }));
      const moved = await site.headendEvents.until('alert.location-update', { device: id });
      assert.deepEqual([moved.fields.gateway, moved.fields.before], ['gw-2', 'gw-1']);
      await site.headendEvents.until('alert.device-attach', { device: id, gateway: 'gw-2' });
      await site.gatewayEvents.until('device.detached', { device: id });
    });
  },
);

test(
  'a device with an account of its DM server alone is told what it lacks for a coaps URI',
  limit,
  async () => {
    await using site = new Site('mqtt://127.0.0.1:1');
    const gateway = await site.gateway([], secure, false);
    const top = { network: { gateway: address(gateway), interface: '127.0.0.1' } };
    await site.device(id, gateway, { server: true, top }).start();
    const { fields } = await site.deviceEvents.until('device.attach-failed', { device: id });
    assert.match(
      String(fields.reason),
      /^no key for \/\.well-known\/core at coaps:.* device\.factory-secret/,
    );
  },
);

test(
  'a key that the DM server orders while a device is attached replaces the former one at its first use',
  limit,
  async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const gateway = await site.gateway([id], secure);
    await attached(site.device(id, gateway, { factory: true, multicast: true }));
    await site.headendEvents.until('alert.device-attach', { device: id });
    const { identity } = lastOpened(site).fields;
    const transport = { identity: 'gw:ordered', key: 'ordered-ordered-16' };
    const nonce = new Uint8Array(16);
    const root = expectedNodes({
      deviceId: id,
      clientName: id,
      clientSecret: 'new-client-secret',
      clientNonce: nonce,
      serverSecret: 'new-server-secret',
      serverNonce: nonce,
      transport,
    });
    const uri = `./GwDeviceInventory/Expected/${hashedName(id)}`;
    const data = encodeTnds({ root });
    const [added, found] = await headend.manage('gw-1', [
      { name: 'Add', uri, format: 'xml', type: TndsMediaType.Xml, data },
      { name: 'Get', uri: `${uri}/Address` },
    ]);
    assert.deepEqual([added?.status, found?.results[0]?.data], [200, `${address(gateway)}/dm`]);
    const isOpen = () =>
      !site.gatewayEvents.all.some(
        ({ name, fields }) => name === 'dtls.closed' && fields.identity === identity,
      );
    assert.ok(isOpen());
    const port = gateway.coapsPort!;
    await using end = await clientBy(port, transport.identity, Buffer.from(transport.key));
    await site.gatewayEvents.until('dtls.closed', { identity: String(identity) });
    assert.equal(await links(end, port), '2.05');
  },
);

test('a device with a wrong factory secret gets no association and no account', limit, async () => {
  await using site = new Site('mqtt://127.0.0.1:1');
  const gateway = await site.gateway([id], secure, false);
  const device = site.device(id, gateway, { multicast: true, more: { 'factory-secret': 'a wrong secret' } });
  await device.start();
  const failed = await site.deviceEvents.until('device.attach-failed', { device: id });
  assert.equal(failed.fields.code, 'unauthorized');
  assert.equal(site.gatewayEvents.count('dtls.opened'), 0);
  assert.equal(site.gatewayEvents.count('bootstrap.issued'), 0);
});

test(
  'a device whose security is another one than at the gateway is told what to compare',
  limit,
  async () => {
    await using site = new Site('mqtt://127.0.0.1:1');
    const listed = { id, 'factory-secret': secrets.factory(id), security: 'oscore' };
    const gateway = await site.gateway([], { ...secure, oscore: {}, bootstrap: { device: [listed] } }, false);
    assert.match(gateway.status().coap.security, /^DTLS and OSCORE; over plain CoAP/);
    for (const [more, reason] of [
      [
        { 'factory-secret': secrets.factory(id) },
        /^the account of the gateway is for coap:.*compare the security/,
      ],
      [
        { 'factory-secret': 'a wrong secret', security: 'oscore' },
        /^the bootstrap server gave no response; over OSCORE, compare the security context/,
      ],
    ] as const) {
      const device = site.device(id, gateway, { multicast: true, more });
      await device.start();
      const { fields } = await site.deviceEvents.until('device.attach-failed', { device: id });
      assert.match(String(fields.reason), reason);
      await device[Symbol.asyncDispose]();
      site.deviceEvents.all.splice(0);
    }
  },
);

test(
  'a device that is taken from the configuration loses its association, and does not come back',
  limit,
  async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([id, other], secure);
    const first = await attached(site.device(id, gateway, { factory: true, multicast: true }));
    await attached(site.device(other, gateway, { factory: true, multicast: true }));
    const shown = () => gateway.devices().find(({ deviceId }) => deviceId === id);
    assert.match(shown()?.address ?? '', /^coaps:/);
    assert.deepEqual([shown()?.security, shown()?.state], ['DTLS', 'attached']);
    const closed = site.gatewayEvents.next('dtls.closed', { device: id });
    const failed = site.deviceEvents.next('device.attach-failed', { device: id });
    gateway.reload(() => gatewayConfig(broker.url, [other], secure));
    await closed;
    await site.gatewayEvents.until('device.unlisted', { device: id });
    assert.equal((await failed).fields.code, 'unauthorized');
    const [outcome] = await gateway.manage(other, [{ name: 'Get', uri: './DevInfo/DevId' }], 20_000);
    assert.equal(outcome?.status, 200);
    const { state, reason = '' } = shown()!;
    assert.equal(state, 'unreachable');
    assert.match(reason, /^locked out: its account has ended/);
    assert.equal(gateway.status().devices.unreachable, 1);
    // Listed again, it is as good as new.
    const again = site.gatewayEvents.next('device.attached', { device: id });
    gateway.reload(() => gatewayConfig(broker.url, [id, other], secure));
    assert.match(shown()?.reason ?? '', /bootstrapped anew when it speaks$/);
    await first[Symbol.asyncDispose]();
    await attached(site.device(id, gateway, { factory: true, multicast: true }));
    await again;
    assert.deepEqual([shown()?.state, shown()?.reason], ['attached', undefined]);
  },
);

/**
 * Between a client and a port of this machine. Loses the datagrams that `loses` says, by their number in each direction, and tells
 * what comes down.
 */
async function relay(
  t: TestContext,
  to: number,
  loses: (number: number) => boolean,
  heard?: (octets: Buffer) => void,
): Promise<number> {
  const [inner, outer] = [createSocket('udp4'), createSocket('udp4')];
  let client = 0;
  let [up, down] = [0, 0];
  inner.on('message', (octets, { port }) => {
    client = port;
    if (!loses(up++)) outer.send(octets, to, '127.0.0.1');
  });
  outer.on('message', (octets) => {
    heard?.(octets);
    if (!loses(down++)) inner.send(octets, client, '127.0.0.1');
  });
  for (const socket of [inner, outer]) {
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    t.after(() => socket.close());
  }
  return inner.address().port;
}

/** A client of ours with an association that this key has opened. */
async function clientBy(port: number, identity: string, key: Uint8Array): Promise<SocketEnd> {
  const end = await SocketEnd.open({ server: undefined as never });
  await end.dtls.connect({ address: '127.0.0.1', port, local: '' }, { identity, key });
  return end;
}

const byFactory = (port: number) => clientBy(port, factoryIdentity(id), factoryKey(secrets.factory(id), id));

const byAccount = (port: number, { transport }: DmAccount) => {
  assert.ok(transport && 'key' in transport);
  return clientBy(port, transport.identity, Buffer.from(transport.key));
};

/** Bootstraps a device through an association. Returns its account. */
async function bootstrapped({ coap }: SocketEnd, port: number): Promise<DmAccount> {
  const issued = await requestBootstrap(id, secrets.factory(id), systemEntropy, async (options, payload) => {
    const echo = options[Option.Echo.number];
    const answer = await call(coap, systemEntropy, '127.0.0.1', port, {
      method: Code.POST,
      path: ['dm', 'bs'],
      query: [`id=${id}`],
      ...(echo && { options: [opaque(Option.Echo, echo)] }),
      ...(payload && { payload }),
      timeout: 60_000,
    });
    return {
      isSuccess: isSuccess(answer.code),
      description: codeText(answer.code),
      payload: answer.payload,
      contentFormat: uintOption(answer.options, Option.ContentFormat),
      option: (number) => answer.options.find((each) => each.number === number)?.value,
    };
  });
  return accountOf(issued, id, secrets.factory(id));
}

/** Asks for the links of the gateway, which each valid association may. */
const links = async ({ coap }: SocketEnd, port: number): Promise<string> => {
  const answer = await call(coap, systemEntropy, '127.0.0.1', port, {
    method: Code.GET,
    path: ['.well-known', 'core'],
    query: ['rt=oma.dm'],
    timeout: 60_000,
  });
  return codeText(answer.code);
};

test('a new bootstrap leaves the former key until the new one is used, and ends it then', limit, async () => {
  await using site = new Site('mqtt://127.0.0.1:1');
  const gateway = await site.gateway([id], secure, false);
  const port = gateway.coapsPort!;
  await using factory = await byFactory(port);
  const first = await bootstrapped(factory, port);
  assert.equal(first.address, `${address(gateway)}/dm`);
  await using before = await byAccount(port, first);
  const second = await bootstrapped(factory, port);
  // The answer may have been lost, and the device goes on with what it has.
  assert.equal(await links(before, port), '2.05');
  await using again = await byAccount(port, first);
  assert.equal(await links(again, port), '2.05');
  const closed = site.gatewayEvents.next('dtls.closed', { identity: first.transport!.identity });
  await using after = await byAccount(port, second);
  await closed;
  await again.until(0, 1);
  assert.equal(await links(after, port), '2.05');
  const { transport } = first;
  assert.ok(transport && 'key' in transport);
  const peer = { host: '127.0.0.1', port, local: undefined, ...transport };
  await assert.rejects(SecureSocket.open(peer, noEvents), { code: 'unauthorized' });
});

test('each lost datagram of handshake and bootstrap is made up for', limit, async (t) => {
  await using site = new Site('mqtt://127.0.0.1:1');
  const gateway = await site.gateway([id], secure, false);
  // Of the first six in each direction, each second one.
  const port = await relay(t, gateway.coapsPort!, (number) => number < 6 && number % 2 === 0);
  await using factory = await byFactory(port);
  const account = await bootstrapped(factory, port);
  await using end = await byAccount(port, account);
  assert.equal(await links(end, port), '2.05');
});

test(
  'who reads the private network does not learn the key that the DM server gives a device',
  limit,
  async (t) => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await site.headend([id]);
    const gateway = await site.gateway([], secure);
    const heard: string[] = [];
    const coapPort = await relay(
      t,
      gateway.coapPort,
      () => false,
      (octets) => heard.push(octets.toString('latin1')),
    );
    const device = await attached(site.device(id, { coapPort }, { server: true }));
    const account = ['account1', 'account2'].find(
      (name) => device.value('DMAcc', name, 'ServerID') === 'gw-1',
    )!;
    const credential = ['DMAcc', account, 'AppAuth', 'TRANSPORT'];
    const isHeard = (text: unknown) => {
      const all = heard.join('');
      // A block may end within a text.
      return Array.from({ length: String(text).length - 8 }, (_, at) => String(text).slice(at, at + 8)).some(
        (part) => all.includes(part),
      );
    };
    assert.ok(isHeard(device.value(...credential, 'AAuthName')));
    const key = device.value(...credential, 'AAuthSecret');
    assert.equal(String(key).length, 43);
    assert.ok(!isHeard(key));
  },
);

test('a device with OSCORE is served where plain CoAP is not, and one without is not', limit, async () => {
  await using broker = await startAedes();
  await using site = new Site(broker.url);
  const context = { 'master-secret': 'a-master-secret-of-32-characters', 'id-context': 'aa01' };
  const gateway = await site.gateway([id], {
    ...secure,
    oscore: { device: [{ identity: id, ...context, 'sender-id': '00', 'recipient-id': '01' }] },
  });
  const top = { oscore: { ...context, 'sender-id': '01', 'recipient-id': '00' } };
  await attached(site.device(id, gateway, { factory: true, top }));
  assert.equal(site.gatewayEvents.count('dtls.opened'), 0);
  const [outcome] = await gateway.manage(id, [{ name: 'Get', uri: './DevInfo/DevId' }], 20_000);
  assert.equal(outcome?.status, 200);
  await using peer = await CoapPeer.open();
  const plain = await peer.call(gateway.coapPort, { method: Code.POST, path: ['dm'] });
  assert.deepEqual([plain.name, plain.text], ['4.01', 'CoAP over DTLS only']);
});
