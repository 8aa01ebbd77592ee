import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StoredTogether } from '../../../src/gateway/modes/stored-together.ts';

/** Stores into a list, in transactions that `fails` can make fail. */
function rig(fails: (transaction: number) => boolean = () => false) {
  const stored: string[] = [];
  const alone: string[] = [];
  let transactions = 0;
  const inTransaction = (work: () => void) => {
    const before = [...stored];
    transactions++;
    try {
      work();
      if (fails(transactions)) throw new Error('no room');
    } catch (thrown) {
      stored.splice(0, stored.length, ...before);
      throw thrown;
    }
  };
  const together = new StoredTogether({ inTransaction }, async (store) => {
    alone.push('tried');
    try {
      inTransaction(store);
    } catch {}
  });
  return {
    together,
    stored,
    alone,
    put: (text: string) => () => void stored.push(text),
    transactions: () => transactions,
  };
}

test('what devices have done in one turn is one transaction; the next turn has its own', async () => {
  const { together, stored, put, transactions } = rig();
  await Promise.all(['a', 'b', 'c'].map((each) => together.store(put(each))));
  assert.deepEqual([stored, transactions()], [['a', 'b', 'c'], 1]);
  await together.store(put('d'));
  assert.deepEqual([stored, transactions()], [['a', 'b', 'c', 'd'], 2]);
});

test('nobody is told that something is stored before it is', async () => {
  const { together, stored, put } = rig();
  const done = together.store(put('a')).then(() => assert.deepEqual(stored, ['a']));
  assert.deepEqual(stored, []);
  await done;
});

test('a transaction that fails is repeated for each alone', async () => {
  const { together, stored, alone, put } = rig((transaction) => transaction === 1);
  await Promise.all(['a', 'b'].map((each) => together.store(put(each))));
  assert.deepEqual([stored, alone.length], [['a', 'b'], 2]);
});

test('one that cannot be stored does not stand in the way of the others, nor of the next turn', async () => {
  const { together, stored, put } = rig();
  const broken = () => {
    throw new Error('broken');
  };
  await Promise.all([together.store(put('a')), together.store(broken), together.store(put('b'))]);
  await together.store(put('c'));
  assert.deepEqual(stored, ['a', 'b', 'c']);
});
