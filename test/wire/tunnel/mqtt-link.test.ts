import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { Aedes } from 'aedes';
import { systemEntropy } from '../../../src/base/entropy.ts';
import { MqttLink } from '../../../src/wire/tunnel/mqtt-link.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';

const limit = { timeout: 20_000 };
const state = { topic: 'dm/gw-1/state', payload: Buffer.from('offline'), retain: true };

/** A TCP server on a free port; what it still holds when the test ends goes with it. */
async function listen(t: TestContext, serve: (socket: Socket) => void): Promise<string> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    serve(socket);
  });
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `mqtt://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** A broker that decides by itself what becomes of a publication. */
async function broker(t: TestContext, published: (socket: Socket, accept: () => void) => void) {
  const aedes = await Aedes.createBroker({
    authorizePublish: (client, _packet, done) => {
      if (client) published(client.conn as Socket, () => done(null));
      else done(null);
    },
  });
  t.after(() => aedes.close());
  return await listen(t, (socket) => void aedes.handle(socket));
}

/** Its time stands still unless the test moves it. */
function linkTo(url: string) {
  const clock = new HandClock();
  const events = new EventRecorder();
  const link = new MqttLink({
    settings: { url, protocol: 4 },
    clientId: 'gw-1',
    subscriptions: ['dm/gw-1/down'],
    clock,
    entropy: systemEntropy,
    events,
    received: () => {},
  });
  link.start();
  return { link, clock, events };
}

test('the last publication is acknowledged before the connection ends', limit, async (t) => {
  const asked = Promise.withResolvers<() => void>();
  const { link, events } = linkTo(await broker(t, (_socket, accept) => asked.resolve(accept)));
  await events.until('mqtt.connected');
  const published = link.publish(state);
  const accept = await asked.promise;
  const ended = link[Symbol.asyncDispose]();
  accept();
  await published;
  await ended;
});

test('a broker that disconnects during a publication does not delay the end', limit, async (t) => {
  const { link, clock, events } = linkTo(await broker(t, (socket) => socket.destroy()));
  await events.until('mqtt.connected');
  const refused = assert.rejects(link.publish(state), { code: 'unavailable' });
  await link[Symbol.asyncDispose]();
  await refused;
  assert.equal(clock.timers, 0);
});

test('a broker that hangs delays the end by two seconds', limit, async (t) => {
  const asked = Promise.withResolvers<void>();
  const { link, clock, events } = linkTo(await broker(t, () => asked.resolve()));
  await events.until('mqtt.connected');
  const refused = assert.rejects(link.publish(state), { code: 'unavailable' });
  await asked.promise;
  const ended = link[Symbol.asyncDispose]();
  assert.equal(clock.timers, 1);
  clock.advance(2000);
  await ended;
  await refused;
});

test('a broker that does not answer the connection does not delay the end', {
  timeout: 8000,
}, async (t) => {
  const called = Promise.withResolvers<void>();
  const { link } = linkTo(await listen(t, () => called.resolve()));
  await called.promise;
  await link[Symbol.asyncDispose]();
});
