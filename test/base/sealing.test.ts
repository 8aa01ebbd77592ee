// Before all that it stands in front of.
import '../faults/failing-storage.ts';

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { systemEntropy } from '../../src/base/entropy.ts';
import { PosternError } from '../../src/base/errors.ts';
import { backUpWithKey, keyFileOf, PlatformSealing, Sealing } from '../../src/base/sealing.ts';
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

/** Seals with the key of a file. `told` is what was said of the file. */
function sealingOf(file: string) {
  const told: string[] = [];
  const sealing = new PlatformSealing({ file }, systemEntropy, (reason) => told.push(reason));
  const seal = () => sealing.seal(Buffer.from('secret'), 'a');
  const open = (sealed: Buffer) => sealing.open(sealed, 'a')?.toString();
  return { told, seal, open };
}
const unwritten = { code: 'storage', message: /key .* cannot be written/ };

test('the key is made when it is first needed, for this user only, and used again', (t) => {
  const file = `${freshState(t)}.key`;
  const { seal, open, told } = sealingOf(file);
  assert.equal(existsSync(file), false);
  assert.equal(open(Buffer.alloc(64)), undefined);
  const sealed = seal();
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.equal(sealingOf(file).open(sealed), 'secret');
  assert.deepEqual(told, []);
});

test('a key that the disk does not take, at any of its writes, refuses what is to be sealed, until it does', (t) => {
  for (let at = 0; ; at++) {
    const file = `${freshState(t)}.key`;
    const watched = watch(dirname(file), at);
    try {
      const { seal } = sealingOf(file);
      let sealed: Buffer | undefined;
      try {
        sealed = seal();
      } catch (thrown) {
        assert.match((thrown as Error).message, unwritten.message);
      }
      if (watched.failed === undefined) {
        assert.ok(sealed);
        assert.deepEqual(watched.places, ['write', 'fsync', 'rename', 'fsync'], 'file, name and folder');
        return;
      }
      assert.equal(sealed, undefined, `${at}`);
      const later = seal();
      assert.equal(sealingOf(file).open(later), 'secret', 'what is sealed later opens after a restart');
    } finally {
      unwatch(dirname(file));
    }
  }
});

test('on a full disk and on a read-only one a program starts, opens, and refuses to seal with a new key', (t) => {
  const disk = SmallDisk.mount(1);
  if (!disk) return t.skip('file systems cannot be mounted here');
  t.after(() => disk[Symbol.dispose]());
  const file = join(disk.folder, 'state.db.key');
  disk.fill();
  const { seal } = sealingOf(file);
  assert.throws(seal, unwritten);
  disk.clear();
  const sealed = seal();
  disk.setReadOnly(true);
  assert.equal(sealingOf(file).open(sealed), 'secret');
  const other = sealingOf(`${file}.other`);
  for (let time = 0; time < 3; time++) assert.throws(other.seal, unwritten);
  assert.equal(other.told.length, 1, 'it is told once');
});

test('a file that holds no key is set aside and told, and another key is made', (t) => {
  for (const length of [0, 31, 33]) {
    const file = `${freshState(t)}.key`;
    writeFileSync(file, Buffer.alloc(length));
    const { seal, open, told } = sealingOf(file);
    assert.match(
      told.join(),
      new RegExp(`^the file holds ${length} bytes and no key of 32; it is set aside as .*corrupt-1$`),
    );
    assert.equal(readFileSync(`${file}.corrupt-1`).length, length);
    assert.equal(open(seal()), 'secret');
    assert.deepEqual(sealingOf(file).told, []);
  }
});

test('the key is beside the state file itself, where its name is a symbolic link, and so in backups by both names', async (t) => {
  const file = freshState(t);
  writeFileSync(file, '');
  const link = `${file}.link`;
  symlinkSync(file, link);
  assert.equal(keyFileOf(link), `${file}.key`);
  sealingOf(keyFileOf(link)).seal();
  for (const name of [file, link]) {
    const backup = `${name}.backup`;
    await backUpWithKey(name, backup, async () => writeFileSync(backup, ''));
    assert.deepEqual(readFileSync(keyFileOf(backup)), readFileSync(`${file}.key`));
  }
});

test('without a key, or when the backup fails, there is neither a backup nor a key of one', async (t) => {
  const file = freshState(t);
  const backup = `${file}.backup`;
  const make = async () => writeFileSync(backup, '');
  await assert.rejects(backUpWithKey(file, backup, make), { code: 'notFound' });
  sealingOf(`${file}.key`).seal();
  const full = async () => Promise.reject(new PosternError('storage', 'no room'));
  await assert.rejects(backUpWithKey(file, backup, full), { code: 'storage', message: 'no room' });
  assert.deepEqual([existsSync(backup), existsSync(`${backup}.key`)], [false, false]);
  await backUpWithKey(file, backup, make);
  await assert.rejects(backUpWithKey(file, backup, make), { code: 'conflict' });
  assert.equal(existsSync(`${backup}.key`), true);
});

test('a file that cannot be read stays as it is, and nothing is sealed by another key', (t) => {
  const file = `${freshState(t)}.key`;
  mkdirSync(file);
  const { seal, open, told } = sealingOf(file);
  assert.match(told.join(), /^the key .* is a folder, not a file; name a file in it/);
  assert.throws(seal, { code: 'storage', message: /is a folder/ });
  assert.equal(open(Buffer.alloc(64)), undefined);
  assert.equal(statSync(file).isDirectory(), true);
});

test('a command gives the key as bytes or as digits; one that fails or prints something else is refused', (t) => {
  const file = `${freshState(t)}.key`;
  const key = systemEntropy.bytes(32);
  writeFileSync(file, key);
  const sealed = new Sealing(key, systemEntropy).seal(Buffer.from('secret'), 'a');
  const by = (...command: string[]) =>
    new PlatformSealing({ command }, systemEntropy, (reason) => assert.fail(reason));
  assert.equal(by('cat', file).open(sealed, 'a')?.toString(), 'secret');
  assert.equal(by('echo', Buffer.from(key).toString('hex')).open(sealed, 'a')?.toString(), 'secret');
  for (const [command, message] of [
    [['echo', 'no key'], /printed 7 bytes/],
    [['false'], /gave no key: it ended with 1/],
    [['/there/is/none'], /gave no key: spawnSync .*ENOENT/],
  ] as const)
    assert.throws(() => by(...command), { code: 'configuration', message });
});
