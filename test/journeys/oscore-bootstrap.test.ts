import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { hashedName } from '../../src/base/hashed-name.ts';
import { composeGateway } from '../../src/gateway/composition.ts';
import { Gateway } from '../../src/gateway/gateway.ts';
import { isForOscore } from '../../src/wire/secure/transport-keys.ts';
import { EventRecorder } from '../event-recorder.ts';
import { startAedes } from '../peers/brokers.ts';
import { Nat } from '../peers/nat.ts';
import { watch } from './oscore-watch.ts';
import { type DeviceKind, gatewayConfig, loopback, Site, secrets, type Toml } from './site.ts';

const id = 'urn:dev:ops:1';
const other = 'urn:dev:ops:2';
const limit = { timeout: 120_000 };
const own = { 'factory-secret': secrets.factory(id), security: 'oscore' };
const listed = (...ids: string[]) => ({
  device: ids.map((each) => ({
    id: each,
    'factory-secret': secrets.factory(each),
    security: 'oscore',
  })),
});

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-oscore-bootstrap-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** A site in which the gateway is behind a port that is watched. Its next run has the same port and state. */
class Watched implements AsyncDisposable {
  readonly site: Site;
  readonly nat: Nat;
  readonly seen: ReturnType<typeof watch>;
  readonly #tables: Toml;
  readonly #broker: string;
  #stack = new AsyncDisposableStack();
  #port = 0;
  gateway!: Gateway;
  events!: EventRecorder;
  parts!: ReturnType<typeof composeGateway>;

  private constructor(broker: string, nat: Nat, tables: Toml) {
    this.#broker = broker;
    this.#tables = tables;
    this.site = new Site(broker);
    this.nat = nat;
    this.seen = watch(nat);
  }

  /** @param tables of the gateway's configuration, besides `coap` */
  static async open(broker: string, tables: Toml): Promise<Watched> {
    const watched = new Watched(broker, await Nat.open(), tables);
    await watched.next();
    return watched;
  }

  config(tables: Toml = {}) {
    return gatewayConfig(this.#broker, [], {
      coap: { port: this.#port, leisure: 50, advertise: this.nat.advertised },
      coaps: { port: 0 },
      oscore: {},
      ...this.#tables,
      ...tables,
    });
  }

  /** Ends the gateway, and starts the next run of it. */
  async next(): Promise<void> {
    await this.#stack.disposeAsync();
    this.#stack = new AsyncDisposableStack();
    this.events = new EventRecorder();
    const surroundings = { events: this.events, listInterfaces: loopback('IPv4') };
    const config = this.config();
    this.parts = composeGateway(config, surroundings);
    this.gateway = this.#stack.use(new Gateway(config, surroundings, this.parts));
    await this.gateway.start();
    await this.events.until('mqtt.connected');
    this.#port = this.gateway.coapPort;
    this.nat.leadTo(this.gateway);
  }

  keysOf(deviceId = id): string[] {
    return this.parts.state.credentials.keys.of(deviceId).map(({ identity }) => identity);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.site[Symbol.asyncDispose]();
    await this.#stack.disposeAsync();
    await this.nat[Symbol.asyncDispose]();
  }
}

const isDiscovery = (path: string) => path === '/.well-known/core';
const record = `./GwDeviceInventory/Records/${hashedName(id)}`;

/** The two ways to an account: by a factory secret (8.4.2), and by the DM server (8.4.1). */
const ways: readonly (readonly [string, DeviceKind, Toml])[] = [
  ['local', { factory: true }, { bootstrap: listed(id) }],
  ['server', { server: true }, {}],
];
const served = {
  device: [
    {
      id,
      'client-secret': secrets.deviceClient(id),
      'server-secret': secrets.deviceServer(id),
      security: 'oscore',
    },
  ],
};

