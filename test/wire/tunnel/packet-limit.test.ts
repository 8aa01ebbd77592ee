import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PacketLimit } from '../../../src/wire/tunnel/packet-limit.ts';
import { HandClock } from '../../hand-clock.ts';

const hour = 3_600_000;

/** Two connections in a row end while a packet of this size is not acknowledged. */
function ends(limit: PacketLimit, bytes: number, proven = 100): number | undefined {
  let learned: number | undefined;
  for (let i = 0; i < 2; i++) {
    limit.connected();
    limit.acknowledged(proven);
    learned = limit.ended(bytes);
  }
  return learned;
}

test('the smallest of configuration, CONNACK and what was learned counts', () => {
  const limit = new PacketLimit(new HandClock(), 50_000);
  assert.equal(limit.bytes, 50_000);
  limit.connected(20_000);
  assert.equal(limit.bytes, 20_000);
  limit.connected();
  assert.deepEqual([limit.bytes, limit.reason], [50_000, undefined]);
  assert.equal(ends(limit, 40_000, 2000), 21_000);
  assert.equal(limit.bytes, 21_000);
  assert.match(String(limit.reason), /^packets of more than 21000 bytes are not sent/);
});

for (const [what, next] of [
  ['smaller', (size: number, most: number) => Math.min(size, most)],
  ['larger, each once,', (size: number, most: number) => Math.min(size + 1, most)],
] as const)
  test(`a sender of ever ${what} packets ends few connections`, () => {
    const limit = new PacketLimit(new HandClock());
    let ended = 0;
    // The broker takes 3000 bytes. The sender uses what the link lets through.
    for (let size = 40_000; size > 3000; size = next(size, limit.bytes)) {
      limit.connected();
      limit.acknowledged(100);
      assert.ok(++ended <= 12, `${ended} connections`);
      limit.ended(size);
    }
  });

test('one connection, small packets, and what was acknowledged before are no evidence', () => {
  const limit = new PacketLimit(new HandClock());
  const connection = (bytes: number | undefined, proven: number) => {
    limit.connected();
    if (proven > 0) limit.acknowledged(proven);
    return limit.ended(bytes);
  };
  for (let i = 0; i < 3; i++)
    assert.equal(connection(40_000, 0), undefined, 'the connection itself is at fault');
  assert.equal(connection(40_000, 100), undefined, 'the first');
  assert.equal(connection(undefined, 100), undefined, 'another reason in between');
  assert.equal(connection(40_000, 100), undefined, 'again the first');
  limit.connected();
  limit.acknowledged(40_000);
  assert.equal(limit.ended(50_000), undefined, 'a packet of that size has passed meanwhile');
  limit.ended(undefined);
  for (let i = 0; i < 3; i++) assert.equal(connection(40_000, 50_000), undefined);
  for (let i = 0; i < 3; i++) assert.equal(connection(1000, 100), undefined);
  limit.connected();
  assert.equal(limit.refused(40_000), 20_000, 'the broker itself said so');
  assert.equal(limit.refused(40_000), undefined, 'it was sent before that');
  assert.equal(limit.bytes, 20_000);
});

test('what was learned is tried again after an hour, then after two, at most after a day', () => {
  const clock = new HandClock();
  const limit = new PacketLimit(clock);
  for (const hours of [1, 2, 4, 8, 16, 24, 24]) {
    ends(limit, 40_000);
    clock.advance(hours * hour - 1);
    assert.ok(limit.bytes < 40_000, `${hours} h`);
    clock.advance(1);
    assert.deepEqual([limit.bytes, limit.reason], [Number.POSITIVE_INFINITY, undefined]);
  }
});
