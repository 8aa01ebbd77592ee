import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { PosternError } from '../../../src/base/errors.ts';
import { startAedes, startMosquitto } from '../../peers/brokers.ts';
import { type HostileClient, startHostileBroker } from '../../peers/hostile-broker.ts';
import { linkTo, up } from './link-rig.ts';

const limit = { timeout: 30_000 };
const texts = (count: number) => Array.from({ length: count }, (_, at) => String(at));
const turn = () => new Promise(setImmediate);

/** How many publications came to each outcome: `sent`, or the code of the error. */
async function outcomes(all: readonly Promise<unknown>[]): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const one of await Promise.allSettled(all)) {
    const outcome = one.status === 'fulfilled' ? 'sent' : (one.reason as PosternError).code;
    counts[outcome] = (counts[outcome] ?? 0) + 1;
  }
  return counts;
}

/** A broker that acknowledges by hand. */
async function slowBroker(receiveMaximum?: number) {
  const unacknowledged: { id: number; client: HostileClient }[] = [];
  const broker = await startHostileBroker({
    connack: () => ({ code: 0, ...(receiveMaximum !== undefined && { properties: { receiveMaximum } }) }),
    published: ({ qos, messageId }, client) => {
      if (qos === 1) unacknowledged.push({ id: messageId!, client });
      if (unacknowledged.length > (receiveMaximum ?? 65_535)) client.kick(0x93);
    },
  });
  const acknowledge = () => {
    const next = unacknowledged.shift();
    next?.client.send({ cmd: 'puback', messageId: next.id, reasonCode: 0 });
  };
  return { broker, unacknowledged, acknowledge };
}

describe('what the broker has not acknowledged', limit, () => {
  test('its Receive Maximum of 10 is kept to the letter, and of 300 messages at once none is lost', async () => {
    const { broker, unacknowledged, acknowledge } = await slowBroker(10);
    await using _broker = broker;
    const { link, events } = linkTo(broker.url, { protocol: 5 });
    await using _ = link;
    await events.until('mqtt.connected');
    const all = outcomes(texts(300).map((text) => link.publish(up(text))));
    while (broker.publishes.length < 10) await turn();
    for (let i = 0; i < 20; i++) await turn();
    assert.deepEqual([unacknowledged.length, link.waiting], [10, 290]);
    while (broker.publishes.length < 300) {
      acknowledge();
      await turn();
    }
    while (unacknowledged.length > 0) acknowledge();
    assert.deepEqual([await all, link.waiting], [{ sent: 300 }, 0]);
    assert.equal(events.count('mqtt.disconnected'), 0);
  });

  for (const [name, start] of [
    ['mosquitto with room for 5', () => startMosquitto(['allow_anonymous true', 'max_inflight_messages 5'])],
    ['aedes', startAedes],
  ] as const)
    test(`${name}: of 300 messages at once none is lost`, async () => {
      await using broker = await start();
      const sender = linkTo(broker.url, { protocol: name === 'aedes' ? 4 : 5 });
      await using _ = sender.link;
      const settings = { protocol: 4 } as const;
      const receiver = linkTo(broker.url, settings, { clientId: 'dm', subscriptions: ['dm/+/up'] });
      await using _receiver = receiver.link;
      await Promise.all([sender.events.until('mqtt.connected'), receiver.events.until('mqtt.connected')]);
      assert.deepEqual(await outcomes(texts(300).map((text) => sender.link.publish(up(text)))), {
        sent: 300,
      });
      while (receiver.received.length < 300) await turn();
      assert.deepEqual(new Set(receiver.received.map(({ text }) => text)), new Set(texts(300)));
      assert.equal(sender.events.count('mqtt.disconnected'), 0);
    });

  test('the queue is bounded and fair: a busy flow gets the reason, another one is served before it', async () => {
    const { broker, unacknowledged, acknowledge } = await slowBroker(1);
    await using _broker = broker;
    const { link, events } = linkTo(broker.url, { protocol: 5 });
    await using _ = link;
    await events.until('mqtt.connected');
    const busy = texts(1100).map((text) => link.publish(up(text, { flow: 'busy' })));
    for (const one of busy) one.catch(() => {});
    const other = link.publish(up('other', { flow: 'other' }));
    const refused = await Promise.allSettled(busy.slice(1026));
    assert.ok(refused.every((one) => one.status === 'rejected' && one.reason.code === 'full'));
    assert.match(
      String(refused[0]?.status === 'rejected' && refused[0].reason.message),
      /too many messages wait; the bound is 1024, or 8388608 bytes/,
    );
    for (let sent = 1; sent <= 3; sent++) {
      while (broker.publishes.length < sent) await turn();
      acknowledge();
    }
    await other;
    assert.ok(broker.publishes.slice(0, 3).some(({ payload }) => payload.toString() === 'other'));
    assert.ok((await outcomes([busy[1024]!])).full, 'the latest of the busy flow made room for the other');
    // Otherwise the link waits for acknowledgements before it ends.
    while (unacknowledged.length === 0) await turn();
    unacknowledged[0]!.client.kick();
    await events.until('mqtt.disconnected');
  });

  test('a broker that never acknowledges is left after 30 s, with the reason, and what waits is told', async () => {
    const { broker } = await slowBroker();
    await using _broker = broker;
    const { link, clock, events } = linkTo(broker.url, { protocol: 5 });
    await using _ = link;
    await events.until('mqtt.connected');
    const all = outcomes(texts(100).map((text) => link.publish(up(text))));
    while (broker.publishes.length < 64) await turn();
    assert.equal(link.waiting, 36);
    clock.advance(29_999);
    assert.equal(link.connected, true);
    clock.advance(1);
    const { fields } = await events.until('mqtt.disconnected');
    assert.equal(fields.reason, 'the broker did not acknowledge a message in 30 s');
    assert.deepEqual([await all, link.waiting], [{ unavailable: 100 }, 0]);
    assert.equal(events.count('mqtt.packet-limit'), 0);
  });

  test('the end of a connection fails what waits, and the next one begins with an empty window', async () => {
    const { broker } = await slowBroker(10);
    await using _broker = broker;
    const { link, clock, events } = linkTo(broker.url, { protocol: 5 });
    await using _ = link;
    await events.until('mqtt.connected');
    let clients: HostileClient[] = [];
    broker.behaviour = { published: (_packet, client) => clients.push(client) };
    const all = outcomes(texts(50).map((text) => link.publish(up(text))));
    while (clients.length < 10) await turn();
    clients[0]!.kick(0x97);
    assert.deepEqual(await all, { unavailable: 50 });
    await assert.rejects(link.publish(up('x')), { code: 'unavailable' });
    broker.behaviour = {};
    clients = [];
    const connected = events.next('mqtt.connected');
    clock.advance(clock.next!);
    await connected;
    assert.deepEqual(await outcomes(texts(50).map((text) => link.publish(up(text)))), { sent: 50 });
  });
});