for (const [origin, kind, tables] of ways)
  describe(`an OMA DM device over OSCORE, bootstrap: ${origin}`, limit, () => {
    const how = (more: Toml = {}): DeviceKind => ({ ...kind, more: { security: 'oscore', ...more } });
    const state = (t: TestContext) => ({ gateway: { id: 'gw-1', state: join(folderOf(t), 'gw.db') } });

    test('one bootstrap brings all it needs: it is managed, and leaves', async () => {
      await using broker = await startAedes();
      await using watched = await Watched.open(broker.url, tables);
      const { site, seen, nat } = watched;
      await site.headend([], served);
      const device = site.device(id, nat, how());
      await device.start();
      await device.attached;
      const alert = await site.headendEvents.until('alert.device-attach', { device: id });
      assert.equal(alert.fields.bootstrap, origin);
      assert.deepEqual(watched.keysOf().map(isForOscore), [true]);
      const [outcome] = await watched.gateway.manage(id, [{ name: 'Get', uri: './DevInfo/Man' }], 20_000);
      assert.equal(outcome?.results[0]?.data, 'Maker & Sons');
      // Only the tunnel to the DM server, which has its own protection, is used before there is an account.
      const plain = seen.plainPaths().filter((path) => !isDiscovery(path));
      assert.ok(plain.every((path) => origin === 'server' && path.startsWith('/dm/t/')));
      assert.equal(watched.events.count('dtls.opened'), 0);
      // The answer to its goodbye is protected, although its context ends by it.
      await device.detach();
      await site.headendEvents.until('alert.device-detach', { device: id });
      assert.deepEqual(watched.keysOf(), []);
    });

    test('the context is there after restarts of both, and no number is used twice', async (t) => {
      await using broker = await startAedes();
      await using watched = await Watched.open(broker.url, { ...tables, ...state(t) });
      const { site, seen, nat } = watched;
      await site.headend([], served);
      const more = { state: join(folderOf(t), 'device.db') };
      const first = site.device(id, nat, how(more));
      await first.start();
      await first.attached;
      const keys = watched.keysOf();
      await watched.next();
      // The gateway speaks first: its Package #0 is protected.
      const [outcome] = await watched.gateway.manage(id, [{ name: 'Get', uri: './DevInfo/Man' }], 30_000);
      assert.equal(outcome?.status, 200);
      await first[Symbol.asyncDispose]();
      const second = site.device(id, nat, how(more));
      await second.start();
      await second.attached;
      assert.deepEqual(watched.keysOf(), keys);
      const contents = new Map<string, string>();
      for (const [sender, content] of seen.senders()) {
        // A request that is sent again is the same.
        assert.equal(contents.get(sender) ?? content, content);
        contents.set(sender, content);
      }
      assert.ok(contents.size > 4);
    });

    test('a device whose record the DM server deletes is shut out at once, and begins anew', async () => {
      await using broker = await startAedes();
      await using watched = await Watched.open(broker.url, tables);
      const { site, nat } = watched;
      const headend = await site.headend([], served);
      const device = site.device(id, nat, how());
      await device.start();
      await device.attached;
      await site.headendEvents.until('alert.device-attach', { device: id });
      const [former] = watched.keysOf();
      const [deleted] = await headend.manage('gw-1', [{ name: 'Delete', uri: record }]);
      assert.equal(deleted?.status, 200);
      assert.deepEqual(watched.keysOf(), []);
      const again = site.headendEvents.next('alert.device-attach', { device: id });
      const dropped = site.deviceEvents.next('device.account-dropped', { device: id });
      await device.contactServer('gw-1').catch(() => {});
      await watched.events.until('oscore.refused', { reason: 'Security context not found' });
      await dropped;
      await again;
      const [latter] = watched.keysOf();
      assert.ok(latter !== undefined && latter !== former);
    });
  });

