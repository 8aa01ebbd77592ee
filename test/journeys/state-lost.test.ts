import assert from 'node:assert/strict';
import { copyFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, type TestContext, test } from 'node:test';
import { openDatabase } from '../../src/base/open-database.ts';
import { restoreState } from '../../src/base/restore-state.ts';
import type { Device } from '../../src/device/device.ts';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { failuresUntilForgotten } from '../../src/gateway/southbound/device-sessions.ts';
import { gatewaySchema } from '../../src/gateway/store/schema.ts';
import type { Headend } from '../../src/headend/headend.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { encodeNotification } from '../../src/wire/syncml/notification.ts';
import { startAedes } from '../peers/brokers.ts';
import { CoapPeer } from '../peers/coap-peer.ts';
import { freshState } from '../state-files.ts';
import { Site } from './site.ts';

const first = 'urn:dev:ops:1';
const second = 'urn:dev:ops:2';
const sensor = 'urn:dev:lwm2m:1';

/** A gateway that is stopped and started again on one state file and one port. */
class Life {
  readonly site: Site;
  readonly file: string;
  gateway!: Gateway;

  constructor(site: Site, file: string) {
    this.site = site;
    this.file = file;
  }

  async start(changes: Record<string, unknown> = {}): Promise<void> {
    const port = this.gateway?.coapPort ?? 0;
    await this.gateway?.[Symbol.asyncDispose]();
    const connected = this.site.gatewayEvents.next('mqtt.connected');
    this.gateway = await this.site.gateway(
      [first, second],
      {
        gateway: { id: 'gw-1', state: this.file },
        coap: { port, leisure: 50, 'insecure-plain-coap': true },
        lwm2m: { device: [{ id: sensor }], 'insecure-no-security': true },
        ...changes,
      },
      false,
    );
    await connected;
  }

  async stop(): Promise<void> {
    await this.gateway[Symbol.asyncDispose]();
  }

  /** A device with durable state. It is attached, and the server knows, when this returns. */
  async attach(id: string, state: string): Promise<Device> {
    const reported = this.site.headendEvents.next('alert.device-attach', { device: id });
    const device = this.site.device(id, this.gateway, { factory: true, more: { state } });
    await device.start();
    await reported;
    return device;
  }
}

/** Address of an attached device, without the scheme. */
const addressOf = (gateway: Gateway, id: string): string =>
  gateway
    .devices()
    .find(({ deviceId }) => deviceId === id)
    ?.address.replace(/^coap:/, '') ?? '';

/** How often the server lists that a device attached. */
const listed = (headend: Headend, id: string): number =>
  headend.records.alerts(100).filter(({ kind, device }) => kind === 'DeviceAttach' && device === id).length;

/** What was in the outbox is delivered when this returns. */
async function settled(life: Life, headend: Headend): Promise<void> {
  while (life.gateway.status().outbox.waiting > 0) await life.site.gatewayEvents.next('alert.delivered');
  await headend.manage('gw-1', [{ name: 'Get', uri: './DevInfo/DevId' }]);
}

async function begin(t: TestContext, broker: { url: string }) {
  const site = new Site(broker.url);
  t.after(() => site[Symbol.asyncDispose]());
  return new Life(site, freshState(t));
}