describe('quick messages', limit, () => {
  test('go with QoS 0 after one of the topic, and one of the size, was acknowledged on this connection', async () => {
    await using broker = await startHostileBroker();
    const { link, clock, events } = linkTo(broker.url, { protocol: 5 });
    await using _ = link;
    await events.until('mqtt.connected');
    const send = async (text: string, topic = 'dm/gw-1/up') => {
      const before = broker.publishes.length;
      await link.publish({ topic, payload: Buffer.from(text), quick: true });
      while (broker.publishes.length === before) await turn();
      return broker.publishes.at(-1)!.qos;
    };
    const long = 'x'.repeat(2000);
    assert.deepEqual(
      [await send('a'), await send('b'), await send('c', 'dm/gw-1/up/w'), await send('d'), await send(long)],
      [1, 0, 1, 0, 1],
    );
    assert.equal(await send(long), 0);
    broker.behaviour = { published: (_packet, client) => client.kick() };
    await assert.rejects(link.publish(up('x')));
    broker.behaviour = {};
    const connected = events.next('mqtt.connected');
    clock.advance(clock.next!);
    await connected;
    assert.equal(await send('a'), 1, 'another connection, perhaps another broker');
  });

  test('messages of one turn are written at once, and each arrives whole', async () => {
    await using broker = await startHostileBroker();
    const { link, events } = linkTo(broker.url, { protocol: 4 });
    await using _ = link;
    await events.until('mqtt.connected');
    await link.publish(up('x'.repeat(100)));
    for (const text of texts(500)) void link.publish(up(text, { quick: true }));
    while (broker.publishes.length < 501) await turn();
    assert.deepEqual(
      broker.publishes.slice(1).map(({ payload }) => payload.toString()),
      texts(500),
    );
  });

  test('a broker that does not read makes them wait, up to the bound', async (t) => {
    const sockets: HostileClient[] = [];
    await using broker = await startHostileBroker({
      published: (_packet, client) => {
        sockets.push(client);
        return true;
      },
    });
    const { link, events } = linkTo(broker.url, { protocol: 4 });
    await using _ = link;
    await events.until('mqtt.connected');
    const payload = Buffer.alloc(60_000, 'x');
    await link.publish({ topic: 'dm/gw-1/up', payload });
    sockets[0]!.pause();
    const all = Array.from({ length: 400 }, () =>
      link.publish({ topic: 'dm/gw-1/up', payload, quick: true }),
    );
    const settled = outcomes(all);
    while (link.waiting === 0) {
      all.push(link.publish({ topic: 'dm/gw-1/up', payload, quick: true }));
      all.at(-1)!.catch(() => {});
      await turn();
    }
    const more = outcomes(
      Array.from({ length: 300 }, () => link.publish({ topic: 'dm/gw-1/up', payload, quick: true })),
    );
    await turn();
    assert.ok(link.waiting > 0 && link.waiting <= (8 * 1024 * 1024) / 60_000, `${link.waiting} wait`);
    sockets[0]!.resume();
    const { full = 0 } = await more;
    assert.ok(full > 0, 'beyond 8 MiB');
    await settled;
    t.diagnostic(`${broker.publishes.length} arrived`);
    assert.equal(link.waiting, 0);
  });
});

test(
  'the acknowledgement of TCP travels with an empty message, where more is expected and nothing else is sent',
  limit,
  async () => {
    await using broker = await startHostileBroker();
    let isNeeded = true;
    const topic = 'dm/gw-1/up/~';
    const { link, clock, events, received } = linkTo(
      broker.url,
      { protocol: 5 },
      { carrier: { topic, isNeeded: () => isNeeded } },
    );
    await using _ = link;
    await events.until('mqtt.connected');
    await link.publish(up('x'.repeat(100)));
    const down = async (text: string) => {
      const count = received.length;
      broker.deliver({ topic: 'dm/gw-1/down', payload: Buffer.from(text), qos: 0 });
      while (received.length === count) await turn();
    };
    const carried = () => broker.publishes.filter((one) => one.topic === topic).length;
    await down('1');
    await down('2');
    clock.advance(1);
    while (carried() === 0) await turn();
    assert.deepEqual(
      [carried(), broker.publishes.at(-1)!.payload.length, broker.publishes.at(-1)!.qos],
      [1, 0, 0],
    );
    await down('3');
    await link.publish(up('y', { quick: true }));
    clock.advance(1);
    isNeeded = false;
    await down('4');
    clock.advance(1);
    await link.publish(up('z'));
    assert.equal(carried(), 1, 'another message carried it, or nothing more was expected');
  },
);
