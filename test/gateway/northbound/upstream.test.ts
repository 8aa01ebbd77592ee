import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { Upstream } from '../../../src/gateway/northbound/upstream.ts';
import { decodeEnvelope } from '../../../src/wire/tunnel/envelope.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { withAccessRules } from '../../peers/access-rules.ts';
import { startAedes, startMosquitto } from '../../peers/brokers.ts';
import { type Behaviour, type HostileClient, startHostileBroker } from '../../peers/hostile-broker.ts';
import { headendAt, request, upstreamTo } from './upstream-rig.ts';

const limit = { timeout: 30_000 };
const turn = () => new Promise(setImmediate);
/** Waits until the broker has acknowledged all that was published. */
const acknowledged = async ({ upstream }: ReturnType<typeof upstreamTo>) => {
  while (upstream.description.waiting > 0) await turn();
  // What waited for the acknowledgement goes on.
  await turn();
};

test(
  'without a broker: unavailable at once; beyond the bound of packages that wait: full; and nothing stays',
  limit,
  async () => {
    await using broker = await startHostileBroker();
    const { upstream, clock, events } = upstreamTo(broker.url);
    await using _ = upstream;
    await assert.rejects(upstream.request(request('early')), { code: 'unavailable' });
    await events.until('mqtt.connected');
    const all = Array.from({ length: 1025 }, (_, at) => upstream.request(request(String(at))));
    const outcomes = Promise.allSettled(all);
    await assert.rejects(all[1024]!, { code: 'full', message: 'too many packages wait for the DM server' });
    while (broker.publishes.length < 1025) await turn();
    for (let passed = 0; passed < 60_000; passed += 5000) {
      clock.advance(5000);
      for (let i = 0; i < 50; i++) await turn();
    }
    const codes = (await outcomes).map((one) => (one.status === 'rejected' ? one.reason.code : 'ok'));
    assert.deepEqual(new Set(codes.slice(0, 1024)), new Set(['timeout']));
    assert.deepEqual([upstream.pending, upstream.description.waiting], [0, 0]);
    await upstream[Symbol.asyncDispose]();
    assert.equal(clock.timers, 0);
  },
);

test(
  'one host in the name of many devices: other hosts and the gateway itself have their places and their turn',
  limit,
  async () => {
    const unacknowledged: { id: number; client: HostileClient }[] = [];
    await using broker = await startHostileBroker({
      connack: () => ({ code: 0, properties: { receiveMaximum: 10 } }),
      published: ({ topic, messageId }, client) => {
        if (topic === 'dm/gw-1/state') return true;
        unacknowledged.push({ id: messageId!, client });
        return false;
      },
    });
    const one = upstreamTo(broker.url);
    await using _ = one.upstream;
    const { upstream, events } = one;
    await events.until('mqtt.connected');
    await acknowledged(one);
    const from = (device: string, peer: string) => upstream.request({ ...request(device), peer });
    const refused: number[] = [];
    const strangers = Array.from({ length: 1100 }, (__, at) =>
      from(`stranger-${at % 300}`, '10.6.6.6').catch(({ code, message }) => {
        if (code !== 'full') return;
        assert.match(message, /^too many (packages|messages) wait/);
        refused.push(at);
      }),
    );
    await turn();
    assert.deepEqual(
      refused,
      Array.from({ length: 76 }, (__, at) => 1024 + at),
    );
    const others = [from('good', '10.0.0.5'), from('better', '10.0.0.6')];
    const { device: __, ...mine } = request('');
    const own = Array.from({ length: 16 }, () => upstream.request({ ...mine, body: Buffer.from('mine') }));
    const all = Promise.allSettled([...others, ...own, ...strangers]);
    await turn();
    const gaveWay = refused.slice(76);
    await assert.rejects(upstream.request(mine), { code: 'full' }, 'the places of the gateway are bounded');
    const bodies = () =>
      broker.publishes
        .filter(({ topic }) => topic === 'dm/gw-1/up')
        .map(({ payload }) => Buffer.from(decodeEnvelope(payload as Buffer).body!).toString());
    while (bodies().length < 10) await turn();
    while (bodies().length < 16) {
      const next = unacknowledged.shift();
      next?.client.send({ cmd: 'puback', messageId: next.id, reasonCode: 0 });
      await turn();
    }
    const turns = bodies().slice(10, 16);
    for (const body of ['package of good', 'package of better', 'mine'])
      assert.ok(turns.includes(body), `${body} is among the next six`);
    assert.ok(gaveWay.length >= 2 && Math.min(...gaveWay) > 950, `the latest of the stranger: ${gaveWay}`);
    // Otherwise the link waits for acknowledgements before it ends.
    unacknowledged[0]!.client.kick();
    await events.until('mqtt.disconnected');
    await upstream[Symbol.asyncDispose]();
    await all;
  },
);

