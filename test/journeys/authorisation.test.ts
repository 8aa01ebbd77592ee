import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SystemClock } from '../../src/base/clock.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import { hashedName } from '../../src/base/hashed-name.ts';
import { composeGateway } from '../../src/gateway/composition.ts';
import { Gateway } from '../../src/gateway/gateway.ts';
import { Downlink } from '../../src/headend/downlink.ts';
import { accountNodes } from '../../src/mo/dm-acc.ts';
import { encodeNotification } from '../../src/wire/syncml/notification.ts';
import { encodeTnds, TndsMediaType } from '../../src/wire/syncml/tnds.ts';
import { EventRecorder } from '../event-recorder.ts';
import { startAedes } from '../peers/brokers.ts';
import { freshState } from '../state-files.ts';
import { accountNode, childTables, gatewayConfig, loopback, Site, secrets } from './site.ts';

const limit = { timeout: 60_000 };
const ids = ['urn:dev:ops:1', 'urn:dev:ops:2'];
const [mine, theirs] = ids as [string, string];
const record = (id: string) => `./GwDeviceInventory/Records/${hashedName(id)}`;
const look = '<Get><CmdID>1</CmdID><Item><Target><LocURI>./DevInfo/Man</LocURI></Target></Item></Get>';

/** The account of `other.example` for the gateway, as an Add to its Inbox. */
const account = (address: string) => ({
  name: 'Add' as const,
  uri: './Inbox',
  format: 'xml',
  type: TndsMediaType.Xml,
  data: encodeTnds({
    path: './Inbox',
    root: accountNodes('other', {
      serverId: 'other.example',
      name: 'Other',
      address,
      own: { name: 'gw-1', secret: secrets.gatewayClient, nonce: new Uint8Array() },
      peer: { name: 'other.example', secret: secrets.gatewayServer, nonce: new Uint8Array() },
    }),
  }),
});

/** Somebody at the broker who sends Package #0 in the name of any server. */
async function sender(url: string) {
  const events = new EventRecorder();
  const clock = new SystemClock();
  const downlink = new Downlink({
    ...{ gatewayRate: 500, serverId: 'dm.example', route: 'sender', settings: { url, protocol: 4 as const } },
    ...{ clock, entropy: systemEntropy, events },
  });
  downlink.start({
    isProven: () => true,
    answerPackage: async () => ({ body: Buffer.alloc(0) }),
    gatewayStateChanged: () => {},
  });
  await events.until('mqtt.connected');
  let sessionId = 1;
  const wake = async (serverId: string, device?: string) => {
    const package0 = { uiMode: 1, serverInitiated: true, sessionId: sessionId++, serverId } as const;
    const body = encodeNotification(package0, secrets.gatewayServer, Buffer.alloc(4));
    try {
      return (await downlink.deliverNotification('gw-1', device, body)) ?? '200';
    } catch (thrown) {
      return (thrown as Error).message;
    }
  };
  return { wake, [Symbol.asyncDispose]: () => downlink[Symbol.asyncDispose]() };
}

