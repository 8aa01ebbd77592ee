import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Admission, type AdmissionLimits, admissionTable, partyProofs } from '../../src/base/admission.ts';
import { HandClock } from '../hand-clock.ts';

function entry(limits: Partial<AdmissionLimits> = {}) {
  const clock = new HandClock();
  const told: Record<string, unknown>[] = [];
  const events = { emit: (name: string, fields: object) => void told.push({ name, ...fields }) };
  const admission = new Admission({ clock, events: events as never, limits });
  /** How many of these requests are admitted. */
  const admitted = (count: number, address: (at: number) => string) =>
    Array.from({ length: count }, (_, at) => admission.admits(address(at))).filter(Boolean).length;
  return { clock, told, admission, admitted };
}

describe('the entry of the private network', () => {
  test('one address has its burst, then its rate', () => {
    const { admitted, clock } = entry();
    assert.equal(
      admitted(1000, () => '192.0.2.1'),
      64,
    );
    clock.advance(5000);
    assert.equal(
      admitted(1000, () => '192.0.2.1'),
      5,
    );
  });

  test('one prefix has its own bound, however many addresses it has', () => {
    const { admitted } = entry();
    assert.equal(
      admitted(5000, (at) => `2001:db8::${at.toString(16)}`),
      1024,
    );
    assert.equal(
      admitted(10, (at) => `2001:db8:0:1::${at}`),
      10,
      'another prefix is not affected',
    );
  });

  test('all strangers together have 2048 at once, then 500 a second', () => {
    const { admitted, clock } = entry();
    const many = (at: number) => `10.${(at >> 8) & 255}.${at & 255}.1`;
    assert.equal(admitted(5000, many), 2048);
    clock.advance(1000);
    assert.equal(
      admitted(5000, (at) => many(at + 5000)),
      500,
    );
  });

  test('one known address has 1024 at once and all of them 8192; then 200 and 1000 a second', () => {
    const many = (at: number) => `10.${(at >> 8) & 255}.${at & 255}.1`;
    const nothing = { rate: 0, burst: 0 };
    const one = entry({ address: nothing, allKnown: { rate: 1e6, burst: 1e6 } });
    one.admission.know(many(0));
    for (const expected of [1024, 200, 200]) {
      assert.equal(
        one.admitted(2000, () => many(0)),
        expected,
      );
      one.clock.advance(1000);
    }
    const { admission, admitted, clock } = entry({ address: nothing });
    for (let at = 0; at < 12_000; at++) admission.know(many(at));
    assert.equal(admitted(12_000, many), 8192);
    clock.advance(1000);
    assert.equal(admitted(12_000, many), 1000);
  });

  test('addresses that send on and on leave room for newcomers', () => {
    const { admitted, admission, clock } = entry();
    const flood = () => admitted(20_000, (at) => `10.${at % 100}.0.${at % 10}`);
    for (let second = 0; second < 60; second++, clock.advance(1000)) {
      const count = flood();
      if (second > 5) assert.ok(count <= 100, `${count} in second ${second}`);
      if (second > 5) assert.ok(admission.admits(`10.200.${second}.1`), `a newcomer in second ${second}`);
    }
  });

  test('a known address has a budget of its own beside any flood', () => {
    const { admitted, admission, clock } = entry();
    admission.know('192.0.2.9');
    for (let second = 0; second < 10; second++, clock.advance(1000)) {
      admitted(10_000, (at) => `192.0.2.${at % 8}`);
      admitted(10_000, (at) => `10.${at >> 8}.${at & 255}.1`);
      assert.equal(
        admitted(200, () => '192.0.2.9'),
        200,
      );
    }
  });

  test('multicast and unicast have budgets apart', () => {
    const { admitted, admission } = entry();
    const multicast = (count: number, address: (at: number) => string) =>
      Array.from({ length: count }, (_, at) => admission.admitsMulticast(address(at))).filter(Boolean).length;
    assert.equal(
      multicast(100, () => '192.0.2.1'),
      16,
    );
    assert.equal(
      multicast(10_000, (at) => `10.0.${at >> 8}.${at & 255}`),
      2984,
    );
    assert.equal(
      admitted(100, () => '192.0.2.1'),
      64,
    );
  });

  test('multicast requests of one prefix: 2000 at once', () => {
    const { admission } = entry();
    const count = Array.from({ length: 5000 }, (_, at) =>
      admission.admitsMulticast(`2001:db8::${at.toString(16)}`),
    ).filter(Boolean).length;
    assert.equal(count, 2000);
  });

  test('all proven peers together are held to 40,000 at once', () => {
    const { admission } = entry();
    const count = ['one', 'two', 'three', 'four', 'five'].reduce(
      (sum, key) =>
        sum + Array.from({ length: 9000 }, () => admission.admitsProven(key, 'a')).filter(Boolean).length,
      0,
    );
    assert.equal(count, 40_000);
  });

  test('a proven peer is held to its rate', () => {
    const { admission, clock } = entry();
    const take = () => admission.admitsProven('one', '192.0.2.1');
    assert.equal(Array.from({ length: 30_000 }, take).filter(Boolean).length, 10_000);
    clock.advance(100);
    assert.equal(Array.from({ length: 30_000 }, take).filter(Boolean).length, 1000);
    assert.ok(admission.admitsProven('other', '192.0.2.2'), 'another one is not affected');
    assert.equal(admission.footprint.proven, 2);
    for (let turn = 0; turn < 2; turn++) {
      clock.advance(1001);
      admission.admitsProven('other', '192.0.2.2');
    }
    assert.equal(
      admission.footprint.proven,
      1,
      'who was silent for as long as a bucket takes to fill has none',
    );
    assert.equal(Array.from({ length: 30_000 }, take).filter(Boolean).length, 10_000);
  });

  for (const [what, address] of [
    ['of one /64', (at: number) => `2001:db8::${at.toString(16)}`],
    ['of one host', () => '127.0.0.1'],
    ['of many networks', (at: number) => `10.0.${at >> 4}.${at & 15}`],
  ] as const)
    test(`5,000 new devices ${what} that start at once are all served within a minute`, () => {
      const { admission, clock } = entry();
      // A client repeats its first message after 2 to 3 s, then after twice that time, four times in all. A proof takes 0.5 s.
      const waiting = Array.from({ length: 5000 }, (_, at) => ({ at, tries: 0, due: (at % 100) * 10 }));
      const proving: { at: number; due: number }[] = [];
      let served = 0;
      for (let now = 0; now < 60_000 && served < 5000; now += 10, clock.advance(10)) {
        for (; proving[0] && proving[0].due <= now; served++) {
          const { at } = proving.shift()!;
          admission.proved(address(at), `device ${at}`);
        }
        for (const device of waiting.filter(({ due, tries }) => due === now && tries < 5)) {
          device.tries++;
          if (admission.admits(address(device.at))) proving.push({ at: device.at, due: now + 500 });
          else
            device.due = now + 10 * Math.round(200 * 2 ** (device.tries - 1) * (1 + (device.at % 50) / 100));
        }
      }
      assert.equal(served, 5000);
    });

  test('5,000 known devices are served at once', () => {
    const { admitted, admission } = entry();
    const address = (at: number) => `10.0.${at >> 8}.${at & 255}`;
    for (let at = 0; at < 5000; at++) admission.know(address(at));
    assert.equal(admitted(5000, address), 5000);
  });

  test('a device that proves itself everywhere makes few addresses known, and raises no limit of strangers', () => {
    const { admission, admitted, clock } = entry();
    admission.know('192.0.2.1');
    const newcomer = (at: number) => `10.${at >> 16}.${(at >> 8) & 255}.${at & 255}`;
    admitted(100_000, newcomer);
    for (let at = 0; at < 30_000; at++) admission.proved(`127.0.${at >> 8}.${at & 255}`, 'one device');
    assert.equal(admission.footprint.known, 1 + partyProofs.burst);
    assert.ok(admission.isKnown('192.0.2.1'));
    assert.ok(admitted(1000, (at) => newcomer(200_000 + at * 256)) <= 5 * partyProofs.burst);
    clock.advance(60_000);
    admission.proved('127.99.0.1', 'one device');
    assert.ok(admission.isKnown('127.99.0.1'), 'a device may move');
  });

  test('known addresses that are forged do not shut out other known ones of their network', () => {
    const { admission, admitted, clock } = entry();
    for (let at = 0; at < 250; at++) admission.know(`192.0.2.${at}`);
    for (let second = 0; second < 100; second++) {
      admitted(20_000, (at) => `192.0.2.${at % 50}`);
      clock.advance(1000);
      assert.ok(admission.admits(`192.0.2.${100 + second}`), `second ${second}`);
    }
  });

  test('its tables have bounds, and what is known is not displaced by strangers', () => {
    const { admission, admitted } = entry();
    admission.know('192.0.2.1');
    const many = (at: number) => `2001:db8:${(at >> 8).toString(16)}:${(at & 255).toString(16)}::1`;
    admitted(20_000, many);
    for (let at = 0; at < 20_000; at++) admission.admitsMulticast(many(at));
    const { addresses, prefixes, multicastAddresses, multicastPrefixes, known } = admission.footprint;
    for (const [size, bound] of [
      [addresses, admissionTable.addresses],
      [multicastAddresses, admissionTable.addresses],
      [prefixes, admissionTable.prefixes],
      [multicastPrefixes, admissionTable.prefixes],
    ] as const)
      assert.ok(size <= bound && size >= bound / 2, `${size} of ${bound}`);
    assert.deepEqual([known, admission.isKnown('192.0.2.1')], [1, true]);
    for (let at = 0; at < 20_000; at++) {
      admission.know(many(at));
      admission.admits(many(at));
    }
    const { known: most, knownAddresses } = admission.footprint;
    assert.deepEqual([most, admissionTable.known], [16_384, 16_384]);
    assert.ok(knownAddresses <= 8192 && knownAddresses >= 4096, `${knownAddresses} buckets`);
  });

  test('what is refused is told once a minute, with the number', () => {
    const { admitted, told, clock } = entry();
    admitted(1064, () => '192.0.2.1');
    assert.deepEqual(told.splice(0), [
      { name: 'admission.refused', limit: 'address', peer: '192.0.2.1', refused: 1 },
    ]);
    clock.advance(60_000);
    admitted(65, () => '192.0.2.1');
    assert.deepEqual(
      told.map(({ refused }) => refused),
      [1000],
    );
  });

  test('what is refused is counted from the first one on, with the latest', () => {
    const { admission, admitted } = entry();
    assert.equal(admission.refusals, undefined);
    admitted(1064, () => '192.0.2.1');
    assert.deepEqual(admission.refusals, { count: 1000, limit: 'address', peer: '192.0.2.1' });
    admission.refusedConnection('192.0.2.2');
    assert.deepEqual(admission.refusals, { count: 1001, limit: 'connections', peer: '192.0.2.2' });
  });
});
