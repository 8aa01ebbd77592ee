import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { Admission } from '../../../src/base/admission.ts';
import { SystemClock } from '../../../src/base/clock.ts';
import { systemEntropy } from '../../../src/base/entropy.ts';
import { PosternError } from '../../../src/base/errors.ts';
import type { ArrivedPackage } from '../../../src/gateway/southbound/arrived-package.ts';
import { connectionDefaults, HttpBinding, httpTimes } from '../../../src/gateway/southbound/http-binding.ts';
import { bodyBounds } from '../../../src/gateway/southbound/http-bodies.ts';
import { EchoGuard } from '../../../src/wire/coap/echo.ts';
import { EventRecorder } from '../../event-recorder.ts';

const never = () => {
  throw new Error('no request of this test gets so far');
};

/** An HTTP binding whose requests reach no session, and connections to it from any address of the loopback network. */
async function listener(
  t: TestContext,
  times = httpTimes,
  receive: (arrived: ArrivedPackage) => Promise<never> = never,
) {
  const events = new EventRecorder();
  const clock = new SystemClock();
  const admission = new Admission({ clock, events });
  const binding = new HttpBinding({
    settings: {
      host: '127.0.0.1',
      port: 0,
      path: '/dm',
      bootstrapPath: '/dm/bs',
      tunnelPath: '/dm/t',
      serverId: 'gw',
      allowPlain: true,
    },
    sessions: { receive },
    bootstrapServer: { answer: never },
    guard: new EchoGuard(clock, systemEntropy),
    forward: never,
    image: () => undefined,
    heard: () => {},
    settled: async () => {},
    admission,
    times,
    events,
  });
  await binding.start();
  t.after(() => binding[Symbol.asyncDispose]());
  /** A connection that has sent a part of its headers. Resolves with whether it stays open. */
  const slow = async (localAddress: string): Promise<boolean> => {
    const socket: Socket = connect({ host: '127.0.0.1', port: binding.port, localAddress });
    t.after(() => socket.destroy());
    const refused = new Promise<boolean>((resolve) => {
      socket.once('close', () => resolve(false));
      socket.once('error', () => resolve(false));
    });
    socket.resume();
    await Promise.race([new Promise((resolve) => socket.once('connect', resolve)), refused]);
    socket.write('POST /dm HTTP/1.1\r\nhost: x\r\n');
    // What comes behind it is answered when the server has decided about it.
    return await Promise.race([refused, ask('127.0.0.9').then(() => true)]);
  };
  const ask = async (localAddress: string): Promise<number | undefined> => {
    const socket = connect({ host: '127.0.0.1', port: binding.port, localAddress });
    let text = '';
    socket.on('data', (octets) => {
      text += octets;
    });
    socket.on('error', () => {});
    socket.write('GET /dm HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
    await new Promise((resolve) => socket.once('close', resolve));
    const status = /^HTTP\/1.1 (\d+)/.exec(text)?.[1];
    return status === undefined ? undefined : Number(status);
  };
  admission.know('127.0.0.9');
  return { admission, events, slow, ask, port: binding.port };
}
const count = (kept: boolean[]) => kept.filter(Boolean).length;

test('slow connections of one host, of one network and of many leave room for the others', async (t) => {
  const { slow, ask, events } = await listener(t);
  const from = (many: number, address: (at: number) => string) =>
    Promise.all(Array.from({ length: many }, (_, at) => slow(address(at))));
  assert.equal(count(await from(60, () => '127.7.0.1')), connectionDefaults.perAddress);
  assert.equal(events.all.find(({ name }) => name === 'admission.refused')?.fields.limit, 'connections');
  assert.equal(await ask('127.8.0.1'), 405, 'another host is served');
  assert.equal(
    count(await from(150, (at) => `127.7.0.${2 + (at % 10)}`)),
    connectionDefaults.perPrefix - connectionDefaults.perAddress,
  );
  assert.equal(await ask('127.8.0.1'), 405, 'another network is served');
  const rest = connectionDefaults.strangers - connectionDefaults.perPrefix;
  assert.equal(count(await from(rest + 20, (at) => `127.6.${at}.1`)), rest);
  assert.equal(await ask('127.0.0.9'), 405, 'a known address is served when strangers have all their places');
});

test('headers and whole requests have deadlines, and their places are free again', async (t) => {
  const times = { ...httpTimes, headers: 100, request: 200, check: 20 };
  const { slow, ask } = await listener(t, times);
  await Promise.all(Array.from({ length: 40 }, () => slow('127.7.0.1')));
  let status: number | undefined;
  while (status === undefined) status = await ask('127.7.0.1');
  assert.equal(status, 405);
});

test('requests of one host have a rate, beyond which they get 503', async (t) => {
  const { ask } = await listener(t);
  const statuses = new Map<number | undefined, number>();
  for (let at = 0; at < 560; at++) {
    const status = await ask('127.7.0.1');
    statuses.set(status, (statuses.get(status) ?? 0) + 1);
  }
  assert.ok((statuses.get(503) ?? 0) > 0, JSON.stringify([...statuses]));
  assert.equal(await ask('127.0.0.9'), 405);
});

test('each refusal by an error has the time after which the request may come again, if there is one', async (t) => {
  let error: Error = new PosternError('storage', 'the disk is full');
  const { port, admission } = await listener(t, httpTimes, () => Promise.reject(error));
  const answer = async () => {
    const { status, headers } = await fetch(`http://127.0.0.1:${port}/dm`, {
      method: 'POST',
      headers: { 'content-type': 'application/vnd.syncml.dm+xml' },
      body: 'x',
    });
    return [status, headers.get('retry-after')];
  };
  for (const [thrown, status, seconds] of [
    [new PosternError('storage', 'the disk is full'), 503, '30'],
    [new PosternError('overBudget', 'no octets are left'), 503, '3600'],
    [new PosternError('full', 'too many wait'), 503, '5'],
    [new PosternError('unavailable', 'no place', { retryAfter: 3 }), 503, '3'],
    [new PosternError('unavailable', 'the gateway stops'), 503, null],
    [new PosternError('lockedOut', 'too many failed proofs'), 429, null],
    [new PosternError('forbidden', 'another device'), 403, null],
    [new Error('a fault of the gateway'), 500, null],
  ] as const) {
    error = thrown;
    assert.deepEqual(await answer(), [status, seconds], thrown.message);
  }
  // Before anything is read: no budget is left.
  while (admission.admits('127.0.0.1', 1 / 8));
  assert.deepEqual(await answer(), [503, '5']);
});

const post = (length: number) =>
  `POST /dm HTTP/1.1\r\nhost: x\r\ncontent-type: application/vnd.syncml.dm+xml\r\ncontent-length: ${length}\r\n\r\n`;

test('a connection that sends ahead of its answers is closed, and the loop goes on', async (t) => {
  const { port, ask, events } = await listener(t, httpTimes, () => new Promise(() => {}));
  const socket = connect({ host: '127.0.0.1', port, localAddress: '127.7.1.1' });
  t.after(() => socket.destroy());
  socket.on('error', () => {});
  socket.write(`${post(1)}x`.repeat(2000));
  await new Promise((resolve) => socket.once('close', resolve));
  assert.equal(events.all.find(({ name }) => name === 'admission.refused')?.fields.limit, 'connections');
  assert.equal(await ask('127.8.1.1'), 405);
});

test('a connection without budget gets one refusal and is closed', async (t) => {
  const { port, admission } = await listener(t);
  while (admission.admits('127.7.2.1', 1 / 8));
  const socket = connect({ host: '127.0.0.1', port, localAddress: '127.7.2.1' });
  let text = '';
  socket.on('data', (octets) => {
    text += octets;
  });
  socket.on('error', () => {});
  socket.write(`${post(1)}x`);
  await new Promise((resolve) => socket.once('close', resolve));
  assert.deepEqual(text.match(/HTTP\/1\.1 \d+/g), ['HTTP/1.1 503']);
});

test('large packages of a stranger cost as much of its budget as over CoAP: 16 KiB each token', async (t) => {
  let taken = 0;
  const { port } = await listener(t, httpTimes, async ({ body }) => {
    taken += body.length;
    throw new PosternError('malformed', 'a test');
  });
  const size = 256 * 1024;
  let isRefused = false;
  for (let times = 0; times < 50 && !isRefused; times++) {
    const socket = connect({ host: '127.0.0.1', port, localAddress: '127.7.3.1' });
    t.after(() => socket.destroy());
    socket.on('error', () => {});
    socket.write(post(size));
    socket.write(Buffer.alloc(size, 65));
    const [answer] = (await once(socket, 'data')) as [Buffer];
    isRefused = answer.toString().startsWith('HTTP/1.1 503');
  }
  assert.ok(isRefused);
  assert.equal(taken, 4 * size, '15 tokens each, and an eighth for the request');
});

test('bodies that never end hold a bounded number of bytes: the one that began first gives way', async (t) => {
  const { port, ask } = await listener(t);
  const held = 250 * 1024;
  const sockets: Socket[] = [];
  let closed = 0;
  const most = Math.floor(bodyBounds.strangers.bytes / held);
  for (let at = 0; at < most + 10; at++) {
    const socket = connect({ host: '127.0.0.1', port, localAddress: `127.9.${at}.1` });
    t.after(() => socket.destroy());
    sockets.push(socket);
    socket.on('error', () => {});
    const end = new Promise<void>((resolve) => socket.once('close', () => resolve(void closed++)));
    socket.write(post(256 * 1024));
    await new Promise((resolve) => socket.write(Buffer.alloc(held, 65), resolve));
    // What comes behind it is answered when the server has read it.
    await Promise.race([ask(`127.10.${at}.1`), end]);
  }
  await Promise.all(sockets.slice(0, 10).map((socket) => socket.closed || once(socket, 'close')));
  assert.ok(closed >= 10, String(closed));
  assert.equal(sockets.at(-1)?.closed, false);
});
