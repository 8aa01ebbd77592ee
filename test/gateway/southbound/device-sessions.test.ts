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
import { messageOf, rig } from '../../wire/coap/wire.ts';

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
    const answer = (await post(new CoapRequest(remote, message, false, payload, 1e6))) as Reply;
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
