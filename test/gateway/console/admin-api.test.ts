import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer, request } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { PosternError } from '../../../src/base/errors.ts';
import { noEvents } from '../../../src/base/events.ts';
import { AdminApi, askGateway } from '../../../src/gateway/console/admin-api.ts';
import { defaultSocket, ownSocket } from '../../../src/gateway/console/admin-socket.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';

async function admin(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-admin-'));
  const socket = join(folder, 'admin.sock');
  const taken: unknown[] = [];
  const refuse = () => {
    throw new PosternError('conflict', 'an update is under way');
  };
  const api = new AdminApi(
    socket,
    noEvents,
    { '/status': () => ({ fine: true }), '/broken': refuse },
    { '/take': (body) => ({ taken: taken.push(body) }), '/refuse': refuse },
  );
  await api.start();
  t.after(async () => {
    await api[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });
  return { socket, taken };
}

test('GET reads, POST executes, and only the owner can open the socket', async (t) => {
  const { socket, taken } = await admin(t);
  assert.deepEqual(await askGateway(socket, '/status'), { fine: true });
  assert.deepEqual(await askGateway(socket, '/take', { url: 'x' }), { taken: 1 });
  assert.deepEqual(taken, [{ url: 'x' }]);
  assert.equal(statSync(socket).mode & 0o777, 0o600);
});

test('another user is told that the socket is closed to it, not that nobody answers', async (t) => {
  const { socket } = await admin(t);
  const nobody = 65_534;
  const isRoot = process.getuid?.() === 0;
  // Root may open any folder, and the owner only one that lets it in.
  if (isRoot) process.seteuid?.(nobody);
  else chmodSync(dirname(socket), 0);
  try {
    await assert.rejects(askGateway(socket, '/status'), {
      message: `${socket} is closed to this user; ask as the user of the gateway, or as root`,
    });
  } finally {
    if (isRoot) process.seteuid?.(0);
    else chmodSync(dirname(socket), 0o700);
  }
});

test('errors and unknown paths are answered with a message', async (t) => {
  const { socket } = await admin(t);
  await assert.rejects(askGateway(socket, '/refuse', {}), { message: 'an update is under way' });
  await assert.rejects(askGateway(socket, '/broken'), { message: 'an update is under way' });
  await assert.rejects(askGateway(socket, '/nothing'), { message: 'paths for GET: /status, /broken' });
  await assert.rejects(askGateway(socket, '/status', {}), { message: 'paths for POST: /take, /refuse' });
  await assert.rejects(askGateway(socket, '/toString'), { message: 'paths for GET: /status, /broken' });
});

test('a body that is not JSON or too long is refused, and the next request is accepted', async (t) => {
  const { socket, taken } = await admin(t);
  for (const [body, status] of [
    ['{', 400],
    [JSON.stringify('x'.repeat(20_000)), 413],
  ] as const) {
    const outgoing = request({ socketPath: socket, path: '/take', method: 'POST' });
    outgoing.end(body);
    const [response] = await once(outgoing, 'response');
    response.resume();
    assert.equal(response.statusCode, status);
  }
  await askGateway(socket, '/take', 1);
  assert.deepEqual(taken, [1]);
});

test('a file in the place of the socket stays, and the start fails', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-admin-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'admin.sock');
  writeFileSync(path, 'precious');
  await using api = new AdminApi(path, noEvents, {}, {});
  await assert.rejects(api.start(), {
    code: 'configuration',
    message: /is no socket|another gateway|reached/,
  });
  assert.equal(readFileSync(path, 'utf8'), 'precious');
});

/** An admin API whose clock is moved by hand. */
async function watched(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-admin-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const socket = join(folder, 'admin.sock');
  const events = new EventRecorder();
  const clock = new HandClock();
  const api = new AdminApi(socket, events, { '/status': () => ({ fine: true }) }, {}, clock);
  await api.start();
  return { folder, socket, events, clock, api };
}

test('a socket that is removed, or whose folder is, is told once and made again', async (t) => {
  const { folder, socket, events, clock, api } = await watched(t);
  await using _ = api;
  for (const lost of [socket, folder]) {
    rmSync(lost, { recursive: true });
    const made = events.next('gateway.socket-made');
    clock.advance(30_000);
    await made;
    assert.deepEqual(await askGateway(socket, '/status'), { fine: true });
    assert.equal(statSync(socket).mode & 0o777, 0o600);
    while (clock.timers === 0) await askGateway(socket, '/status');
  }
  assert.deepEqual(
    events.all.flatMap(({ name, fields }) => (name === 'gateway.socket-lost' ? [fields.reason] : [])),
    ['it was removed', 'it was removed'],
  );
  assert.deepEqual(readdirSync(folder), ['admin.sock']);
});

test('another process that took the place of the socket keeps it, also after the stop; when it is gone, the socket is made again', async (t) => {
  const { folder, socket, events, clock, api } = await watched(t);
  const other = createServer((_, response) => response.end('{"other": true}'));
  rmSync(socket);
  const begin = async () => {
    other.listen(join(folder, 'x'));
    await once(other, 'listening');
    renameSync(join(folder, 'x'), socket);
  };
  await begin();
  for (let look = 0; look < 3; look++) {
    clock.advance(30_000);
    // A question to the other server is answered after the probe of the gateway.
    assert.deepEqual(await askGateway(socket, '/status'), { other: true });
    while (clock.timers === 0) await askGateway(socket, '/status');
  }
  assert.deepEqual(
    events.all.flatMap(({ name, fields }) => (name === 'gateway.socket-lost' ? [fields.reason] : [])),
    ['something else is in its place'],
  );
  await api[Symbol.asyncDispose]();
  assert.deepEqual(await askGateway(socket, '/status'), { other: true }, 'the stop did not remove it');
  other.close();
  other.closeAllConnections();
});

test('a stop removes the socket that the gateway made', async (t) => {
  const { folder, api } = await watched(t);
  await api[Symbol.asyncDispose]();
  assert.deepEqual(readdirSync(folder), []);
});

test('a file in place of the socket is told and stays, and the stop leaves it', async (t) => {
  const { socket, events, clock, api } = await watched(t);
  rmSync(socket);
  writeFileSync(socket, 'precious');
  const lost = events.next('gateway.socket-lost');
  clock.advance(30_000);
  await lost;
  await api[Symbol.asyncDispose]();
  assert.equal(readFileSync(socket, 'utf8'), 'precious');
});

test('the default socket: in the folder that systemd made, or that of the user; status finds that of the unit', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-admin-'));
  const before = { ...process.env };
  t.after(() => {
    rmSync(folder, { recursive: true });
    for (const name of ['RUNTIME_DIRECTORY', 'XDG_RUNTIME_DIR'])
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
  });
  process.env.XDG_RUNTIME_DIR = folder;
  delete process.env.RUNTIME_DIRECTORY;
  const own = join(folder, `postern-${process.getuid?.() ?? 0}`, 'admin.sock');
  assert.deepEqual([ownSocket(), defaultSocket(join(folder, 'none'))], [own, own]);
  const unit = join(folder, 'unit');
  process.env.RUNTIME_DIRECTORY = `${unit}:/run/other`;
  assert.equal(ownSocket(), join(unit, 'admin.sock'));
  await using api = new AdminApi(ownSocket(), noEvents, { '/status': () => ({ unit: true }) });
  await api.start();
  delete process.env.RUNTIME_DIRECTORY;
  assert.equal(existsSync(own), false);
  assert.deepEqual(await askGateway(defaultSocket(unit), '/status'), { unit: true });
});
