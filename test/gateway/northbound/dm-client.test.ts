import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openDatabase } from '../../../src/base/database.ts';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { MemoryAcls, MemoryNodes } from '../../../src/dm/node-store.ts';
import { ServerSession } from '../../../src/dm/server-session.ts';
import { StoredBranch } from '../../../src/dm/stored-branch.ts';
import { ManagementTree } from '../../../src/dm/tree.ts';
import { DmClient } from '../../../src/gateway/northbound/dm-client.ts';
import { Outbox } from '../../../src/gateway/store/outbox.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { devInfo, devInfoNodes } from '../../../src/mo/dev-info.ts';
import { Accounts, accountsDescription } from '../../../src/mo/dm-acc.ts';
import { readDeviceAttach } from '../../../src/mo/gateway-alerts.ts';
import { ownVocabulary } from '../../../src/mo/vocabulary.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../../src/wire/syncml/codec.ts';
import type { SyncmlMessage } from '../../../src/wire/syncml/message.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { turn } from '../../wire/coap/wire.ts';

const storm = 1000;

/** A gateway's DM client with a DM server in the same process, and an outbox after a power cut of the whole site. */
function rig(onTheWay: (answer: SyncmlMessage) => SyncmlMessage = (answer) => answer, status = 200) {
  const outbox = new Outbox(openDatabase(':memory:', gatewaySchema), 2000);
  for (let at = 0; at < storm; at++)
    outbox.add('device-attach', `urn:dev:${at}`, JSON.stringify({ mode: 0, bootstrap: 'local' }));
  const accounts = new Accounts(new StoredBranch('DMAcc', accountsDescription, new MemoryNodes()));
  const nonces = { own: new Uint8Array(), peer: new Uint8Array() };
  accounts.put({
    serverId: 'dm.example',
    address: 'mqtt://broker',
    own: { name: 'gw', secret: 'secret-c', nonce: nonces.peer },
    peer: { name: 'dm.example', secret: 'secret-s', nonce: nonces.own },
  });
  const info = new StoredBranch('DevInfo', devInfo.root, new MemoryNodes());
  info.plant([], devInfoNodes({ deviceId: 'gw', manufacturer: 'm', model: 'm' }));
  const tree = new ManagementTree({ DevInfo: info }, new MemoryAcls({ '.': 'Get=*' }));
  const heard = new Map<string, number>();
  const order: string[] = [];
  const sessions = new Map<string, ServerSession>();
  const serverOf = (sessionId: string) =>
    new ServerSession({
      ends: { local: 'dm.example', remote: 'gw' },
      account: {
        own: { name: 'dm.example', secret: 'secret-s', nonce: nonces.own },
        peer: { name: 'gw', secret: 'secret-c', nonce: nonces.peer },
      },
      saveNonces: ({ own, peer }) => Object.assign(nonces, own && { own }, peer && { peer }),
      entropy: seededEntropy(2),
      sessionId,
      work: async function* () {},
      alerted: (alert) => {
        const { deviceId } = readDeviceAttach(ownVocabulary, alert);
        order.push(deviceId);
        heard.set(deviceId, (heard.get(deviceId) ?? 0) + 1);
        return status;
      },
    });
  const clock = new HandClock();
  const events = new EventRecorder();
  const client = new DmClient({
    gatewayId: 'gw',
    serverId: 'dm.example',
    mediaType: MediaType.Wbxml,
    accounts,
    tree,
    outbox,
    vocabulary: ownVocabulary,
    upstream: {
      connected: true,
      request: async ({ body }) => {
        const message = decodeMessage(body, MediaType.Wbxml);
        const { sessionId } = message.header;
        const session = sessions.get(sessionId) ?? serverOf(sessionId);
        sessions.set(sessionId, session);
        const answer = onTheWay(await session.receive(message, { body }));
        return { kind: 1, correlation: Buffer.alloc(8), body: encodeMessage(answer, MediaType.Wbxml) };
      },
    },
    clock,
    entropy: seededEntropy(1),
    events,
  });
  return { client, outbox, sessions, heard, order, events, clock };
}

test('a thousand alerts at once are delivered in order and once each, in at most five sessions', async () => {
  const { client, outbox, sessions, heard, order } = rig();
  client.wake();
  while (outbox.size > 0) await turn();
  await client[Symbol.asyncDispose]();
  assert.ok(sessions.size <= 5, `${sessions.size} sessions`);
  assert.deepEqual([heard.size, order.length], [storm, storm]);
  assert.deepEqual(
    order,
    Array.from({ length: storm }, (_, at) => `urn:dev:${at}`),
  );
});

// conforms: GW-5
test('alerts of a minute are gathered into few sessions; a contact by the server sends them at once', async () => {
  const { client, outbox, sessions, events, clock } = rig();
  client.wake();
  while (outbox.size > 0) await turn();
  for (let second = 0; second < 60; second++) {
    outbox.add('device-attach', `urn:late:${second}`, JSON.stringify({ mode: 0, bootstrap: 'local' }));
    client.wake();
    for (let i = 0; i < 20; i++) await turn();
    clock.advance(1000);
  }
  clock.advance(15_000);
  while (outbox.size > 0) await turn();
  assert.ok(sessions.size <= 12, `${sessions.size} sessions`);
  outbox.add('device-attach', 'urn:last', JSON.stringify({ mode: 0, bootstrap: 'local' }));
  client.wake();
  for (let i = 0; i < 20; i++) await turn();
  assert.equal(outbox.size, 1, 'it waits for others');
  client.contact('dm.example');
  await events.until('alert.delivered', { device: 'urn:last' });
  await client[Symbol.asyncDispose]();
});

for (const [what, onTheWay, status, reason] of [
  ['refuses an alert', undefined, 500, /answered an alert with 500/],
  [
    'gives no status for an alert',
    (answer: SyncmlMessage) => ({
      ...answer,
      commands: answer.commands.filter((command) => command.name !== 'Status' || command.cmd !== 'Alert'),
    }),
    200,
    /no status for an alert/,
  ],
] as const)
  test(`if a server ${what}, the alert stays in the outbox and is sent again after a while`, async () => {
    const { client, outbox, sessions, events, clock } = rig(onTheWay, status);
    client.wake();
    const failed = await events.until('dm.session-failed');
    assert.match(String(failed.fields.reason), reason);
    assert.deepEqual([outbox.size, sessions.size], [storm, 1]);
    while (clock.timers === 0) await turn();
    const again = events.next('dm.session-failed');
    clock.advance(2000);
    await again;
    assert.equal(sessions.size, 2);
    await client[Symbol.asyncDispose]();
  });
