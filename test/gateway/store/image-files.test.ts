import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { hashedName } from '../../../src/base/hashed-name.ts';
import { ImageFiles } from '../../../src/gateway/store/image-files.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-files-'));
after(() => rmSync(folder, { recursive: true }));

test('a full flash is reported as full', () => {
  using files = new ImageFiles(join(folder, 'full'));
  symlinkSync('/dev/full', join(folder, 'full', `${hashedName('a')}.part`));
  assert.throws(() => files.append('a', Buffer.alloc(10), 0), { code: 'full' });
});

test('a file in place of the folder is a configuration error', () => {
  const file = join(folder, 'file');
  writeFileSync(file, '');
  assert.throws(() => new ImageFiles(file), { code: 'configuration' });
});

test('a file is read at any offset, also across read buffers; a new image of the same name is read anew', async () => {
  using files = new ImageFiles(join(folder, 'read'));
  const data = Buffer.alloc(200_000).map((_, at) => at % 251);
  files.append('../x', data.subarray(0, 150_000), 0);
  files.append('../x', data.subarray(150_000), 150_000);
  assert.equal(files.received('../x'), data.length);
  assert.equal((await files.hashPart('../x')).length, 64);
  files.accept('../x');
  for (const [from, length] of [
    [0, 1024],
    [64 * 1024 - 512, 1024],
    [65_536, 1024],
    [199_000, 1024],
  ] as const)
    assert.deepEqual(files.read('../x', from, length), data.subarray(from, from + length));
  assert.ok(!existsSync(join(folder, 'x')), 'a name is no path');
  files.append('../x', Buffer.from('new'), 0);
  files.accept('../x');
  assert.equal(Buffer.from(files.read('../x', 0, 10)).toString(), 'new');
  assert.equal(files.bytes, 3);
  files.drop('../x');
  assert.throws(() => files.read('../x', 0, 1), { code: 'notFound' });
});

test('files without a configured folder are deleted at the end', () => {
  const files = new ImageFiles(undefined);
  files.append('a', Buffer.from('x'), 0);
  assert.equal(files.bytes, 1);
  files[Symbol.dispose]();
  assert.throws(() => files.bytes);
});
