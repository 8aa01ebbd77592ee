import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { connectAsync } from 'mqtt';
import { systemEntropy } from '../../src/base/entropy.ts';
import { Downlink } from '../../src/headend/downlink.ts';
import { budgetLimits, GatewayBudget } from '../../src/headend/gateway-budget.ts';
import { decodeEnvelope, EnvelopeKind, encodeEnvelope } from '../../src/wire/tunnel/envelope.ts';
import { encodeState } from '../../src/wire/tunnel/gateway-state.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';
import { startMosquitto } from '../peers/brokers.ts';

const rate = 50;
const burst = rate * budgetLimits.burst;

function start() {
  const clock = new HandClock();
  const events = new EventRecorder();
  return { clock, events, budget: new GatewayBudget(rate, clock, events) };
}

/** How many of `count` messages are looked at. */
const admitted = (budget: GatewayBudget, gateway: string, count: number, bytes = 100): number => {
  let looked = 0;
  for (let at = 0; at < count; at++) if (budget.admits(gateway, bytes)) looked++;
  return looked;
};

describe('the budget of a gateway at the broker', () => {
  test('its rate, and what it may send at once; a message counts once for each 16 KiB', () => {
    const { budget, clock } = start();
    const share = (burst * budgetLimits.gateways) / 10;
    assert.equal(admitted(budget, 'gw-1', 10_000), burst + share);
    assert.equal(admitted(budget, 'gw-2', burst), burst, 'another gateway has its own');
    const large = start();
    assert.ok(admitted(large.budget, 'gw-1', 10_000, 256 * 1024) <= (burst + share) / 16);
    clock.advance(1000);
    const lasting = admitted(budget, 'gw-1', 2000);
    assert.ok(lasting >= rate && lasting <= rate * 2, `${lasting} in a second`);
  });

  test('several that send too much share a tenth, and the others have their whole rate', () => {
    const { budget, clock } = start();
    const loud = ['a', 'b', 'c'];
    for (const gateway of loud) admitted(budget, gateway, 10_000);
    for (let second = 0; second < 60; second++) {
      clock.advance(1000);
      for (const gateway of loud) admitted(budget, gateway, 2000);
      for (const gateway of ['d', 'e', 'f'])
        assert.equal(admitted(budget, gateway, rate), rate, `${gateway} in second ${second}`);
    }
  });

  test('what is refused is counted, and told once a minute for each gateway and cause', () => {
    const { budget, clock, events } = start();
    const sent = 10_000;
    const refused = sent - admitted(budget, 'gw-1', sent);
    admitted(budget, 'gw-2', sent);
    const told = () => events.all.map(({ fields }) => [fields.gateway, fields.limit, fields.refused]);
    assert.deepEqual(told(), [
      ['gw-1', 'own', 1],
      ['gw-2', 'own', 1],
    ]);
    assert.equal(budget.refusedOf('gw-1'), refused);
    assert.equal(budget.refusedOf('gw-3'), 0);
    clock.advance(60_000);
    const again = 20_000 - admitted(budget, 'gw-1', 20_000);
    assert.ok(again > 0);
    assert.deepEqual(told().slice(2), [['gw-1', 'own', refused]]);
  });

  test('the total is a cause of its own', () => {
    const { budget, events } = start();
    for (let at = 0; at < 20; at++) admitted(budget, `gw-${at}`, burst);
    const limits = new Set(events.all.map(({ fields }) => fields.limit));
    assert.deepEqual([...limits], ['all']);
  });
});

