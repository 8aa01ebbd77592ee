import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemEntropy } from '../../src/base/entropy.ts';
import { Sealing, sealingKey } from '../../src/base/sealing.ts';

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

test('the key is made once, for this user only; a file that holds none is refused', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-key-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'state.db.key');
  const key = sealingKey(file, systemEntropy);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.deepEqual(sealingKey(file, systemEntropy), Buffer.from(key));
  writeFileSync(file, readFileSync(file).subarray(1));
  assert.throws(() => sealingKey(file, systemEntropy), { code: 'configuration' });
  assert.throws(() => sealingKey(join(folder, 'none', 'key'), systemEntropy), { code: 'configuration' });
});
