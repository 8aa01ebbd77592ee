import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { startMosquitto } from '../../peers/brokers.ts';
import { startHostileBroker } from '../../peers/hostile-broker.ts';
import { linkTo, up } from './link-rig.ts';

const limit = { timeout: 30_000 };

describe('a broker that refuses large messages by its PUBACK', limit, () => {
  for (const [name, start, sizeLimit] of [
    [
      'mosquitto with message_size_limit',
      () => startMosquitto(['allow_anonymous true', 'message_size_limit 16384']),
      16_384,
    ],
    [
      'a broker that takes 5000 bytes',
      () =>
        startHostileBroker({
          published: ({ payload, qos, messageId }, client) => {
            if (payload.length <= 5000) return true;
            if (qos === 1) client.send({ cmd: 'puback', messageId: messageId!, reasonCode: 0x95 });
            return false;
          },
        }),
      5000,
    ],
  ] as const)
    test(`${name}: the message fails, the connection stays, and the limit is learned`, async () => {
      await using broker = await start();
      const { link, events } = linkTo(broker.url, { protocol: 5 });
      await using _ = link;
      await events.until('mqtt.connected');
      await link.publish(up('a'));
      // All of them are under way before the first refusal comes.
      const many = await Promise.allSettled(
        Array.from({ length: 100 }, () => link.publish(up('x'.repeat(40_000)))),
      );
      for (const one of many) assert.equal(one.status === 'rejected' ? one.reason.code : 'sent', 'tooLarge');
      assert.equal(events.count('mqtt.packet-limit'), 1, 'one cause is told once');
      let size = 40_000;
      for (let tries = 0; ; tries++) {
        assert.ok(tries < 6, 'half of what is left with each attempt');
        size =
          Number(events.all.findLast(({ name: event }) => event === 'mqtt.packet-limit')?.fields.limit) - 100;
        const outcome = await link.publish(up('x'.repeat(size))).then(
          () => 'sent',
          ({ code }) => code,
        );
        if (outcome === 'sent') break;
        assert.equal(outcome, 'tooLarge');
      }
      assert.ok(size <= sizeLimit && size > sizeLimit / 3, `${size} bytes are sent`);
      assert.equal(events.count('mqtt.disconnected'), 0);
      assert.deepEqual(link.connected, true);
    });

  test('mosquitto over MQTT 3.1.1 acknowledges what it drops, and the connection stays', async () => {
    await using broker = await startMosquitto(['allow_anonymous true', 'message_size_limit 16384']);
    const { link, events } = linkTo(broker.url, { protocol: 4 });
    await using _ = link;
    await events.until('mqtt.connected');
    await link.publish(up('x'.repeat(40_000)));
    assert.equal(events.count('mqtt.disconnected'), 0);
  });
});
