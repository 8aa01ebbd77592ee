import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { toCbor } from '../../../src/base/cbor.ts';
import { cborLimits } from '../../../src/base/cbor-profile.ts';
import { PosternError } from '../../../src/base/errors.ts';
import { ContentFormat } from '../../../src/wire/coap/content-formats.ts';
import { decodeContent, encodeContent } from '../../../src/wire/lwm2m/content.ts';
import { parsePath, pathText } from '../../../src/wire/lwm2m/path.ts';
import type { Entry } from '../../../src/wire/lwm2m/resource.ts';
import { decodePaths, encodePaths, timeOf } from '../../../src/wire/lwm2m/senml.ts';

const now = 1_800_000_000_000;
const failsWith = (code: string) => (thrown: unknown) =>
  thrown instanceof PosternError && thrown.code === code;
const labels: Readonly<Record<string, number>> = {
  bver: -1,
  bn: -2,
  bt: -3,
  bu: -4,
  bv: -5,
  n: 0,
  u: 1,
  v: 2,
  vs: 3,
  vb: 4,
  t: 6,
  vd: 8,
};
type Pack = readonly Readonly<Record<string, unknown>>[];
const json = (pack: Pack) => Buffer.from(JSON.stringify(pack));
const cbor = (pack: Pack) =>
  toCbor(
    pack.map(
      (record) => new Map(Object.entries(record).map(([name, value]) => [labels[name] ?? name, value])),
    ),
  );
const both = [
  { name: 'JSON', format: ContentFormat.SenmlJson, write: json },
  { name: 'CBOR', format: ContentFormat.SenmlCbor, write: cbor },
];
const resolved = (entries: readonly Entry[]) =>
  entries.map((entry) => [pathText(entry.path), entry.value, timeOf(entry, now) - now]);

for (const { name, format, write } of both) {
  const read = (pack: Pack) => decodeContent(format, write(pack), []);

  describe(`SenML ${name} (RFC 8428)`, () => {
    test('base name, base time and base value hold for the records after them, and may change', () => {
      const pack = [
        { bn: '/3303/0/', bt: 1_700_000_000, bv: 20, bu: 'Cel', n: '5700', u: 'Cel', v: 1.5 },
        { n: '5601', t: -5, v: -1 },
        { n: '5701', vs: 'Cel' },
        { bn: '/3303/1/', bt: 0, bv: 0, n: '5700', v: 3 },
      ];
      const shift = 1_700_000_000_000 - now;
      assert.deepEqual(resolved(read(pack)), [
        ['/3303/0/5700', 21.5, shift],
        ['/3303/0/5601', 19, shift - 5000],
        ['/3303/0/5701', 'Cel', shift],
        ['/3303/1/5700', 3, 0],
      ]);
    });

    test('times below 2^28 are relative to the arrival, those from there are absolute, and may be fractions', () => {
      const pack = [
        { n: '/3/0/9', t: -10.5, v: 1 },
        { bt: -60, n: '/3/0/9', t: 30, v: 2 },
        { bt: 0, n: '/3/0/9', t: 2 ** 28 - 1, v: 3 },
        { n: '/3/0/9', t: 2 ** 28, v: 4 },
        { n: '/3/0/9', t: 1_799_999_999.25, v: 5 },
      ];
      assert.deepEqual(
        resolved(read(pack)).map(([, , at]) => at),
        [-10_500, -30_000, (2 ** 28 - 1) * 1000, 2 ** 28 * 1000 - now, -750],
      );
      assert.equal(
        timeOf({ path: [3, 0, 9], value: 1 }, now),
        now,
        'without a time it is that of the arrival',
      );
    });

    test('resolved records have their times when they are written, and are the same when they are read again', () => {
      const entries: readonly Entry[] = [
        { path: [3303, 0, 5700], value: 21.5, time: 1_700_000_000.5 },
        { path: [3, 0, 9], value: 7, time: -5 },
        { path: [3, 0, 0], value: 'Maker' },
      ];
      const coded = encodeContent(format, entries, []);
      const again = decodeContent(format, coded, []).map(({ type: _, ...entry }) => entry);
      assert.deepEqual(again, entries);
      assert.ok(!Buffer.from(coded).includes('bn'));
    });

    test('a sum with a base value is whole where both are', () => {
      const big = 9_007_199_254_740_991n;
      const pack = [{ bv: 1000, n: '/3/0/13', v: Number(big) }];
      assert.equal(read(pack)[0]?.value, String(big + 1000n));
    });

    for (const [why, pack] of Object.entries<Pack>({
      'a version above 10': [{ bver: 11, n: '/3/0/9', v: 1 }],
      'a field that must be understood': [{ n: '/3/0/9', v: 1, secret_: 1 }],
      'a time that is a text': [{ n: '/3/0/9', v: 1, t: 'now' }],
      'a time beyond all times': [{ n: '/3/0/9', v: 1, t: 1e12 }],
      'base time and time that are together beyond them': [{ bt: 9e10, n: '/3/0/9', v: 1, t: 9e10 }],
      'a base value that is no number': [{ bv: true, n: '/3/0/9', v: 1 }],
      'a text where a base value stands for numbers': [{ bv: 1, n: '/3/0/9', v: '1' }],
    }))
      test(`${why} is malformed`, () => {
        assert.throws(() => read(pack), failsWith('malformed'));
      });

    test('a float that is no number costs no other value', { skip: name === 'JSON' }, () => {
      const values = read([
        { bn: '/3303/0/', n: '5700', v: Number.NaN },
        { n: '5601', v: 1 },
      ]);
      assert.deepEqual(
        values.map(({ value }) => value),
        [Number.NaN, 1],
      );
    });

    test('a version up to 10 and unknown fields are read past', () => {
      assert.equal(read([{ bver: 10, n: '/3/0/9', v: 1, other: 2 }])[0]?.value, 1);
    });

    test('more records than the bound are refused', () => {
      const record = { n: '/3/0/9', v: 1 };
      assert.throws(() => read(Array(cborLimits.items + 1).fill(record)), failsWith('tooLarge'));
    });

    test('a list of paths is names without values, with base names', () => {
      const body = write([
        { bn: '/3303/0/', n: '5700' },
        { n: '5701' },
        { bn: '/3', n: '/0/9' },
        { bn: '', n: '/1' },
      ]);
      assert.deepEqual(decodePaths(format, body).map(pathText), [
        '/3303/0/5700',
        '/3303/0/5701',
        '/3/0/9',
        '/1',
      ]);
      assert.throws(() => decodePaths(format, write([{ n: '/x' }])), failsWith('malformed'));
      assert.throws(() => decodePaths(ContentFormat.TextPlain, body), failsWith('unsupportedFormat'));
    });
  });
}

