import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { transaction } from '../../../src/base/database.ts';
import { type UpdateRecord, UpdateRecords } from '../../../src/gateway/store/update-record.ts';
import { FumoRefusal } from '../../../src/mo/fumo.ts';
import { FailingDisk } from '../store/failing-disk.ts';
import { gateway, machine, type Settings, until } from './trial-rig.ts';

/** Installs a bundle in slot B, and restarts into it. */
async function installed(made: ReturnType<typeof machine>, settings: Settings = {}) {
  const file = join(made.folder, 'new.bundle');
  writeFileSync(file, 'bundle');
  const before = gateway(made, settings);
  before.updater.start();
  before.updater.begin({
    operation: 'DownloadAndUpdate',
    url: `file:${file}`,
    correlator: 'c',
    server: 'dm',
  });
  await until(before, () => before.calls.includes('restart'));
  return before;
}

describe('a new version on trial', { timeout: 30_000 }, () => {
  for (const [what, devices] of [
    ['the same devices', ['d1', 'd2']],
    ['a new device', ['d1', 'd2', 'new']],
  ] as const)
    test(`is kept with ${what}`, async (t) => {
      const board = machine(t);
      await (await installed(board)).updater[Symbol.asyncDispose]();
      const next = gateway(board, { slot: 'B', devices });
      next.updater.start();
      await until(next, () => next.ended.length > 0);
      assert.deepEqual([next.ended[0]?.result, board.boot.read().good, next.calls], [200, 'B', []]);
    });

  test('is not kept if it lost devices, also not at its second start', async (t) => {
    const board = machine(t);
    await (await installed(board)).updater[Symbol.asyncDispose]();
    for (const start of ['first', 'second']) {
      const next = gateway(board, { slot: 'B', devices: ['d1', 'other'] });
      next.updater.start();
      await until(next, () => next.calls.includes('restart'));
      assert.equal(
        next.events.all.find(({ name }) => name === 'update.not-healthy')?.fields.reason,
        'devices are missing: 1 of 2',
        start,
      );
      await next.updater[Symbol.asyncDispose]();
    }
  });

  test('is kept if devices left before the restart, during the trial, or between two starts', async (t) => {
    const board = machine(t);
    const before = await installed(board, { devices: ['d1', 'd2', 'd3', 'd4'] });
    before.present.pop();
    await before.updater[Symbol.asyncDispose]();
    let isAnswering = false;
    const probe = () => (isAnswering ? undefined : 'CoAP does not answer');
    const first = gateway(board, { slot: 'B', devices: ['d1', 'd2', 'd3'], more: { probe } });
    first.updater.start();
    await first.events.until('update.not-healthy-yet', { reason: 'CoAP does not answer' });
    first.present.pop();
    await first.updater[Symbol.asyncDispose]();
    isAnswering = true;
    const second = gateway(board, { slot: 'B', devices: ['d1', 'd2'], more: { probe } });
    second.updater.start();
    second.present.pop();
    await until(second, () => second.ended.length > 0);
    assert.equal(second.ended[0]?.result, 200);
  });

  test('is not compared with the digest of devices that version 0.1.0 stored', async (t) => {
    const board = machine(t);
    board.boot.change({ trying: 'B', left: 2 });
    const record = { operation: 'Update', url: '', phase: 'trying', slot: 'B', devices: 'ab'.repeat(16) };
    new UpdateRecords(board.database).put(record as unknown as UpdateRecord);
    const next = gateway(board, { slot: 'B' });
    next.updater.start();
    await until(next, () => next.ended.length > 0);
    assert.equal(next.ended[0]?.result, 200);
  });

  for (const [what, wasServed, result] of [
    ['was not there before the update', false, 'kept'],
    ['was there before the update', true, 'given up'],
  ] as const)
    test(`without the network that ${what} is ${result}`, async (t) => {
      const board = machine(t);
      const before = await installed(board, { more: { isServed: () => wasServed } });
      await before.updater[Symbol.asyncDispose]();
      const probe = () => 'CoAP is served at no address';
      const next = gateway(board, { slot: 'B', more: { isServed: () => false, probe } });
      next.updater.start();
      await until(next, () => next.ended.length > 0 || next.calls.length > 0);
      assert.equal(next.ended[0]?.result, wasServed ? undefined : 200);
    });

  test('is checked again after a check has thrown an error', async (t) => {
    const board = machine(t);
    await (await installed(board)).updater[Symbol.asyncDispose]();
    let calls = 0;
    const probe = () => {
      if (calls++ < 3) throw new Error('no socket can be made');
      return undefined;
    };
    const next = gateway(board, { slot: 'B', more: { probe } });
    next.updater.start();
    await until(next, () => next.ended.length > 0);
    assert.equal(next.ended[0]?.result, 200);
    assert.equal(next.events.count('update.not-healthy-yet'), 1, 'it is said once');
  });
});

