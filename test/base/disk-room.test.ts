import assert from 'node:assert/strict';
import { mkdirSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { DiskRoom, isDiskFull } from '../../src/base/disk-room.ts';
import { smallDisk } from '../small-disk.ts';

const mebibyte = 1024 * 1024;

for (const kind of ['tmpfs', 'ext4'] as const)
  test(`part of a disk stays free, and what is reserved is not given twice (${kind})`, (t) => {
    const folder = smallDisk(t, 16, kind);
    if (!folder) return;
    const free = () => {
      const { bavail, bsize } = statfsSync(folder);
      return bavail * bsize;
    };
    const room = new DiskRoom(4 * mebibyte);
    const all = free() - 4 * mebibyte;
    assert.equal(room.left(folder, 'a'), all);
    assert.throws(() => room.reserve('a', folder, all + 1), { code: 'full' });
    room.reserve('a', folder, all - mebibyte);
    assert.equal(room.left(folder, 'b'), mebibyte);
    assert.throws(() => room.reserve('b', folder, 2 * mebibyte), {
      code: 'full',
      message: /no room on the disk/,
    });
    room.reserve('b', folder, mebibyte);
    // While a file grows, its own reservation shrinks.
    writeFileSync(join(folder, 'a'), Buffer.alloc(5 * mebibyte));
    room.reserve('a', folder, all - 6 * mebibyte);
    room.release('b');
    assert.ok(Math.abs(room.left(folder, 'b') - mebibyte) < mebibyte / 4);
    // Others write too, and the room for the state is used.
    writeFileSync(join(folder, 'b'), Buffer.alloc(free() - mebibyte));
    assert.ok(room.left(folder, 'c') < 0);
    assert.throws(() => room.reserve('c', folder, 1), { code: 'full' });
    room.reserve('c', folder, 0);
    assert.throws(() => writeFileSync(join(folder, 'd'), Buffer.alloc(3 * mebibyte)), isDiskFull);
  });

test('a reservation on one disk takes no room on another', (t) => {
  const [one, other] = [smallDisk(t, 8), smallDisk(t, 8)];
  if (!one || !other) return;
  const room = new DiskRoom(0);
  room.reserve('a', one, 8 * mebibyte);
  assert.equal(room.left(one, 'b'), 0);
  const folder = join(other, 'below');
  mkdirSync(folder);
  assert.ok(room.left(folder, 'b') > 7 * mebibyte);
});

test('a file system that has no size has room', (t) => {
  const room = new DiskRoom(mebibyte);
  const folder = smallDisk(t, 0);
  if (folder) assert.equal(room.left(folder, 'a'), Number.POSITIVE_INFINITY);
});