describe('the budget of a gateway for parties that have not proved themselves', () => {
  const unprovenRate = rate * budgetLimits.unproven.part;
  const atOnce = unprovenRate * budgetLimits.unproven.burst;
  /** How many packages are looked at. Each device has a name of its own. */
  const looked = (budget: GatewayBudget, gateway: string, count: number, isItself = false): number =>
    Array.from({ length: count }, (_, at) => (isItself ? undefined : `urn:dev:${at}`)).filter((device) =>
      budget.admitsUnproven(gateway, device),
    ).length;

  test('a new name costs as much as a known one; the gateway itself and other gateways have their own', () => {
    const { budget, clock } = start();
    const share = (atOnce * budgetLimits.gateways) / 10;
    assert.equal(looked(budget, 'gw-1', 10_000), atOnce + share);
    assert.equal(looked(budget, 'gw-1', atOnce, true), atOnce);
    assert.equal(looked(budget, 'gw-2', atOnce), atOnce);
    clock.advance(1000);
    const lasting = looked(budget, 'gw-1', 2000);
    assert.ok(lasting >= unprovenRate && lasting <= unprovenRate * 2, `${lasting} in a second`);
  });

  test('it is a part of the rate and takes nothing from what is proved; what it refuses is counted and told', () => {
    const { budget, events } = start();
    const refused = 10_000 - looked(budget, 'gw-1', 10_000);
    assert.equal(budget.refusedOf('gw-1'), refused);
    assert.deepEqual(
      events.all.map(({ fields }) => [fields.gateway, fields.limit]),
      [['gw-1', 'unproven']],
    );
    assert.equal(admitted(budget, 'gw-1', burst), burst);
  });

  test('ten thousand gateways at once: the total holds, and no more of them are remembered than the bound', () => {
    const { budget } = start();
    let count = 0;
    for (let at = 0; at < 10_000; at++) count += looked(budget, `gw-${at}`, 10);
    const total = atOnce * budgetLimits.gateways;
    assert.ok(count >= total && count <= total * 1.1, `${count} of ${total}`);
    assert.ok(budget.refusedGateways().length <= budgetLimits.remembered);
  });
});

/** A gateway at the broker that speaks by hand. */
async function gatewayAt(url: string, id: string) {
  const client = await connectAsync(url, { protocolVersion: 5 });
  const waiting = new Map<string, (body: string) => void>();
  client.on('message', (_topic, payload) => {
    const { correlation, body = new Uint8Array(), kind, status } = decodeEnvelope(payload);
    waiting.get(Buffer.from(correlation).toString('hex'))?.(`${kind} ${status ?? Buffer.from(body)}`);
  });
  await client.subscribeAsync(`dm/${id}/down`, { qos: 0 });
  return {
    client,
    ask: async (text: string, device?: string, correlation = systemEntropy.bytes(12)): Promise<string> => {
      const { promise, resolve } = Promise.withResolvers<string>();
      waiting.set(Buffer.from(correlation).toString('hex'), resolve);
      const body = Buffer.from(text);
      const envelope = encodeEnvelope({
        kind: EnvelopeKind.Request,
        correlation,
        server: 'dm.example',
        body,
        ...(device !== undefined && { device }),
      });
      client.publish(`dm/${id}/up`, envelope, { qos: 0 });
      return await promise;
    },
  };
}

