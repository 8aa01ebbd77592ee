import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openDatabase } from '../../../src/base/open-database.ts';
import { AlertDeliveries } from '../../../src/gateway/northbound/alert-deliveries.ts';
import { Outbox } from '../../../src/gateway/store/outbox.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { HandClock } from '../../hand-clock.ts';
import { FailingDisk } from '../store/failing-disk.ts';

test('a refused alert whose new number cannot be stored is not sent with the old one, which the server would take for a repetition', async (t) => {
  using disk = new FailingDisk();
  const database = openDatabase(':memory:', gatewaySchema);
  t.after(() => database.close());
  const clock = new HandClock();
  const outbox = new Outbox(database, 10);
  let woken = 0;
  const deliveries: AlertDeliveries = new AlertDeliveries(outbox, clock, () => {
    woken++;
    deliveries.servers();
  });
  t.after(() => deliveries.stop());
  outbox.add('device-attach', 'first', '{}');
  outbox.add('device-attach', 'second', '{}');
  const [first, second] = deliveries.due(undefined);
  disk.failAfter(0, { staysFull: true });
  assert.equal(deliveries.refused(first!, 500), false);
  assert.ok(disk.mend());
  deliveries.delivered(second!);
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
  const deliveries = new AlertDeliveries(outbox, clock, () => {});
  t.after(() => deliveries.stop());
  outbox.add('device-attach', 'first', '{}');
  const [first] = deliveries.due(undefined);
  deliveries.refused(first!, 420);
  outbox.add('device-attach', 'second', '{}');
  const [second] = deliveries.due(undefined);
  assert.equal(second?.deviceId, 'second');
  deliveries.delivered(second!);
  assert.deepEqual(deliveries.due(undefined), [], 'it waits on');
  clock.advance(1000);
  const [again] = deliveries.due(undefined);
  assert.equal(again?.deviceId, 'first');
  assert.ok(again!.sequence > second!.sequence, `${again?.sequence} is news to the server`);
});
