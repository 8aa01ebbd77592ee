import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MediaType } from '../../src/wire/syncml/codec.ts';
import { LeapClock } from '../leap-clock.ts';
import { startAedes } from '../peers/brokers.ts';
import { freePair } from '../peers/free-pair.ts';
import { Nat } from '../peers/nat.ts';
import { SocketEnd } from '../wire/secure/dtls/socket-end.ts';
import { attachBelow, childOf, device, parentOf, start, stateIn, stepsUntil } from './parent-and-child.ts';
import { secrets } from './site.ts';

const limit = { timeout: 60_000 };

test('each flight of the handshake of a child with its parent is lost once', limit, async (t) => {
  const cases = [true, false].flatMap((isOutward) => [1, 2, 3].map((at) => ({ isOutward, at })));
  const ids = cases.map((_, index) => `gw-${index + 2}`);
  const parent = await parentOf(t, ids);
  await Promise.all(
    cases.map(async ({ isOutward, at }, index) => {
      const nat = await Nat.open();
      t.after(() => nat[Symbol.asyncDispose]());
      nat.leadTo({ coapPort: parent.gateway.coapsPort! });
      let left = at;
      nat.tap = (_, outward) => {
        if (outward !== isOutward || --left !== 0) return;
        nat.lost.add(nat.insidePorts[0]!);
        setImmediate(() => nat.lost.clear());
      };
      const child = await childOf(t, nat.coapPort, new LeapClock(8), ids[index]);
      await child.events.until('parent.connected');
      assert.equal(child.events.count('parent.unreachable'), 0, `${isOutward ? 'out' : 'in'} ${at}`);
      await parent.events.until('device.attached', { device: ids[index]! });
    }),
  );
});

test(
  'a parent that has lost its keys and associations has another handshake within 30 s of an unanswered request',
  limit,
  async (t) => {
    const port = await freePair();
    const before = await parentOf(t, ['gw-2'], port);
    const clock = new LeapClock();
    const child = await childOf(t, port + 1, clock);
    await before.events.until('device.attached', { device: 'gw-2' });
    await before.gateway[Symbol.asyncDispose]();
    const after = await parentOf(t, ['gw-2'], port);
    const lost = child.events.next('parent.lost');
    await attachBelow(t, child.gateway);
    const noticed = await stepsUntil(lost, clock);
    assert.ok(noticed <= 12_000, `${noticed} ms until the child notices`);
    const taken = noticed + (await stepsUntil(after.events.until('bootstrap.issued'), clock));
    assert.ok(taken <= 30_000, `${taken} ms until the bootstrap`);
    await stepsUntil(after.events.until('device.attached', { device, via: 'gw-2' }), clock);
  },
);

test('a parent that is slow, and answers a ping, keeps its association', limit, async (t) => {
  await using broker = await startAedes();
  // Nobody is behind the broker, so the parent waits for the DM server.
  const ports = { coap: { port: 0, leisure: 50 }, coaps: { port: 0 } };
  const parent = await start(t, ['gw-2'], ports, undefined, broker.url);
  await parent.events.until('mqtt.connected');
  const clock = new LeapClock();
  const child = await childOf(t, parent.gateway.coapsPort!, clock);
  await parent.events.until('device.attached', { device: 'gw-2' });
  let outcome = 'none';
  void child.parts.uplink
    .request({ server: 'dm.example', contentType: MediaType.Xml, body: Buffer.from('<SyncML/>') })
    .then(
      () => {
        outcome = 'answered';
      },
      (thrown) => {
        outcome = String(thrown);
      },
    );
  for (let steps = 0; steps < 60; steps++) await clock.leap(250);
  assert.equal(outcome, 'none');
  assert.equal(child.events.count('parent.lost'), 0);
  assert.equal(child.events.count('dtls.closed'), 1, 'the one of the bootstrap');
});

test(
  'an impostor in the place of the parent learns nothing, and the child finds its parent',
  limit,
  async (t) => {
    for (const isKnown of [false, true]) {
      const parent = await parentOf(t, ['gw-2']);
      await using nat = await Nat.open();
      const seen: string[] = [];
      await using impostor = await SocketEnd.open({
        server: {
          keyOf: (identity) => {
            seen.push(identity);
            return Buffer.from('another-another-');
          },
        },
      });
      nat.leadTo({ coapPort: isKnown ? parent.gateway.coapsPort! : impostor.port });
      const clock = new LeapClock();
      const child = await childOf(t, nat.coapPort, clock);
      if (isKnown) {
        await parent.events.until('device.attached', { device: 'gw-2' });
        nat.leadTo({ coapPort: impostor.port });
        const lost = child.events.next('parent.lost');
        await attachBelow(t, child.gateway);
        await stepsUntil(lost, clock);
      }
      await stepsUntil(
        child.events.until('parent.unreachable', { reason: 'the server does not take the key' }),
        clock,
      );
      assert.deepEqual(impostor.associations, []);
      // Names of keys alone. Whoever has no key reads no record.
      assert.ok(seen.length > 0 && seen.every((identity) => /^(factory:|gw:)/.test(identity)), seen.join());
      const all = Buffer.concat(impostor.captured.map(({ bytes }) => bytes)).toString('latin1');
      for (const secret of ['gw-2', 'gw-1', device, secrets.factory('gw-2'), 'DevId'])
        assert.ok(!all.includes(secret), secret);
      const connected = child.events.next('parent.connected');
      nat.leadTo({ coapPort: parent.gateway.coapsPort! });
      await stepsUntil(connected, clock);
    }
  },
);

