import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { withAccessRules } from '../../peers/access-rules.ts';
import { startMosquitto } from '../../peers/brokers.ts';
import { startHostileBroker } from '../../peers/hostile-broker.ts';
import { linkTo, up } from './link-rig.ts';

const limit = { timeout: 30_000 };

describe('what access rules refuse', limit, () => {
  for (const [version, code, reason] of [
    [5, 0x87, 'Not authorized (0x87)'],
    [4, 0x80, 'Unspecified error (0x80)'],
  ] as const)
    test(`a subscription, over MQTT ${version}: the connection stays, the status says so, and it is asked for again`, async () => {
      await using broker = await startHostileBroker({
        suback: (topics) => topics.map((topic) => (topic === 'dm/gw-1/down' ? code : 1)),
      });
      const { link, clock, events } = linkTo(
        broker.url,
        { protocol: version },
        { watches: ['dm/gw-1/state'] },
      );
      await using _ = link;
      const refused = await events.until('mqtt.refused');
      assert.deepEqual(refused.fields, { access: 'subscribe', topic: 'dm/gw-1/down', reason });
      assert.equal(link.connected, false);
      assert.deepEqual(link.problems, [`may not subscribe to dm/gw-1/down: ${reason}`]);
      for (let again = 0; again < 3; again++) {
        const { length } = broker.subscribes;
        clock.advance(90_000);
        while (broker.subscribes.length === length) await new Promise(setImmediate);
        await new Promise(setImmediate);
      }
      assert.deepEqual([broker.connects.length, events.count('mqtt.refused')], [1, 1]);
      broker.behaviour = {};
      clock.advance(90_000);
      await events.until('mqtt.connected');
      assert.equal(events.count('mqtt.allowed'), 1);
      assert.deepEqual([link.connected, link.problems], [true, []]);
    });

  test('a subscription that is not needed may be refused', async () => {
    await using broker = await startHostileBroker({
      suback: (topics) => topics.map((topic) => (topic === 'x' ? 0x87 : 1)),
    });
    const { link, events } = linkTo(broker.url, { protocol: 5 }, { watches: ['x'] });
    await using _ = link;
    await events.until('mqtt.connected');
    assert.deepEqual(link.problems, []);
  });

  test('a publication, at mosquitto over MQTT 5: refused by name, said once, and its end as well', async () => {
    await using rules = withAccessRules('topic read dm/gw-1/#', 'topic write dm/gw-1/state');
    await using broker = await startMosquitto(rules.settings);
    const { link, events } = linkTo(broker.url, { protocol: 5 });
    await using _ = link;
    await events.until('mqtt.connected');
    for (let i = 0; i < 3; i++)
      await assert.rejects(link.publish(up('x', { quick: true })), {
        code: 'forbidden',
        message: 'the broker does not allow to publish on dm/gw-1/up: Not authorized (0x87)',
      });
    assert.equal(events.count('mqtt.refused'), 1);
    assert.match(link.problems.join(), /^may not publish on dm\/gw-1\/up/);
    await link.publish({ topic: 'dm/gw-1/state', payload: Buffer.from('x') });
    rules.change('topic readwrite dm/gw-1/#');
    broker.reload();
    while (link.problems.length > 0) await link.publish(up('x')).catch(() => {});
    assert.equal(events.count('mqtt.allowed'), 1);
  });
});