describe('what a second DM server can do at a gateway', limit, () => {
  test('only what it was given: over a restart of the gateway, and until its account is deleted', async (t) => {
    await using broker = await startAedes();
    await using first = new Site(broker.url);
    await using second = new Site(broker.url);
    await using restarted = new Site(broker.url);
    const own = await first.headend([]);
    const other = await second.headend([], {
      headend: { id: 'other.example', state: ':memory:', 'session-timeout': 20 },
    });
    const settings = { gateway: { id: 'gw-1', state: freshState(t) } };
    const gateway = await first.gateway(ids, settings);
    for (const id of ids) {
      const device = first.device(id, gateway, { factory: true });
      await device.start();
      await device.attached;
    }
    await first.headendEvents.until('alert.device-attach', { device: ids[1] });
    await own.putGroup('gw-1', { id: 'north', devices: ids });
    const all = (servers: string) =>
      ['Add', 'Delete', 'Exec', 'Get', 'Replace'].map((right) => `${right}=${servers}`).join('&');
    const given = await own.manage('gw-1', [
      account(broker.url),
      {
        name: 'Replace',
        uri: './GwFanout/Fanout?prop=ACL',
        data: 'Add=dm.example+other.example&Delete=dm.example+other.example&Exec=dm.example&Get=dm.example&Replace=dm.example',
      },
      { name: 'Replace', uri: `${record(mine)}?prop=ACL`, data: all('dm.example+other.example') },
    ]);
    assert.deepEqual(
      given.map(({ status }) => status),
      [200, 200, 200],
    );

    await using anybody = await sender(broker.url);
    const { wake } = anybody;
    // The device takes a Package #0 of the gateway alone: what comes to it is refused there, as `unauthorized`.
    assert.doesNotMatch(await wake('dm.example', theirs), /no right|no account/);
    assert.doesNotMatch(await wake('other.example', mine), /no right|no account/);
    assert.match(await wake('other.example', theirs), /other\.example has no right to wake-device/);
    assert.match(await wake('stranger.example', mine), /no account for stranger\.example/);
    assert.match(await wake('stranger.example'), /no account for stranger\.example/);
    await wake('other.example', theirs);
    assert.deepEqual(
      first.gatewayEvents.all
        .filter(({ name }) => name === 'notification.denied')
        .map(({ fields }) => [fields.server, fields.device, fields.refused]),
      [
        ['other.example', theirs, 1],
        ['stranger.example', mine, 1],
        ['stranger.example', undefined, 1],
      ],
      'each cause once',
    );

    const outcome = async (name: string, targets: object, command = look) => {
      const { correlator } = await other.fanOut('gw-1', { name, targets, returnFormat: 2, command });
      if (correlator !== undefined) await second.headendEvents.until('alert.command-fanout', { correlator });
      return other.fanouts().find((one) => one.correlator === correlator)?.result ?? '';
    };
    const chosen = await outcome('all', {});
    assert.match(chosen, /Total="1" Done="1"/);
    assert.doesNotMatch(chosen, new RegExp(theirs), 'it is not told of a device that it may not read');
    assert.match(
      await outcome('named', { devices: ids }),
      new RegExp(`Status="425" Commands="" Count="1"><Device ID="${theirs}"`),
    );
    const condition = { where: { Man: 'Maker & Sons' } };
    assert.match(await outcome('where', { devices: ids, ...condition }), /Total="1" Done="1"/);
    const group = await other.fanOut('gw-1', { name: 'group', targets: { group: 'north' }, command: look });
    assert.equal(group.status, 200, 'it has no devices in a group that the server may not read');
    assert.match(
      await outcome(
        'image',
        { devices: [mine] },
        '<Replace><CmdID>1</CmdID><Item><Target><LocURI>./FwUpdate/DownloadAndUpdate/PkgURL</LocURI></Target><Data>gw-image:fw</Data></Item></Replace>',
      ),
      /Status="425"/,
    );

    await gateway[Symbol.asyncDispose]();
    await restarted.gateway(ids, settings);
    assert.match(await wake('other.example', theirs), /no right/);
    assert.doesNotMatch(await wake('other.example', mine), /no right|no account/);
    await second.headendEvents.until('mqtt.connected');
    const node = await accountNode(own, 'gw-1', 'other.example');
    // An Atomic that fails takes nothing away, and one that is stored takes all.
    const acl = { name: 'Get' as const, uri: `${record(mine)}?prop=ACL` };
    await own.manage('gw-1', [
      {
        name: 'Atomic',
        operations: [
          { name: 'Delete', uri: `./DMAcc/${node}` },
          { name: 'Delete', uri: './DMAcc/none' },
        ],
      },
    ]);
    const [kept] = await own.manage('gw-1', [acl]);
    assert.equal(kept?.results[0]?.data, all('dm.example+other.example'));
    assert.doesNotMatch(await wake('other.example', mine), /no right|no account/);
    await own.manage('gw-1', [{ name: 'Delete', uri: `./DMAcc/${node}` }]);
    await restarted.gatewayEvents.until('dm.server-gone', { server: 'other.example' });
    assert.match(await wake('other.example', mine), /no account for other\.example/);
  });

  test('a server of tunnel.servers without an account wakes devices of the tunnel policy, and nothing else', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([mine], {
      tunnel: { servers: ['dm.example', 'tunnel.example'], devices: ['urn:tunnelled:*'] },
    });
    const device = site.device(mine, gateway, { factory: true });
    await device.start();
    await device.attached;
    await using anybody = await sender(broker.url);
    const { wake } = anybody;
    assert.doesNotMatch(await wake('tunnel.example', mine), /no right|no account/);
    assert.match(await wake('tunnel.example', 'urn:tunnelled:1'), /no address/);
    assert.match(await wake('tunnel.example', 'urn:else:1'), /no right to wake-device/);
    assert.match(await wake('tunnel.example'), /no right to wake-gateway/);
  });
});

