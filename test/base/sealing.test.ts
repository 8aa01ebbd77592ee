import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemEntropy } from '../../src/base/entropy.ts';
import { PlatformSealing, Sealing } from '../../src/base/sealing.ts';

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

/** A folder of this test, and a file for a key in it. */
function keyFile(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-key-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return join(folder, 'state.db.key');
}

test('the key is made when it is first needed, for this user only, and used again', (t) => {
  const file = keyFile(t);
  const first = new PlatformSealing({ file }, systemEntropy);
  assert.equal(existsSync(file), false);
  assert.equal(first.open(Buffer.alloc(64), 'a'), undefined);
  const sealed = first.seal(Buffer.from('secret'), 'a');
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.equal(new PlatformSealing({ file }, systemEntropy).open(sealed, 'a')?.toString(), 'secret');
});

test('a key that cannot be written refuses what is to be sealed, until it can be', (t) => {
  const folder = join(keyFile(t), 'not there yet');
  const sealing = new PlatformSealing({ file: join(folder, 'key') }, systemEntropy);
  assert.throws(() => sealing.seal(Buffer.of(1), 'a'), { code: 'storage', message: /key cannot be written/ });
  mkdirSync(folder, { recursive: true });
  assert.equal(sealing.open(sealing.seal(Buffer.of(1), 'a'), 'a')?.[0], 1);
});

test('a file that holds no key is refused, and stays as it is', (t) => {
  const file = keyFile(t);
  for (const content of [Buffer.alloc(0), Buffer.alloc(31), Buffer.alloc(33)]) {
    writeFileSync(file, content);
    assert.throws(() => new PlatformSealing({ file }, systemEntropy), {
      code: 'configuration',
      message: /holds \d+ bytes, and no key of 32/,
    });
    assert.deepEqual(readFileSync(file), content);
  }
  rmSync(file);
  mkdirSync(file);
  assert.throws(() => new PlatformSealing({ file }, systemEntropy), {
    code: 'configuration',
    message: /cannot be read/,
  });
});

test('a command gives the key as bytes or as digits; one that fails or prints something else is refused', (t) => {
  const file = keyFile(t);
  const key = systemEntropy.bytes(32);
  writeFileSync(file, key);
  const sealed = new Sealing(key, systemEntropy).seal(Buffer.from('secret'), 'a');
  const by = (...command: string[]) => new PlatformSealing({ command }, systemEntropy);
  assert.equal(by('cat', file).open(sealed, 'a')?.toString(), 'secret');
  assert.equal(by('echo', Buffer.from(key).toString('hex')).open(sealed, 'a')?.toString(), 'secret');
  for (const [command, message] of [
    [['echo', 'no key'], /printed 7 bytes/],
    [['false'], /gave no key: it ended with 1/],
    [['/there/is/none'], /gave no key: spawnSync .*ENOENT/],
  ] as const)
    assert.throws(() => by(...command), { code: 'configuration', message });
});