describe('a package above the limit of the broker', limit, () => {
  for (const [version, learned] of [
    [4, 2],
    [5, 0],
  ] as const)
    test(`mosquitto with max_packet_size, over MQTT ${version}: ${learned} connections end, then it is refused before it is sent`, async () => {
      await using broker = await startMosquitto(['allow_anonymous true', 'max_packet_size 20000']);
      const { link, clock, events } = linkTo(broker.url, { protocol: version });
      await using _ = link;
      await events.until('mqtt.connected');
      const large = up('x'.repeat(40_000));
      for (let ended = 1; ended <= learned; ended++) {
        await link.publish(up('x'.repeat(500)));
        const disconnected = events.next('mqtt.disconnected');
        await assert.rejects(link.publish(large), { code: ended < learned ? 'unavailable' : 'tooLarge' });
        await disconnected;
        assert.equal(events.count('mqtt.packet-limit'), ended - 1);
        const connected = events.next('mqtt.connected');
        clock.advance(clock.next!);
        await connected;
      }
      for (let i = 0; i < 5; i++) await assert.rejects(link.publish(large), { code: 'tooLarge' });
      await link.publish(up('x'.repeat(15_000)));
      assert.equal(events.count('mqtt.disconnected'), learned);
      assert.equal(link.problems.length, learned > 0 ? 1 : 0, 'the status says what is not sent');
    });

  test('ever smaller packages end a few connections, whatever their sender does', async () => {
    await using broker = await startMosquitto(['allow_anonymous true', 'max_packet_size 3000']);
    const { link, clock, events } = linkTo(broker.url, { protocol: 4 });
    await using _ = link;
    await events.until('mqtt.connected');
    for (let size = 64_000; size > 2000; size -= 1000) {
      await link.publish(up('x'.repeat(100)));
      const before = events.count('mqtt.disconnected');
      const outcome = await link.publish(up('x'.repeat(size))).catch((thrown) => thrown.code);
      if (size > 3000) assert.ok(['tooLarge', 'unavailable'].includes(String(outcome)), `${size} bytes`);
      if (link.connected) continue;
      if (events.count('mqtt.disconnected') === before) await events.next('mqtt.disconnected');
      const connected = events.next('mqtt.connected');
      clock.advance(clock.next!);
      await connected;
    }
    const ended = events.count('mqtt.disconnected');
    assert.ok(ended >= 1 && ended <= 10, `${ended} connections ended`);
  });

  test('mqtt.max-packet holds from the first package on', async () => {
    await using broker = await startMosquitto(['allow_anonymous true', 'max_packet_size 20000']);
    const { link, events } = linkTo(broker.url, { protocol: 4, maxPacket: 20_000 });
    await using _ = link;
    await events.until('mqtt.connected');
    await assert.rejects(link.publish(up('x'.repeat(40_000))), {
      code: 'tooLarge',
      message: 'a packet of 40018 bytes; the MQTT broker takes at most 20000',
    });
    assert.equal(events.count('mqtt.disconnected'), 0);
  });

  test('a broker that says 0x95 is believed, without any other sign', async () => {
    await using broker = await startHostileBroker({ published: (_packet, client) => client.kick(0x95) });
    const { link, events } = linkTo(broker.url, { protocol: 5 });
    await using _ = link;
    await events.until('mqtt.connected');
    await assert.rejects(link.publish(up('x'.repeat(40_000))), { code: 'tooLarge' });
    assert.equal(events.count('mqtt.packet-limit'), 1);
  });

  test('connections that break while 20 kB are under way, over MQTT 5: the next 20 kB are sent', async () => {
    await using broker = await startHostileBroker();
    const { link, clock, events } = linkTo(broker.url, { protocol: 5 });
    await using _ = link;
    await events.until('mqtt.connected');
    const large = up('x'.repeat(20_000));
    for (let i = 0; i < 3; i++) {
      await link.publish(up('x'.repeat(500)));
      const ended = events.next('mqtt.disconnected');
      broker.behaviour = { published: (_packet, client) => client.kick() };
      await assert.rejects(link.publish(large), { code: 'unavailable' });
      await ended;
      broker.behaviour = {};
      const connected = events.next('mqtt.connected');
      clock.advance(clock.next!);
      await connected;
    }
    await link.publish(large);
    assert.deepEqual([events.count('mqtt.packet-limit'), link.problems], [0, []]);
  });

  test('one connection of MQTT 3.1.1 that breaks while 20 kB are under way: the next 20 kB are sent', async () => {
    await using broker = await startHostileBroker();
    const { link, clock, events } = linkTo(broker.url, { protocol: 4 });
    await using _ = link;
    await events.until('mqtt.connected');
    const large = up('x'.repeat(20_000));
    for (let i = 0; i < 3; i++) {
      await link.publish(up('x'.repeat(500)));
      const ended = events.next('mqtt.disconnected');
      broker.behaviour = { published: (_packet, client) => client.kick() };
      await assert.rejects(link.publish(large), { code: 'unavailable' });
      await ended;
      broker.behaviour = {};
      const connected = events.next('mqtt.connected');
      clock.advance(clock.next!);
      await connected;
      await link.publish(large);
    }
    assert.deepEqual([events.count('mqtt.packet-limit'), link.problems], [0, []]);
  });

  for (const [what, reason] of [
    ['another reason', 0x97],
    ['no reason, before it acknowledged anything', undefined],
  ] as const)
    test(`a broker that ends the connection for ${what} teaches nothing about sizes`, async () => {
      await using broker = await startHostileBroker({ published: (_packet, client) => client.kick(reason) });
      const { link, events } = linkTo(broker.url, { protocol: 5 });
      await using _ = link;
      await events.until('mqtt.connected');
      await assert.rejects(link.publish(up('x'.repeat(40_000))), { code: 'unavailable' });
      await events.until('mqtt.disconnected');
      assert.equal(events.count('mqtt.packet-limit'), 0);
    });
});