describe('what a child gateway can say over coaps', limit, () => {
  test('its lies about via and id are refused, in packages and in alerts; what is true passes', async () => {
    await using broker = await startAedes();
    await using top = new Site(broker.url);
    await using middle = new Site(broker.url);
    await using honest = new Site(broker.url);
    const coap = { port: 0, leisure: 50 };
    const headend = await top.headend(ids);
    assert.ok(headend);
    const first = await top.gateway(['gw-2', 'gw-3', mine], {
      coap: { ...coap, 'insecure-plain-coap': true },
      tunnel: { devices: ['urn:*'] },
    });
    const child = (name: string) =>
      gatewayConfig('', [theirs], {
        gateway: { id: name, state: ':memory:' },
        coap: { ...coap, 'insecure-plain-coap': true },
        ...childTables(name, first),
      });
    const open = (site: Site, name: string) => {
      const surroundings = { events: site.gatewayEvents, listInterfaces: loopback('IPv4') };
      const config = child(name);
      const parts = composeGateway(config, surroundings);
      return { parts, gateway: new Gateway(config, surroundings, parts) };
    };
    const liar = open(middle, 'gw-2');
    const other = open(honest, 'gw-3');
    await using lying = liar.gateway;
    await using telling = other.gateway;
    await lying.start();
    await telling.start();
    for (const name of ['gw-2', 'gw-3']) await top.gatewayEvents.until('device.attached', { device: name });
    const device = top.device(mine, first, { factory: true });
    await device.start();
    await device.attached;
    const behind = honest.device(theirs, telling, { factory: true });
    await behind.start();
    await behind.attached;
    await top.gatewayEvents.until('device.attached', { device: theirs, via: 'gw-3' });

    const say = async (id: string, via?: string) => {
      const up = { device: id, server: 'dm.example', contentType: 'application/vnd.syncml.dm+xml' };
      try {
        const { status, reason } = await liar.parts.uplink.request({
          ...up,
          ...(via !== undefined && { via }),
          body: Buffer.from('<SyncML/>'),
        });
        return `${status} ${reason}`;
      } catch (thrown) {
        return (thrown as Error).message;
      }
    };
    assert.match(await say(mine), /it is asked whether it is there/, 'a device that is attached here');
    assert.match(await say(theirs), /attached behind gw-3/, 'a device of another child');
    assert.match(await say('urn:new:1', 'gw-3'), /gw-3 is not attached behind gw-2/);
    assert.match(await say('urn:new:1', 'gw-9'), /gw-9 is not attached behind gw-2/);
    assert.doesNotMatch(await say('urn:new:1'), /attached|asked/, 'a device that is nowhere else');
    // The child asks again and again, until the device has answered its own gateway.
    const said = async (id: string): Promise<string> => {
      const answer = await say(id);
      return /it is asked/.test(answer) ? await said(id) : answer;
    };
    assert.match(await said(mine), /has proved itself here, where it is attached/);
    assert.match(await said(theirs), /has proved itself behind gw-3, where it is attached/);

    const tell = (deviceId: string, via?: string) =>
      liar.parts.state.outbox.add(
        'device-attach',
        deviceId,
        JSON.stringify({ mode: 0, bootstrap: 'local', ...(via !== undefined && { via }) }),
      );
    tell('urn:new:2', 'gw-3');
    liar.parts.dmClient.wake();
    await top.gatewayEvents.until('hierarchy.refused', { child: 'gw-2' });
    assert.ok(!first.devices().some(({ deviceId }) => deviceId === 'urn:new:2'));
    assert.equal(first.devices().find(({ deviceId }) => deviceId === theirs)?.via, 'gw-3');
    assert.equal(first.devices().find(({ deviceId }) => deviceId === mine)?.via, undefined);
  });
});
