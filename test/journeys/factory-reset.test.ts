import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Device } from '../../src/device/device.ts';
import { EventRecorder } from '../event-recorder.ts';
import { DepartingBoard, deviceId } from './departing-board.ts';
import { EnrolmentSite } from './enrolment-site.ts';
import { deviceConfig } from './site.ts';

const program = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const limit = { timeout: 120_000 };
const allow = [{ gateway: 'gw-1' }];

async function device(site: EnrolmentSite, port: number): Promise<void> {
  const top = {
    network: { gateway: `coap://127.0.0.1:${port}`, interface: '127.0.0.1', 'attach-every': 10 },
  };
  const config = deviceConfig(deviceId, { coapPort: port }, { factory: true, top });
  const made = site.use(new Device(config, { events: new EventRecorder() }));
  await made.start();
  await made.attached;
  await made[Symbol.asyncDispose]();
}

/** A gateway with one device, at its head-end. */
async function open() {
  const site = await EnrolmentSite.open();
  const headend = await site.headend({ allow });
  const board = await DepartingBoard.make(site);
  const running = board.start();
  await running.until('gateway.started');
  await running.until('mqtt.connected');
  await device(site, board.port);
  await site.headendEvents.until('alert.device-attach', { device: deviceId, gateway: 'gw-1' });
  const postern = (...args: string[]) =>
    spawnSync(process.execPath, [program, ...args, '--socket', board.socket], { encoding: 'utf8' });
  return {
    ...{ site, headend, board, running, postern },
    /** Names of the devices that the gateway has, as its DM server reads them. */
    async devices(): Promise<string[]> {
      const [got] = await headend.manage('gw-1', [{ name: 'Get', uri: './GwDeviceInventory/Records' }]);
      return String(got?.results[0]?.data ?? '')
        .split('/')
        .filter((one) => one !== '');
    },
    async [Symbol.asyncDispose]() {
      await board[Symbol.asyncDispose]();
      await site[Symbol.asyncDispose]();
    },
  };
}

test(
  'the DM server resets a gateway by its name: it forgets its devices, goes on with its identity, and says by whom',
  limit,
  async () => {
    await using made = await open();
    const { headend, running, site } = made;
    const exec = (data: string) => headend.manage('gw-1', [{ name: 'Exec', uri: './GwOwner/Reset', data }]);
    for (const other of ['gw-2', '', 'GW-1']) assert.equal((await exec(other))[0]?.status, 400, other);
    assert.equal((await made.devices()).length, 1);
    const told = site.headendEvents.until('alert.gateway-fault', { kind: 'reset' });
    const [outcome] = await exec('gw-1');
    assert.equal(outcome?.status, 202);
    await running.until('gateway.reset', { by: 'dm.example' });
    assert.match(String((await told).fields.reason), /dm\.example/);
    assert.deepEqual(await made.devices(), []);
    // Its device bootstraps again.
    await device(site, made.board.port);
    assert.equal((await made.devices()).length, 1);
  },
);

test('somebody at the machine resets it by its name, and by no other', limit, async () => {
  await using made = await open();
  const wrong = made.postern('reset', 'gw-2');
  assert.deepEqual([wrong.status, /this is gw-1: name it/.test(wrong.stderr)], [1, true], wrong.stderr);
  assert.equal((await made.devices()).length, 1);
  const right = made.postern('reset', 'gw-1');
  assert.equal(right.status, 0, right.stderr);
  assert.match(right.stdout, /^gw-1 deletes its state and starts anew/);
  await made.site.headendEvents.until('alert.gateway-fault', { kind: 'reset' });
  assert.deepEqual(await made.devices(), []);
  assert.deepEqual(
    readdirSync(dirname(made.board.state)).filter((name) => name.startsWith('reset-')),
    [],
  );
});

test(
  'a reset that was ordered before a power cut is carried out, and one that was carried out is told',
  limit,
  async () => {
    await using made = await open();
    const { board, site } = made;
    const mark = join(dirname(board.state), 'reset-state.db');
    // The order is on the disk, and nothing else was done.
    await board.kill();
    writeFileSync(mark, 'dm.example');
    const next = board.start();
    await next.until('gateway.reset', { by: 'dm.example' });
    await site.headendEvents.until('alert.gateway-fault', { kind: 'reset' });
    assert.deepEqual(await made.devices(), []);
    // The state is deleted, and nobody was told.
    await board.kill();
    writeFileSync(`${mark}-done`, 'admin');
    const last = board.start();
    await last.until('gateway.started');
    await site.headendEvents.until('alert.gateway-fault', { kind: 'reset', reason: 'by order of admin' });
    await last.until('mqtt.connected');
    assert.deepEqual([existsSync(mark), existsSync(`${mark}-done`)], [false, false]);
  },
);

test('an order that cannot be stored changes nothing', limit, async () => {
  await using made = await open();
  const mark = join(dirname(made.board.state), 'reset-state.db');
  mkdirSync(join(mark, 'x'), { recursive: true });
  const { status, stderr } = made.postern('reset', 'gw-1');
  assert.equal(status, 1, stderr);
  assert.equal((await made.devices()).length, 1);
  rmdirSync(join(mark, 'x'));
  rmdirSync(mark);
  assert.equal(made.postern('reset', 'gw-1').status, 0);
});
