import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import type { LocalEndpoint } from '../../../src/gateway/southbound/coap-network.ts';
import { DeviceSessions, sessionLimits } from '../../../src/gateway/southbound/device-sessions.ts';
import { Credentials } from '../../../src/gateway/store/credentials.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { ownVocabulary } from '../../../src/mo/vocabulary.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { CoapRequest, type Reply } from '../../../src/wire/coap/message.ts';
import { Option, uint } from '../../../src/wire/coap/options.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../../src/wire/syncml/codec.ts';
import { client, startNonces } from '../../dm/parties.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { account, messageOf, rig } from '../../wire/coap/wire.ts';

const gatewayId = 'dm.example';
const deviceId = 'urn:dev:1';

function startSessions() {
  const clock = new HandClock();
  const events = new EventRecorder();
  const credentials = new Credentials(openDatabase(':memory:', gatewaySchema), 10);
  const nonces = startNonces();
  credentials.put({
    deviceId,
    clientName: deviceId,
    clientSecret: 'client-secret',
    clientNonce: nonces.own,
    serverSecret: 'server-secret',
    serverNonce: nonces.peer,
    origin: 'local',
    attached: false,
  });
  let attached = 0;
  const sessions = new DeviceSessions({
    gatewayId,
    credentials,
    clock,
    entropy: seededEntropy(1),
    events,
    attached: () => attached++,
    left: () => {},
    proved: () => {},
    alerted: () => 200,
    mayBeGateway: () => false,
    vocabulary: ownVocabulary,
  });
  const { endpoint } = rig(() => undefined);
  const local: LocalEndpoint = {
    address: '192.0.2.1',
    port: 5683,
    bound: '192.0.2.1',
    endpoint: () => endpoint,
  };
  const post = sessions.resource(local).methods.POST!;
  const send = async (sessionId: string, from: number, address = '192.0.2.7') => {
    const remote = { address, port: from, key: `${address} ${from}` };
    const payload = encodeMessage(client(nonces, { sessionId }).start(), MediaType.Xml);
    const message = messageOf({ code: Code.POST, options: [uint(Option.ContentFormat, 65001)] });
    const answer = (await post(new CoapRequest(remote, message, false, payload, account()))) as Reply;
    return decodeMessage(answer.payload, MediaType.Xml);
  };
  return { clock, events, sessions, send, attached: () => attached };
}

test('a session that stops in the middle ends with 408 after the idle time, and its device is not attached', async () => {
  const { clock, events, sessions, send, attached } = startSessions();
  const answer = await send('1', 1);
  assert.ok(answer.commands.some(({ name }) => name === 'Get'));
  assert.equal(sessions.size, 1);
  clock.advance(sessionLimits.idle);
  const failed = await events.until('session.failed', { device: deviceId });
  assert.equal(failed.fields.status, 408);
  assert.deepEqual([sessions.size, attached(), clock.timers], [0, 0, 0]);
});

test('at the bound a new session is refused; later it replaces a silent session that proved nothing', async () => {
  const { clock, events, sessions, send } = startSessions();
  // The first session proves itself. The next ones do not: their nonce was used.
  const open = (number: number) => {
    const host = Math.floor(number / sessionLimits.unprovenOfHost);
    return send(number.toString(16).toUpperCase(), number, `192.0.2.${host}`);
  };
  for (let number = 1; number <= sessionLimits.unproven; number++) await open(number);
  await open(sessionLimits.unproven + 1);
  await assert.rejects(open(1000), { code: 'unavailable' });
  assert.equal(events.count('session.failed'), 0, 'nobody is thrown out by a storm');
  clock.advance(sessionLimits.unprovenSilent);
  await open(1000);
  assert.equal(sessions.size, sessionLimits.unproven + 1);
  const failed = await events.until('session.failed', { device: deviceId });
  assert.equal(failed.fields.status, 420);
  assert.equal(failed.fields.session, '2', 'the first one has proved itself and stays');
  await sessions.stop();
  assert.deepEqual([sessions.size, clock.timers], [0, 0]);
});

test('at the bound of one host, devices of other hosts get in', async () => {
  const { send } = startSessions();
  await send('1', 1);
  for (let number = 0; number < sessionLimits.unprovenOfHost; number++)
    await send((2 + number).toString(16).toUpperCase(), 2 + number);
  await assert.rejects(send('FFF', 1000), { code: 'unavailable' });
  assert.ok(await send('FFF', 1000, '192.0.2.8'));
});

test('a session ends with 404 at once when its device is detached', async () => {
  const { clock, events, sessions, send, attached } = startSessions();
  await send('1', 1);
  assert.equal(sessions.size, 1);
  sessions.detached('urn:dev:another');
  assert.equal(sessions.size, 1);
  sessions.detached(deviceId);
  const failed = await events.until('session.failed', { device: deviceId });
  assert.deepEqual([failed.fields.status, sessions.size, attached(), clock.timers], [404, 0, 0, 0]);
});