test('credentials in the URL of the broker are in no event and no status', async () => {
  const events = new EventRecorder();
  const parts = {
    gatewayId: 'gw-1',
    softwareVersion: '0',
    clock: new HandClock(),
    entropy: seededEntropy(1),
    events,
  };
  const settings = { url: 'mqtt://someone:swordfish@127.0.0.1:1', protocol: 5 } as const;
  await using upstream = new Upstream({ ...parts, settings }, 1000);
  upstream.start({ notified: async () => {}, connected: () => {}, disconnected: () => {} });
  const { fields } = await events.until('mqtt.connect-failed');
  assert.equal(fields.url, 'mqtt://127.0.0.1:1');
  assert.doesNotMatch(JSON.stringify([events.all, upstream.description]), /someone|swordfish/);
});

describe('a package that is lost, or its answer', limit, () => {
  test('the package went with QoS 0 and is lost: after 5 s it goes again, with QoS 1', async () => {
    await using broker = await startHostileBroker();
    const { upstream, clock, events } = upstreamTo(broker.url);
    await using _ = upstream;
    const headend = headendAt(broker.url);
    await using _headend = headend.downlink;
    await Promise.all([events.until('mqtt.connected'), headend.events.until('mqtt.connected')]);
    for (let i = 0; i < 2; i++) await upstream.request(request('a'));
    broker.behaviour = { published: ({ topic, qos }) => !(topic.startsWith('dm/gw-1/up') && qos === 0) };
    const before = broker.publishes.length;
    const answer = upstream.request(request('a'));
    while (broker.publishes.length === before) await turn();
    clock.advance(4999);
    await turn();
    assert.equal(broker.publishes.length, before + 1);
    clock.advance(1);
    assert.equal(Buffer.from((await answer).body!).toString(), 'package of a');
    const [first, second] = broker.publishes.slice(before);
    assert.deepEqual([first!.qos, second!.qos, first!.topic], [0, 1, second!.topic]);
    assert.deepEqual(first!.payload, second!.payload, 'the correlation is the same');
  });

  test('the answer is lost: the package is answered again, and worked on once', async () => {
    await using broker = await startHostileBroker();
    const { upstream, clock, events } = upstreamTo(broker.url);
    await using _ = upstream;
    let worked = 0;
    const headend = headendAt(broker.url, async (body) => {
      worked++;
      return { body };
    });
    await using _headend = headend.downlink;
    await Promise.all([events.until('mqtt.connected'), headend.events.until('mqtt.connected')]);
    for (let i = 0; i < 3; i++) await upstream.request(request('a'));
    let lost = 0;
    broker.behaviour = {
      published: ({ topic, qos }) => {
        const isLost = topic === 'dm/gw-1/down' && qos === 0;
        if (isLost) lost++;
        return !isLost;
      },
    };
    const answer = upstream.request(request('a'));
    while (lost === 0) await turn();
    clock.advance(5000);
    assert.equal(Buffer.from((await answer).body!).toString(), 'package of a');
    assert.deepEqual([worked, lost], [4, 1]);
  });

  test('the worker of a session is gone: the package goes to another one after 10 s, and the next one at once', async () => {
    await using broker = await startMosquitto();
    const { upstream, clock, events } = upstreamTo(broker.url);
    await using _ = upstream;
    const gone = headendAt(broker.url);
    await Promise.all([events.until('mqtt.connected'), gone.events.until('mqtt.connected')]);
    for (let i = 0; i < 2; i++) await upstream.request(request('a'));
    await gone.downlink[Symbol.asyncDispose]();
    let worked = 0;
    const other = headendAt(
      broker.url,
      async (body) => {
        worked++;
        return { body };
      },
      5,
      'worker-2',
    );
    await using _other = other.downlink;
    await other.events.until('mqtt.connected');
    const answer = upstream.request(request('a'));
    let isAnswered = false;
    void answer.then(() => {
      isAnswered = true;
    });
    clock.advance(5000);
    await acknowledged({ upstream, clock, events });
    assert.equal(isAnswered, false, 'the first repetition goes to the same worker, which may be slow');
    clock.advance(5000);
    assert.equal(Buffer.from((await answer).body!).toString(), 'package of a');
    await upstream.request(request('a'));
    await upstream.request(request('a'));
    assert.equal(worked, 3);
  });

  test('a broker that says that nobody subscribes to the route (0x10): the package goes to another worker at once', async () => {
    await using broker = await startHostileBroker();
    const { upstream, events } = upstreamTo(broker.url);
    await using _ = upstream;
    const gone = headendAt(broker.url);
    await Promise.all([events.until('mqtt.connected'), gone.events.until('mqtt.connected')]);
    await upstream.request(request('a'));
    await gone.downlink[Symbol.asyncDispose]();
    const other = headendAt(broker.url, undefined, 5, 'worker-2');
    await using _other = other.downlink;
    await other.events.until('mqtt.connected');
    broker.behaviour = {
      published: ({ topic, messageId }, client) => {
        if (topic !== 'dm/gw-1/up/worker-1') return true;
        client.send({ cmd: 'puback', messageId: messageId!, reasonCode: 0x10 });
        return false;
      },
    };
    assert.equal(Buffer.from((await upstream.request(request('a'))).body!).toString(), 'package of a');
    const topics = broker.publishes
      .map(({ topic }) => topic)
      .filter((topic) => topic.startsWith('dm/gw-1/up'));
    assert.deepEqual(topics, ['dm/gw-1/up', 'dm/gw-1/up/worker-1', 'dm/gw-1/up']);
  });

  test('a broker that restarts in between: 300 packages under way are all answered', async () => {
    await using broker = await startMosquitto();
    const { upstream, clock, events } = upstreamTo(broker.url);
    await using _ = upstream;
    const gate = Promise.withResolvers<void>();
    let waiting = 0;
    const headend = headendAt(broker.url, async (body) => {
      waiting++;
      await gate.promise;
      return { body };
    });
    await using _headend = headend.downlink;
    await Promise.all([events.until('mqtt.connected'), headend.events.until('mqtt.connected')]);
    const all = Array.from({ length: 300 }, (_, at) => upstream.request(request(`d${at}`)));
    while (waiting < 150) await turn();
    await broker.stop();
    await Promise.all([events.until('mqtt.disconnected'), headend.events.until('mqtt.disconnected')]);
    gate.resolve();
    await broker.restart();
    const again = [events.next('mqtt.connected'), headend.events.next('mqtt.connected')];
    headend.clock.advance(headend.clock.next!);
    await again[1];
    clock.advance(clock.next!);
    await again[0];
    const bodies = (await Promise.all(all)).map(({ body }) => Buffer.from(body!).toString());
    assert.deepEqual(
      bodies,
      Array.from({ length: 300 }, (_, at) => `package of d${at}`),
    );
  });

  test('a broker that stays away: the package fails when its time is over', async () => {
    await using broker = await startHostileBroker();
    const { upstream, clock, events } = upstreamTo(broker.url);
    await using _ = upstream;
    await events.until('mqtt.connected');
    broker.behaviour = { connack: () => ({ code: 0x88 }), published: (_packet, client) => client.kick() };
    const answer = assert.rejects(upstream.request(request('a')), { code: 'timeout' });
    await events.until('mqtt.disconnected');
    for (let passed = 0; passed < 60_000; passed += 1000) {
      clock.advance(1000);
      await turn();
    }
    await answer;
    assert.equal(events.count('mqtt.unanswered'), 0, 'there was no connection to blame');
  });

  test('a package above the limit of mosquitto is refused at once, and the uplink stays', async () => {
    await using broker = await startMosquitto(['allow_anonymous true', 'message_size_limit 16384']);
    const { upstream, events } = upstreamTo(broker.url);
    await using _ = upstream;
    const headend = headendAt(broker.url);
    await using _headend = headend.downlink;
    await Promise.all([events.until('mqtt.connected'), headend.events.until('mqtt.connected')]);
    const large = { ...request('stranger'), body: Buffer.alloc(40_000) };
    for (let i = 0; i < 3; i++) await assert.rejects(upstream.request(large), { code: 'tooLarge' });
    await upstream.request(request('a'));
    assert.deepEqual([upstream.pending, events.count('mqtt.disconnected')], [0, 0]);
  });

  test('an answer that is too large for the broker becomes an error, and no silence', async () => {
    await using broker = await startMosquitto(['allow_anonymous true', 'max_packet_size 5000']);
    const { upstream, events } = upstreamTo(broker.url);
    await using _ = upstream;
    const headend = headendAt(broker.url, async () => ({ body: Buffer.alloc(8000) }));
    await using _headend = headend.downlink;
    await Promise.all([events.until('mqtt.connected'), headend.events.until('mqtt.connected')]);
    const { status, reason } = await upstream.request(request('a'));
    assert.equal(status, 413);
    assert.match(String(reason), /takes at most 5000/);
  });
});

