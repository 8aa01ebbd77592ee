import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { connectAsync, type IClientOptions, type MqttClient } from 'mqtt';
import { encodeState } from '../../src/wire/tunnel/gateway-state.ts';
import { EnrolmentSite } from './enrolment-site.ts';

const limit = { timeout: 60_000 };

/** Everything that a client hears. */
interface Ear extends AsyncDisposable {
  readonly client: MqttClient;
  readonly heard: { readonly topic: string; readonly text: string }[];
}

/** A client of mosquitto by a certificate. */
async function clientOf(
  site: EnrolmentSite,
  name: string,
  options: IClientOptions = {},
  identity = site.issue(name),
): Promise<Ear> {
  const client = await connectAsync(site.url, {
    protocolVersion: 5,
    reconnectPeriod: 0,
    clientId: name,
    ca: readFileSync(site.ca),
    cert: readFileSync(identity.cert),
    key: readFileSync(identity.key),
    ...options,
  });
  const heard: Ear['heard'] = [];
  client.on('message', (topic, payload) => heard.push({ topic, text: payload.toString() }));
  return { client, heard, [Symbol.asyncDispose]: async () => void (await client.endAsync(true)) };
}

/** Resolves with the next message of a client. */
const message = async ({ client }: Ear): Promise<void> =>
  await new Promise((resolve) => client.once('message', () => resolve()));

/** Publishes. Returns whether the broker says that it took the message. */
const publish = async ({ client }: Ear, topic: string, text = 'x', retain = false): Promise<boolean> =>
  await client.publishAsync(topic, text, { qos: 1, retain }).then(
    () => true,
    () => false,
  );

/** Resolves when the broker has delivered to a client all that it had for it so far: its own message comes last. */
async function drained(ear: Ear, topic: string): Promise<void> {
  await ear.client.subscribeAsync(topic, { qos: 1 });
  const text = `last ${ear.heard.length}`;
  await publish(ear, topic, text);
  while (!ear.heard.some((one) => one.text === text)) await message(ear);
}

/** What one client may hear of another one: the topics of the other one that it has heard. */
const foreign = ({ heard }: Ear, own: string) =>
  heard.map(({ topic }) => topic).filter((topic) => !topic.startsWith(own));

const all = ['#', 'dm/#', '+/+/+', 'dm/+/down', 'dm/gw-b/#', 'enrol/#', '$share/x/dm/gw-b/#'];

