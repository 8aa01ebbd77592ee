import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { prf } from '../../../../src/wire/secure/dtls/key-schedule.ts';
import { fragmentsOf, readFragments } from '../../../../src/wire/secure/dtls/messages.ts';
import { Reassembly, reassemblyLimits } from '../../../../src/wire/secure/dtls/reassembly.ts';
import { SecretPool } from '../../../../src/wire/secure/dtls/secret-pool.ts';
import { TimerWheel } from '../../../../src/wire/secure/dtls/timer-wheel.ts';
import { ReplayWindow } from '../../../../src/wire/secure/replay-window.ts';
import { HandClock } from '../../../hand-clock.ts';

test('the PRF with SHA-256 gives what others give for the same input', () => {
  // The vector that implementers of TLS 1.2 exchange on the list of the IETF's working group.
  const hex = (text: string) => Buffer.from(text.replace(/\s/g, ''), 'hex');
  const made = prf(
    hex('9b be 43 6b a9 40 f0 17 b1 76 52 84 9a 71 db 35'),
    'test label',
    hex('a0 ba 9f 93 6c da 31 18 27 a6 f7 96 ff d5 19 8c'),
    100,
  );
  assert.equal(made.toString('hex', 0, 16), 'e3f229ba727be17b8d122620557cd453');
  assert.equal(made.length, 100);
});

describe('the replay window', () => {
  test('takes each number once, and none that is 64 or more behind', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 300 }), { maxLength: 200 }), (numbers) => {
        const window = new ReplayWindow();
        const taken = new Set<number>();
        let highest = -1;
        for (const number of numbers) {
          const isNew = !taken.has(number) && number > highest - 64;
          assert.equal(window.isNew(number), isNew, `${number} after ${[...taken]}`);
          if (!isNew) continue;
          assert.equal(window.accept(number), number > highest);
          taken.add(number);
          highest = Math.max(highest, number);
        }
        assert.equal(window.highest, highest);
      }),
    );
  });

  test('has no gap below the number that it begins with, nor after it was closed', () => {
    const window = new ReplayWindow(2 ** 47);
    for (let behind = 0; behind < 70; behind++) assert.ok(!window.isNew(2 ** 47 - behind));
    window.accept(2 ** 47 + 40);
    assert.ok(window.isNew(2 ** 47 + 39));
    window.close();
    for (let behind = 0; behind < 70; behind++) assert.ok(!window.isNew(2 ** 47 + 40 - behind));
    assert.ok(window.isNew(2 ** 47 + 41));
  });
});

describe('fragments', () => {
  test('in any order, doubled and overlapping, make the message once', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 600 }),
        fc.integer({ min: 13, max: 200 }),
        fc.integer({ min: 13, max: 200 }),
        fc.infiniteStream(fc.nat()),
        (bytes, room, other, dice) => {
          const message = { type: 2, sequence: 3, body: Buffer.from(bytes) };
          const all = [...fragmentsOf(message, room), ...fragmentsOf(message, other)]
            .map((each) => ({ each, order: dice.next().value as number }))
            .toSorted((a, b) => a.order - b.order)
            .flatMap(({ each }) => readFragments(each));
          const inbox = new Reassembly(3);
          const taken = [];
          for (const fragment of all) {
            inbox.add(fragment);
            for (let next = inbox.take(); next; next = inbox.take()) taken.push(next);
          }
          // More pieces than are kept are dropped, and would be sent again.
          if (all.length > reassemblyLimits.pieces) return;
          assert.deepEqual(taken, [message]);
        },
      ),
    );
  });

  test('beyond the bounds are dropped: large messages, messages far ahead, lengths that do not fit', () => {
    const inbox = new Reassembly(0);
    const bytes = Buffer.from('x');
    inbox.add({ type: 1, sequence: 0, length: reassemblyLimits.message + 1, offset: 0, bytes });
    inbox.add({ type: 1, sequence: reassemblyLimits.ahead, length: 1, offset: 0, bytes });
    inbox.add({ type: 1, sequence: 0, length: 1, offset: 1, bytes });
    inbox.add({ type: 1, sequence: 0, length: 2, offset: 0, bytes });
    inbox.add({ type: 2, sequence: 0, length: 2, offset: 1, bytes });
    inbox.add({ type: 1, sequence: 0, length: 3, offset: 1, bytes });
    assert.equal(inbox.take(), undefined);
    inbox.add({ type: 1, sequence: 0, length: 2, offset: 1, bytes });
    assert.equal(inbox.take()?.body.toString(), 'xx');
  });
});

test('timers of a wheel fire once, not before their time and within two slots, and can be cancelled', () => {
  const clock = new HandClock();
  const wheel = new TimerWheel(clock);
  const fired: number[] = [];
  const delays = [0, 1, 99, 100, 101, 1000, 60_000];
  const start = clock.now();
  for (const delay of delays) wheel.after(delay, () => fired.push(clock.now() - start - delay));
  wheel.after(500, () => fired.push(Number.NaN)).cancel();
  assert.equal(clock.timers, 1, 'all share one timer');
  clock.advance(61_000);
  assert.equal(fired.length, delays.length);
  for (const late of fired) assert.ok(late >= 0 && late <= 200, `${late} ms`);
  assert.equal(clock.timers, 0);
  wheel.after(1000, () => {
    wheel.after(1000, () => fired.push(clock.now()));
    throw new Error('of one handshake');
  });
  assert.throws(() => clock.advance(1500), /of one handshake/);
  clock.advance(2000);
  assert.equal(fired.length, delays.length + 1, 'the error of one timer does not stop the others');
});

test('secrets of a pool are apart from each other, and overwritten when they are given back', () => {
  const pool = new SecretPool(8);
  const slots = Array.from({ length: 1000 }, (_, number) =>
    pool.keep(Buffer.from(`${number}`.padStart(8, '0'))),
  );
  for (const [number, slot] of slots.entries())
    assert.equal(pool.view(slot, 0, 8).toString(), `${number}`.padStart(8, '0'));
  const gone = pool.view(slots[7]!, 0, 8);
  pool.release(slots[7]!);
  assert.deepEqual(gone, Buffer.alloc(8));
  assert.equal(pool.keep(Buffer.from('new')), slots[7]);
  assert.throws(() => pool.keep(Buffer.alloc(9)), RangeError);
});
