import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, type TestContext, test } from 'node:test';
import { hashedName } from '../../src/base/hashed-name.ts';
import type { Operation } from '../../src/dm/server-session.ts';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { FailingDisk } from '../gateway/store/failing-disk.ts';
import { LeapClock } from '../leap-clock.ts';
import { startAedes } from '../peers/brokers.ts';
import { issue } from '../wire/secure/dtls/authority.ts';
import { Joiner } from './joiner.ts';
import { issuedKey, Party } from './lwm2m-party.ts';
import { Site, type Toml } from './site.ts';

const limit = { timeout: 60_000 };
const folder = mkdtempSync(join(tmpdir(), 'postern-join-'));
after(() => rmSync(folder, { recursive: true }));
const gatewayKey = issue({ commonNames: ['gateway'] });
const keyFile = join(folder, 'gateway.key');
writeFileSync(keyFile, gatewayKey.keyPem, { mode: 0o600 });

const pump = 'urn:dev:ops:pump';
const valve = 'urn:dev:ops:valve';
const secure = (more: Toml = {}) => ({
  coap: { port: 0, leisure: 50 },
  coaps: { port: 0, 'key-file': keyFile },
  ...more,
});

/** A gateway that serves DTLS with a key of its own, and knows no device. */
async function lone(site: Site, more: Toml = {}, surroundings = {}): Promise<Gateway> {
  return await site.gateway([], secure(more), false, surroundings);
}
const nobody = () => new Site('mqtt://127.0.0.1:1');
/** A device that has opened an association. */
async function connected(gateway: Gateway, ...[key, isRaw]: [Joiner['key']?, boolean?]): Promise<Joiner> {
  const joiner = await Joiner.open(gateway, key);
  await joiner.connect(gatewayKey, isRaw);
  return joiner;
}
function leaping(t: TestContext): LeapClock {
  const clock = new LeapClock();
  t.after(() => clock.stop());
  return clock;
}
const open = (gateway: Gateway, devices = 1, minutes = 5) => gateway.orderJoins({ minutes, devices });
const refused = (promise: Promise<unknown>) =>
  promise.then(
    () => 'done',
    () => 'refused',
  );

describe('a device that no list has', limit, () => {
  for (const isRaw of [true, false])
    test(`joins by ${isRaw ? 'a raw public key' : 'a certificate that nobody known has signed'}, is attached and marked, and bootstraps anew without a window`, async () => {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      await site.headend([]);
      const gateway = await site.gateway([], secure());
      await open(gateway);
      const opened = await site.gatewayEvents.until('join.opened', { devices: 1, minutes: 5, by: 'admin' });
      assert.equal(opened.severity, 'warn');
      await using device = await connected(gateway, undefined, isRaw);
      const { code, account, isMacked } = await device.bootstrap(pump);
      assert.deepEqual([code, isMacked], ['2.04', false]);
      await site.gatewayEvents.until('join.joined', { device: pump, protocol: 'OMA-DM' });
      await site.gatewayEvents.until('join.closed', { reason: 'all places are taken', devices: 1 });
      assert.equal(await device.session(pump, account!), 200);
      const alert = await site.headendEvents.until('alert.device-attach', { device: pump });
      assert.equal(alert.fields.bootstrap, 'joined');
      assert.equal(gateway.devices()[0]?.origin, 'joined');
      assert.deepEqual(
        gateway.joins().pinned.map(({ deviceId }) => deviceId),
        [pump],
      );
      assert.equal(gateway.joins().window, undefined);
      // It has lost its power and its account.
      await device[Symbol.asyncDispose]();
      await using again = await connected(gateway, device.key, isRaw);
      assert.equal((await again.bootstrap(pump)).code, '2.04');
    });

  test('an LwM2M client registers by its key, and is marked', async () => {
    await using site = nobody();
    const gateway = await lone(site, { lwm2m: {} });
    await open(gateway);
    await using client = await connected(gateway);
    assert.equal(await client.register(pump), '2.01');
    await site.gatewayEvents.until('registration.proven', { device: pump });
    assert.equal(gateway.devices()[0]?.origin, 'joined');
    // By its first association, it has the rights of a client from now on.
    assert.equal((await client.ask({ method: 1, path: ['img', 'none'] })).name, '4.04');
    await using other = await Joiner.open(gateway);
    await assert.rejects(other.connect(gatewayKey), 'no window any more');
    await using later = await connected(gateway, client.key);
    assert.equal(await later.register('another'), '4.03');
    assert.equal(await later.register(pump), '2.01');
  });

  test('an LwM2M client keeps the key of its bootstrap over a restart, until it is forgotten', async (t) => {
    const own = mkdtempSync(join(folder, 'client-'));
    const tables = { lwm2m: {}, gateway: { id: 'gw-1', state: join(own, 'gw.db') } };
    const site = nobody();
    t.after(() => site[Symbol.asyncDispose]());
    const before = await lone(site, tables);
    await open(before);
    const packed = await (async () => {
      await using client = await connected(before);
      const { name, payload } = await client.ask({ method: 1, path: ['bspack'], query: [`ep=${pump}`] });
      assert.equal(name, '2.05');
      return issuedKey(payload);
    })();
    await before[Symbol.asyncDispose]();
    const gateway = await lone(site, tables);
    await using party = await Party.open(gateway.coapsPort!, packed);
    assert.equal(await party.register(pump), '2.01');
    await gateway.orderJoins({ forget: pump });
    const reason = 'what it was opened with is no longer valid';
    await site.gatewayEvents.until('dtls.closed', { identity: packed.identity, reason });
  });

  test('finds no association without a window, and no window opens without a key of the gateway', async () => {
    await using site = nobody();
    const gateway = await lone(site);
    await using device = await Joiner.open(gateway);
    assert.equal(await refused(device.connect(gatewayKey)), 'refused');
    await using without = nobody();
    const keyless = await without.gateway([], { coap: { port: 0 }, coaps: { port: 0 } }, false);
    await assert.rejects(open(keyless), { code: 'notAllowed' });
    await assert.rejects(open(gateway, 65), { code: 'malformed' });
    await assert.rejects(open(gateway, 1, 61), { code: 'malformed' });
    await assert.rejects(gateway.orderJoins({ minutes: 1 }), { code: 'malformed' });
  });

  test('that has not joined may do nothing else with its association', async () => {
    await using site = nobody();
    const gateway = await lone(site, { lwm2m: {} });
    await open(gateway);
    await using device = await connected(gateway);
    for (const path of [['dm'], ['dm', 't', 'dm.example'], ['gw', 'status'], ['img', 'x']])
      for (const method of [1, 2])
        assert.match((await device.ask({ method, path })).name, /^4\.0[345]$/, path.join('/'));
  });
});

