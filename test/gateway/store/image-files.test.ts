import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, test } from 'node:test';
import { hashedName } from '../../../src/base/hashed-name.ts';
import { ImageFiles } from '../../../src/gateway/store/image-files.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-files-'));
after(() => rmSync(folder, { recursive: true }));

const sha = (data: Uint8Array) => createHash('sha256').update(data).digest('hex');

/** Receives an image in pieces, and gives it its final name. Returns its hash. */
async function receive(files: ImageFiles, name: string, ...pieces: Uint8Array[]): Promise<string> {
  const part = files.part(name);
  let at = 0;
  for (const data of pieces) {
    const file = await part.open('http://files.example', '"v1"', at);
    await file.write(data, 0, data.length, at);
    await file.close();
    at += data.length;
  }
  const path = part.path('http://files.example', '"v1"');
  const hash = await files.hash(path);
  await files.accept(name, hash, path);
  return hash;
}

test('a full flash is reported as full', () => {
  using files = new ImageFiles(join(folder, 'full'));
  symlinkSync('/dev/full', files.part('a').path('', undefined));
  assert.throws(() => files.put('a', 'ab'.repeat(32), Buffer.alloc(10)), { code: 'full' });
  assert.deepEqual(readdirSync(files.directory), [], 'nothing holds room');
});

test('a file in place of the folder is a configuration error', () => {
  const file = join(folder, 'file');
  writeFileSync(file, '');
  assert.throws(() => new ImageFiles(file), { code: 'configuration' });
});

test('a file is read at any offset, also across read buffers; another version of the image is stored beside it', async () => {
  using files = new ImageFiles(join(folder, 'read'));
  const data = Buffer.alloc(200_000).map((_, at) => at % 251);
  const hash = await receive(files, '../x', data.subarray(0, 150_000), data.subarray(150_000));
  assert.equal(hash, sha(data));
  assert.equal(files.size('../x', hash), data.length);
  for (const [from, length] of [
    [0, 1024],
    [64 * 1024 - 512, 1024],
    [65_536, 1024],
    [199_000, 1024],
  ] as const)
    assert.deepEqual(files.read('../x', hash, from, length), data.subarray(from, from + length));
  assert.ok(!existsSync(join(folder, 'x')), 'a name is no path');
  const other = sha(Buffer.from('new'));
  files.put('../x', other, Buffer.from('new'));
  assert.equal(Buffer.from(files.read('../x', other, 0, 10)).toString(), 'new');
  assert.equal(files.read('../x', hash, 0, 10).length, 10, 'the version before is still there');
  files.drop('../x', hash);
  assert.equal(files.bytes, 3);
  assert.throws(() => files.read('../x', hash, 0, 1), { code: 'notFound' });
});

test('bytes of one version are no bytes of another, nor of another URL', async () => {
  using files = new ImageFiles(join(folder, 'versions'));
  const part = files.part('a');
  const first = await part.open('http://files.example/a', '"v1"', 0);
  await first.write(Buffer.alloc(10));
  await first.close();
  assert.equal(part.received('http://files.example/a', '"v1"'), 10);
  assert.equal(part.received('http://files.example/a', '"v2"'), 0);
  assert.equal(part.received('http://files.example/b', '"v1"'), 0);
  const cut = await part.open('http://files.example/a', '"v1"', 4);
  await cut.close();
  assert.equal(part.received('http://files.example/a', '"v1"'), 4, 'what is behind the place goes');
  await (await part.open('http://files.example/a', '"v2"', 0)).close();
  assert.equal(part.received('http://files.example/a', '"v1"'), 0, 'the other version frees its room');
});

test('what a power cut left goes; what records lead to and what others put there stays', async () => {
  using files = new ImageFiles(join(folder, 'sweep'));
  const kept = sha(Buffer.from('kept'));
  files.put('kept', kept, Buffer.from('kept'));
  files.put('kept', sha(Buffer.from('newer')), Buffer.from('newer'));
  // As version 0.1.0 named it.
  writeFileSync(join(files.directory, hashedName('old')), 'old');
  writeFileSync(join(files.directory, `${hashedName('old')}.part`), 'half');
  writeFileSync(join(files.directory, hashedName('gone')), 'gone');
  writeFileSync(join(files.directory, 'README'), 'not ours');
  for (const name of ['coming', 'cancelled']) {
    const file = await files.part(name).open('http://files.example', undefined, 0);
    await file.close();
  }
  files.sweep(
    new Map([
      ['kept', kept],
      ['old', sha(Buffer.from('old'))],
    ]),
    ['coming'],
  );
  assert.deepEqual(
    readdirSync(files.directory).toSorted(),
    [
      'README',
      basename(files.path('kept', kept)),
      hashedName('old'),
      basename(files.part('coming').path('http://files.example', undefined)),
    ].toSorted(),
  );
  assert.equal(Buffer.from(files.read('old', sha(Buffer.from('old')), 0, 9)).toString(), 'old');
});

test('files without a configured folder are deleted at the end', () => {
  const files = new ImageFiles(undefined);
  files.put('a', sha(Buffer.from('x')), Buffer.from('x'));
  assert.equal(files.bytes, 1);
  files[Symbol.dispose]();
  assert.throws(() => files.bytes);
});
