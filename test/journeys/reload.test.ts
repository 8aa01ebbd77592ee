import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { checkConfig } from '../../src/base/config.ts';
import { succeeded } from '../../src/dm/client-session.ts';
import { type GatewayConfig, gatewayConfigSchema } from '../../src/gateway/config.ts';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { headendConfigSchema } from '../../src/headend/config.ts';
import { startAedes } from '../peers/brokers.ts';
import { StockClient } from '../peers/stock-client.ts';
import { Site, secrets } from './site.ts';

const limit = { timeout: 60_000 };
const [first, second] = ['urn:dev:ops:1', 'urn:dev:ops:2'] as const;
const manual = 'urn:dev:ops:manual';
const clients = ['urn:dev:ops:c1', 'urn:dev:ops:c2'];

/** The configuration of the gateway, with these devices. */
function gatewayConfig(brokerUrl: string, changes: Record<string, unknown>): GatewayConfig {
  return checkConfig(
    gatewayConfigSchema,
    {
      gateway: { id: 'gw-1', state: ':memory:' },
      coap: { port: 0, leisure: 50, 'insecure-plain-coap': true },
      mqtt: { url: brokerUrl },
      'dm-server': {
        id: 'dm.example',
        'client-secret': secrets.gatewayClient,
        'server-secret': secrets.gatewayServer,
      },
      ...changes,
    },
    'test',
  );
}
const factory = (...ids: readonly string[]) => ({
  device: ids.map((id) => ({ id, 'factory-secret': secrets.factory(id) })),
});
const account = (id: string) => ({ id, 'client-secret': 'client secret', 'server-secret': 'server secret' });

/** A client of another maker, over HTTP, with the account made by hand. */
const stockClient = ({ httpUrl }: Pick<Gateway, 'httpUrl'>) =>
  new StockClient({
    url: `${httpUrl}/dm`,
    deviceId: manual,
    serverId: 'gw-1',
    user: manual,
    password: 'client secret',
    serverPassword: 'server secret',
    auth: 'md5',
    mediaType: 'application/vnd.syncml.dm+xml',
  });