describe('the last place', limit, () => {
  test('goes to one of two that come at once', async () => {
    await using site = nobody();
    const gateway = await lone(site);
    await open(gateway);
    await using one = await connected(gateway);
    await using two = await connected(gateway);
    const codes = await Promise.all(
      [one.bootstrap(pump, 4000), two.bootstrap(valve, 4000)].map((each) =>
        each.then(
          ({ code }) => code,
          () => 'no answer',
        ),
      ),
    );
    assert.equal(codes.filter((code) => code === '2.04').length, 1, codes.join());
    assert.equal(gateway.joins().pinned.length, 1);
    assert.equal(site.gatewayEvents.count('join.joined'), 1);
    assert.equal(site.gatewayEvents.count('join.closed'), 1);
  });

  test('is not taken by a write that fails, and the device gets it when there is room again', async () => {
    using disk = new FailingDisk();
    await using site = nobody();
    const gateway = await lone(site, { gateway: { id: 'gw-1', state: join(folder, 'failing.db') } });
    await open(gateway);
    await using device = await connected(gateway);
    for (const skipped of [0, 1, 2, 3, 4]) {
      disk.failAfter(skipped, { staysFull: true });
      assert.match((await device.bootstrap(pump)).code, /^5\.0/, String(skipped));
      disk.mend();
      assert.deepEqual(gateway.joins().pinned, []);
      assert.equal(gateway.joins().window?.left, 1);
    }
    assert.equal((await device.bootstrap(pump)).code, '2.04');
    assert.equal(gateway.joins().pinned.length, 1);
  });
});

describe('a peer that lies', limit, () => {
  test('gets no name that is pinned to another key, listed, or its own twice, and the owner goes on', async () => {
    await using site = nobody();
    const listed = { lwm2m: { device: [{ id: valve }] } };
    const gateway = await lone(site, listed);
    await open(gateway, 5);
    await using owner = await connected(gateway);
    assert.equal((await owner.bootstrap(pump)).code, '2.04');
    await using liar = await connected(gateway);
    assert.equal((await liar.bootstrap(pump)).code, '4.03');
    const reasons = async (reason: string) => await site.gatewayEvents.until('join.refused', { reason });
    await reasons('another key is pinned to this name');
    assert.equal(await liar.register(pump), '4.03');
    assert.equal(await liar.register(valve), '4.03');
    assert.equal((await liar.bootstrap(valve)).code, '4.03');
    assert.equal((await liar.bootstrap('gw-1')).code, '4.03');
    await reasons('the gateway knows a device with this name');
    assert.equal((await owner.bootstrap('urn:dev:ops:second')).code, '4.03');
    await reasons('this key is pinned to another name');
    // What joined as a device of OMA DM is no client of LwM2M.
    assert.equal(await owner.register(pump), '4.03');
    assert.equal((await owner.bootstrap(pump)).code, '2.04');
    assert.equal(gateway.joins().pinned.length, 1);
    assert.equal(gateway.joins().window?.left, 4);
  });
});