describe('a good slot', { timeout: 30_000 }, () => {
  test('is healthy when it answers CoAP, and its starts are counted anew; without a network it is healthy as well', async (t) => {
    for (const isServed of [true, false]) {
      const board = machine(t);
      board.boot.change({ starts: 4, spare: 'B' });
      let isDeaf = true;
      const probe = () => (isDeaf ? 'CoAP does not answer' : undefined);
      const made = gateway(board, { more: { probe, isServed: () => isServed } });
      made.updater.start();
      for (let look = 0; look < 20; look++) await turn();
      assert.equal(board.boot.read().starts, isServed ? 4 : 0);
      isDeaf = false;
      await until(made, () => board.boot.read().starts === 0);
      assert.deepEqual([board.boot.read().spare, made.lost], ['B', []]);
      await made.updater[Symbol.asyncDispose]();
    }
  });

  for (const [what, state] of [
    ['did not get healthy', { good: 'A', spare: 'B', failed: 'B', starts: 1 }],
    ['did not start', { good: 'B', starts: 1 }],
  ] as const)
    test(`that runs in place of one that ${what} tells so once, also when the disk refuses that at first`, async (t) => {
      const board = machine(t);
      board.boot.change(state);
      let faults = 0;
      const lost: (string | undefined)[] = [];
      const tell = (slot: string | undefined) => {
        if (faults++ === 0) throw new Error('the disk is full');
        lost.push(slot);
      };
      const made = gateway(board, { more: { lost: tell } });
      made.updater.start();
      await until(made, () => board.boot.read().starts === 0);
      assert.deepEqual([lost, made.events.count('slot.lost')], [['B'], 1]);
      assert.equal(board.boot.read().good, 'A');
      await made.updater[Symbol.asyncDispose]();
      board.boot.change({ starts: 1 });
      const next = gateway(board);
      next.updater.start();
      await until(next, () => board.boot.read().starts === 0);
      assert.deepEqual(next.lost, []);
      await next.updater[Symbol.asyncDispose]();
    });

  test('that the recovery system has written tells so once when it is healthy, and then it is no news any more', async (t) => {
    const board = machine(t);
    board.boot.change({ good: 'B', trying: 'A', left: 2, recovered: true });
    let faults = 0;
    const lost: (string | undefined)[] = [];
    const tell = (slot: string | undefined) => {
      if (faults++ === 0) throw new Error('the disk is full');
      lost.push(slot);
    };
    const made = gateway(board, { more: { lost: tell } });
    made.updater.start();
    await until(made, () => !board.boot.read().recovered);
    assert.deepEqual([lost, made.events.count('slot.recovered')], [[undefined], 1]);
    assert.equal(made.events.count('slot.lost'), 0);
    assert.deepEqual([board.boot.read().good, board.boot.read().spare], ['A', 'B']);
    await made.updater[Symbol.asyncDispose]();
    const next = gateway(board);
    next.updater.start();
    await until(next, () => board.boot.read().starts === 0);
    assert.deepEqual(next.lost, []);
    await next.updater[Symbol.asyncDispose]();
  });

  test('whose boot state cannot be written is kept later; an update that is ordered meanwhile stays ordered', async (t) => {
    const board = machine(t);
    board.boot.change({ starts: 2 });
    const change = board.boot.change.bind(board.boot);
    let faults = 0;
    board.boot.change = (changes) => {
      if (faults++ < 2) throw new Error('the flash is busy');
      return change(changes);
    };
    const made = gateway(board);
    made.updater.start();
    await made.events.until('background.failed', { work: 'update' });
    change({ trying: 'B', left: 3 });
    await until(made, () => board.boot.read().starts === 0);
    assert.deepEqual([board.boot.read().trying, board.boot.read().left], ['B', 3]);
    await made.updater[Symbol.asyncDispose]();
  });
});