describe('a reload while a gateway runs', limit, () => {
  test('a device that is added is bootstrapped, one that was removed loses its account, which plain CoAP brought, and is not bootstrapped again', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const lwm2m = { 'insecure-no-security': true };
    const devices = { lwm2m: { ...lwm2m, device: [{ id: clients[0] }] } };
    const gateway = await site.gateway([first], devices);
    const start = async (id: string) => {
      const device = site.device(id, gateway, { factory: true });
      await device.start();
      return device;
    };
    const removed = await start(first);
    await removed.attached;
    const refused = await start(second);
    await site.gatewayEvents.until('bootstrap.refused', { device: second });
    gateway.reload(() =>
      gatewayConfig(broker.url, {
        bootstrap: factory(second),
        lwm2m: { ...lwm2m, device: [{ id: clients[1] }] },
      }),
    );
    await site.gatewayEvents.until('config.reloaded', { keys: 'bootstrap.device lwm2m.device' });
    await refused.attached;
    const [outcome] = await headend.manage('gw-1', [{ name: 'Get', uri: './GwDeviceInventory/Records' }]);
    assert.equal(
      String(outcome?.results[0]?.data).split('/').length,
      2,
      'the record of the removed one stays',
    );
    await site.gatewayEvents.until('device.unlisted', { device: first });
    await assert.rejects(gateway.manage(first, [{ name: 'Get', uri: './DevInfo/Man' }], 1), {
      code: 'notFound',
    });
    const again = site.gatewayEvents.next('bootstrap.refused', { device: first });
    const lost = await removed.contactServer('gw-1').then(succeeded, () => false);
    assert.equal(lost, false);
    await (await start(first)).contactServer('gw-1').catch(() => {});
    await again;
    const client = site.client(clients[1]!, gateway);
    await client.start();
    await client.attached;
    await site.client(clients[0]!, gateway).start();
    await site.gatewayEvents.until('bootstrap.refused', { device: clients[0] });
  });

  test('accounts made by hand come and go, and the secrets of the DM server change', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const http = (...ids: readonly string[]) => ({
      http: { port: 0, host: '127.0.0.1', device: ids.map(account) },
    });
    const gateway = await site.gateway([first], http(manual));
    const known = async (id: string) =>
      (await gateway
        .manage(id, [{ name: 'Get', uri: './DevInfo/Man' }], 1)
        .catch(({ code }) => code)) as string;
    assert.equal(await known(manual), 'timeout');
    const other = 'urn:dev:ops:other';
    const server = {
      id: 'dm.example',
      'client-secret': 'another client secret',
      'server-secret': 'another server secret',
    };
    gateway.reload(() =>
      gatewayConfig(broker.url, { ...http(other), bootstrap: factory(first), 'dm-server': server }),
    );
    assert.deepEqual([await known(manual), await known(other)], ['notFound', 'timeout']);
    headend.reload(() =>
      checkConfig(
        headendConfigSchema,
        {
          headend: { id: 'dm.example', state: ':memory:' },
          mqtt: { url: broker.url },
          gateway: [{ ...server, id: 'gw-1' }],
        },
        'test',
      ),
    );
    const device = site.device(first, gateway, { factory: true });
    await device.start();
    await site.headendEvents.until('alert.device-attach', { device: first });
  });

  test('a device that was bootstrapped without DTLS and is removed has no account any more', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([first, second]);
    for (const id of [first, second]) {
      const device = site.device(id, gateway, { factory: true });
      await device.start();
      await device.attached;
    }
    gateway.reload(() => gatewayConfig(broker.url, { bootstrap: factory(second) }));
    await site.gatewayEvents.until('device.unlisted', { device: first });
    const asked = async (id: string) =>
      (await gateway
        .manage(id, [{ name: 'Get', uri: './DevInfo/Man' }], 10_000)
        .then(([outcome]) => outcome?.status)
        .catch(({ code }) => code)) as unknown;
    assert.deepEqual([await asked(first), await asked(second)], ['notFound', 200]);
  });

  const removals = { '': { http: { port: 0, host: '127.0.0.1', device: [] } }, ', with the whole table': {} };
  for (const [how, next] of Object.entries(removals))
    test(`a session that is open ends when the account of its device is removed${how}`, async () => {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      const devices = { http: { port: 0, host: '127.0.0.1', device: [account(manual)] } };
      const gateway = await site.gateway([], devices);
      await using client = stockClient(gateway);
      assert.equal(await client.session('1'), 200);
      // Some in each message.
      const operations = Array.from({ length: 20 }, (_, at) => ({
        name: 'Replace' as const,
        uri: `./Site/Node${at}`,
        data: 'x'.repeat(3000),
      }));
      for (const { uri } of operations) client.nodes.set(uri, '');
      const done = () => operations.filter(({ uri }) => client.nodes.get(uri) !== '').length;
      const managed = gateway.manage(manual, operations, 20_000).catch(() => {});
      let before = 0;
      const between = async () => {
        if (before > 0 || done() === 0) return;
        before = done();
        gateway.reload(() => gatewayConfig(broker.url, next));
      };
      await client.session('2', '', { between });
      // What was in the answer that was on its way.
      assert.ok(before > 0 && done() <= 2 * before && done() < operations.length, `${before}, ${done()}`);
      await site.gatewayEvents.until('session.failed', { device: manual, session: '2' });
      await managed;
    });

  test('an account is given another secret in the middle of a session over HTTP: the session does not go on', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const http = (device: object) => ({ http: { port: 0, host: '127.0.0.1', device: [device] } });
    const gateway = await site.gateway([], http(account(manual)));
    await using client = stockClient(gateway);
    assert.equal(await client.session('1'), 200);
    let reloads = 0;
    const between = async () => {
      // The first message has proved the client already, by the nonce of the session before.
      if (reloads++ > 0) return;
      gateway.reload(() =>
        gatewayConfig(broker.url, http({ ...account(manual), 'client-secret': 'another secret' })),
      );
    };
    assert.notEqual(await client.session('2', '', { between }), 200);
    assert.ok(reloads > 1, 'the session would have gone on');
  });

  for (const [what, devices] of [
    ['ends', []],
    ['gets another secret', [{ ...account(second), 'client-secret': 'another secret' }]],
  ] as const)
    test(`the account of a device at the DM server ${what} in the middle of a session: the session ends`, async () => {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      const headend = await site.headend([second]);
      const gateway = await site.gateway([second]);
      const device = site.device(second, gateway, { factory: true, server: true });
      await device.start();
      await device.attached;
      const operations = Array.from({ length: 20 }, (_, at) => ({
        name: 'Replace' as const,
        uri: './Settings/Label',
        data: `${at}`.padEnd(3000, 'x'),
      }));
      const started = site.headendEvents.next('session.started', { device: second });
      headend.manage(second, operations).catch(() => {});
      const { session } = (await started).fields as { session: string };
      headend.reload(() =>
        checkConfig(
          headendConfigSchema,
          {
            headend: { id: 'dm.example', state: ':memory:' },
            mqtt: { url: broker.url },
            gateway: [
              { id: 'gw-1', 'client-secret': secrets.gatewayClient, 'server-secret': secrets.gatewayServer },
            ],
            device: devices,
          },
          'test',
        ),
      );
      const { name, fields } = await Promise.race([
        site.headendEvents.until('session.failed', { device: second, session }),
        site.headendEvents.until('session.ended', { device: second, session }),
      ]);
      assert.deepEqual(
        [name, fields.reason],
        ['session.failed', 'the account of the party has ended or changed'],
      );
    });

  test('a name and a password for the broker are used at the next connection', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([]);
    gateway.reload(() =>
      gatewayConfig(broker.url, { mqtt: { url: broker.url, username: 'gw', password: 'secret' } }),
    );
    const { fields } = await site.gatewayEvents.until('config.reloaded');
    assert.equal(fields.keys, 'mqtt.username mqtt.password');
    assert.equal(gateway.status().uplink.connected, true, 'the connection stays');
    gateway.reload(() => gatewayConfig('mqtt://127.0.0.1:1', {}));
    const needed = await site.gatewayEvents.until('config.restart-needed');
    assert.equal(needed.fields.keys, 'mqtt.url');
    assert.deepEqual(gateway.status().configuration.restartNeeded, ['mqtt.url']);
  });
});
