import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { PosternError } from '../../../src/base/errors.ts';
import { ContentFormat } from '../../../src/wire/coap/content-formats.ts';
import { decodeContent, encodeContent } from '../../../src/wire/lwm2m/content.ts';
import { typeOf } from '../../../src/wire/lwm2m/objects.ts';
import type { Path } from '../../../src/wire/lwm2m/path.ts';
import { parsePath, pathText } from '../../../src/wire/lwm2m/path.ts';
import {
  type Entry,
  type ResourceType,
  textOf,
  type Value,
  valueFrom,
} from '../../../src/wire/lwm2m/resource.ts';
import { decodeTlv, emptyInstance, instancesIn, tlvLimits } from '../../../src/wire/lwm2m/tlv.ts';

const hex = (text: string) => Buffer.from(text.replace(/\s/g, ''), 'hex');
const entry = (path: string, value: Entry['value']): Entry => ({ path: parsePath(path), value });
const failsWith = (code: string) => (thrown: unknown) =>
  thrown instanceof PosternError && thrown.code === code;
const plain = (entries: readonly Entry[]) =>
  entries.map(({ path, value }) => [
    pathText(path),
    value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value,
  ]);

/** The object Device in TLV, an example of LwM2M core 1.1, section 7.4.3.2. */
const device = hex(`
  c8 00 14 4f 70 65 6e 20 4d 6f 62 69 6c 65 20 41 6c 6c 69 61 6e 63 65
  c8 01 16 4c 69 67 68 74 77 65 69 67 68 74 20 4d 32 4d 20 43 6c 69 65 6e 74
  c8 02 09 33 34 35 30 30 30 31 32 33
  c3 03 31 2e 30
  86 06 41 00 01 41 01 05
  88 07 08 42 00 0e d8 42 01 13 88
  87 08 41 00 7d 42 01 03 84
  c1 09 64
  c1 0a 0f
  83 0b 41 00 00
  c4 0d 51 82 42 8f
  c6 0e 2b 30 32 3a 30 30
  c1 10 55`);
const deviceEntries = [
  entry('/3/0/0', 'Open Mobile Alliance'),
  entry('/3/0/1', 'Lightweight M2M Client'),
  entry('/3/0/2', '345000123'),
  entry('/3/0/3', '1.0'),
  entry('/3/0/6/0', 1),
  entry('/3/0/6/1', 5),
  entry('/3/0/7/0', 3800),
  entry('/3/0/7/1', 5000),
  entry('/3/0/8/0', 125),
  entry('/3/0/8/1', 900),
  entry('/3/0/9', 100),
  entry('/3/0/10', 15),
  entry('/3/0/11/0', 0),
  entry('/3/0/13', 1_367_491_215),
  entry('/3/0/14', '+02:00'),
  entry('/3/0/16', 'U'),
];

/** Integers that a number cannot hold. */
const edges = ['9223372036854775807', '-9223372036854775808', '9007199254740993', '-9007199254740993'];

const bodies: readonly { name: string; base: Path; entries: readonly Entry[] }[] = [
  { name: 'an instance of several resources', base: [3, 0], entries: deviceEntries },
  {
    name: 'two instances',
    base: [3311],
    entries: [entry('/3311/0/5850', true), entry('/3311/0/5851', 40), entry('/3311/7/5850', false)],
  },
  { name: 'octets', base: [5, 0, 0], entries: [entry('/5/0/0', Buffer.alloc(300, 7))] },
  { name: 'floats', base: [6, 0], entries: [entry('/6/0/0', 52.5), entry('/6/0/1', -0.1)] },
  { name: 'links', base: [3, 0], entries: [entry('/3/0/22/0', '3303:1')] },
  {
    name: 'integers of all sizes',
    base: [7, 0],
    entries: [-1, 127, 128, -32_769, 2 ** 31, Number.MAX_SAFE_INTEGER].map((value, id) =>
      entry(`/7/0/${id}`, value),
    ),
  },
];
const formats = {
  TLV: ContentFormat.LwM2mTlv,
  'SenML JSON': ContentFormat.SenmlJson,
  'SenML CBOR': ContentFormat.SenmlCbor,
  'LwM2M CBOR': ContentFormat.LwM2mCbor,
};