describe('what access rules refuse, as the gateway sees it', limit, () => {
  test('publishing packages, at mosquitto over MQTT 5: refused at once with the reason, and allowed again', async () => {
    await using rules = withAccessRules(
      'topic read dm/#',
      'topic write dm/gw-1/state',
      'topic write dm/gw-1/down',
    );
    await using broker = await startMosquitto(rules.settings);
    const { upstream, events } = upstreamTo(broker.url);
    await using _ = upstream;
    const headend = headendAt(broker.url);
    await using _headend = headend.downlink;
    await Promise.all([events.until('mqtt.connected'), headend.events.until('mqtt.connected')]);
    for (let i = 0; i < 2; i++)
      await assert.rejects(upstream.request(request('a')), {
        code: 'unavailable',
        message: /does not allow to publish on dm\/gw-1\/up: Not authorized/,
      });
    assert.equal(events.count('mqtt.refused'), 1);
    assert.match(String(upstream.description.reason), /^may not publish on dm\/gw-1\/up/);
    rules.change('topic readwrite dm/#');
    broker.reload();
    while (upstream.description.reason !== undefined) await upstream.request(request('a')).catch(() => {});
    assert.equal(events.count('mqtt.allowed'), 1);
  });

  /** Answers each package by this PUBACK. The state of the gateway is accepted. */
  const refusing = (reasonCode: number): Behaviour => ({
    published: ({ topic, messageId }, client) => {
      if (topic === 'dm/gw-1/state') return true;
      client.send({ cmd: 'puback', messageId: messageId!, reasonCode });
      return false;
    },
  });

  for (const [code, words] of [
    [0x80, 'Unspecified error (0x80)'],
    [0x83, 'Implementation specific error (0x83)'],
    [0x90, 'Topic Name invalid (0x90)'],
    [0x91, 'Packet identifier in use (0x91)'],
    [0x96, 'Message rate too high (0x96)'],
    [0x99, 'Payload format invalid (0x99)'],
    [0xef, 'unknown reason (0xEF)'],
  ] as const)
    test(`PUBACK with ${words}: the package fails at once, with the reason in an event and the status`, async () => {
      await using broker = await startHostileBroker(refusing(code));
      const { upstream, events } = upstreamTo(broker.url);
      await using _ = upstream;
      await events.until('mqtt.connected');
      for (let i = 0; i < 3; i++)
        await assert.rejects(upstream.request(request('a')), {
          code: 'unavailable',
          message: `the broker refuses a message on dm/gw-1/up: ${words}`,
        });
      const sent = broker.publishes.filter(({ topic }) => topic === 'dm/gw-1/up');
      assert.deepEqual([sent.length, upstream.pending, events.count('mqtt.refused')], [3, 0, 1]);
      assert.ok(String(upstream.description.reason).endsWith(words));
      assert.equal(events.count('mqtt.disconnected'), 0);
      broker.behaviour = {};
      const headend = headendAt(broker.url);
      await using _headend = headend.downlink;
      await headend.events.until('mqtt.connected');
      await upstream.request(request('a'));
      assert.deepEqual([upstream.description.reason, events.count('mqtt.allowed')], [undefined, 1]);
    });

  test('PUBACK with Quota exceeded: the package waits and goes again, and the status says why', async () => {
    await using broker = await startHostileBroker(refusing(0x97));
    const { upstream, clock, events } = upstreamTo(broker.url);
    await using _ = upstream;
    const headend = headendAt(broker.url);
    await using _headend = headend.downlink;
    await Promise.all([events.until('mqtt.connected'), headend.events.until('mqtt.connected')]);
    const answer = upstream.request(request('a'));
    await events.until('mqtt.refused');
    assert.match(String(upstream.description.reason), /Quota exceeded \(0x97\)$/);
    await acknowledged({ upstream, clock, events });
    broker.behaviour = {};
    clock.advance(5000);
    assert.equal(Buffer.from((await answer).body!).toString(), 'package of a');
    assert.equal(upstream.description.reason, undefined);
  });

  for (const protocol of [4, 5] as const)
    for (const [what, rule] of [
      ['reads nothing', 'topic write dm/gw-1/#'],
      ['publishes nothing', 'topic read dm/gw-1/#'],
    ] as const)
      test(`a gateway that ${what}, at mosquitto over MQTT ${protocol}: event and status say so, and take it back`, async () => {
        await using rules = withAccessRules(rule);
        await using broker = await startMosquitto(rules.settings);
        const one = upstreamTo(broker.url, protocol);
        const { upstream, clock, events } = one;
        await using _ = upstream;
        await events.until('mqtt.connected');
        const isTold = protocol === 5 && what === 'publishes nothing';
        if (isTold) await events.until('mqtt.refused', { access: 'publish' });
        await acknowledged(one);
        clock.advance(10_000);
        if (!isTold) await events.until('mqtt.refused', { access: 'echo', topic: 'dm/gw-1/state' });
        assert.match(
          String(upstream.description.reason),
          isTold
            ? /^may not publish on dm\/gw-1\/state: .*Not authorized/
            : /^may not publish or read dm\/gw-1\/state: its own message did not come back in 10 s/,
        );
        assert.equal(events.count('mqtt.refused'), 1);
        rules.change('topic readwrite dm/gw-1/#');
        broker.reload();
        // mosquitto takes its time to read the rules. The gateway asks again each minute.
        while (events.count('mqtt.allowed') === 0) {
          clock.advance(5000);
          await acknowledged(one);
        }
        assert.equal(upstream.description.reason, undefined);
      });

  for (const start of [startAedes, startMosquitto])
    test(`${start.name}: the echo of the state comes, and nothing is reported`, async () => {
      await using broker = await start();
      const { upstream, clock, events } = upstreamTo(broker.url, 'auto');
      await using _ = upstream;
      if (start === startAedes) {
        await events.until('mqtt.version-refused');
        clock.advance(0);
      }
      const headend = headendAt(broker.url, undefined, 4);
      await using _headend = headend.downlink;
      await Promise.all([events.until('mqtt.connected'), headend.events.until('mqtt.connected')]);
      // The echo was published before this package.
      await upstream.request(request('a'));
      await upstream.request(request('a'));
      clock.advance(10_000);
      await turn();
      assert.equal(events.count('mqtt.refused'), 0);
    });

  test('three packages without an answer are said once, with what may be wrong, until an answer comes', async () => {
    await using broker = await startHostileBroker();
    const { upstream, clock, events } = upstreamTo(broker.url);
    await using _ = upstream;
    await events.until('mqtt.connected');
    const all = Array.from({ length: 5 }, (_, at) => upstream.request(request(String(at))));
    const outcomes = Promise.allSettled(all);
    for (let passed = 0; passed < 60_000; passed += 5000) {
      clock.advance(5000);
      await turn();
    }
    await outcomes;
    assert.equal(events.count('mqtt.unanswered'), 1);
    assert.match(
      String(upstream.description.reason),
      /^the last 5 packages got no answer on dm\/gw-1\/down: .*publish on dm\/gw-1\/up or read dm\/gw-1\/down$/,
    );
    const { correlation } = decodeEnvelope(broker.publishes.at(-1)!.payload as Buffer);
    assert.ok(correlation);
    const headend = headendAt(broker.url);
    await using _headend = headend.downlink;
    await headend.events.until('mqtt.connected');
    await upstream.request(request('a'));
    assert.equal(upstream.description.reason, undefined);
  });
});

