import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BoundedMap } from '../../src/base/bounded-map.ts';

test('at the bound the oldest entry is removed, and its owner is called', () => {
  const evicted: string[] = [];
  const map = new BoundedMap<string, number>(2, (key) => evicted.push(key));
  map.set('a', 1);
  map.set('b', 2);
  map.set('a', 3);
  map.set('c', 4);
  assert.deepEqual(evicted, ['b']);
  assert.deepEqual(
    [...map.entries()],
    [
      ['a', 3],
      ['c', 4],
    ],
  );
});