test('the JSON of LwM2M 1.0 has base time and times too', () => {
  const read = (body: object) =>
    resolved(decodeContent(ContentFormat.LwM2mJson, Buffer.from(JSON.stringify(body)), [3303, 0, 5700])).map(
      ([, value, at]) => [value, at],
    );
  const shift = 1_700_000_000_000 - now;
  const e = [{ v: 1 }, { v: 2, t: -5 }];
  assert.deepEqual(read({ bt: 1_700_000_000, e }), [
    [1, shift],
    [2, shift - 5000],
  ]);
  assert.deepEqual(read({ e }), [
    [1, 0],
    [2, -5000],
  ]);
  for (const wrong of [{ bt: 'now', e }, { e: [{ v: 1, t: 1e12 }] }])
    assert.throws(() => read(wrong), failsWith('malformed'));
});

test('a list of paths is read as it was written', () => {
  const paths = ['/3303/0/5700', '/3', '/1/0', '/3/0/6/1'].map(parsePath);
  assert.deepEqual(decodePaths(ContentFormat.SenmlCbor, encodePaths(paths)), paths);
});

describe('LwM2M CBOR (core 1.2, section 7.4.6)', () => {
  const read = (root: unknown) =>
    decodeContent(ContentFormat.LwM2mCbor, toCbor(root), []).map(({ path, value }) => [
      pathText(path),
      value,
    ]);
  const map = (...pairs: [unknown, unknown][]) => new Map(pairs);

  test('a key is an ID or several, and a null is no value', () => {
    const root = map(
      [3, map([0, map([0, 'Maker'], [6, map([0, 1], [1, 5])], [9, null])])],
      [[3303, 0], map([5700, 21.5], [[5750], 'hall'])],
      [[3311, 0, 5850], true],
      [[3, 0, 6, 2], 7],
    );
    assert.deepEqual(read(root), [
      ['/3/0/0', 'Maker'],
      ['/3/0/6/0', 1],
      ['/3/0/6/1', 5],
      ['/3303/0/5700', 21.5],
      ['/3303/0/5750', 'hall'],
      ['/3311/0/5850', true],
      ['/3/0/6/2', 7],
    ]);
  });

  test('values are nested by their paths when they are written', () => {
    const entries = [
      { path: [3, 0, 13], value: '9007199254740993' },
      { path: [3, 0, 6, 0], value: 1 },
      { path: [3303, 1, 5700], value: 2.5 },
    ];
    const coded = encodeContent(ContentFormat.LwM2mCbor, entries, []);
    assert.deepEqual(
      Buffer.from(coded).toString('hex'),
      'a203a100a20d1b002000000000000106a10001190ce7a101a1191644f94100'.replace(
        'f94100',
        'fb4004000000000000',
      ),
    );
  });

  for (const [why, root] of Object.entries({
    'a list': [1],
    'a value at the root': 1,
    'a value in no resource': map([3, map([0, 1])]),
    'a path of five levels': map([[3, 0, 6, 0, 1], 1]),
    'maps deeper than paths': map([3, map([0, map([6, map([0, map([1, 1])])])])]),
    'a key that is no ID': map([-1, map()], ['x', map([0, map([0, 1])])]),
    'an ID that is too large': map([[65_535, 0, 0], 1]),
    'a list as a value': map([[3, 0, 0], [1]]),
  }))
    test(`${why} is malformed`, () => {
      assert.throws(() => read(root), failsWith('malformed'));
    });
});