for (const protocol of [4, 5] as const)
  test(
    `two gateways of one name, at mosquitto over MQTT ${protocol}: both know, and the DM server is told`,
    limit,
    async () => {
      await using broker = await startMosquitto();
      const headend = headendAt(broker.url);
      await using _headend = headend.downlink;
      await headend.events.until('mqtt.connected');
      const one = upstreamTo(broker.url, protocol);
      await using _one = one.upstream;
      await one.events.until('mqtt.connected');
      while (headend.states.length === 0) await turn();
      let thrownOut = one.events.next('mqtt.disconnected');
      const other = upstreamTo(broker.url, protocol);
      await using _other = other.upstream;
      await thrownOut;
      while (headend.states.length < 2) await turn();
      for (const [out, next] of [
        [one, other],
        [other, one],
        [one, other],
      ] as const) {
        await thrownOut;
        const { length } = headend.states;
        const connected = out.events.next('mqtt.connected');
        thrownOut = next.events.next('mqtt.disconnected');
        out.clock.advance(out.clock.next!);
        await connected;
        while (headend.states.length === length) await turn();
      }
      for (const { upstream, events } of [one, other]) {
        assert.equal(events.count('mqtt.rival'), 1);
        assert.match(
          String(upstream.description.reason),
          /another gateway publishes its state under this name|another client connected as gw-1/,
        );
      }
      assert.match(
        String(headend.states.at(-1)?.problem),
        /another gateway publishes its state under this name|another client connected as gw-1/,
      );
      // The other one goes, and the state is in order again after three minutes.
      await other.upstream[Symbol.asyncDispose]();
      const connected = one.events.next('mqtt.connected');
      if (!one.upstream.connected) {
        one.clock.advance(one.clock.next!);
        await connected;
      }
      await acknowledged(one);
      one.clock.advance(180_000);
      while (headend.states.at(-1)?.problem !== undefined || !headend.states.at(-1)?.online) await turn();
      assert.equal(one.upstream.description.reason, undefined);
    },
  );
