import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { connectAsync } from 'mqtt';
import { seededEntropy } from '../../src/base/entropy.ts';
import { Downlink } from '../../src/headend/downlink.ts';
import { encodeState } from '../../src/wire/tunnel/gateway-state.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';
import { withAccessRules } from '../peers/access-rules.ts';
import { startMosquitto } from '../peers/brokers.ts';
import { startHostileBroker } from '../peers/hostile-broker.ts';

/** A head-end's side of the broker. Its time stands still unless the test moves it. */
function start(url: string, protocol: 4 | 5, group?: string) {
  const clock = new HandClock();
  const events = new EventRecorder();
  const downlink = new Downlink({
    ...{ group, route: 'r1', serverId: 'dm.example', gatewayRate: 500 },
    settings: { url, protocol },
    clock,
    entropy: seededEntropy(1),
    events,
  });
  const states: string[] = [];
  downlink.start({
    isProven: () => true,
    answerPackage: () => Promise.reject(new Error('none comes')),
    gatewayStateChanged: (gateway) => void states.push(gateway),
  });
  return { downlink, clock, events, states };
}

const echo = (topic: string) => `may not publish or read ${topic}: its own message did not come back in 10 s`;
const reading = ['dm/+/up', 'dm/+/up/r1', 'dm/+/state'];
const gone = 'Not authorized (0x87)';

/** Rules of the broker, and what the head-end must say of them over MQTT 3.1.1 and 5. */
const cases: readonly (readonly [string, readonly string[], readonly string[], readonly string[]])[] = [
  ['all that it needs', ['topic readwrite dm/#'], [], []],
  ['no reading', ['topic write dm/#'], [...reading, 'dm/+/down'].map(echo), reading.map(echo)],
  [
    'no publishing',
    ['topic read dm/#'],
    [...reading, 'dm/+/down'].map(echo),
    [`may not publish on dm/~/down: ${gone}`],
  ],
  [
    'nothing',
    ['topic readwrite other/#'],
    [...reading, 'dm/+/down'].map(echo),
    [`may not publish on dm/~/down: ${gone}`],
  ],
  [
    'all but its own route',
    ['topic readwrite dm/+/up', 'topic readwrite dm/+/state', 'topic readwrite dm/+/down'],
    [echo('dm/+/up/r1')],
    [],
  ],
  [
    'the topics of gateways in one direction each, and its own check',
    ['topic read dm/+/up/#', 'topic read dm/+/state', 'topic write dm/+/down', 'topic readwrite dm/~/#'],
    [],
    [],
  ],
];

