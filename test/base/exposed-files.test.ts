import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { exposureOf, tellExposed } from '../../src/base/exposed-files.ts';
import { gatewayConfigSchema } from '../../src/gateway/config.ts';
import { EventRecorder } from '../event-recorder.ts';

/** A folder that all users can open, below one of this test alone. */
function folderOf(t: TestContext, mode = 0o755): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-exposed-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  chmodSync(folder, mode);
  return folder;
}

function fileOf(folder: string, name: string, mode: number, content = 'client-secret = "x"'): string {
  const file = join(folder, name);
  writeFileSync(file, content);
  chmodSync(file, mode);
  return file;
}

test('a file that all users can read or write is exposed; rights of the group are not', (t) => {
  const folder = folderOf(t);
  for (const mode of [0o644, 0o666, 0o604, 0o602, 0o777]) {
    const file = fileOf(folder, `file-${mode}`, mode);
    assert.equal(
      exposureOf(file),
      `all users can open it (mode ${mode.toString(8)}); run chmod 640 ${file} (this user must own it or be in its group)`,
    );
  }
  for (const mode of [0o600, 0o640, 0o660, 0o400, 0o641])
    assert.equal(exposureOf(fileOf(folder, `file-${mode}`, mode)), undefined, mode.toString(8));
});

test('what counts is the file behind a link, and each folder on the way to it', (t) => {
  const folder = folderOf(t);
  mkdirSync(join(folder, 'closed'), { mode: 0o750 });
  mkdirSync(join(folder, 'closed/open'), { mode: 0o755 });
  const inside = fileOf(join(folder, 'closed/open'), 'file', 0o666);
  assert.equal(exposureOf(inside), undefined);
  symlinkSync(inside, join(folder, 'to-closed'));
  assert.equal(exposureOf(join(folder, 'to-closed')), undefined);
  chmodSync(join(folder, 'closed'), 0o751);
  assert.match(exposureOf(join(folder, 'to-closed')) ?? '', /mode 666/);
});

test('nothing is said of a pipe, a folder, a device, a file that is gone, and one whose folder is', (t) => {
  const folder = folderOf(t);
  execFileSync('mkfifo', ['-m', '666', join(folder, 'pipe')]);
  for (const odd of [
    join(folder, 'pipe'),
    folder,
    '/dev/null',
    join(folder, 'gone'),
    join(folder, 'gone/gone'),
  ])
    assert.equal(exposureOf(odd), undefined, odd);
});

test('FAT has no rights, so its files are not exposed', (t) => {
  const [image, at] = [`${folderOf(t)}/image`, folderOf(t)];
  try {
    execFileSync('truncate', ['-s', '1M', image]);
    execFileSync('mkfs.vfat', [image], { stdio: 'pipe' });
    execFileSync('mount', ['-o', 'loop,umask=000', image, at], { stdio: 'pipe' });
  } catch {
    return t.skip('no FAT can be mounted here');
  }
  t.after(() => {
    execFileSync('umount', [at]);
    mkdirSync(join(at, 'x'));
    rmdirSync(join(at, 'x'));
  });
  writeFileSync(join(at, 'gateway.toml'), 'client-secret = "x"');
  assert.equal(exposureOf(join(at, 'gateway.toml')), undefined);
});

test('the configuration is told if it has secrets, and each private key that it names; each file once', (t) => {
  const folder = folderOf(t);
  const events = new EventRecorder();
  const file = fileOf(folder, 'gateway.toml', 0o644, '[gateway]\nid = "gw-1"\n');
  const key = fileOf(folder, 'key', 0o644, 'a key');
  const cert = fileOf(folder, 'cert', 0o644, 'a certificate');
  const parts = { events, file, schema: gatewayConfigSchema, told: new Set<string>() };
  const config = {
    mqtt: { key, cert },
    http: { 'tls-key': key, 'tls-cert': cert },
    coaps: { 'key-file': 'gone' },
  };
  tellExposed(parts, config);
  tellExposed(parts, config);
  const files = () => events.all.map(({ name, fields }) => [name, fields.file]);
  assert.deepEqual(files(), [['config.exposed', key]]);
  for (const content of [
    'client-secret = "x"',
    'device = [{ identity = "a", key = "b" }]',
    '"password"="x"',
    'url = "mqtt://user:word@broker.example"',
  ]) {
    events.all.length = 0;
    fileOf(folder, 'gateway.toml', 0o644, content);
    tellExposed({ ...parts, told: new Set([key]) }, config);
    assert.deepEqual(files(), [['config.exposed', file]], content);
  }
});
