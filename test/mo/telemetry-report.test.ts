import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fromCbor, toCbor } from '../../src/base/cbor.ts';
import { lwm2mProfile } from '../../src/base/cbor-profile.ts';
import {
  type DeviceValue,
  decodeReport,
  encodeReport,
  isReportable,
  reportOverhead,
  sizeOfDevice,
  sizeOfValue,
  type TelemetryReport,
  type TelemetryValue,
  valueLimits,
} from '../../src/mo/telemetry-report.ts';

const now = 1_790_000_000_000;
const number = { epoch: '0123456789abcdef', sequence: 7, dropped: 0 };
const kinds = [21.5, -1, 0, 2n ** 63n, -(2n ** 62n), 'text\u0001', '', true, false, Buffer.of(0, 255)];
const values: DeviceValue[] = kinds.map((value, at) => ({
  device: at % 2 ? 'urn:dev:a' : 'urn:dev:b',
  path: `/3303/0/${at}`,
  value,
  at: now - at * 1250,
}));
const sorted = (list: readonly DeviceValue[]) =>
  list
    .map(({ device, path, value, at }) => [device, path, Buffer.isBuffer(value) ? [...value] : value, at])
    .toSorted();

test('a report is read as it was written: all kinds of values, times to the millisecond, its number', () => {
  const report: TelemetryReport = { ...number, dropped: 3, values };
  const read = decodeReport(encodeReport(report, now), now + 60_000);
  assert.deepEqual(sorted(read.values), sorted(values));
  assert.deepEqual([read.epoch, read.sequence, read.dropped], ['0123456789abcdef', 7, 3]);
});

test('it is SenML: a base time, a base name for each device, names and values (RFC 8428)', () => {
  const coded = encodeReport({ ...number, values: values.slice(0, 3) }, now);
  const [first, second, third] = fromCbor(coded, lwm2mProfile, 'test') as Map<unknown, unknown>[];
  assert.deepEqual([first?.get(-3), first?.get(-2), first?.get(0)], [now / 1000, 'urn:dev:b', '/3303/0/0']);
  assert.deepEqual([first?.get(2), first?.get(6)], [21.5, undefined]);
  // The second record is of the same device, and has no base name.
  assert.deepEqual([second?.has(-2), second?.get(6)], [false, -2.5]);
  assert.deepEqual([third?.get(-2), third?.get(2)], ['urn:dev:a', -1]);
});

test('a board without the time says how long ago its values were', () => {
  const uptime = 100_000;
  const [value] = values;
  const coded = encodeReport({ ...number, values: [{ ...value!, at: uptime - 2500 }] }, uptime);
  assert.equal(decodeReport(coded, now).values[0]?.at, now - 2500);
});

test('what a report is said to hold, its reader takes', () => {
  const kinds: readonly TelemetryValue[] = [
    ...values.map(({ value }) => value),
    ...[-0, 5e-324, Number.MAX_VALUE, 2n ** 64n - 1n, -(2n ** 63n), '', '\u0000', '\ud800', '\ufffe'],
  ];
  for (const value of kinds) {
    const one = { device: 'urn:dev:a', path: '/1/0/1', value, at: now };
    assert.ok(isReportable(one));
    assert.equal(decodeReport(encodeReport({ ...number, values: [one] }, now), now).values.length, 1);
  }
});

test('a report is never larger than was reckoned', () => {
  const reckoned =
    reportOverhead +
    values.reduce((sum, value) => sum + sizeOfValue(value), 0) +
    sizeOfDevice('urn:dev:a') +
    sizeOfDevice('urn:dev:b');
  const most = { epoch: 'f'.repeat(16), sequence: 2 ** 32 - 1, dropped: 2 ** 32 - 1 };
  assert.ok(encodeReport({ ...most, values }, now).length <= reckoned);
});

describe('what is no report is refused', () => {
  const whole = encodeReport({ ...number, values }, now);
  test('one that is cut anywhere', () => {
    for (let length = 0; length < whole.length; length++)
      assert.throws(() => decodeReport(whole.subarray(0, length), now), { code: 'malformed' }, `${length}`);
  });

  const head = { epoch: 'e', seq: 1, [-2]: 'urn:dev:a' };
  const record = (fields: object) =>
    toCbor([
      new Map(
        [...Object.entries(fields)].map(([key, value]) => [/^-?\d+$/.test(key) ? Number(key) : key, value]),
      ),
    ]);
  const wrong: Readonly<Record<string, object>> = {
    'no epoch': { ...head, epoch: undefined },
    'an epoch with a space': { ...head, epoch: 'a b' },
    'no number': { ...head, seq: -1 },
    'a number of dropped values below 0': { ...head, dropped: -1 },
    'no device': { ...head, [-2]: 7, 0: '/x', 2: 1 },
    'a device with a line break': { ...head, [-2]: 'a\nb', 0: '/x', 2: 1 },
    'a path without a slash': { ...head, 0: 'x', 2: 1 },
    'a path that is too long': { ...head, 0: `/${'x'.repeat(255)}`, 2: 1 },
    'a path with a control character': { ...head, 0: '/\u0000', 2: 1 },
    'no value': { ...head, 0: '/x' },
    'a value that is no number': { ...head, 0: '/x', 2: Number.NaN },
    'a time that is none': { ...head, 0: '/x', 2: 1, 6: 'now' },
  };
  for (const [name, fields] of Object.entries(wrong))
    test(name, () => assert.throws(() => decodeReport(record(fields), now), { code: 'malformed' }));

  test('one of more values than a report may have', () => {
    const many = Array.from({ length: valueLimits.report + 1 }, () => values[0]!);
    assert.throws(() => decodeReport(encodeReport({ ...number, values: many }, now), now), {
      code: 'tooLarge',
    });
    assert.equal(
      decodeReport(encodeReport({ ...number, values: many.slice(1) }, now), now).values.length,
      1024,
    );
  });

  test('a report without values is none of them: it may say that values were dropped', () => {
    const { values: none, dropped } = decodeReport(
      encodeReport({ ...number, dropped: 9, values: [] }, now),
      now,
    );
    assert.deepEqual([none, dropped], [[], 9]);
  });
});
