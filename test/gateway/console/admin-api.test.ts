import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { PosternError } from '../../../src/base/errors.ts';
import { noEvents } from '../../../src/base/events.ts';
import { AdminApi, askGateway } from '../../../src/gateway/console/admin-api.ts';

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
