import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { describe, type TestContext, test } from 'node:test';
import { LeapClock } from '../leap-clock.ts';
import { Nat } from '../peers/nat.ts';
import { attachBelow, childOf, device, parentOf, stateIn, stepsUntil } from './parent-and-child.ts';

const limit = { timeout: 60_000 };
const hour = 3_600_000;
const year = 365 * 24 * hour;

/** Bytes of the header of a record, and of a handshake message in it (RFC 6347 sections 4.1 and 4.2.2). */
const [recordHeader, messageHeader] = [13, 12];
const handshake = 22;
const [serverHello, serverHelloDone] = [2, 14];

/** Counts what a parent answers to the handshakes of its child, on the wire: a full handshake has a ServerHelloDone, a resumed one has none. */
function handshakesOn(nat: Nat) {
  /** By the random of the ServerHello: a flight may be sent twice. */
  const all = new Set<string>();
  const full = new Set<string>();
  let latest = '';
  nat.tap = (datagram, isOutward) => {
    if (isOutward) return;
    for (let at = 0; at + recordHeader <= datagram.length; ) {
      const end = at + recordHeader + datagram.readUInt16BE(at + 11);
      const isPlain = datagram[at] === handshake && datagram.readUInt16BE(at + 3) === 0;
      const type = datagram[at + recordHeader];
      if (isPlain && type === serverHello) {
        const random = at + recordHeader + messageHeader + 2;
        latest = datagram.toString('hex', random, random + 32);
        all.add(latest);
      } else if (isPlain && type === serverHelloDone) full.add(latest);
      at = end;
    }
  };
  return () => ({ full: full.size, resumed: all.size - full.size });
}

/** A parent and a child with durable states, and a NAT between them by which the wire is seen. The child is attached. */
async function family(t: TestContext) {
  const nat = await Nat.open();
  t.after(() => nat[Symbol.asyncDispose]());
  const count = handshakesOn(nat);
  const [above, below] = [stateIn(t, 'gw-1.db'), stateIn(t, 'gw-2.db')];
  const clocks = { parent: new LeapClock(), child: new LeapClock() };
  const startParent = async () => {
    const parent = await parentOf(t, ['gw-2'], 0, above, clocks.parent);
    nat.leadTo({ coapPort: parent.gateway.coapsPort! });
    return parent;
  };
  const startChild = () => childOf(t, nat.coapPort, clocks.child, 'gw-2', below);
  const parent = await startParent();
  const child = await startChild();
  await parent.events.until('device.attached', { device: 'gw-2' });
  assert.deepEqual(count(), { full: 2, resumed: 0 }, 'by the factory key, and by the key of the account');
  return { nat, count, above, clocks, parent, child, startParent, startChild };
}

