// Before all that it stands in front of.
import '../faults/failing-storage.ts';

import assert from 'node:assert/strict';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { systemEntropy } from '../../src/base/entropy.ts';
import { Sealing, SealingKey } from '../../src/base/sealing.ts';
import { unwatch, watch } from '../faults/failing-storage.ts';
import { SmallDisk } from '../peers/small-disk.ts';
import { freshState } from '../state-files.ts';

test('what is sealed opens with the same key and name only, and not when a bit was changed', () => {
  const sealing = new Sealing(systemEntropy.bytes(32), systemEntropy);
  const sealed = sealing.seal(Buffer.from('secret'), 'device');
  assert.equal(sealing.open(sealed, 'device')?.toString(), 'secret');
  assert.equal(sealing.open(sealed, 'other'), undefined);
  assert.equal(new Sealing(systemEntropy.bytes(32), systemEntropy).open(sealed, 'device'), undefined);
  for (let at = 0; at < sealed.length; at++) {
    const changed = Buffer.from(sealed);
    changed[at]! ^= 1;
    assert.equal(sealing.open(changed, 'device'), undefined);
    assert.equal(sealing.open(sealed.subarray(0, at), 'device'), undefined);
  }
  assert.notDeepEqual(sealing.seal(Buffer.from('secret'), 'device'), sealed);
});

/** The key of a file, and what was told of the file. */
function keyOf(file: string) {
  const told: string[] = [];
  const key = new SealingKey(file, systemEntropy, (reason) => told.push(reason));
  return { key, told, bytes: Buffer.from(key.bytes) };
}

test('the key is made once, for this user only; a file that holds none is set aside', (t) => {
  const file = `${freshState(t)}.key`;
  const first = keyOf(file);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.deepEqual([keyOf(file).bytes, first.told], [first.bytes, []]);
  const cut = readFileSync(file).subarray(1);
  writeFileSync(file, cut);
  const second = keyOf(file);
  assert.match(
    second.told.join(),
    /^the file holds 31 bytes and no key of 32; it is set aside as .*corrupt$/,
  );
  assert.notDeepEqual(second.bytes, first.bytes);
  assert.deepEqual([keyOf(file).bytes, keyOf(file).told], [second.bytes, []]);
  assert.deepEqual(readFileSync(`${file}.corrupt`), cut);
});

test('a key that the disk does not take, at any of its writes, is told once, used, and stored later', (t) => {
  for (let at = 0; ; at++) {
    const file = `${freshState(t)}.key`;
    const watched = watch(dirname(file), at);
    try {
      const { key, told, bytes } = keyOf(file);
      if (watched.failed === undefined) {
        assert.deepEqual(watched.places, ['write', 'fsync', 'rename', 'fsync'], 'file, name and folder');
        return;
      }
      assert.match(told.join(), /^the key cannot be stored: E/, `${at}`);
      watched.refuses = /./;
      key.keep();
      assert.equal(told.length, 1);
      watched.refuses = undefined;
      key.keep();
      assert.deepEqual([keyOf(file).bytes, keyOf(file).told], [bytes, []]);
      const places = watched.places.length;
      key.keep();
      assert.equal(watched.places.length, places, 'it is stored');
    } finally {
      unwatch(dirname(file));
    }
  }
});

test('a key on a full disk, and on a read-only one', (t) => {
  const disk = SmallDisk.mount(1);
  if (!disk) return t.skip('file systems cannot be mounted here');
  t.after(() => disk[Symbol.dispose]());
  const file = join(disk.folder, 'state.db.key');
  disk.fill();
  const { key, told, bytes } = keyOf(file);
  assert.match(told.join(), /^the key cannot be stored: ENOSPC/);
  disk.clear();
  key.keep();
  disk.setReadOnly(true);
  assert.deepEqual([keyOf(file).bytes, keyOf(file).told], [bytes, []]);
  const other = keyOf(`${file}.other`);
  assert.match(other.told.join(), /^the key cannot be stored: EROFS/);
  assert.equal(other.bytes.length, 32);
});