test('2,000 messages at once by a hostile gateway, beside an honest one, at mosquitto', {
  timeout: 60_000,
}, async () => {
  await using broker = await startMosquitto(['allow_anonymous true', 'set_tcp_nodelay true']);
  const events = new EventRecorder();
  const worked: string[] = [];
  let states = 0;
  await using downlink = new Downlink({
    ...{ group: undefined, route: 'r1', serverId: 'dm.example', gatewayRate: rate },
    settings: { url: broker.url, protocol: 5 },
    clock: new HandClock(),
    entropy: systemEntropy,
    events,
  });
  // Many states that the broker has kept cost no budget.
  const keeper = await connectAsync(broker.url, { protocolVersion: 5 });
  const state = encodeState({ online: true, software: '1', bootId: Buffer.alloc(8) });
  const kept = 1500;
  for (let at = 0; at < kept; at++) keeper.publish(`dm/kept-${at}/state`, state, { qos: 0, retain: true });
  for (let at = 0; at < 300; at++) keeper.publish('dm/hostile/state', state, { qos: 0, retain: true });
  await keeper.publishAsync('dm/honest/state', state, { qos: 1, retain: true });
  downlink.start({
    isProven: () => true,
    answerPackage: async ({ gateway, envelope }) => {
      worked.push(gateway);
      return { body: envelope.body! };
    },
    gatewayStateChanged: () => void states++,
  });
  await events.until('mqtt.connected');
  const hostile = await gatewayAt(broker.url, 'hostile');
  const honest = await gatewayAt(broker.url, 'honest');
  const correlation = () => systemEntropy.bytes(12);
  for (let at = 0; at < 2000; at++) {
    const payload =
      at % 3 === 0
        ? Buffer.from(systemEntropy.bytes(200))
        : encodeEnvelope({
            kind: EnvelopeKind.Request,
            correlation: correlation(),
            server: 'dm.example',
            body: Buffer.of(1),
          });
    hostile.client.publish(at % 5 === 0 ? 'dm/hostile/state' : 'dm/hostile/up', payload, { qos: 0 });
    if (at % 20 === 0) assert.equal(await honest.ask(`${at}`), `${EnvelopeKind.Response} ${at}`);
  }
  await events.until('gateway.over-rate');
  const most = burst * (1 + budgetLimits.gateways / 10);
  assert.equal(worked.filter((gateway) => gateway === 'honest').length, 100);
  assert.ok(worked.filter((gateway) => gateway === 'hostile').length <= most);
  assert.equal(states >= kept + 1, true, `${states} states`);
  while (downlink.refusedOf('hostile') < 2000 - most) await turn();
  assert.equal(downlink.refusedOf('honest'), 0);
  assert.deepEqual(
    events.all.filter(({ name }) => name === 'gateway.over-rate').map(({ fields }) => fields.gateway),
    ['hostile'],
    'it is said once',
  );
  for (const { client } of [hostile, honest]) await client.endAsync();
  await keeper.endAsync();
});

test('invented names behind a gateway: refused with 503 at once, beside a proved device; a refused package may come again', {
  timeout: 60_000,
}, async () => {
  await using broker = await startMosquitto(['allow_anonymous true', 'set_tcp_nodelay true']);
  const clock = new HandClock();
  const proved = new Set(['honest']);
  const worked: (string | undefined)[] = [];
  const events = new EventRecorder();
  await using downlink = new Downlink({
    ...{ group: undefined, route: 'r1', serverId: 'dm.example', gatewayRate: 1000 },
    settings: { url: broker.url, protocol: 5 },
    clock,
    entropy: systemEntropy,
    events,
  });
  downlink.start({
    isProven: (_gateway, device) => device !== undefined && proved.has(device),
    answerPackage: async ({ envelope }) => {
      worked.push(envelope.device);
      return { body: envelope.body! };
    },
    gatewayStateChanged: () => {},
  });
  await events.until('mqtt.connected');
  const { client, ask } = await gatewayAt(broker.url, 'gw-1');
  const { part, burst: seconds } = budgetLimits.unproven;
  const most = 1000 * part * seconds * (1 + budgetLimits.gateways / 10);
  const answers: Promise<string>[] = [];
  const asked = most + 100;
  for (let at = 0; at < asked; at++) {
    answers.push(ask('x', `urn:dev:none:${at}`));
    if (at % 500 === 499) {
      assert.equal(await ask(`${at}`, 'honest'), `${EnvelopeKind.Response} ${at}`);
      await Promise.all(answers);
    }
  }
  const refused = (await Promise.all(answers)).filter((answer) => answer === `${EnvelopeKind.Error} 503`);
  assert.equal(refused.length, 100);
  assert.equal(worked.filter((device) => device?.startsWith('urn:dev:none:')).length, most);
  const correlation = systemEntropy.bytes(12);
  assert.equal(await ask('late', 'urn:dev:new', correlation), `${EnvelopeKind.Error} 503`);
  clock.advance(1000);
  assert.equal(await ask('late', 'urn:dev:new', correlation), `${EnvelopeKind.Response} late`);
  assert.equal(downlink.refusedOf('gw-1'), 101);
  await client.endAsync();
});
