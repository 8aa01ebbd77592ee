import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { PosternError } from '../../../src/base/errors.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { MemoryAcls, MemoryNodes } from '../../../src/dm/node-store.ts';
import { ServerSession } from '../../../src/dm/server-session.ts';
import { StoredBranch } from '../../../src/dm/stored-branch.ts';
import { ManagementTree } from '../../../src/dm/tree.ts';
import { DmClient } from '../../../src/gateway/northbound/dm-client.ts';
import { Outbox, undeliverableLimit } from '../../../src/gateway/store/outbox.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { devInfo, devInfoNodes } from '../../../src/mo/dev-info.ts';
import { Accounts, accountsDescription } from '../../../src/mo/dm-acc.ts';
import { readDeviceAttach } from '../../../src/mo/gateway-alerts.ts';
import { ownVocabulary } from '../../../src/mo/vocabulary.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../../src/wire/syncml/codec.ts';
import type { SyncmlMessage } from '../../../src/wire/syncml/message.ts';
import { encodeNotification, resyncNonces, sessionIdText } from '../../../src/wire/syncml/notification.ts';
import { type Envelope, EnvelopeKind } from '../../../src/wire/tunnel/envelope.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { turn } from '../../wire/coap/wire.ts';

const storm = 1000;

/** A gateway's DM client with a DM server in the same process, and an outbox after a power cut of the whole site. */
function rig(
  onTheWay: (answer: SyncmlMessage) => SyncmlMessage = (answer) => answer,
  status: number | ((deviceId: string) => number) = 200,
  refusal: (body: Buffer) => Envelope | undefined = () => undefined,
) {
  const database = openDatabase(':memory:', gatewaySchema);
  const outbox = new Outbox(database, 2000);
  const numbers: number[] = [];
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
        const { deviceId, sequence } = readDeviceAttach(ownVocabulary, alert);
        order.push(deviceId);
        numbers.push(sequence);
        heard.set(deviceId, (heard.get(deviceId) ?? 0) + 1);
        return typeof status === 'number' ? status : status(deviceId);
      },
    });
  const clock = new HandClock();
  const events = new EventRecorder();
  const client = new DmClient({
    gatewayId: 'gw',
    serverId: 'dm.example',
    mediaType: MediaType.Wbxml,
    isUplinkVerified: true,
    accounts,
    tree,
    outbox,
    vocabulary: ownVocabulary,
    settled: async () => {},
    upstream: {
      connected: true,
      largestBody: Number.POSITIVE_INFINITY,
      request: async ({ body }) => {
        const refused = refusal(Buffer.from(body));
        if (refused) return refused;
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
  /** The server asks for a session. Returns its ID. */
  const notify = (sessionId = 0x77): string => {
    const notification = { uiMode: 1, serverInitiated: true, sessionId, serverId: 'dm.example' } as const;
    client.notified(encodeNotification(notification, 'secret-s', resyncNonces[0]));
    return sessionIdText(sessionId);
  };
  return { notify, client, outbox, sessions, heard, order, events, clock, numbers, database };
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

const silentAboutAlerts = (answer: SyncmlMessage): SyncmlMessage => ({
  ...answer,
  commands: answer.commands.filter((command) => command.name !== 'Status' || command.cmd !== 'Alert'),
});

for (const [what, onTheWay, status, event] of [
  ['refuses alerts for now', undefined, 500, 'alert.refused'],
  ['says nothing of alerts', silentAboutAlerts, 200, 'alert.unanswered'],
] as const)
  test(`if a server ${what}, the alert stays in the outbox and is sent again after a while`, async () => {
    const { client, outbox, sessions, events, clock } = rig(onTheWay, status);
    client.wake();
    await events.until(event);
    await events.until('dm.session-ended');
    assert.deepEqual([outbox.size, sessions.size], [storm, 1]);
    while (clock.timers === 0) await turn();
    const again = events.next(event);
    clock.advance(2000);
    await again;
    assert.equal(sessions.size, 2);
    assert.equal(outbox.undeliverable, 0);
    await client[Symbol.asyncDispose]();
  });

test('an alert that the server refuses for good is set aside after five attempts; the others do not wait for it', async () => {
  const refused = 'urn:dev:3';
  const { client, outbox, heard, events, clock } = rig(undefined, (deviceId) =>
    deviceId === refused ? 415 : 200,
  );
  client.wake();
  while (outbox.size > 1) await turn();
  assert.equal(heard.get('urn:dev:999'), 1, 'all others are delivered');
  while (events.count('alert.set-aside') === 0) {
    await turn();
    clock.advance(1000);
  }
  assert.deepEqual([outbox.size, outbox.undeliverable, heard.get(refused)], [0, 1, 5]);
  outbox.add('device-attach', refused, JSON.stringify({ mode: 0, bootstrap: 'local' }));
  client.wake();
  while (heard.get(refused) === 5) {
    await turn();
    clock.advance(1000);
  }
  await client[Symbol.asyncDispose]();
});

test('an alert that the server refuses once is told by a new number, since later ones have been told', async () => {
  let refusals = 0;
  const { client, outbox, numbers, clock } = rig(undefined, (deviceId) =>
    deviceId === 'urn:dev:3' && refusals++ === 0 ? 403 : 200,
  );
  client.wake();
  while (outbox.size > 1) await turn();
  while (outbox.size > 0) {
    await turn();
    clock.advance(1000);
  }
  assert.deepEqual(
    [...numbers].toSorted((a, b) => a - b),
    numbers,
    'numbers rise with each attempt',
  );
  await client[Symbol.asyncDispose]();
});

for (const [what, refuse] of [
  [
    'that refuses',
    () => ({ kind: EnvelopeKind.Error, correlation: Buffer.alloc(8), status: 400, reason: 'what?' }),
  ],
  [
    'that does not answer',
    () => {
      throw new PosternError('timeout', 'no answer');
    },
  ],
] as const)
  test(`a server ${what} each package with one alert: the others are delivered, it is set aside, and the server gets its sessions`, async () => {
    const poison = 'urn:dev:500';
    let refusals = 0;
    const { client, outbox, heard, events, clock, database, notify } = rig(undefined, 200, (body) => {
      if (!body.includes(poison)) return undefined;
      refusals++;
      return refuse();
    });
    client.wake();
    await events.until('dm.session-failed');
    const started = events.next('dm.session-started', { notified: true, alerts: 0 });
    const asked = events.next('dm.session-ended', { session: notify(), status: 200 });
    await Promise.race([
      asked,
      (async () => {
        while (clock.now() < 60_000) {
          for (let i = 0; i < 20; i++) await turn();
          clock.advance(500);
        }
        assert.fail('the session that the server asked for did not come');
      })(),
    ]);
    await started;
    let seconds = 0;
    for (; outbox.size > 1; seconds++) {
      for (let i = 0; i < 20; i++) await turn();
      clock.advance(1000);
    }
    assert.ok(seconds < 180, `${seconds} s until all others were delivered`);
    assert.equal(heard.size, storm - 1);
    while (outbox.undeliverable === 0) {
      for (let i = 0; i < 20; i++) await turn();
      clock.advance(1000);
    }
    const { fields } = await events.until('alert.set-aside');
    assert.equal(fields.device, poison);
    assert.match(String(fields.reason), /refuses each package with this alert/);
    assert.equal(outbox.size, 0);
    assert.ok(refusals <= 40, `${refusals} packages were refused`);
    assert.equal(Math.max(...heard.values()), 1, 'no alert was delivered twice');
    await client[Symbol.asyncDispose]();
    await database.close();
  });

test('a server that is away for an hour: no alert is blamed or renumbered, and all come in order', async () => {
  let isAway = true;
  const { client, outbox, order, numbers, events, clock } = rig(undefined, 200, () => {
    if (isAway) throw new PosternError('timeout', 'no answer');
    return undefined;
  });
  const first = outbox.peek(1)[0]!.sequence;
  client.wake();
  for (let passed = 0; passed < 3600; passed++) {
    for (let i = 0; i < 4; i++) await turn();
    clock.advance(1000);
  }
  assert.ok(events.count('dm.session-failed') > 8);
  isAway = false;
  while (outbox.size > 0) {
    for (let i = 0; i < 20; i++) await turn();
    clock.advance(1000);
  }
  assert.deepEqual(
    order,
    Array.from({ length: storm }, (_, at) => `urn:dev:${at}`),
  );
  assert.deepEqual([numbers[0], numbers.at(-1), outbox.undeliverable], [first, first + storm - 1, 0]);
  await client[Symbol.asyncDispose]();
});

test('an alert that has no form on the wire is set aside at once, and ends nothing', async () => {
  const { client, outbox, events, database } = rig();
  database.prepare("UPDATE outbox SET body = '{\"manufacturer\": 5}' WHERE device_id = 'urn:dev:0'").run();
  client.wake();
  const { fields } = await events.until('alert.set-aside');
  assert.equal(fields.device, 'urn:dev:0');
  while (outbox.size > 0) await turn();
  assert.equal(outbox.undeliverable, 1);
  await client[Symbol.asyncDispose]();
});

test('of alerts that were set aside the last hundred are kept', () => {
  const { outbox } = rig();
  for (const { sequence } of outbox.peek(undeliverableLimit + 20)) outbox.setAside(sequence, 'refused');
  assert.equal(outbox.undeliverable, undeliverableLimit);
});