describe('the window ends', limit, () => {
  test('after its minutes, with the associations of those who have not joined', async (t) => {
    await using site = nobody();
    const clock = leaping(t);
    const gateway = await lone(site, {}, { clock });
    await open(gateway, 2, 5);
    await using joined = await connected(gateway);
    assert.equal((await joined.bootstrap(valve)).code, '2.04');
    await using device = await connected(gateway);
    await clock.leap(4 * 60_000);
    assert.equal(gateway.joins().window?.left, 1);
    await clock.leap(61_000);
    await site.gatewayEvents.until('join.closed', { reason: 'time is over', devices: 1 });
    await device.end.until(0, 1);
    await using late = await Joiner.open(gateway);
    assert.equal(await refused(late.connect(gatewayKey)), 'refused');
    assert.equal(joined.end.closings.length, 0);
  });

  for (const by of [-31_000, 31_000, -1e12])
    test(`when the clock is set by ${by / 1000} s`, async (t) => {
      await using site = nobody();
      const clock = leaping(t);
      const gateway = await lone(site, {}, { clock });
      await open(gateway);
      await using device = await connected(gateway);
      clock.moveWall(by);
      assert.notEqual((await device.bootstrap(pump, 3000).catch(() => ({ code: 'ended' }))).code, '2.04');
      await site.gatewayEvents.until('join.closed', { reason: 'the clock was set' });
      assert.deepEqual(gateway.joins().pinned, []);
    });

  test('by hand, and at a restart, which keeps those who have joined and their associations', async () => {
    const state = { gateway: { id: 'gw-1', state: join(folder, 'restart.db') } };
    await using before = nobody();
    const gateway = await lone(before, state);
    const port = gateway.coapsPort!;
    await open(gateway, 2);
    await gateway.orderJoins({ close: true });
    await before.gatewayEvents.until('join.closed', { reason: 'closed by hand' });
    await open(gateway, 2);
    await using joined = await connected(gateway);
    assert.equal((await joined.bootstrap(pump)).code, '2.04');
    await using waiting = await connected(gateway);
    await before[Symbol.asyncDispose]();
    await using site = nobody();
    const next = await lone(site, { ...state, coaps: { port, 'key-file': keyFile } });
    assert.equal(next.joins().window, undefined);
    assert.equal(next.joins().pinned[0]?.deviceId, pump);
    assert.equal((await joined.bootstrap(pump)).code, '2.04', 'over the association from before');
    await assert.rejects(waiting.bootstrap(valve, 2000));
    await using later = await connected(next, joined.key);
    assert.equal((await later.bootstrap(pump)).code, '2.04');
  });
});

test(
  'a device that joined is forgotten by order: its key, its account and its associations end',
  limit,
  async () => {
    await using site = nobody();
    const gateway = await lone(site);
    await open(gateway, 2);
    await using device = await connected(gateway);
    const { account } = await device.bootstrap(pump);
    await using other = await Joiner.open(gateway);
    assert.equal(await other.session(pump, account!), 200);
    await gateway.orderJoins({ forget: pump });
    await site.gatewayEvents.until('join.forgotten', { device: pump });
    await device.end.until(0, 1);
    await other.end.until(0, 1);
    await assert.rejects(gateway.orderJoins({ forget: pump }), { code: 'notFound' });
    await gateway.orderJoins({ close: true });
    await using again = await Joiner.open(gateway, device.key);
    assert.equal(await refused(again.connect(gatewayKey)), 'refused');
  },
);

test('a DM server opens and closes the window, and removes a device that joined', limit, async () => {
  await using broker = await startAedes();
  await using site = new Site(broker.url);
  const headend = await site.headend([]);
  const gateway = await site.gateway([], secure());
  const order = async (...operations: Operation[]) =>
    (await headend.manage('gw-1', operations)).map(({ status }) => status);
  assert.deepEqual(await order({ name: 'Replace', uri: './GwJoin/Devices', data: '65' }), [400]);
  assert.deepEqual(
    await order(
      { name: 'Replace', uri: './GwJoin/Devices', data: '2' },
      { name: 'Replace', uri: './GwJoin/Minutes', data: '3' },
      { name: 'Exec', uri: './GwJoin/Open' },
    ),
    [200, 200, 200],
  );
  await site.gatewayEvents.until('join.opened', { devices: 2, minutes: 3, by: 'dm.example' });
  await using device = await connected(gateway);
  const { account } = await device.bootstrap(pump);
  await using other = await Joiner.open(gateway);
  assert.equal(await other.session(pump, account!), 200);
  const [left, joined] = await headend.manage('gw-1', [
    { name: 'Get', uri: './GwJoin/Left' },
    { name: 'Get', uri: './GwJoin/Joined' },
  ]);
  assert.deepEqual(
    [left, joined].map((each) => each?.results[0]?.data),
    ['1', JSON.stringify([pump])],
  );
  assert.deepEqual(await order({ name: 'Exec', uri: './GwJoin/Close' }), [200]);
  await site.gatewayEvents.until('join.closed', { reason: 'closed by hand' });
  const record = `./GwDeviceInventory/Records/${hashedName(pump)}`;
  const [origin] = await headend.manage('gw-1', [{ name: 'Get', uri: `${record}/Bootstrap` }]);
  assert.equal(origin?.results[0]?.data, 'joined');
  assert.deepEqual(await order({ name: 'Delete', uri: record }), [200]);
  await site.gatewayEvents.until('join.forgotten', { device: pump });
  assert.deepEqual(gateway.joins().pinned, []);
});