describe('what the broker does not let a head-end do', { timeout: 120_000 }, () => {
  for (const [what, rules, over311, over5] of cases)
    for (const protocol of [4, 5] as const)
      test(`rules for ${what}, over MQTT ${protocol}: said once, and gone by itself when the rules are right`, async () => {
        await using access = withAccessRules(...rules);
        await using broker = await startMosquitto([...access.settings, 'set_tcp_nodelay true']);
        const { downlink, clock, events, states } = start(broker.url, protocol);
        await using _ = downlink;
        await events.until('mqtt.connected');
        const said = protocol === 4 ? over311 : over5;
        const texts = () =>
          downlink.problems.map((text) => text.replace(/: the broker does not allow .*: /, ': '));
        /** Lets time pass, and the broker deliver what it will in each part of it. */
        const wait = async (seconds: number) => {
          for (let passed = 0; passed <= seconds; passed += 5) {
            for (let at = 0; at < 4; at++) await roundTrip(broker.url);
            if (passed < seconds) clock.advance(5000);
          }
        };
        await wait(10);
        assert.deepEqual(texts().toSorted(), [...said].toSorted());
        await wait(330);
        assert.deepEqual(texts().toSorted(), [...said].toSorted(), 'it lasts');
        assert.equal(events.count('mqtt.refused'), said.length, 'each is said once');
        access.change('topic readwrite dm/#');
        broker.reload();
        while (downlink.problems.length > 0) await wait(10);
        assert.equal(events.count('mqtt.allowed'), said.length);
        assert.equal(events.count('mqtt.disconnected'), 0);
        assert.deepEqual(states, [], 'its own messages are no gateway');
      });

  test('rules that change while it is connected are noticed', async () => {
    await using access = withAccessRules('topic readwrite dm/#');
    await using broker = await startMosquitto([...access.settings, 'set_tcp_nodelay true']);
    const { downlink, clock, events } = start(broker.url, 4);
    await using _ = downlink;
    await events.until('mqtt.connected');
    access.change('topic write dm/#');
    await roundTrip(broker.url);
    broker.reload();
    while (events.count('mqtt.refused') < 4) {
      clock.advance(300_000);
      await roundTrip(broker.url);
      clock.advance(10_000);
      await roundTrip(broker.url);
    }
    assert.deepEqual(downlink.problems.toSorted(), [...reading, 'dm/+/down'].map(echo).toSorted());
  });

  test('a message of a gateway shows that its topic can be read, the check of another worker does not', async () => {
    await using access = withAccessRules(
      'topic read dm/+/state',
      'topic read dm/+/up',
      'topic write dm/+/down',
      'user gw-1',
      'topic readwrite dm/gw-1/#',
      'topic write dm/~/#',
    );
    await using broker = await startMosquitto([...access.settings, 'set_tcp_nodelay true']);
    const { downlink, clock, events, states } = start(broker.url, 4);
    await using _ = downlink;
    await events.until('mqtt.connected');
    const state = encodeState({ online: true, software: '1', bootId: Buffer.alloc(8) });
    const gateway = broker.url.replace('//', '//gw-1@');
    // The check of another worker is not the echo of this one.
    await publish(gateway, 'dm/~/up', Buffer.from('another one'));
    await publish(gateway, 'dm/gw-1/state', state);
    while (states.length === 0) await turn();
    clock.advance(10_000);
    assert.deepEqual(
      downlink.problems.filter((text) => text.includes('state')),
      [],
    );
    assert.equal(downlink.problems.length, 3);
  });

  test('workers of a group leave the shared subscription out, and each other alone', async () => {
    await using broker = await startMosquitto(['allow_anonymous true']);
    const one = start(broker.url, 4, 'g');
    await using _one = one.downlink;
    await one.events.until('mqtt.connected');
    await using hostile = await startHostileBroker();
    const two = start(hostile.url, 4, 'g');
    await using _two = two.downlink;
    await two.events.until('mqtt.connected');
    while (hostile.publishes.length < 3) await turn();
    assert.deepEqual(
      hostile.publishes.map(({ topic }) => topic),
      ['dm/~/up/r1', 'dm/~/state', 'dm/~/down'],
    );
    // What the other worker published is not this one's echo.
    await publish(broker.url, 'dm/~/state', Buffer.from('another worker'));
    await publish(broker.url, 'dm/~/up', Buffer.alloc(0));
    assert.deepEqual([one.states, one.events.count('mqtt.malformed')], [[], 0]);
  });

  test('a subscription that the broker refuses, over MQTT 5: its reason is the one that is shown', async () => {
    await using broker = await startHostileBroker({
      suback: (topics) => topics.map((topic) => (topic === 'dm/+/up/r1' ? 0x87 : 1)),
    });
    const { downlink, clock, events } = start(broker.url, 5);
    await using _ = downlink;
    await events.until('mqtt.refused');
    clock.advance(20_000);
    await turn();
    assert.deepEqual(downlink.problems, [`may not subscribe to dm/+/up/r1: ${gone}`]);
    assert.equal(downlink.connected, false);
    broker.behaviour = {};
    clock.advance(90_000);
    await events.until('mqtt.connected');
    assert.deepEqual(downlink.problems, []);
  });
});

/** Publishes one message, and returns when the broker has taken it. */
async function publish(url: string, topic: string, payload: Buffer): Promise<void> {
  const client = await connectAsync(url, { protocolVersion: 4 });
  await client.publishAsync(topic, payload, { qos: 1 });
  await client.endAsync();
}

/** A client connects and goes again, so the broker has worked on all that came before. */
const roundTrip = (url: string): Promise<void> => publish(url, 'none', Buffer.of(1));
