import assert from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { noEvents } from '../../src/base/events.ts';
import { checkPrivateFolder, makePrivateFolder } from '../../src/base/private-folder.ts';
import { AdminApi, askGateway } from '../../src/gateway/console/admin-api.ts';

const isRoot = process.getuid?.() === 0;

function folderFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-private-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

test('a folder is made for this user alone, with all above it that is missing', (t) => {
  const path = join(folderFor(t), 'a', 'b');
  checkPrivateFolder(path, 'x');
  makePrivateFolder(path, 'x');
  assert.equal(statSync(path).mode & 0o777, 0o700);
  makePrivateFolder(path, 'x');
});

test('a folder that others may write in, a link and a file are refused', (t) => {
  const folder = folderFor(t);
  const open = join(folder, 'open');
  mkdirSync(open);
  chmodSync(open, 0o777);
  const shared = join(folder, 'shared');
  mkdirSync(shared);
  chmodSync(shared, 0o1777);
  const link = join(folder, 'link');
  symlinkSync(folder, link);
  const file = join(folder, 'file');
  writeFileSync(file, '');
  for (const [path, message] of [
    [open, /gateway\.admin-socket: .*open can be written by other users \(mode 777\); run chmod go-w on it/],
    [shared, /shared can be written by other users \(mode 1777\); name another folder/],
    [link, /is no folder/],
    [file, /cannot be created|is no folder/],
  ] as const)
    assert.throws(() => makePrivateFolder(path, 'gateway.admin-socket'), { code: 'configuration', message });
});

test('the socket folder of another user is taken neither by the gateway nor by postern status', async (t) => {
  if (!isRoot) return t.skip('only root can give a folder away');
  const before = process.env.XDG_RUNTIME_DIR;
  t.after(() => {
    if (before === undefined) delete process.env.XDG_RUNTIME_DIR;
    else process.env.XDG_RUNTIME_DIR = before;
  });
  const runtime = folderFor(t);
  process.env.XDG_RUNTIME_DIR = runtime;
  const folder = join(runtime, 'postern-0');
  mkdirSync(folder, { mode: 0o700 });
  chownSync(folder, 4242, 4242);
  const socket = join(folder, 'admin.sock');
  const refused = { code: 'configuration', message: /belongs to another user \(4242\)/ };
  await using admin = new AdminApi(socket, noEvents, {});
  await assert.rejects(admin.start(), refused);
  await assert.rejects(askGateway(socket, '/status'), refused);
});