describe('the association of a child gateway with its parent', limit, () => {
  test('a child that gave its parent up resumes the session: no full handshake', async (t) => {
    const { nat, count, clocks, parent, child } = await family(t);
    const lost = child.events.next('parent.lost');
    nat.lost.add(nat.insidePorts[0]!);
    await attachBelow(t, child.gateway);
    await stepsUntil(lost, clocks.child);
    nat.lost.clear();
    await stepsUntil(parent.events.until('device.attached', { device, via: 'gw-2' }), clocks.child);
    assert.deepEqual(count(), { full: 2, resumed: 1 });
    assert.equal(parent.events.count('dtls.opened'), 3);
    assert.equal(child.events.count('parent.bootstrapped'), 1);
    // It works in the other direction too.
    const [answer] = await parent.gateway.manage('gw-2', [{ name: 'Get', uri: './DevInfo/DevId' }], 10_000);
    assert.equal(answer?.results[0]?.data, 'gw-2');
  });

  test('a session is not tried twice: a handshake that failed is followed by a full one', async (t) => {
    const { nat, count, clocks, parent, child } = await family(t);
    const lost = child.events.next('parent.lost');
    nat.lost.add(nat.insidePorts[0]!);
    await attachBelow(t, child.gateway);
    await stepsUntil(lost, clocks.child);
    await stepsUntil(child.events.until('parent.unreachable'), clocks.child, 1000);
    nat.lost.clear();
    await stepsUntil(parent.events.until('device.attached', { device, via: 'gw-2' }), clocks.child, 1000);
    assert.deepEqual(count(), { full: 3, resumed: 0 });
    assert.equal(child.events.count('parent.bootstrapped'), 1);
  });

  test('a parent that restarts, also at another address, shakes hands with nobody', async (t) => {
    const { count, parent, child, startParent } = await family(t);
    await parent.gateway[Symbol.asyncDispose]();
    // Its port is another one.
    const next = await startParent();
    assert.notEqual(next.gateway.coapsPort, parent.gateway.coapsPort);
    await attachBelow(t, child.gateway);
    await next.events.until('device.attached', { device, via: 'gw-2' });
    const [answer] = await next.gateway.manage('gw-2', [{ name: 'Get', uri: './DevInfo/DevId' }], 10_000);
    assert.equal(answer?.results[0]?.data, 'gw-2');
    assert.deepEqual(count(), { full: 2, resumed: 0 });
    assert.deepEqual([next.events.count('dtls.opened'), child.events.count('parent.lost')], [0, 0]);
  });

  test('a child that restarts shakes hands once, in full: the session is in memory alone', async (t) => {
    const { count, parent, child, startChild } = await family(t);
    await child.gateway[Symbol.asyncDispose]();
    const next = await startChild();
    await next.events.until('parent.connected');
    await attachBelow(t, next.gateway);
    await parent.events.until('device.attached', { device, via: 'gw-2' });
    assert.deepEqual(count(), { full: 3, resumed: 0 });
    assert.equal(next.events.count('parent.bootstrapped'), 0);
  });

  test('both restart: one full handshake, by the key of the account', async (t) => {
    const { count, parent, child, startParent, startChild } = await family(t);
    await Promise.all([parent.gateway[Symbol.asyncDispose](), child.gateway[Symbol.asyncDispose]()]);
    const next = await startParent();
    const again = await startChild();
    await again.events.until('parent.connected');
    await attachBelow(t, again.gateway);
    await next.events.until('device.attached', { device, via: 'gw-2' });
    assert.deepEqual(count(), { full: 3, resumed: 0 });
    assert.deepEqual([next.events.count('dtls.opened'), again.events.count('parent.bootstrapped')], [1, 0]);
  });

  test('a resumption that the parent refuses falls back to a full handshake by the same key', async (t) => {
    const { count, above, clocks, parent, child, startParent } = await family(t);
    const [own] = parent.keys.of('gw-2');
    await parent.gateway[Symbol.asyncDispose]();
    {
      // It has lost its associations, and keeps its keys. Sessions are in memory alone.
      using database = new DatabaseSync(above);
      database.exec('DELETE FROM dtls_association');
    }
    const next = await startParent();
    const lost = child.events.next('parent.lost');
    await attachBelow(t, child.gateway);
    await stepsUntil(lost, clocks.child);
    await stepsUntil(next.events.until('device.attached', { device, via: 'gw-2' }), clocks.child);
    assert.deepEqual(count(), { full: 3, resumed: 0 });
    assert.deepEqual(
      next.events.all.filter(({ name }) => name === 'dtls.opened').map(({ fields }) => fields.identity),
      [own!.identity],
    );
    assert.equal(child.events.count('parent.bootstrapped'), 1);
  });

  test('clocks that are set, at either side, and hours of silence end no association', async (t) => {
    const { count, clocks, parent, child } = await family(t);
    for (const step of [year, -2 * year, hour])
      for (const clock of [clocks.parent, clocks.child]) clock.moveWall(step);
    for (const clock of [clocks.child, clocks.parent]) await clock.leap(6 * hour);
    await attachBelow(t, child.gateway);
    await parent.events.until('device.attached', { device, via: 'gw-2' });
    const [answer] = await parent.gateway.manage('gw-2', [{ name: 'Get', uri: './DevInfo/DevId' }], 10_000);
    assert.equal(answer?.results[0]?.data, 'gw-2');
    // A ping that was under way in the leap may have ended: then the child asks again, through the same association.
    assert.deepEqual(count(), { full: 2, resumed: 0 });
    assert.deepEqual([parent.events.count('dtls.opened'), child.events.count('parent.bootstrapped')], [2, 1]);
  });
});
