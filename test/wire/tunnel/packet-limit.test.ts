import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PacketLimit } from '../../../src/wire/tunnel/packet-limit.ts';
import { HandClock } from '../../hand-clock.ts';

const hour = 3_600_000;

test('the smallest of configuration, CONNACK and what was learned counts', () => {
  const limit = new PacketLimit(new HandClock(), 50_000);
  assert.equal(limit.bytes, 50_000);
  limit.connected(20_000);
  assert.equal(limit.bytes, 20_000);
  limit.connected();
  assert.equal(limit.bytes, 50_000);
  limit.acknowledged(2000);
  assert.equal(limit.suspect(40_000, false), 21_000);
  assert.equal(limit.bytes, 21_000);
});

test('a sender of ever smaller packets ends few connections', () => {
  const limit = new PacketLimit(new HandClock());
  let ended = 0;
  // The broker takes 3000 bytes. The sender always tries the largest packet that the link lets through.
  for (let size = 65_536; size > 3000; size = Math.min(size, limit.bytes)) {
    limit.connected();
    limit.acknowledged(100);
    ended++;
    assert.ok(limit.suspect(size, false) !== undefined);
    assert.ok(limit.bytes < size);
  }
  assert.ok(ended <= 6, `${ended} connections`);
});

test('what was acknowledged before, small packets, and a connection without any acknowledgement are no evidence', () => {
  const limit = new PacketLimit(new HandClock());
  limit.connected();
  assert.equal(
    limit.suspect(40_000, false),
    undefined,
    'nothing was acknowledged: the connection itself is at fault',
  );
  limit.acknowledged(50_000);
  assert.equal(limit.suspect(40_000, false), undefined);
  limit.connected();
  limit.acknowledged(100);
  assert.equal(limit.suspect(1000, false), undefined);
  assert.equal(limit.suspect(40_000, true), 20_050, 'the broker itself said so');
  assert.equal(limit.bytes, 20_050);
});

test('what was learned is tried again after an hour, then after two, at most after a day', () => {
  const clock = new HandClock();
  const limit = new PacketLimit(clock);
  for (const hours of [1, 2, 4, 8, 16, 24, 24]) {
    limit.connected();
    limit.acknowledged(100);
    limit.suspect(40_000, false);
    clock.advance(hours * hour - 1);
    assert.ok(limit.bytes < 40_000, `${hours} h`);
    clock.advance(1);
    assert.equal(limit.bytes, Number.POSITIVE_INFINITY);
  }
});