describe('a gateway whose state is lost or taken back', { timeout: 120_000 }, () => {
  test('lost: devices are bootstrapped anew, and the server lists them, exactly once', async (t) => {
    await using broker = await startAedes();
    const life = await begin(t, broker);
    const headend = await life.site.headend([]);
    await life.start();
    const state = freshState(t);
    const before = await life.attach(first, state);
    await before[Symbol.asyncDispose]();
    await life.stop();
    rmSync(life.file);
    await life.start();
    const { fields } = await life.site.gatewayEvents.until('state.corrupt');
    assert.deepEqual([fields.reason, fields.used], ['the file is missing', 'a new, empty state']);
    assert.match(life.gateway.status().recovery?.reason ?? '', /missing/);
    await life.site.headendEvents.until('gateway.new-epoch', { gateway: 'gw-1' });
    const fault = await life.site.headendEvents.until('alert.gateway-fault', {
      gateway: 'gw-1',
      kind: 'state',
    });
    assert.match(String(fault.fields.reason), /the file is missing.*a new, empty state/);
    await life.attach(first, state);
    await settled(life, headend);
    assert.equal(listed(headend, first), 2);
    assert.equal(life.site.headendEvents.count('gateway.new-epoch'), 1);
    await life.start();
    assert.equal(life.site.gatewayEvents.count('state.corrupt'), 1, 'told once');
    assert.equal(life.site.gatewayEvents.count('state.new-epoch'), 2, 'a restart alone begins no epoch');
  });

  test('its key is lost: it starts, says so here and upstream, and devices are bootstrapped anew', async (t) => {
    await using broker = await startAedes();
    const life = await begin(t, broker);
    await life.site.headend([]);
    await life.start();
    const state = freshState(t);
    const before = await life.attach(first, state);
    await before[Symbol.asyncDispose]();
    await life.stop();
    rmSync(`${life.file}.key`);
    await life.start();
    const { fields } = await life.site.gatewayEvents.until('state.sealed-lost');
    // The account of the DM server is lost as well. It is made again from the configuration.
    assert.deepEqual([Number(fields.rows) > 1, fields.key], [true, `${life.file}.key`]);
    await life.site.headendEvents.until('alert.gateway-fault', { gateway: 'gw-1' });
    const anew = life.site.gatewayEvents.next('bootstrap.issued', { device: first });
    await life.attach(first, state);
    await anew;
    await life.start();
    assert.equal(life.site.gatewayEvents.count('state.sealed-lost'), 1, 'nothing is lost at the next start');
  });

  for (const withKey of [true, false])
    test(`restored on another board ${withKey ? 'with its key: devices keep their accounts' : 'without its key: devices are bootstrapped anew'}`, async (t) => {
      await using broker = await startAedes();
      const life = await begin(t, broker);
      await life.site.headend([]);
      await life.start();
      const state = freshState(t);
      await (await life.attach(first, state))[Symbol.asyncDispose]();
      const backup = `${life.file}.backup`;
      await life.gateway.backUp({ target: backup, key: withKey });
      await life.stop();
      for (const end of ['', '-wal', '-shm', '.key']) rmSync(life.file + end, { force: true });
      restoreState(backup, life.file, [gatewaySchema]);
      await life.start();
      assert.equal(life.site.gatewayEvents.count('state.sealed-lost'), withKey ? 0 : 1);
      const issued = life.site.gatewayEvents.count('bootstrap.issued');
      const device = life.site.device(first, life.gateway, { factory: true, more: { state } });
      const proven = life.site.gatewayEvents.next('session.ended', { device: first, status: 200 });
      await device.start();
      await proven;
      assert.equal(life.site.gatewayEvents.count('bootstrap.issued') - issued, withKey ? 0 : 1);
    });

  test('restored: devices that were bootstrapped in between come back by themselves; so do LwM2M clients', async (t) => {
    await using broker = await startAedes();
    const life = await begin(t, broker);
    const headend = await life.site.headend([]);
    await life.start();
    const [stateOfFirst, stateOfSecond] = [freshState(t), freshState(t)];
    const bootstrapped = await life.attach(first, stateOfFirst);
    const backup = join(`${life.file}.backup`);
    await life.gateway.backUp({ target: backup });
    // The first device leaves and comes back with another account. The second one and the sensor are new.
    await bootstrapped.detach();
    await bootstrapped[Symbol.asyncDispose]();
    await life.attach(first, stateOfFirst);
    const port = Number(/:(\d+)/.exec(addressOf(life.gateway, first))?.[1]);
    const other = await life.attach(second, stateOfSecond);
    const client = life.site.client(sensor, life.gateway);
    const known = life.site.headendEvents.next('alert.device-attach', { device: sensor });
    await client.start();
    await known;
    await settled(life, headend);
    const before = [first, second, sensor].map((id) => listed(headend, id));
    assert.deepEqual(before, [2, 1, 1]);

    await life.stop();
    const { aside } = restoreState(backup, life.file, [gatewaySchema]);
    assert.equal(aside, `${life.file}.replaced-1`);
    await life.start();
    const back = [first, second, sensor].map((id) =>
      life.site.headendEvents.next('alert.device-attach', { device: id }),
    );
    // Each speaks once by itself: the restored gateway does not know where they are.
    for (let times = 1; times < failuresUntilForgotten; times++)
      assert.equal((await other.contactServer('gw-1')).status, 401);
    await assert.rejects(other.contactServer('gw-1'), /4\.03/);
    await client.update().catch(() => {});
    await using stranger = await CoapPeer.open();
    // A Package #0 whose digest is that of an older account, as the restored gateway would send it.
    const package0 = encodeNotification(
      { uiMode: 0, serverInitiated: true, sessionId: 7, serverId: 'gw-1' },
      'an older secret',
      new Uint8Array(16),
    );
    await stranger.call(port, { method: Code.POST, path: ['dmn'], payload: package0 });
    await Promise.all(back);
    await settled(life, headend);
    assert.deepEqual(
      [first, second, sensor].map((id) => listed(headend, id)),
      [3, 2, 2],
    );
    assert.equal(life.site.gatewayEvents.count('session.stale-account'), 1);
  });

  test('restored: an alert that waits in the backup and was delivered since is not listed a second time', async (t) => {
    await using broker = await startAedes();
    const life = await begin(t, broker);
    await life.start({ tunnel: { timeout: 1 } });
    const device = life.site.device(first, life.gateway, { factory: true });
    await device.start();
    await life.site.gatewayEvents.until('device.attached', { device: first });
    const backup = `${life.file}.backup`;
    await life.gateway.backUp({ target: backup });
    const headend = await life.site.headend([]);
    await life.site.gatewayEvents.until('alert.delivered', { device: first });
    const state = freshState(t);
    const other = await life.attach(second, state);
    await settled(life, headend);
    await other[Symbol.asyncDispose]();
    await life.stop();
    restoreState(backup, life.file, [gatewaySchema]);
    const repeated = life.site.gatewayEvents.next('alert.delivered', { device: first });
    await life.start();
    await repeated;
    assert.equal(listed(headend, first), 1);
    await life.attach(second, state);
    await settled(life, headend);
    assert.equal(listed(headend, second), 2, 'the next one has a number of the lost time, in a new epoch');
  });

  test('taken back with its lock, as by a snapshot of the disk: the server notices, and lists what is new', async (t) => {
    await using broker = await startAedes();
    const life = await begin(t, broker);
    const headend = await life.site.headend([]);
    await life.start();
    const states = [freshState(t), freshState(t)] as const;
    await (await life.attach(first, states[0]))[Symbol.asyncDispose]();
    await settled(life, headend);
    await life.stop();
    const files = [life.file, `${life.file}.lock`];
    for (const file of files) copyFileSync(file, `${file}.snapshot`);
    await life.start();
    await (await life.attach(second, states[1]))[Symbol.asyncDispose]();
    await settled(life, headend);
    await life.stop();
    for (const file of [...files, `${life.file}-wal`, `${life.file}-shm`]) rmSync(file, { force: true });
    for (const file of files) copyFileSync(`${file}.snapshot`, file);
    await life.start();
    assert.equal(life.site.gatewayEvents.count('state.new-epoch'), 1, 'the lock shows no difference');
    const noticed = life.site.gatewayEvents.until('state.taken-back', { server: 'dm.example' });
    await life.attach(second, states[1]);
    const epoch = String((await noticed).fields.epoch);
    await settled(life, headend);
    assert.equal(listed(headend, second), 2);
    await life.site.headendEvents.until('gateway.new-epoch', { gateway: 'gw-1', epoch });
    assert.equal(life.site.gatewayEvents.count('alert.refused'), 0, 'no alert is blamed');
    await life.start();
    const client = life.site.client(sensor, life.gateway);
    const reported = life.site.headendEvents.next('alert.device-attach', { device: sensor });
    await client.start();
    await reported;
    assert.equal(life.site.gatewayEvents.count('state.taken-back'), 1, 'said once');
  });

  test('rolled back to the version before: what it reports with numbers that the later version has used is listed', async (t) => {
    await using broker = await startAedes();
    const life = await begin(t, broker);
    const headend = await life.site.headend([]);
    await life.start();
    await life.attach(first, ':memory:');
    await settled(life, headend);
    await life.stop();
    // The later version migrates the state, with a copy, and reports a device.
    const { length: version } = gatewaySchema.steps;
    await openDatabase(life.file, { ...gatewaySchema, steps: [...gatewaySchema.steps, ''] }).close();
    setVersion(life.file, version);
    await life.start();
    const state = freshState(t);
    const device = await life.attach(second, state);
    await settled(life, headend);
    await device[Symbol.asyncDispose]();
    await life.stop();
    setVersion(life.file, version + 1);
    await life.start();
    assert.deepEqual(
      life.gateway.devices().map(({ deviceId }) => deviceId),
      [first],
    );
    await life.attach(second, state);
    await settled(life, headend);
    assert.deepEqual([listed(headend, first), listed(headend, second)], [1, 2]);
  });
});

function setVersion(file: string, version: number): void {
  using database = new DatabaseSync(file);
  database.exec(`PRAGMA user_version = ${version}`);
}