test(
  'a parent that was down for hours is found again, with the account and what was reported meanwhile',
  limit,
  async (t) => {
    const port = await freePair();
    const state = stateIn(t, 'gw-1.db');
    const before = await parentOf(t, ['gw-2'], port, state);
    const clock = new LeapClock();
    const child = await childOf(t, port + 1, clock);
    await before.events.until('device.attached', { device: 'gw-2' });
    const [own] = before.keys.of('gw-2');
    await before.gateway[Symbol.asyncDispose]();
    const lost = child.events.next('parent.lost');
    await attachBelow(t, child.gateway);
    await stepsUntil(lost, clock);
    for (let minutes = 0; minutes < 180; minutes++) await clock.leap(60_000);
    assert.ok(child.events.count('parent.unreachable') <= 4, 'it says so once for each reason');
    const connected = child.events.next('parent.connected');
    const after = await parentOf(t, ['gw-2'], port, state);
    const taken = await stepsUntil(connected, clock);
    assert.ok(taken <= 180_000, `${taken} ms`);
    await stepsUntil(after.events.until('device.attached', { device, via: 'gw-2' }), clock);
    assert.deepEqual(
      after.keys.of('gw-2').map(({ identity }) => identity),
      [own!.identity],
    );
    assert.equal(child.events.count('parent.bootstrapped'), 1);
  },
);

test(
  'a restart of the parent keeps the association; one of the child opens another by the same key',
  limit,
  async (t) => {
    const port = await freePair();
    const state = stateIn(t, 'gw-1.db');
    const below = stateIn(t, 'gw-2.db');
    const before = await parentOf(t, ['gw-2'], port, state);
    const child = await childOf(t, port + 1, undefined, 'gw-2', below);
    await before.events.until('device.attached', { device: 'gw-2' });
    const [own] = before.keys.of('gw-2');
    await before.gateway[Symbol.asyncDispose]();
    const after = await parentOf(t, ['gw-2'], port, state);
    await attachBelow(t, child.gateway);
    await after.events.until('device.attached', { device, via: 'gw-2' });
    assert.equal(after.events.count('dtls.opened'), 0);
    assert.equal(child.events.count('parent.lost'), 0);
    await child.gateway[Symbol.asyncDispose]();
    const again = await childOf(t, port + 1, undefined, 'gw-2', below);
    await again.events.until('parent.connected');
    assert.deepEqual(
      after.events.all.filter(({ name }) => name === 'dtls.opened').map(({ fields }) => fields.identity),
      [own!.identity],
    );
    assert.equal(again.events.count('parent.bootstrapped'), 0);
  },
);

test(
  'the key of a child is valid until a newer one is used, whose answer was lost at first',
  limit,
  async (t) => {
    // All have one clock: the parent, too, waits for the board that was there before.
    const clock = new LeapClock();
    const parent = await parentOf(t, ['gw-2'], 0, ':memory:', clock);
    const secure = parent.gateway.coapsPort!;
    const state = stateIn(t, 'gw-2.db');
    const identities = () => parent.keys.of('gw-2').map(({ identity }) => identity);
    {
      const child = await childOf(t, secure, clock, 'gw-2', state);
      await parent.events.until('device.attached', { device: 'gw-2' });
      await child.gateway[Symbol.asyncDispose]();
    }
    const [own] = identities();
    // The same child without its state, behind a path on which the account gets lost.
    await using nat = await Nat.open();
    nat.leadTo({ coapPort: secure });
    const count = parent.events.count('bootstrap.issued');
    nat.tap = () => {
      if (parent.events.count('bootstrap.issued') > count) nat.lost.add(nat.insidePorts[0]!);
    };
    const issued = parent.events.next('bootstrap.issued');
    const blank = await childOf(t, nat.coapPort, clock);
    await stepsUntil(issued, clock);
    await stepsUntil(blank.events.until('parent.unreachable'), clock);
    assert.equal(blank.events.count('parent.bootstrapped'), 0);
    assert.equal(identities()[0], own);
    assert.equal(identities().length, 2);
    await blank.gateway[Symbol.asyncDispose]();
    {
      const child = await childOf(t, secure, clock, 'gw-2', state);
      await stepsUntil(child.events.until('parent.connected'), clock);
      assert.equal(child.events.count('parent.bootstrapped'), 0);
      await child.gateway[Symbol.asyncDispose]();
    }
    const replaced = await childOf(t, secure, clock);
    await stepsUntil(replaced.events.until('parent.connected'), clock);
    assert.equal(identities().length, 1);
    assert.notEqual(identities()[0], own);
    await replaced.gateway[Symbol.asyncDispose]();
    const child = await childOf(t, secure, clock, 'gw-2', state);
    await stepsUntil(child.events.until('parent.bootstrapped'), clock);
    await child.events.until('parent.unreachable', { reason: 'the server does not take the key' });
  },
);
