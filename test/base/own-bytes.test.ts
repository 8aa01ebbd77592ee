import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ownBytes } from '../../src/base/own-bytes.ts';

test('bytes of a shared piece, kept by themselves, hold no more memory than they need', () => {
  const piece = Buffer.alloc(65_536, 7);
  const own = ownBytes(piece.subarray(10, 14));
  piece.fill(0);
  assert.deepEqual([...own], [7, 7, 7, 7]);
  assert.equal(own.buffer.byteLength, 4);
});
