import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  blockBytes,
  indexSize,
  makeIndex,
  readIndex,
  writeIndex,
} from '../../../src/gateway/store/block-index.ts';
import { makeAuthority } from '../update/signing.ts';

const squashfs = (bytes: number) => Buffer.concat([Buffer.from('hsqs'), randomBytes(Math.max(0, bytes - 4))]);

test('the index that is made of a file is the one that is made of its bytes, and says where its blocks begin', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-index-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'file');
  const program = randomBytes(3 * blockBytes);
  const bundle = makeAuthority('ours').sign(program, { version: '1.0.0' });
  const head = bundle.length - program.length;
  for (const [file, first] of [
    [randomBytes(1), 1],
    [randomBytes(blockBytes), blockBytes],
    [randomBytes(blockBytes + 1), blockBytes],
    [randomBytes(16 * blockBytes), blockBytes],
    [randomBytes(17 * blockBytes + 5), blockBytes],
    [randomBytes(33 * blockBytes), blockBytes],
    [squashfs(4), 4],
    [squashfs(96), 96],
    [squashfs(97), 96],
    [squashfs(96 + 16 * blockBytes), 96],
    [squashfs(96 + 40 * blockBytes + 1), 96],
    [bundle, head % blockBytes],
    // Lines that do not end.
    [Buffer.from('postern-update 1\nx'), 17 + 1],
  ] as const) {
    writeFileSync(path, file);
    const sha256 = createHash('sha256').update(file).digest('hex');
    const made = await makeIndex(path, sha256, file.length);
    const read = readIndex(made, 1024 * 1024);
    assert.deepEqual([read.first, read.total, read.sha256], [first, file.length, sha256]);
    assert.ok(made.equals(writeIndex(file, first)));
    assert.ok(made.length <= indexSize(file.length));
  }
  await assert.rejects(makeIndex(path, '00'.repeat(32), 5000), { code: 'internal' });
});
