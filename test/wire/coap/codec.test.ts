import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { generate, parse } from 'coap-packet';
import fc from 'fast-check';
import {
  type CoapMessage,
  decode,
  encode,
  encodeEmpty,
  Malformed,
  Type,
} from '../../../src/wire/coap/codec.ts';
import { codeText } from '../../../src/wire/coap/codes.ts';

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex');

/** Name, datagram and message. From RFC 7252 appendix A, figures 16 and 17, and one with extended deltas and lengths. */
const vectors: [string, string, CoapMessage][] = [
  [
    'CON GET /temperature',
    '40 01 7d 34 bb 74656d7065726174757265',
    {
      type: Type.CON,
      code: 0x01,
      messageId: 0x7d34,
      token: hex(''),
      options: [{ number: 11, value: Buffer.from('temperature') }],
      payload: hex(''),
    },
  ],
  [
    'ACK 2.05 with a token',
    '61 45 7d 35 20 ff 32322e332043',
    {
      type: Type.ACK,
      code: 0x45,
      messageId: 0x7d35,
      token: hex('20'),
      options: [],
      payload: Buffer.from('22.3 C'),
    },
  ],
  [
    'extended deltas and lengths',
    `52 02 0001 abcd dd ef 00 ${'61'.repeat(13)} ed fb ee 01 ${'62'.repeat(14)} ff 00`,
    {
      type: Type.NON,
      code: 0x02,
      messageId: 1,
      token: hex('abcd'),
      options: [
        { number: 252, value: Buffer.alloc(13, 'a') },
        { number: 65_015, value: Buffer.alloc(14, 'b') },
      ],
      payload: hex('00'),
    },
  ],
];

for (const [name, text, message] of vectors)
  describe(name, () => {
    test('is read', () => assert.deepEqual(decode(hex(text)), message));
    test('is written', () => assert.equal(encode(message).toString('hex'), hex(text).toString('hex')));
    test('truncated at any byte, it is refused or another message', () => {
      const whole = hex(text);
      for (let length = 0; length < whole.length; length++) {
        const cut = decode(whole.subarray(0, length));
        if (!(cut instanceof Malformed)) assert.ok(encode(cut).length <= length);
        else if (length < 4) assert.equal(cut.messageId, undefined);
        else assert.equal(cut.messageId, message.messageId);
      }
    });
  });

describe('malformed', () => {
  const refused: [string, string, string][] = [
    ['an empty datagram', '', 'shorter than a header'],
    ['version 0', '00 01 00 01', 'version is not 1'],
    ['version 2', '80 01 00 01', 'version is not 1'],
    ['version 3', 'c0 01 00 01', 'version is not 1'],
    ['token of 9', '49 01 00 01 010203040506070809', 'reserved token length'],
    ['token of 15', '4f 01 00 01', 'reserved token length'],
    ['truncated in the token', '44 01 00 01 0102', 'cut off in the token'],
    ['empty with a token', '41 00 00 01 01', 'empty message with content'],
    ['empty with a payload', '40 00 00 01 ff 01', 'empty message with content'],
    ['class 1', '40 20 00 01', 'reserved code class'],
    ['class 6', '40 c0 00 01', 'reserved code class'],
    ['class 7', '40 e0 00 01', 'reserved code class'],
    ['delta 15', '40 01 00 01 f0', 'reserved option delta'],
    ['length 15', '40 01 00 01 0f', 'reserved option length'],
    ['delta of one byte that is missing', '40 01 00 01 d0', 'cut off in an option'],
    ['delta of two bytes of which one is missing', '40 01 00 01 e0 01', 'cut off in an option'],
    ['length of two bytes of which one is missing', '40 01 00 01 0e 01', 'cut off in an option'],
    ['value beyond the end', '40 01 00 01 b4 61', 'cut off in an option'],
    ['length of 65804', '40 01 00 01 0e ffff', 'cut off in an option'],
    ['number beyond 65535', '40 01 00 01 e0 ffff e0 ffff', 'option number overflow'],
    ['marker without a payload', '40 01 00 01 ff', 'payload marker without payload'],
  ];
  for (const [what, text, reason] of refused)
    test(what, () => {
      const found = decode(hex(text));
      assert.ok(found instanceof Malformed);
      assert.equal(found.reason, reason);
    });
});

const message: fc.Arbitrary<CoapMessage> = fc
  .record(
    {
      type: fc.constantFrom(Type.CON, Type.NON, Type.ACK, Type.RST),
      code: fc.constantFrom(0x01, 0x02, 0x05, 0x1f, 0x41, 0x45, 0x5f, 0x80, 0x9f, 0xa5),
      messageId: fc.nat(0xffff),
      token: bytes(8),
      options: fc.array(
        fc.record(
          { number: fc.oneof(fc.nat(300), fc.nat(0xffff)), value: fc.oneof(bytes(20), bytes(700)) },
          { noNullPrototype: true },
        ),
        { maxLength: 6 },
      ),
      payload: bytes(64),
    },
    { noNullPrototype: true },
  )
  .map((one) => ({ ...one, options: one.options.toSorted((a, b) => a.number - b.number) }));

function bytes(maxLength: number): fc.Arbitrary<Buffer> {
  return fc.uint8Array({ maxLength }).map((octets) => Buffer.from(octets));
}

test('any message is the same after encoding and decoding', () => {
  fc.assert(fc.property(message, (one) => assert.deepEqual(decode(encode(one)), one)));
});

test('coap-packet and this codec read what the other writes', () => {
  fc.assert(
    fc.property(message, (one) => {
      const coded = encode(one);
      const other = parse(coded);
      assert.equal(other.code, codeText(one.code).replace(/^0\./, '0.'));
      assert.equal(other.messageId, one.messageId);
      assert.deepEqual(other.token, one.token);
      assert.deepEqual(other.payload, one.payload);
      assert.deepEqual(
        (other.options ?? []).map(({ value }) => value),
        one.options.map(({ value }) => value),
      );
      assert.deepEqual(decode(generate({ ...other, options: other.options ?? [] }, 10_000)), one);
    }),
  );
});

test('decoding any octets does not throw', () => {
  fc.assert(
    fc.property(bytes(64), (octets) => {
      const found = decode(octets);
      if (!(found instanceof Malformed)) assert.deepEqual(decode(encode(found)), found);
    }),
    { numRuns: 2000 },
  );
});

test('an empty message has four bytes', () => {
  assert.equal(encodeEmpty(Type.RST, 0x1234).toString('hex'), '70001234');
});
