import assert from 'node:assert/strict';
import { copyFileSync, truncateSync } from 'node:fs';
import { test } from 'node:test';
import { systemEntropy } from '../../../src/base/entropy.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { backUp } from '../../../src/base/state-copies.ts';
import { Epoch } from '../../../src/gateway/store/epoch.ts';
import { Outbox } from '../../../src/gateway/store/outbox.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { freshState, releasedState } from '../../state-files.ts';

/** One start of a gateway, in which it reports devices. Returns its epoch and what waits then. */
async function life(file: string, ...devices: string[]) {
  await using database = openDatabase(file, gatewaySchema);
  const epoch = new Epoch(database, systemEntropy);
  const outbox = new Outbox(database, 100, epoch);
  for (const device of devices) outbox.add('device-attach', device, '{}');
  const waiting = outbox.peek(100).map(({ epoch: of, sequence, deviceId }) => ({ of, sequence, deviceId }));
  return { epoch: epoch.value, isNew: epoch.isNew, waiting };
}

test('a restart keeps the epoch', async (t) => {
  const file = freshState(t);
  const first = await life(file, 'a');
  const second = await life(file);
  assert.deepEqual([first.isNew, second.isNew], [true, false]);
  assert.equal(second.epoch, first.epoch);
  assert.match(first.epoch, /^[0-9a-f]{16}$/);
});

test('an older file that was put in place by hand begins a new epoch; alerts that wait keep theirs', async (t) => {
  const file = freshState(t);
  const { epoch } = await life(file, 'a');
  copyFileSync(file, `${file}.by-hand`);
  await life(file, 'b');
  copyFileSync(`${file}.by-hand`, file);
  const back = await life(file, 'c');
  assert.equal(back.isNew, true);
  assert.deepEqual(back.waiting, [
    { of: epoch, sequence: 1, deviceId: 'a' },
    { of: back.epoch, sequence: 2, deviceId: 'c' },
  ]);
  const later = await life(file);
  assert.deepEqual([later.isNew, later.waiting], [false, back.waiting]);
});

test('a copy that was made in the last life begins a new epoch when it takes the place of a damaged file', async (t) => {
  const file = freshState(t);
  const { epoch } = await life(file, 'a');
  await backUp(file, `${file}.copy-1`);
  truncateSync(file, 0);
  const back = await life(file, 'b');
  assert.equal(back.isNew, true);
  assert.deepEqual(
    back.waiting.map(({ of }) => of),
    [epoch, back.epoch],
  );
});

test('alerts that waited in a state of version 0.1.0 have no epoch, and later ones have', async (t) => {
  const { epoch, waiting } = await life(releasedState(t, 'gateway'), 'new');
  const epochs = waiting.map(({ of, deviceId }) => (deviceId === 'new' ? 'new' : of));
  assert.ok(waiting.length > 1);
  assert.deepEqual(new Set(epochs), new Set([undefined, 'new']));
  assert.equal(waiting.at(-1)?.of, epoch);
});

test('an epoch that cannot be stored is stored with the first alert after it', async (t) => {
  const file = freshState(t);
  await life(file, 'a');
  copyFileSync(file, `${file}.by-hand`);
  await life(file, 'b');
  copyFileSync(`${file}.by-hand`, file);
  {
    await using database = openDatabase(file, gatewaySchema);
    database.prepare('PRAGMA query_only = 1').all();
    const epoch = new Epoch(database, systemEntropy);
    const outbox = new Outbox(database, 100, epoch);
    assert.equal(epoch.isNew, true);
    assert.throws(() => outbox.add('device-attach', 'c', '{}'), { code: 'storage' });
    database.prepare('PRAGMA query_only = 0').all();
    outbox.add('device-attach', 'c', '{}');
    assert.deepEqual(
      outbox.peek(10).map(({ epoch: of }) => of === epoch.value),
      [false, true],
    );
  }
  assert.equal((await life(file)).isNew, false);
});

test('a server that knows numbers of this run begins a new epoch for them, once; what waited before keeps its own', async (t) => {
  const file = freshState(t);
  const { epoch: before } = await life(file, 'a');
  {
    await using database = openDatabase(file, gatewaySchema);
    const epoch = new Epoch(database, systemEntropy);
    const outbox = new Outbox(database, 100, epoch);
    outbox.add('device-attach', 'b', '{}');
    const [, entry] = outbox.peek(10);
    assert.deepEqual(entry?.run, { id: epoch.run.id, start: 1 });
    assert.equal(outbox.isOutdated(entry!), false);
    const value = outbox.renewEpoch();
    assert.notEqual(value, undefined);
    assert.equal(outbox.isOutdated(entry!), true);
    assert.equal(outbox.renewEpoch(), undefined);
    outbox.add('device-attach', 'c', '{}');
    assert.deepEqual(
      outbox.peek(10).map(({ epoch: of, run }) => [of, run?.id]),
      [
        [before, undefined],
        [value, epoch.run.id],
        [value, epoch.run.id],
      ],
    );
  }
  const later = await life(file);
  assert.equal(later.isNew, false);
  assert.deepEqual(new Set(later.waiting.map(({ of }) => of)).size, 2);
  assert.equal(later.epoch, later.waiting.at(-1)?.of);
});

test('a first start has an epoch for its numbers alone', async (t) => {
  await using database = openDatabase(freshState(t), gatewaySchema);
  assert.equal(new Epoch(database, systemEntropy).renew(), false);
});