describe('an installation that failed', { timeout: 30_000 }, () => {
  test('does not keep the same bundle from being installed when it is ordered again', async (t) => {
    const board = machine(t);
    let isBroken = true;
    const install = async () => {
      if (isBroken) throw new FumoRefusal(410, 'the flash is broken');
    };
    const file = join(board.folder, 'new.bundle');
    writeFileSync(file, 'bundle');
    const made = gateway(board, { install });
    const order = {
      operation: 'DownloadAndUpdate',
      url: `file:${file}`,
      correlator: 'c',
      server: 'dm',
    } as const;
    for (const [at, again] of [order, order, { ...order, operation: 'Update' } as const].entries()) {
      made.updater.begin(again);
      await until(made, () => made.events.count('update.failed') > at);
      await turn();
      assert.deepEqual([made.ended[at]?.result, made.updater.status().reason], [410, 'the flash is broken']);
    }
    assert.deepEqual(made.calls, ['install', 'install', 'install']);
    isBroken = false;
    made.updater.begin(order);
    await until(made, () => made.calls.includes('restart'));
    assert.deepEqual(made.calls.slice(3), ['install', 'restart']);
    const { trying, left } = board.boot.read();
    assert.deepEqual([trying, left], ['B', 2]);
    await made.updater[Symbol.asyncDispose]();
    // It does not become healthy, twice, and the same bundle is ordered once more.
    board.boot.change({ trying: undefined, left: 0, failed: 'B' });
    const back = gateway(board, {});
    back.updater.start();
    await until(back, () => back.events.count('update.failed') > 0);
    await turn();
    assert.equal(back.ended[0]?.result, 410);
    back.updater.begin(order);
    await until(back, () => back.calls.includes('restart'));
    assert.deepEqual(back.calls, ['install', 'restart']);
    assert.equal(board.boot.read().trying, 'B');
    await back.updater[Symbol.asyncDispose]();
  });
});

describe('an update on a disk that takes no writes', { timeout: 30_000 }, () => {
  test('is refused; the package that is there stays, and the next order is taken', async (t) => {
    const board = machine(t);
    using disk = new FailingDisk();
    const made = gateway(board);
    writeFileSync(join(board.folder, 'update.bundle'), 'bundle');
    disk.failAfter(0, { staysFull: true });
    const order = { operation: 'Download', url: 'file:/nowhere', correlator: undefined } as const;
    assert.throws(() => made.updater.begin(order), { code: 'storage' });
    disk.mend();
    made.updater.begin({ ...order, operation: 'Update' });
    await until(made, () => made.calls.includes('restart'));
    await made.updater[Symbol.asyncDispose]();
  });

  test('ends when there is room again; the start does not wait for that', async (t) => {
    const board = machine(t);
    new UpdateRecords(board.database).put({
      operation: 'Update',
      url: '',
      phase: 'installing',
      server: 'dm',
    });
    using disk = new FailingDisk();
    const made = gateway(board);
    disk.failAfter(0, { staysFull: true });
    made.updater.start();
    await made.events.until('background.failed', { work: 'update' });
    for (let look = 0; look < 50; look++) {
      made.clock.advance(100_000);
      await turn();
    }
    assert.equal(made.events.count('background.failed'), 2, 'the first and the tenth failure are said');
    assert.equal(made.ended.at(-1), undefined);
    disk.mend();
    await until(made, () => made.events.count('update.failed') > 0);
    assert.equal(made.ended.at(-1)?.result, 410);
    assert.equal(new UpdateRecords(board.database).get(), undefined);
    await made.updater[Symbol.asyncDispose]();
  });

  test('a device that leaves during the trial is not missed, also after a power cut', async (t) => {
    const board = machine(t);
    const devices = ['d1', 'd2', 'd3'];
    await (await installed(board, { devices })).updater[Symbol.asyncDispose]();
    const first = gateway(board, { slot: 'B', devices, more: { probe: () => 'CoAP does not answer yet' } });
    first.updater.start();
    await first.events.until('update.not-healthy-yet');
    transaction(board.database, () => new UpdateRecords(board.database).deviceLeft('d3'));
    // The power is cut: the first start does not end in an orderly way.
    const second = gateway(board, { slot: 'B', devices: ['d1', 'd2'] });
    second.updater.start();
    await until(second, () => second.ended.length > 0);
    assert.deepEqual([second.ended[0]?.result, board.boot.read().good], [200, 'B']);
  });

  test('a boot state that cannot be written is written later', async (t) => {
    const board = machine(t);
    await (await installed(board)).updater[Symbol.asyncDispose]();
    const next = gateway(board, { slot: 'B' });
    const change = board.boot.change.bind(board.boot);
    let faults = 0;
    board.boot.change = (changes) => {
      if (faults++ < 2) throw new Error('the flash is busy');
      return change(changes);
    };
    next.updater.start();
    await until(next, () => next.ended.length > 0);
    assert.deepEqual([next.ended[0]?.result, board.boot.read().good], [200, 'B']);
    assert.equal(next.events.count('background.failed'), 1);
  });

  test('an agent of the image that does not run is asked for the restart again', async (t) => {
    const board = machine(t);
    let asked = 0;
    const restart = () => {
      if (asked++ < 3) throw new FumoRefusal(410, 'the agent of the image does not run');
    };
    const before = await installed(board, { restart });
    await until(before, () => asked === 4);
    assert.equal(before.ended.length, 0);
    assert.equal(before.events.count('background.failed'), 1);
    await before.updater[Symbol.asyncDispose]();
  });
});
