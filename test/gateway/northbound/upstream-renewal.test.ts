import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connectAsync } from 'mqtt';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { Upstream } from '../../../src/gateway/northbound/upstream.ts';
import { decodeEnvelope, EnvelopeKind, encodeEnvelope } from '../../../src/wire/tunnel/envelope.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { startMosquitto } from '../../peers/brokers.ts';

test('a connection that is replaced: requests before, between and after are answered; without a broker they fail as ever', {
  timeout: 30_000,
}, async () => {
  await using broker = await startMosquitto();
  const server = await connectAsync(broker.url, { protocolVersion: 5, reconnectPeriod: 0 });
  await server.subscribeAsync('dm/gw-1/up', { qos: 1 });
  server.on('message', (_topic, payload) => {
    const { correlation, body } = decodeEnvelope(payload);
    const answer = encodeEnvelope({ kind: EnvelopeKind.Response, correlation, ...(body && { body }) });
    server.publish('dm/gw-1/down', answer, { qos: 1 });
  });
  const [clock, events] = [new HandClock(), new EventRecorder()];
  const parts = { clock, events, entropy: seededEntropy(1), softwareVersion: '1' };
  const settings = { url: broker.url, protocol: 5 } as const;
  await using upstream = new Upstream({ gatewayId: 'gw-1', settings, ...parts }, 60_000);
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  upstream.start({ notified: async () => {}, connected: () => {}, disconnected: resolve });
  await events.until('mqtt.connected');
  const ask = async (text: string) => {
    const answer = await upstream.request({ server: 'dm.example', body: Buffer.from(text) } as never);
    return Buffer.from(answer.body ?? '').toString();
  };
  const before = ask('before');
  upstream.reconnect('the certificate is renewed');
  await ended;
  await events.until('mqtt.disconnected');
  assert.equal(upstream.connected, false);
  const between = ask('between');
  // What is due now, and no later.
  clock.advance(0);
  assert.deepEqual(await Promise.all([before, between]), ['before', 'between']);
  assert.equal(events.count('mqtt.connected'), 2);
  assert.equal(await ask('after'), 'after');
  await server.endAsync(true);
  await broker.stop();
  while (upstream.connected) await events.nextOfAny();
  await assert.rejects(ask('without'), { code: 'unavailable' });
});