describe('the access rules of docs/bindings.md, at mosquitto with TLS', limit, () => {
  test('gateway A reads nothing of B: by topic, wildcard, shared subscription, retained message, or as B by its client ID', async () => {
    await using site = await EnrolmentSite.open();
    await using headend = await clientOf(site, 'dm.example');
    await using b = await clientOf(site, 'gw-b');
    await using a = await clientOf(site, 'gw-a');
    await publish(b, 'dm/gw-b/state', 'retained', true);
    for (const filter of all) await a.client.subscribeAsync(filter, { qos: 1 }).catch(() => {});
    await b.client.subscribeAsync('dm/gw-b/down', { qos: 1 });
    const came = message(b);
    assert.equal(await publish(headend, 'dm/gw-b/down', 'order'), true);
    await came;
    assert.equal(await publish(b, 'dm/gw-b/up', 'package'), true);
    await drained(a, 'dm/gw-a/last');
    assert.deepEqual(foreign(a, 'dm/gw-a/'), []);
    assert.deepEqual(
      b.heard.map(({ text }) => text),
      ['order'],
    );

    // A takes the session of B at the broker over, with the subscriptions and what waits there.
    const session = { clean: false, properties: { sessionExpiryInterval: 600 } } as const;
    const waiting = await clientOf(site, 'gw-b', { ...session, clientId: 'session-of-b' });
    await waiting.client.subscribeAsync('dm/gw-b/down', { qos: 1 });
    await waiting[Symbol.asyncDispose]();
    assert.equal(await publish(headend, 'dm/gw-b/down', 'waits'), true);
    await using thief = await clientOf(site, 'gw-a', { ...session, clientId: 'session-of-b' });
    assert.equal(await publish(headend, 'dm/gw-b/down', 'later'), true);
    await drained(thief, 'dm/gw-a/last');
    assert.deepEqual(foreign(thief, 'dm/gw-a/'), []);
  });

  test('gateway A writes nothing of B: by publishing, retained, or by its will', async () => {
    await using site = await EnrolmentSite.open();
    await using headend = await clientOf(site, 'dm.example');
    await using b = await clientOf(site, 'gw-b');
    await b.client.subscribeAsync('dm/gw-b/#', { qos: 1 });
    await headend.client.subscribeAsync(['dm/+/up', 'dm/+/up/+', 'dm/+/state'], { qos: 1 });
    const will = { topic: 'dm/gw-b/state', payload: Buffer.from('forged'), qos: 1, retain: true } as const;
    const a = await clientOf(site, 'gw-a', { will });
    for (const topic of ['dm/gw-b/up', 'dm/gw-b/up/worker-1', 'dm/gw-b/state', 'dm/gw-b/down', 'x'])
      for (const retain of [false, true])
        assert.equal(await publish(a, topic, 'forged', retain), false, topic);
    assert.equal(await publish(a, 'dm/gw-a/up', 'own'), true);
    // The connection breaks, so the broker publishes the will, if it may.
    a.client.stream.destroy();
    await drained(b, 'dm/gw-b/last');
    await drained(headend, 'dm/dm.example/last');
    assert.deepEqual(
      [...b.heard, ...headend.heard].filter(({ text }) => text === 'forged'),
      [],
    );
    assert.ok(headend.heard.some(({ text }) => text === 'own'));
    // A later subscriber gets what is retained.
    await using late = await clientOf(site, 'gw-b', { clientId: 'late' });
    await late.client.subscribeAsync('dm/gw-b/#', { qos: 1 });
    await drained(late, 'dm/gw-b/last');
    assert.ok(!late.heard.some(({ text }) => text === 'forged'));
  });

  test('the claim certificate can do nothing but ask: not read, not write, not as its own gateway, not for another key', async () => {
    await using site = await EnrolmentSite.open();
    await using headend = await clientOf(site, 'dm.example');
    await headend.client.subscribeAsync(['dm/#', 'enrol/+/+/up'], { qos: 1 });
    await using b = await clientOf(site, 'gw-b');
    const state = encodeState({ online: true, software: '1', bootId: Buffer.alloc(8) });
    await b.client.publishAsync('dm/gw-b/state', state, { qos: 1, retain: true });
    const claim = { cert: site.claim.cert, key: site.claim.key };
    await using board = await clientOf(site, 'claim', { clientId: 'key-1' }, claim);
    await using other = await clientOf(site, 'claim', { clientId: 'key-2' }, claim);
    await other.client.subscribeAsync('enrol/claim/key-2/down', { qos: 1 });
    for (const filter of [...all, 'dm/claim/#', 'enrol/claim/+/down', 'enrol/+/key-2/down'])
      await board.client.subscribeAsync(filter, { qos: 1 }).catch(() => {});
    const forbidden = [
      ...['dm/claim/up', 'dm/claim/state', 'dm/claim/down', 'dm/gw-b/up', 'dm/gw-b/state', 'dm/~'],
      ...[
        'enrol/claim/key-2/up',
        'enrol/claim/key-2/down',
        'enrol/claim/key-1/down',
        'enrol/other/key-1/up',
        'x',
      ],
    ];
    for (const topic of forbidden) assert.equal(await publish(board, topic, 'forged'), false, topic);
    assert.equal(await publish(board, 'enrol/claim/key-1/up', 'request'), true);
    assert.equal(await publish(headend, 'enrol/claim/key-2/down', 'for the other one'), true);
    assert.equal(await publish(headend, 'enrol/claim/key-1/down', 'answer'), true);
    while (!board.heard.some(({ text }) => text === 'answer')) await message(board);
    assert.deepEqual(foreign(board, 'enrol/claim/key-1/down'), []);
    while (other.heard.length === 0) await message(other);
    assert.deepEqual(
      other.heard.map(({ text }) => text),
      ['for the other one'],
    );
    assert.deepEqual(
      headend.heard.filter(({ text }) => text === 'forged'),
      [],
    );
    assert.ok(headend.heard.some(({ text }) => text === 'request'));
  });

  for (const clientId of ['+', '#', 'key-1/down', 'a/../b'])
    test(`the client ID ${clientId} opens no other topic`, async () => {
      await using site = await EnrolmentSite.open();
      await using headend = await clientOf(site, 'dm.example');
      const claim = { cert: site.claim.cert, key: site.claim.key };
      const board = await clientOf(site, 'claim', { clientId }, claim).catch(() => undefined);
      if (!board) return;
      await using _ = board;
      for (const filter of ['#', 'enrol/#', 'enrol/claim/+/down'])
        await board.client.subscribeAsync(filter).catch(() => {});
      await using other = await clientOf(site, 'claim', { clientId: 'key-1' }, claim);
      await other.client.subscribeAsync('enrol/claim/key-1/down', { qos: 1 });
      assert.equal(await publish(headend, 'enrol/claim/key-1/down', 'secret'), true);
      while (other.heard.length === 0) await message(other);
      assert.deepEqual(board.heard, []);
    });

  test('nobody without a certificate of the authority, or without any, gets a connection', async () => {
    await using site = await EnrolmentSite.open();
    await using elsewhere = await EnrolmentSite.open();
    const options = { protocolVersion: 5, reconnectPeriod: 0, ca: readFileSync(site.ca) } as const;
    await assert.rejects(connectAsync(site.url, options));
    await assert.rejects(clientOf(site, 'gw-a', {}, elsewhere.issue('gw-a')));
  });
});