/** Formats that hold a value of one resource. */
const ofOneValue = { ...formats, text: ContentFormat.TextPlain, CBOR: ContentFormat.Cbor };
/** Formats of the drafts of LwM2M 1.0, which are read. */
const drafts: Readonly<Record<number, number>> = { [ContentFormat.LwM2mTlv]: 1542 };

/** A resource of each data type, with values of it. */
const values: readonly (readonly [type: ResourceType, path: string, values: readonly Value[]])[] = [
  ['string', '/3/0/0', ['', 'Maker & <Sons>', '\u0000\u{1f512} é', '17', 'true', 'x'.repeat(70_000)]],
  ['integer', '/3/0/10', [0, -1, 255, -32_769, 2 ** 31, -(2 ** 53) + 1, ...edges]],
  ['unsigned', '/1/0/26', [0, 255, 4_294_967_295, Number.MAX_SAFE_INTEGER, '18446744073709551615']],
  ['float', '/6/0/0', [0, 21.5, -0.1, 1e-9, 1.7e308, 5e-324, 2 ** 60, 40]],
  ['boolean', '/1/0/6', [true, false]],
  ['time', '/3/0/13', [0, 1_367_491_215, -1, 253_402_300_800, edges[0]!]],
  ['objlnk', '/0/0/17', ['21:0', '3303:65534', '0:0']],
  ['opaque', '/5/0/0', [Buffer.alloc(0), Buffer.from([0, 255]), Buffer.alloc(70_000, 7)]],
];

