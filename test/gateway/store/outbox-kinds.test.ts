import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openDatabase } from '../../../src/base/open-database.ts';
import { Outbox, type OutboxKind } from '../../../src/gateway/store/outbox.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';

const gathered: readonly OutboxKind[] = ['device-attach', 'device-detach', 'device-presence'];

test('whether an alert of another kind waits is right after each change of the outbox', () => {
  const database = openDatabase(':memory:', gatewaySchema);
  const outbox = new Outbox(database, 10);
  const isUrgent = () => outbox.hasOtherThan(gathered);
  assert.equal(isUrgent(), false);
  outbox.add('device-attach', 'urn:dev:1', '{}');
  assert.equal(isUrgent(), false);
  outbox.add('command-fanout', 'label', '{}');
  assert.equal(isUrgent(), true);
  const sequence = outbox.peek(10).find(({ kind }) => kind === 'command-fanout')!.sequence;
  const renumbered = outbox.requeue(sequence).get(sequence)!;
  assert.equal(isUrgent(), true);
  outbox.remove(renumbered);
  assert.deepEqual([isUrgent(), outbox.hasOtherThan([])], [false, true]);
  assert.throws(() =>
    database.transaction(() => {
      outbox.add('gateway-fault', 'state', '{}');
      throw new Error('no');
    }),
  );
  assert.equal(isUrgent(), false);
  outbox.add('gateway-fault', 'state', '{}');
  assert.equal(isUrgent(), true);
  assert.equal(new Outbox(database, 10).hasOtherThan(gathered), true, 'what a start finds');
  database.close();
});
