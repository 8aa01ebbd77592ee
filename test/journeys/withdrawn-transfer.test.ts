import assert from 'node:assert/strict';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { DepartingBoard } from './departing-board.ts';
import { EnrolmentSite } from './enrolment-site.ts';
import { nextOwner, orderFor, ownerBy } from './next-owner.ts';

const allow = [{ gateway: 'gw-1' }];
const limit = { timeout: 150_000 };

/** A board with its owner, which is to pass to the next owner. The broker of that one is out of reach: the transfer waits. */
async function waiting(t: TestContext) {
  const stack = new AsyncDisposableStack();
  t.after(() => stack.disposeAsync());
  const site = stack.use(await EnrolmentSite.open());
  const former = await site.headend({ allow });
  const next = await nextOwner();
  stack.use(next.site);
  const board = stack.use(await DepartingBoard.make(site));
  const process = board.start();
  await process.until('gateway.started');
  await next.site.broker.stop();
  const order = () => {
    const { code } = next.headend.enrolment!.makeCode(1, 'gw-1');
    former.enrolment!.leave('gw-1', 'ann', false, orderFor(next, code));
  };
  order();
  await process.until('enrolment.begun');
  await ownerBy(former);
  const path = join(board.folder, 'state', 'identity', 'next');
  assert.ok(existsSync(path));
  return { site, former, next, board, process, order, path };
}

describe('a transfer that the gateway has accepted is taken back', limit, () => {
  test('the gateway confirms it, and stays with its owner, whatever the next one does later', async (t) => {
    const { former, next, board, process, order, path } = await waiting(t);
    const { departures } = former.enrolment!;
    assert.equal(departures.latest('gw-1')?.state, 'accepted');
    await process.until('mqtt.connect-failed');
    assert.match(board.status(), /^transfer +to dm\.next: NOT CONNECTED to mqtts:.*ECONNREFUSED/m);
    assert.throws(order, { code: 'conflict' });
    former.enrolment!.takeBack('gw-1', 'transfer');
    assert.equal(departures.latest('gw-1')?.state, 'withdrawing');
    assert.throws(order, { code: 'conflict' });
    const { reason } = await process.until('departure.transfer-failed');
    assert.equal(reason, 'dm.example has taken it back');
    assert.equal(await ownerBy(former), 'dm.example');
    assert.deepEqual([departures.latest('gw-1')?.state, existsSync(path)], ['cancelled', false]);
    assert.throws(() => former.enrolment!.takeBack('gw-1', 'transfer'), { code: 'notFound' });
    await next.site.broker.restart();
    await board.kill();
    await board.start().until('mqtt.connected');
    assert.equal(await ownerBy(former), 'dm.example');
    assert.deepEqual(next.headend.enrolment!.list(10), []);
    // Another order goes through.
    order();
    await next.site.headendEvents.until('gateway.state', { gateway: 'gw-1', online: true });
    assert.equal(await ownerBy(next.headend), 'dm.next');
  });

  test('while the gateway is off, over a restart of the owner, and with the power cut in the middle', async (t) => {
    const { site, former, next, board, path } = await waiting(t);
    await board.kill();
    former.enrolment!.takeBack('gw-1', 'transfer');
    await former[Symbol.asyncDispose]();
    const again = await site.headend({ allow });
    assert.equal(again.enrolment!.departures.latest('gw-1')?.state, 'withdrawing');
    const process = board.start();
    await process.until('departure.transfer-failed');
    assert.equal(await ownerBy(again), 'dm.example');
    assert.equal(again.enrolment!.departures.latest('gw-1')?.state, 'cancelled');
    // The power went when the order was deleted, and the keys at the next owner were not.
    await board.kill();
    mkdirSync(path, { mode: 0o700 });
    writeFileSync(join(path, 'claim.key'), 'a secret');
    await next.site.broker.restart();
    await board.start().until('mqtt.connected');
    assert.equal(await ownerBy(again), 'dm.example');
    assert.equal(existsSync(path), false);
  });

  test('while the next owner enrols it: it has one owner, and both know which', async (t) => {
    const { site, former, next, board } = await waiting(t);
    await next.site.broker.restart();
    await next.site.headendEvents.until('enrolment.approved');
    former.enrolment!.takeBack('gw-1', 'transfer');
    const refused = site.headendEvents.until('gateway.departure-refused', { order: 'transfer' });
    const departed = site.headendEvents.until('gateway.departed', { order: 'transfer' });
    const { departures } = former.enrolment!;
    await Promise.race([
      departed,
      refused.then(() => departed),
      (async () => {
        while (departures.latest('gw-1')?.state !== 'cancelled') await site.headendEvents.nextOfAny();
      })(),
    ]);
    const isPassed = departures.latest('gw-1')?.state === 'done';
    if (isPassed) await next.site.headendEvents.until('gateway.state', { gateway: 'gw-1', online: true });
    assert.equal(await ownerBy(isPassed ? next.headend : former), isPassed ? 'dm.next' : 'dm.example');
    await board.kill();
    await board.start().until('mqtt.connected');
    assert.equal(await ownerBy(isPassed ? next.headend : former), isPassed ? 'dm.next' : 'dm.example');
  });

  test('afterwards the former owner cannot; the next owner gives the gateway back', async (t) => {
    const { site, former, next } = await waiting(t);
    await next.site.broker.restart();
    await site.headendEvents.until('gateway.departed', { gateway: 'gw-1', order: 'transfer' });
    assert.throws(() => former.enrolment!.takeBack('gw-1', 'transfer'), { code: 'notFound' });
    await next.site.headendEvents.until('gateway.state', { gateway: 'gw-1', online: true });
    const { code } = former.enrolment!.makeCode(1, 'gw-1');
    next.headend.enrolment!.leave('gw-1', 'bob', false, orderFor({ site }, code, true, 'dm.example'));
    await next.site.headendEvents.until('gateway.departed', {
      gateway: 'gw-1',
      by: 'bob',
      order: 'transfer',
    });
    while ((await ownerBy(former).catch(() => '')) !== 'dm.example')
      await site.headendEvents.next('gateway.state', { gateway: 'gw-1', online: true });
    await assert.rejects(ownerBy(next.headend), { code: 'notFound' });
  });
});
