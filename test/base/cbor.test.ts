import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Encoder } from 'cbor-x';
import fc from 'fast-check';
import { fromCbor, toCbor } from '../../src/base/cbor.ts';
import { cborLimits, checkCbor, lwm2mProfile, plainProfile } from '../../src/base/cbor-profile.ts';
import { PosternError } from '../../src/base/errors.ts';

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex');
const codeOf = (coded: Uint8Array, profile = plainProfile) => {
  try {
    checkCbor(coded, profile, 'it');
    return 'taken';
  } catch (thrown) {
    assert.ok(thrown instanceof PosternError, String(thrown));
    return thrown.code;
  }
};

/** Examples of RFC 8949, appendix A, and what each profile says of them. */
const examples = [
  ['00', 'an integer', 'taken', 'taken'],
  ['1bffffffffffffffff', 'the largest integer', 'taken', 'taken'],
  ['3bffffffffffffffff', 'the smallest integer', 'taken', 'taken'],
  ['c249010000000000000000', 'a bignum', 'malformed', 'malformed'],
  ['c349010000000000000000', 'a negative bignum', 'malformed', 'malformed'],
  ['f93c00', 'a half float', 'malformed', 'taken'],
  ['fa47c35000', 'a float', 'malformed', 'taken'],
  ['fb3ff199999999999a', 'a double', 'malformed', 'taken'],
  ['f4', 'false', 'taken', 'taken'],
  ['f7', 'undefined', 'taken', 'taken'],
  ['f0', 'simple value 16', 'malformed', 'malformed'],
  ['f8ff', 'simple value 255', 'malformed', 'malformed'],
  ['c074323031332d30332d32315432303a30343a30305a', 'a time as text', 'malformed', 'taken'],
  ['c11a514b67b0', 'a time as number', 'malformed', 'taken'],
  ['c482211904d2', 'a decimal fraction', 'malformed', 'taken'],
  ['c48221c249010000000000000000', 'a decimal fraction of a bignum', 'malformed', 'malformed'],
  ['d74401020304', 'tag 23', 'malformed', 'malformed'],
  ['5f42010243030405ff', 'octets of indefinite length', 'malformed', 'taken'],
  ['5f42010261ffff', 'octets with a text among their parts', 'malformed', 'malformed'],
  ['9fff', 'an array of indefinite length', 'malformed', 'taken'],
  ['bf61610161629f0203ffff', 'a map of indefinite length', 'malformed', 'taken'],
  ['bf6161ff', 'a map without its last value', 'malformed', 'malformed'],
  ['a201020304', 'a map of integers', 'taken', 'taken'],
  ['8301820203820405', 'arrays in an array', 'taken', 'taken'],
  ['ff', 'a break alone', 'malformed', 'malformed'],
  ['0000', 'an item behind the item', 'malformed', 'malformed'],
  ['1c', 'a head that is reserved', 'malformed', 'malformed'],
  ['c0', 'a tag of nothing', 'malformed', 'malformed'],
] as const;

describe('profiles of CBOR', () => {
  for (const [coded, what, plain, lwm2m] of examples)
    test(`${what} is ${plain} by the plain profile, ${lwm2m} by that of LwM2M`, () => {
      assert.equal(codeOf(hex(coded)), plain);
      assert.equal(codeOf(hex(coded), lwm2mProfile), lwm2m);
    });

  test('what Postern encodes is taken, and comes back', () => {
    const value = fc.letrec((tie) => ({
      any: fc.oneof(
        { maxDepth: 4 },
        fc.string(),
        fc.integer(),
        fc.boolean(),
        fc.uint8Array().map((octets) => Buffer.from(octets)),
        fc.array(tie('any')),
        fc.array(fc.tuple(fc.integer(), tie('any'))).map((entries) => new Map(entries)),
      ),
    })).any;
    fc.assert(fc.property(value, (one) => assert.deepEqual(fromCbor(toCbor(one), plainProfile, 'it'), one)));
  });

  test('cut at any octet, a document is malformed', () => {
    const coded = toCbor(
      new Map<number, unknown>([
        [1, 'text'],
        [2, [1, 2, [true, Buffer.from('octets')]]],
      ]),
    );
    for (let length = 0; length < coded.length; length++)
      assert.equal(codeOf(coded.subarray(0, length)), 'malformed', `${length} octets`);
  });

  test('any octets are refused by a PosternError, or read', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 200 }),
        fc.constantFrom(plainProfile, lwm2mProfile),
        (octets, profile) => {
          try {
            fromCbor(octets, profile, 'it');
          } catch (error) {
            assert.ok(error instanceof PosternError, String(error));
          }
        },
      ),
      { numRuns: 2000 },
    );
  });

  test('each bound is met: items of an array and a map, items in all, items within items', () => {
    const arrays = (count: number, length: number) =>
      toCbor(Array.from({ length: count }, () => Array(length).fill(0)));
    assert.equal(codeOf(arrays(1, cborLimits.items)), 'taken');
    assert.equal(codeOf(arrays(1, cborLimits.items + 1)), 'tooLarge');
    const map = (length: number) => toCbor(new Map(Array.from({ length }, (_, at) => [at, 0])));
    assert.equal(codeOf(map(cborLimits.items)), 'taken');
    assert.equal(codeOf(map(cborLimits.items + 1)), 'tooLarge');
    // Four arrays, the array around them, and their items.
    assert.equal(codeOf(arrays(4, (cborLimits.total - 5) / 4 - 0.75)), 'taken');
    assert.equal(codeOf(arrays(4, cborLimits.items)), 'tooLarge');
    const deep = (depth: number) => Buffer.concat([Buffer.alloc(depth, 0x81), Buffer.from([0])]);
    assert.equal(codeOf(deep(cborLimits.depth)), 'taken');
    assert.equal(codeOf(deep(cborLimits.depth + 1)), 'tooLarge');
    const endless = Buffer.concat([
      Buffer.from([0x9f]),
      Buffer.alloc(cborLimits.items * 2 + 1),
      Buffer.from([0xff]),
    ]);
    assert.equal(codeOf(endless, lwm2mProfile), 'tooLarge');
  });

  test('a bignum is refused before the decoder sees it, wherever it stands', () => {
    const encoder = new Encoder({ useRecords: false, largeBigIntToFloat: false });
    const bignum = Buffer.concat([hex('c25a 0000ea60'), Buffer.alloc(60_000, 0xff)]);
    for (const around of [[], [0x81], [0xa1, 0x01], [0xa1]]) {
      const coded = Buffer.concat([
        Buffer.from(around),
        bignum,
        around.length === 1 && around[0] === 0xa1 ? encoder.encode(0) : Buffer.alloc(0),
      ]);
      for (const profile of [plainProfile, lwm2mProfile])
        assert.throws(() => fromCbor(coded, profile, 'it'), {
          code: 'malformed',
          message: /tag 2 is not taken/,
        });
    }
  });
});
