import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Operation, OperationOutcome, Work } from '../../src/dm/server-session.ts';
import { watchingRecords } from '../../src/headend/removed-records.ts';

const at = './GwDeviceInventory/Records';
const remove = (name: string): Operation => ({ name: 'Delete', uri: `${at}/${name}` });
const outcome = (operation: Operation, status: number, parts?: OperationOutcome[]): OperationOutcome => ({
  operation,
  status,
  results: [],
  ...(parts && { parts }),
});

test('records that a gateway has deleted are told before the work goes on; those of a failed Atomic are not', async () => {
  const told: string[] = [];
  const all = ['a', 'b', 'c'].map(remove);
  const sequence: Operation = { name: 'Sequence', operations: [remove('d')] };
  const atomic: Operation = { name: 'Atomic', operations: [remove('e')] };
  const below: Operation = { name: 'Delete', uri: `${at}/f/Groups/g` };
  const get: Operation = { name: 'Get', uri: `${at}/h` };
  async function* ordered(): Work {
    yield [...all, sequence, atomic, below, get];
    told.push('goes on');
  }
  const work = watchingRecords(ordered(), at, (names) => told.push([...names].join()));
  await work.next();
  const statuses = [200, 404, 500];
  const { done } = await work.next([
    ...all.map((operation, index) => outcome(operation, statuses[index] ?? 0)),
    outcome(sequence, 200, [outcome(remove('d'), 200)]),
    outcome(atomic, 507, [outcome(remove('e'), 200)]),
    outcome(below, 200),
    outcome(get, 200),
  ]);
  assert.deepEqual([done, told], [true, ['a,b,d', 'goes on']]);
});

test('work whose session breaks is ended', async () => {
  let isEnded = false;
  async function* ordered(): Work {
    try {
      yield [remove('a')];
    } finally {
      isEnded = true;
    }
  }
  const work = watchingRecords(ordered(), at, () => assert.fail('nothing was deleted'));
  await work.next();
  await work.return();
  assert.ok(isEnded);
});