test('a bootstrap that cannot be stored gives no context, and takes none away', limit, async () => {
  await using broker = await startAedes();
  await using watched = await Watched.open(broker.url, { bootstrap: listed(id) });
  const { site, nat, parts } = watched;
  const blank = () => site.device(id, nat, { factory: true, more: { security: 'oscore' } });
  {
    await using first = blank();
    await first.start();
    await first.attached;
  }
  const keys = watched.keysOf();
  const contexts = parts.contexts!.size;
  const { database } = parts.state;
  database
    .prepare(`CREATE TRIGGER no_keys BEFORE INSERT ON device_key BEGIN SELECT RAISE(FAIL, 'no room'); END`)
    .run();
  const second = blank();
  await second.start();
  await site.deviceEvents.until('device.attach-failed', { device: id });
  assert.deepEqual([watched.keysOf(), parts.contexts!.size], [keys, contexts]);
  database.prepare('DROP TRIGGER no_keys').run();
  await second.attached;
  // The first use of the new context has ended the former one.
  assert.equal(watched.keysOf().length, 1);
  assert.notDeepEqual(watched.keysOf(), keys);
  assert.equal(parts.contexts!.size, contexts);
});

describe('an LwM2M client over OSCORE', limit, () => {
  test('one bootstrap over OSCORE brings object 21; it keeps the context when it leaves', async () => {
    await using broker = await startAedes();
    await using watched = await Watched.open(broker.url, { lwm2m: listed(id, other) });
    const { site, nat, seen, gateway } = watched;
    await site.headend([]);
    const client = site.client(id, nat, {}, own);
    await client.start();
    await client.attached;
    const alert = await site.headendEvents.until('alert.device-attach', { device: id });
    assert.equal(alert.fields.bootstrap, 'local');
    assert.deepEqual([client.value('/0/1/2'), client.value('/0/1/17')], [3, '21:0']);
    assert.match(String(client.value('/0/1/0')), /^coap:/);
    const [identity] = watched.keysOf();
    const text = (path: string) => Buffer.from(client.value(path) as Uint8Array).toString();
    assert.deepEqual([`oscore:${text('/21/0/1')}`, text('/21/0/2')], [identity, 'gw']);
    assert.equal(text('/21/0/0').length, 22);
    assert.deepEqual([client.value('/21/0/3'), client.value('/21/0/4')], [10, 5]);
    const [outcome] = await gateway.manage(id, [{ name: 'Get', uri: './3303/0/5701' }], 30_000);
    assert.equal(outcome?.status, 200);
    // No server may see the context.
    const [hidden] = await gateway.manage(id, [{ name: 'Get', uri: './21/0/0' }], 30_000);
    assert.notEqual(hidden?.status, 200);
    assert.deepEqual(
      seen.plainPaths().filter((path) => !isDiscovery(path)),
      [],
    );
    await client.detach();
    await watched.events.until('device.detached', { device: id });
    // A deregistration revokes nothing.
    assert.deepEqual(watched.keysOf(), [identity]);
  });

  test('a bootstrap over DTLS leads to OSCORE where the configuration says so', async () => {
    await using broker = await startAedes();
    const key = 'another-another-';
    const lwm2m = { device: [{ id, 'bootstrap-key': key, security: 'oscore' }] };
    await using watched = await Watched.open(broker.url, { lwm2m });
    const { site, gateway } = watched;
    // The association ends with the bootstrap. All else is over OSCORE.
    const network = { gateway: `coaps://127.0.0.1:${gateway.coapsPort}`, interface: '127.0.0.1' };
    const client = site.client(id, gateway, { 'bootstrap-key': key }, {}, { network });
    await client.start();
    await watched.events.until('lwm2m.bootstrapped', { device: id });
    await site.deviceEvents.until('device.account-taken', { device: id });
    assert.equal(client.value('/0/1/17'), '21:0');
    assert.match(String(client.value('/0/1/0')), /^coap:\/\//);
    assert.deepEqual(watched.keysOf().map(isForOscore), [true]);
  });

  test('a client that registers under the name of another is refused, and a factory context registers nobody', async () => {
    await using broker = await startAedes();
    await using watched = await Watched.open(broker.url, { lwm2m: listed(id, other) });
    const { site, nat, events } = watched;
    const client = site.client(id, nat, {}, own);
    await client.start();
    await client.attached;
    const [identity] = watched.keysOf();
    const { key } = watched.parts.state.credentials.keys.at(identity!)!;
    const hex = (text: string) => Buffer.from(text).toString('hex');
    // Another process with the context of this client, under another name.
    const oscore = {
      'master-secret': Buffer.from(key).toString(),
      'sender-id': hex(identity!.slice('oscore:'.length)),
      'recipient-id': hex('gw'),
    };
    const thief = site.client(other, nat, { bootstrap: false }, {}, { oscore });
    await thief.start();
    await events.until('registration.refused', { device: other });
  });

  test('a lost answer, and a restart in the middle, leave a client that can be bootstrapped again', async (t) => {
    await using broker = await startAedes();
    const state = { gateway: { id: 'gw-1', state: join(folderOf(t), 'gw.db') } };
    await using watched = await Watched.open(broker.url, { lwm2m: listed(id), ...state });
    const { site, nat } = watched;
    const client = site.client(id, nat, {}, own);
    await client.start();
    await client.attached;
    await watched.events.until('device.attached', { device: id });
    const first = watched.keysOf();
    await watched.next();
    // It registered before the restart, and renews that by the context of before.
    await client.update();
    const [outcome] = await watched.gateway.manage(id, [{ name: 'Get', uri: './3303/0/5701' }], 30_000);
    assert.equal(outcome?.status, 200);
    assert.deepEqual(watched.keysOf(), first);
    // A bootstrap of which the client never uses anything, as when its end was lost.
    const { keys } = watched.parts.state.credentials;
    keys.add(id, { identity: 'oscore:unknown', key: 'a-key-that-was-lost-22' });
    assert.equal(watched.keysOf().length, 2);
    await client.update();
    assert.equal(watched.keysOf().length, 2);
    {
      await using again = site.client(id, nat, {}, own);
      await again.start();
      await again.attached;
    }
    assert.equal(watched.keysOf().length, 1);
    assert.notDeepEqual(watched.keysOf(), first);
  });

  test('a client that is no longer listed is shut out at once', async () => {
    await using broker = await startAedes();
    await using watched = await Watched.open(broker.url, { lwm2m: listed(id, other) });
    const { site, nat, gateway, events } = watched;
    const client = site.client(id, nat, {}, own);
    await client.start();
    await client.attached;
    await events.until('device.attached', { device: id });
    const shown = () => gateway.devices().find(({ deviceId }) => deviceId === id)!;
    assert.deepEqual([shown().security, shown().state], ['OSCORE', 'attached']);
    gateway.reload(() => watched.config({ lwm2m: listed(other) }));
    assert.deepEqual([shown().state, shown().reason?.split(':')[0]], ['unreachable', 'locked out']);
    await events.until('device.unlisted', { device: id });
    assert.deepEqual(watched.keysOf(), []);
    await assert.rejects(client.update(), { code: 'unavailable' });
    await events.until('oscore.refused', { reason: 'Security context not found' });
  });
});

test('a context that is good for the bootstrap alone opens nothing else', limit, async () => {
  await using broker = await startAedes();
  const context = { 'master-secret': 'a-master-secret-of-32-characters', 'bootstrap-only': true };
  const device = { identity: id, ...context, 'sender-id': '00', 'recipient-id': '01' };
  const lwm2m = { device: [{ id }] };
  await using watched = await Watched.open(broker.url, { lwm2m, oscore: { device: [device] } });
  const { site, nat, events } = watched;
  const { 'bootstrap-only': _, ...keys } = context;
  const oscore = { ...keys, 'sender-id': '01', 'recipient-id': '00' };
  const client = site.client(id, nat, { bootstrap: false }, {}, { oscore });
  await client.start();
  const { fields } = await site.deviceEvents.until('device.attach-failed', { device: id });
  assert.match(String(fields.reason), /4\.03/);
  assert.equal(events.count('registration.taken'), 0);
});

test('a configuration in which OSCORE is wanted and not served, or wanted of a child gateway, is refused', () => {
  const refused = (tables: Toml) =>
    assert.throws(() => gatewayConfig('mqtt://127.0.0.1:1', [], tables), { code: 'configuration' });
  refused({ bootstrap: listed(id) });
  refused({ lwm2m: listed(id) });
  const child = { id, 'factory-secret': secrets.factory(id), security: 'oscore', gateway: true };
  refused({ oscore: {}, bootstrap: { device: [child] } });
});
