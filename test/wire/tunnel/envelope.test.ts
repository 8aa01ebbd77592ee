import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Encoder } from 'cbor-x';
import fc from 'fast-check';
import { PosternError } from '../../../src/base/errors.ts';
import { decodeEnvelope, type Envelope, encodeEnvelope } from '../../../src/wire/tunnel/envelope.ts';
import { decodeState, encodeState } from '../../../src/wire/tunnel/gateway-state.ts';
import { parseUpTopic } from '../../../src/wire/tunnel/topics.ts';

const bytes = (min: number, max: number) =>
  fc.uint8Array({ minLength: min, maxLength: max }).map((octets) => Buffer.from(octets));
const word = fc.string({ maxLength: 40 });

const envelope: fc.Arbitrary<Envelope> = fc.record(
  {
    kind: fc.constantFrom(0 as const, 1 as const, 2 as const, 3 as const),
    correlation: bytes(8, 16),
    device: word,
    server: word,
    contentType: word,
    timeToLive: fc.nat(1e6),
    headers: fc.dictionary(
      fc.string({ minLength: 1, maxLength: 20 }).filter((name) => name !== '__proto__'),
      word,
      { maxKeys: 4, noNullPrototype: true },
    ),
    body: bytes(0, 300),
    status: fc.nat(599),
    reason: word,
    route: word,
    via: word,
    peer: word,
  },
  { requiredKeys: ['kind', 'correlation'], noNullPrototype: true },
);

test('any envelope is the same after encoding and decoding, and always has the same octets', () => {
  fc.assert(
    fc.property(envelope, (one) => {
      const coded = encodeEnvelope(one);
      const back = decodeEnvelope(coded);
      assert.deepEqual(back, one);
      assert.equal(encodeEnvelope(back).toString('hex'), coded.toString('hex'));
    }),
  );
});

test('any octets are read or refused by a PosternError', () => {
  fc.assert(
    fc.property(bytes(0, 100), (octets) => {
      for (const decode of [decodeEnvelope, decodeState])
        try {
          decode(octets);
        } catch (error) {
          assert.ok(error instanceof PosternError);
        }
    }),
  );
});

test('a gateway state with a version or a boot ID that is too long to be remembered is refused', () => {
  const state = { online: true, software: 'x'.repeat(255), bootId: Buffer.alloc(32) };
  assert.deepEqual(decodeState(encodeState(state)), state);
  for (const more of [{ software: 'x'.repeat(256) }, { bootId: Buffer.alloc(33) }])
    assert.throws(() => decodeState(encodeState({ ...state, ...more })), { code: 'malformed' });
  for (const name of ['x'.repeat(65), 'a b', 'a\u0007', ''])
    assert.equal(parseUpTopic(`dm/${name}/state`), undefined, name);
  assert.equal(parseUpTopic(`dm/${'x'.repeat(64)}/state`)?.what, 'state');
});

describe('an envelope is refused', () => {
  const encoder = new Encoder({ useRecords: false, mapsAsObjects: false, tagUint8Array: false });
  const good: [number, unknown][] = [
    [1, 1],
    [2, 0],
    [3, Buffer.alloc(8)],
  ];
  const cases: [string, [number, unknown][], string][] = [
    ['of another version', [[1, 2]], 'unsupportedVersion'],
    ['of an unknown kind', [[2, 4]], 'malformed'],
    ['with a correlation of 7 octets', [[3, Buffer.alloc(7)]], 'malformed'],
    ['with a correlation of 17 octets', [[3, Buffer.alloc(17)]], 'malformed'],
    ['with a device that is not text', [[4, 5]], 'malformed'],
    ['with a text of 256 characters', [[5, 'x'.repeat(256)]], 'malformed'],
    ['with a negative time to live', [[7, -1]], 'malformed'],
    ['with headers that are not text', [[8, new Map([['a', 1]])]], 'malformed'],
    [
      'with 17 headers',
      [[8, new Map(Array.from({ length: 17 }, (_, at) => [String(at), 'x']))]],
      'malformed',
    ],
    ['with a body that is text', [[9, 'x']], 'malformed'],
  ];
  for (const [what, changes, code] of cases)
    test(what, () => {
      assert.throws(() => decodeEnvelope(encoder.encode(new Map([...good, ...changes]))), { code });
    });
  test('that is too large', () => {
    assert.throws(() => decodeEnvelope(new Uint8Array(600_000)), { code: 'tooLarge' });
  });
});

test('topics to which a gateway publishes are read, others are not', () => {
  assert.deepEqual(parseUpTopic('dm/g/up'), { gateway: 'g', what: 'up' });
  assert.deepEqual(parseUpTopic('dm/g/up/r'), { gateway: 'g', what: 'up', route: 'r' });
  assert.deepEqual(parseUpTopic('dm/g/state'), { gateway: 'g', what: 'state' });
  for (const other of ['dm/g/down', 'dm/g/state/x', 'dm//up', 'x/g/up', 'dm/g/up/r/s'])
    assert.equal(parseUpTopic(other), undefined);
});