describe('LwM2M content (core 1.1, section 7.4)', () => {
  test("the specification's example in TLV is read and written", () => {
    assert.deepEqual(plain(decodeContent(ContentFormat.LwM2mTlv, device, [3, 0])), plain(deviceEntries));
    assert.deepEqual(Buffer.from(encodeContent(ContentFormat.LwM2mTlv, deviceEntries, [3, 0])), device);
    // The same instance, as it is in the content of the whole object.
    const whole = Buffer.concat([hex('08 00 79'), device]);
    assert.deepEqual(plain(decodeContent(ContentFormat.LwM2mTlv, whole, [3])), plain(deviceEntries));
  });

  for (const [name, format] of Object.entries(ofOneValue))
    test(`${name}: integers and times of 64 bits are whole, both ways`, () => {
      const seed = Number(process.env.SEED ?? Date.now());
      const entropy = seededEntropy(seed);
      const random = Array.from({ length: 500 }, () =>
        String(
          BigInt.asIntN(
            64,
            Buffer.from(entropy.bytes(8)).readBigInt64BE() >> BigInt(entropy.bytes(1)[0]! % 64),
          ),
        ),
      );
      for (const text of [...edges, ...random])
        for (const [path, type] of [
          ['/3/0/10', 'integer'],
          ['/3/0/13', 'time'],
        ] as const) {
          const coded = encodeContent(format, [entry(path, valueFrom(type, text))], parsePath(path));
          const [read] = decodeContent(format, coded, parsePath(path));
          assert.equal(textOf(read?.value ?? ''), text, `seed ${seed}`);
        }
    });

  for (const [name, number] of Object.entries(ofOneValue))
    for (const [type, path, all] of values)
      test(`${name}: each ${type} is the same after encoding and decoding; truncated it is malformed or read`, () => {
        assert.equal(typeOf(parsePath(path)), type);
        for (const value of all) {
          // Octets are no text.
          const isPlain = number === ContentFormat.TextPlain && type === 'opaque';
          const format = isPlain ? ContentFormat.OctetStream : number;
          const base = parsePath(path);
          const coded = encodeContent(format, [entry(path, value)], base);
          for (const each of [format, drafts[format]])
            if (each !== undefined)
              assert.deepEqual(plain(decodeContent(each, coded, base)), plain([entry(path, value)]));
          const step = Math.max(1, Math.floor(coded.length / 100));
          for (let cut = 0; cut < coded.length; cut += step)
            try {
              decodeContent(format, coded.subarray(0, cut), base);
            } catch (thrown) {
              assert.ok(failsWith('malformed')(thrown), `cut at ${cut}: ${thrown}`);
            }
        }
      });

  test('numbers of 64 bits have the form of numbers in SenML, and more is refused or no integer', () => {
    const time = [entry('/3/0/13', valueFrom('time', edges[0]!))];
    assert.equal(
      Buffer.from(encodeContent(ContentFormat.SenmlJson, time, [3, 0, 13])).toString(),
      `[{"n":"/3/0/13","v":${edges[0]}}]`,
    );
    assert.ok(
      Buffer.from(encodeContent(ContentFormat.SenmlCbor, time, [3, 0, 13])).includes(
        hex('02 1b 7f ff ff ff ff ff ff ff'),
      ),
    );
    const unsigned = hex('c8 0a 08 ff ff ff ff ff ff ff ff');
    assert.equal(decodeTlv(unsigned, [9, 0], () => 'unsigned')[0]?.value, '18446744073709551615');
    assert.throws(() => valueFrom('integer', '9223372036854775808'), failsWith('malformed'));
    const long = `[{"n":"/3/0/10","v":1${'0'.repeat(100_000)}}]`;
    assert.throws(
      () => decodeContent(ContentFormat.SenmlJson, Buffer.from(long), []),
      failsWith('malformed'),
    );
    const exponent = '[{"n":"/6/0/0","v":1e20},{"n":"/6/0/1","v":9007199254740993.5}]';
    assert.deepEqual(
      decodeContent(ContentFormat.SenmlJson, Buffer.from(exponent), []).map(({ value }) => value),
      [1e20, Number('9007199254740993.5')],
    );
  });

  test('CBOR of one resource is read: numbers of 64 bits, a tagged time, floats, booleans, texts, octets', () => {
    const read = (body: string) => decodeContent(ContentFormat.Cbor, hex(body), [10, 0, 1])[0]?.value;
    assert.equal(read('1b 7f ff ff ff ff ff ff ff'), edges[0]);
    assert.equal(read('3b 7f ff ff ff ff ff ff ff'), edges[1]);
    assert.equal(read('c1 1a 51 4b 67 b0'), 1_363_896_240);
    assert.equal(read('fb 40 35 80 00 00 00 00 00'), 21.5);
    assert.equal(read('f5'), true);
    assert.equal(read('64 31 37 20 43'), '17 C');
    assert.deepEqual(Buffer.from(read('42 01 02') as Uint8Array), hex('01 02'));
    for (const body of [
      'f6',
      '81 01',
      'a1 01 02',
      '1b 7f',
      'c1 f9 7e 00',
      'c0 61 78',
      'c2 49 01 00 00 00 00 00 00 00 00',
    ])
      assert.throws(() => read(body), failsWith('malformed'), body);
  });

  test('CBOR of one resource is written, and read as the same; of several it is not', () => {
    for (const [path, value, body] of [
      ['/1/0/2', 101, '18 65'],
      ['/1/0/6', true, 'f5'],
      ['/1/0/7', 'U', '61 55'],
      ['/3303/0/5700', 21.5, 'fb 40 35 80 00 00 00 00 00'],
      ['/0/0/17', '21:0', '64 32 31 3a 30'],
      ['/5/0/0', hex('01 02'), '42 01 02'],
      ['/3/0/13', '9223372036854775807', '1b 7f ff ff ff ff ff ff ff'],
    ] as const) {
      const coded = encodeContent(ContentFormat.Cbor, [entry(path, value)], parsePath(path));
      const read = decodeContent(ContentFormat.Cbor, coded, parsePath(path));
      assert.deepEqual(plain(read), plain([entry(path, value)]));
      assert.equal(Buffer.from(coded).toString('hex'), hex(body).toString('hex'), path);
    }
    assert.throws(
      () => encodeContent(ContentFormat.Cbor, deviceEntries, [3, 0]),
      failsWith('unsupportedFormat'),
    );
  });

  test('SenML says the types of values, of object links too', () => {
    const senml =
      '[{"bn":"/10/0/","n":"0","vs":"3:0"},{"n":"1","v":1},{"n":"2","vlo":"3:0"},{"n":"3","v":0.5},{"n":"4","vb":true},{"n":"5","vd":"AQI"},{"n":"6","v":9007199254740993}]';
    assert.deepEqual(
      decodeContent(ContentFormat.SenmlJson, Buffer.from(senml), []).map(({ type }) => type),
      ['string', 'integer', 'objlnk', 'float', 'boolean', 'opaque', 'integer'],
    );
  });

  test('SenML JSON and the JSON of LwM2M 1.0 are read', () => {
    const senml =
      '[{"bn":"/3/0/","n":"0","vs":"Open Mobile Alliance"},{"n":"6/0","v":1},{"n":"22/0","vlo":"3:0"},{"n":"9","v":100},{"bn":"/5/0/","n":"0","vd":"AQI"},{"bt":1}]';
    assert.deepEqual(plain(decodeContent(ContentFormat.SenmlJson, Buffer.from(senml), [])), [
      ['/3/0/0', 'Open Mobile Alliance'],
      ['/3/0/6/0', 1],
      ['/3/0/22/0', '3:0'],
      ['/3/0/9', 100],
      ['/5/0/0', '0102'],
    ]);
    const old = '{"bn":"/3/0/","e":[{"n":"0","sv":"Maker"},{"n":"6/1","v":5},{"n":"x","bv":true}]}';
    assert.throws(
      () => decodeContent(ContentFormat.LwM2mJson, Buffer.from(old), [3, 0]),
      failsWith('malformed'),
    );
    const right = old.replace('"x"', '"20"');
    assert.deepEqual(plain(decodeContent(ContentFormat.LwM2mJson, Buffer.from(right), [3, 0])), [
      ['/3/0/0', 'Maker'],
      ['/3/0/6/1', 5],
      ['/3/0/20', true],
    ]);
    const noBase = '{"e":[{"n":"","sv":"Maker"}]}';
    assert.deepEqual(plain(decodeContent(ContentFormat.LwM2mJson, Buffer.from(noBase), [3, 0, 0])), [
      ['/3/0/0', 'Maker'],
    ]);
  });

  for (const [format, number] of Object.entries(formats))
    for (const { name, base, entries } of bodies)
      test(`${format}: ${name} are the same after encoding and decoding; truncated they are malformed or read`, () => {
        const coded = encodeContent(number, entries, base);
        assert.deepEqual(plain(decodeContent(number, coded, base)), plain(entries));
        for (let cut = 0; cut < coded.length; cut++)
          try {
            decodeContent(number, coded.subarray(0, cut), base);
          } catch (thrown) {
            assert.ok(failsWith('malformed')(thrown), `cut at ${cut}: ${thrown}`);
          }
      });

  test('plain text is a single value of the type of its resource', () => {
    const text = (value: string, path: string) =>
      decodeContent(ContentFormat.TextPlain, Buffer.from(value), parsePath(path))[0]?.value;
    assert.equal(text('21.5', '/3303/0/5700'), 21.5);
    assert.equal(text('1', '/3311/0/5850'), true);
    assert.equal(text('anything', '/10250/0/1'), 'anything', 'a value of unknown type is text');
    assert.throws(() => text('warm', '/3303/0/5700'), failsWith('malformed'));
    assert.equal(text('18446744073709551615', '/7/0/2'.replace('7', '9999')), '18446744073709551615');
    const coded = encodeContent(ContentFormat.TextPlain, [entry('/3311/0/5850', false)], [3311, 0, 5850]);
    assert.equal(String(coded), '0');
    assert.throws(
      () => encodeContent(ContentFormat.TextPlain, deviceEntries, [3, 0]),
      failsWith('unsupportedFormat'),
    );
    assert.throws(() => decodeContent(11_545, Buffer.of(0xa0), [3]), failsWith('unsupportedFormat'));
  });

  test('the instance ID of a Create without resources is read', () => {
    assert.deepEqual(instancesIn(emptyInstance(7)), [7]);
    assert.deepEqual(instancesIn(emptyInstance(300)), [300]);
    assert.deepEqual(Buffer.from(emptyInstance(7)), hex('00 07'));
  });

  const wrong: readonly [string, string, Path][] = [
    ['a head without its ID', 'c8', [3, 0]],
    ['a truncated value', 'c8 00 14 4f', [3, 0]],
    ['an integer of three octets', 'c3 09 01 02 03', [3, 0]],
    ['a float of three octets', 'e3 16 44 01 02 03', [3303, 0]],
    ['a boolean of two octets', 'e2 16 da 01 02', [3311, 0]],
    ['a link of two octets', '84 16 42 00 01 02', [3, 0]],
    ['text that is not UTF-8', 'c1 00 ff', [3, 0]],
    ['an instance inside a resource', '03 00 c1 09 64', [3, 0, 9]],
    ['an instance of a resource outside of one', '41 01 05', [3, 0]],
  ];
  for (const [name, octets, base] of wrong)
    test(`TLV: ${name} is malformed`, () => {
      assert.throws(() => decodeTlv(hex(octets), base, typeOf), failsWith('malformed'));
    });

  test('what a client tells that does not fit its description is left as it came, and costs no other value', () => {
    const good = 'c1 01 41';
    for (const [name, octets, base] of wrong) {
      const read = () => decodeContent(ContentFormat.LwM2mTlv, hex(`${good} ${octets}`), base, true);
      // The structure is wrong.
      if (/head|truncated|instance/.test(name)) assert.throws(read, failsWith('malformed'), name);
      else {
        const [first, second] = read();
        assert.deepEqual([first?.path[2], second?.value instanceof Uint8Array], [1, true], name);
      }
    }
    for (const [path, text] of [
      ['/3303/0/5700', 'warm'],
      ['/3/0/9', '75 %'],
      ['/3/0/4', 'x'],
    ] as const) {
      const read = decodeContent(ContentFormat.TextPlain, Buffer.from(text), parsePath(path), true);
      assert.deepEqual(read, [{ path: parsePath(path), value: text }]);
    }
  });

  test('text and octets have numbers in the drafts of LwM2M 1.0 too', () => {
    assert.equal(decodeContent(1541, Buffer.from('75'), [3, 0, 9])[0]?.value, 75);
    assert.deepEqual(decodeContent(1544, Buffer.of(1), [5, 0, 0])[0]?.value, Buffer.of(1));
  });

  test('a body of too many resources is refused', () => {
    const many = Buffer.concat(Array.from({ length: tlvLimits.entries + 1 }, () => hex('c1 09 64')));
    assert.throws(() => decodeTlv(many, [3, 0], typeOf), failsWith('tooLarge'));
  });

  const wrongSenml = [
    '{}',
    '[1',
    '[{"n":"/3/0/0"}, {"n":"/x","v":1}]',
    '[{"n":"/3/0/65535","v":1}]',
    '[{"n":"/1/2/3/4/5","v":1}]',
  ];
  for (const text of wrongSenml)
    test(`SenML: ${text} is malformed`, () => {
      assert.throws(
        () => decodeContent(ContentFormat.SenmlJson, Buffer.from(text), []),
        failsWith('malformed'),
      );
    });
});
