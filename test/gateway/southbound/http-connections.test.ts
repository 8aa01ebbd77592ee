import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { Admission } from '../../../src/base/admission.ts';
import { SystemClock } from '../../../src/base/clock.ts';
import { systemEntropy } from '../../../src/base/entropy.ts';
import { connectionDefaults, HttpBinding, httpTimes } from '../../../src/gateway/southbound/http-binding.ts';
import { EchoGuard } from '../../../src/wire/coap/echo.ts';
import { EventRecorder } from '../../event-recorder.ts';

/** An HTTP binding whose requests reach no session, and connections to it from any address of the loopback network. */
async function listener(t: TestContext, times = httpTimes) {
  const events = new EventRecorder();
  const clock = new SystemClock();
  const admission = new Admission({ clock, events });
  const never = () => {
    throw new Error('no request of this test gets so far');
  };
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
    sessions: { receive: never },
    bootstrapServer: { answer: never },
    guard: new EchoGuard(clock, systemEntropy),
    forward: never,
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
  return { admission, events, slow, ask };
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
