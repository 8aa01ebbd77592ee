import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { noEvents } from '../../../src/base/events.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { AlertDeliveries } from '../../../src/gateway/northbound/alert-deliveries.ts';
import { Outbox, type OutboxKind } from '../../../src/gateway/store/outbox.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { HandClock } from '../../hand-clock.ts';
import { FailingDisk } from '../store/failing-disk.ts';

for (const failing of ['nothing', 'the first removal', 'the last removal', 'the commit'] as const)
  test(`the alerts of a package leave the outbox together, and are not sent again when ${failing} fails`, async () => {
    using disk = new FailingDisk();
    const folder = mkdtempSync(join(tmpdir(), 'postern-deliveries-'));
    const file = join(folder, 'state.db');
    const database = openDatabase(file, gatewaySchema);
    const outbox = new Outbox(database, 100);
    for (let at = 0; at < 20; at++) outbox.add('device-attach', `urn:dev:${at}`, '{}');
    const deliveries = new AlertDeliveries(outbox, new HandClock(), () => {}, noEvents);
    const due = deliveries.due(undefined);
    /** What the outbox holds each time that an alert is said to have left it. */
    const sizes: number[] = [];
    for (const entry of due.slice(0, 10)) deliveries.delivered(entry, () => sizes.push(outbox.size));
    const before = disk.writes;
    // BEGIN, ten deletions, COMMIT.
    const skipped = { nothing: 100, 'the first removal': 1, 'the last removal': 10, 'the commit': 11 }[
      failing
    ];
    disk.failAfter(skipped);
    await Promise.resolve();
    const isWhole = failing === 'nothing';
    if (isWhole) assert.equal(disk.writes - before, 12);
    assert.equal(outbox.size, isWhole ? 10 : 20);
    disk.failAfter(0, { staysFull: true });
    const left = deliveries.due(undefined).map(({ deviceId }) => deviceId);
    assert.deepEqual(
      left,
      due.slice(10).map(({ deviceId }) => deviceId),
    );
    disk.mend();
    deliveries.due(undefined);
    assert.equal(outbox.size, 10);
    assert.deepEqual(sizes, Array(10).fill(10));
    deliveries.stop();
    await database.close();
    const again = openDatabase(file, gatewaySchema);
    assert.equal(new Outbox(again, 100).size, 10);
    await again.close();
    rmSync(folder, { recursive: true });
  });

test('a refused alert whose new number cannot be stored is not sent with the old one, which the server would take for a repetition', async (t) => {
  using disk = new FailingDisk();
  const database = openDatabase(':memory:', gatewaySchema);
  t.after(() => database.close());
  const clock = new HandClock();
  const outbox = new Outbox(database, 10);
  let woken = 0;
  const deliveries: AlertDeliveries = new AlertDeliveries(
    outbox,
    clock,
    () => {
      woken++;
      deliveries.servers();
    },
    noEvents,
  );
  t.after(() => deliveries.stop());
  outbox.add('device-attach', 'first', '{}');
  outbox.add('device-attach', 'second', '{}');
  const [first, second] = deliveries.due(undefined);
  disk.failAfter(0, { staysFull: true });
  assert.equal(deliveries.refused(first!, 500), false);
  assert.ok(disk.mend());
  deliveries.delivered(second!, () => {});
  const numbers = () => deliveries.due(undefined).map(({ sequence }) => sequence);
  assert.deepEqual(numbers(), [], 'it waits');
  clock.advance(1000);
  assert.ok(woken > 0, 'the client is woken for it');
  clock.advance(1000);
  const [renumbered] = numbers();
  assert.ok(renumbered! > second!.sequence, `${renumbered} is a number that the server does not know`);
  assert.equal(outbox.size, 1);
});

test('an alert that waits after a refusal has a higher number than all that the server took meanwhile', async (t) => {
  const database = openDatabase(':memory:', gatewaySchema);
  t.after(() => database.close());
  const clock = new HandClock();
  const outbox = new Outbox(database, 10);
  const deliveries = new AlertDeliveries(outbox, clock, () => {}, noEvents);
  t.after(() => deliveries.stop());
  outbox.add('device-attach', 'first', '{}');
  const [first] = deliveries.due(undefined);
  deliveries.refused(first!, 420);
  outbox.add('device-attach', 'second', '{}');
  const [second] = deliveries.due(undefined);
  assert.equal(second?.deviceId, 'second');
  deliveries.delivered(second!, () => {});
  assert.deepEqual(deliveries.due(undefined), [], 'it waits on');
  clock.advance(1000);
  const [again] = deliveries.due(undefined);
  assert.equal(again?.deviceId, 'first');
  assert.ok(again!.sequence > second!.sequence, `${again?.sequence} is news to the server`);
});

/** An outbox with alerts about devices, and what becomes of them. */
function orderly(t: TestContext, ...alerts: readonly (readonly [OutboxKind, string])[]) {
  const database = openDatabase(':memory:', gatewaySchema);
  t.after(() => database.close());
  const clock = new HandClock();
  const outbox = new Outbox(database, 10);
  const deliveries = new AlertDeliveries(outbox, clock, () => {}, noEvents);
  t.after(() => deliveries.stop());
  for (const [kind, device] of alerts) outbox.add(kind, device, '{}');
  const due = () => deliveries.due(undefined);
  const names = () => due().map(({ kind, deviceId }) => `${kind} ${deviceId}`);
  return { clock, outbox, deliveries, due, names };
}

test('a device that left does not seem to attach after that, because the alert of its attachment was refused once', async (t) => {
  const { clock, outbox, deliveries, due, names } = orderly(
    t,
    ['device-attach', 'a'],
    ['device-attach', 'b'],
  );
  const [first, other] = due();
  deliveries.refused(first!, 420);
  outbox.add('device-detach', 'a', '{}');
  outbox.add('image-operation', 'a', '{}');
  assert.deepEqual(
    names(),
    ['device-attach b', 'image-operation a'],
    'the detachment waits for the attachment',
  );
  deliveries.delivered(other!, () => {});
  assert.deepEqual(names(), ['image-operation a']);
  clock.advance(1000);
  assert.deepEqual(
    names().filter((name) => name.startsWith('device')),
    ['device-attach a', 'device-detach a'],
  );
});

test('of one package with both, the server refuses the attachment and takes the detachment: it gets both again, in their order', async (t) => {
  const { clock, deliveries, due, names } = orderly(t, ['device-attach', 'a'], ['device-detach', 'a']);
  const [attach, detach] = due();
  deliveries.refused(attach!, 500);
  deliveries.delivered(detach!, () => {});
  assert.deepEqual(names(), []);
  clock.advance(1000);
  assert.deepEqual(names(), ['device-attach a', 'device-detach a']);
  assert.ok(due().every(({ sequence }) => sequence > detach!.sequence));
});
