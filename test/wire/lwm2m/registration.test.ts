import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PosternError } from '../../../src/base/errors.ts';
import {
  idsBelow,
  readLifetime,
  readObjects,
  readRegistration,
} from '../../../src/wire/lwm2m/registration.ts';

const failsWith = (code: string) => (thrown: unknown) =>
  thrown instanceof PosternError && thrown.code === code;
const links =
  '</>;rt="oma.lwm2m";ct="112 110",</1/0>,</3/0>,</3303/0>,</3303/10>,</3303/2>,</5>,</.well-known/core>';

describe('the registration of an LwM2M client (core 1.1, section 6.2.1)', () => {
  test('has name, version, lifetime, Queue Mode and objects', () => {
    const query = ['ep=urn:dev:1', 'lt=600', 'lwm2m=1.1', 'b=U', 'Q'];
    assert.deepEqual(readRegistration(query, Buffer.from(links)), {
      endpoint: 'urn:dev:1',
      version: '1.1',
      lifetime: 600,
      binding: 'U',
      queueMode: true,
      objects: {
        root: [],
        paths: [[1, 0], [3, 0], [3303, 0], [3303, 10], [3303, 2], [5]],
        formats: [112, 110],
      },
    });
    const early = readRegistration(['ep=a', 'lwm2m=1.0', 'b=UQ'], new Uint8Array());
    assert.deepEqual([early.lifetime, early.queueMode], [86_400, true], 'Queue Mode as in LwM2M 1.0');
    assert.equal(early.binding, 'UQ');
  });

  test('has the version 1.0 when it names none, and may write it in quotes or with its patch', () => {
    for (const [given, version] of [
      [[], '1.0'],
      [['lwm2m="1.0"'], '1.0'],
      [['lwm2m=1.0.2'], '1.0'],
      [['lwm2m=1.1.1'], '1.1'],
      [['lwm2m="1.2"'], '1.2'],
    ] as const)
      assert.equal(readRegistration(['ep=a', ...given], Buffer.of()).version, version);
    for (const wrong of ['', '1', '1.3', '2.0', '11.0', '1.0.', '1.0.1.1', 'v1.0'])
      assert.throws(
        () => readRegistration(['ep=a', `lwm2m=${wrong}`], Buffer.of()),
        failsWith('unsupportedVersion'),
        wrong,
      );
  });

  test('has its objects also where the list ends in commas or a NUL, and without links that are no objects', () => {
    for (const end of [',', ' , ', ',\r\n', '\0', ',\0'])
      assert.deepEqual(readObjects(Buffer.from(`</1/0>,</3/0>${end}`)).paths, [
        [1, 0],
        [3, 0],
      ]);
    const odd = '</65535/0>,</3/65535>,</100000>,</3/0/1>,</x>,</3/0>,</1/0>;ver="1.1";x';
    assert.deepEqual(readObjects(Buffer.from(odd)).paths, [
      [3, 0],
      [1, 0],
    ]);
    for (const wrong of ['</1/0>,,</3/0>', '</1/0>\0</3/0>', ',</1/0>'])
      assert.throws(() => readObjects(Buffer.from(wrong)), failsWith('malformed'), wrong);
  });

  test('has any lifetime of 32 bits; 0 is for ever', () => {
    for (const lifetime of [0, 1, 31_536_001, 0xffffffff])
      assert.equal(readRegistration(['ep=a', 'lwm2m=1.1', `lt=${lifetime}`], Buffer.of()).lifetime, lifetime);
    for (const wrong of ['', '-1', '1.5', '1e3', '0x10', ' 1', '4294967296', 'Infinity'])
      assert.throws(() => readLifetime(wrong), failsWith('malformed'), wrong);
  });

  test('may have a thousand object instances', () => {
    const many = Array.from({ length: 1000 }, (_, n) => `</3303/${n}>`).join(',');
    assert.equal(readObjects(Buffer.from(many)).paths.length, 1000);
  });

  test('may have objects below an alternate root path', () => {
    const { root, paths } = readObjects(Buffer.from('</lwm2m>;rt="oma.lwm2m",</lwm2m/3/0>,</other/4/0>'));
    assert.deepEqual({ root, paths }, { root: ['lwm2m'], paths: [[3, 0]] });
    const several = readObjects(Buffer.from('</lwm2m>;rt="core.x oma.lwm2m";ct=11542,</lwm2m/3/0>'));
    assert.deepEqual(several, { root: ['lwm2m'], paths: [[3, 0]], formats: [11_542] });
  });

  test('IDs below a path are listed in ascending order', () => {
    const objects = readObjects(Buffer.from(links));
    assert.deepEqual(idsBelow(objects, []), [1, 3, 5, 3303]);
    assert.deepEqual(idsBelow(objects, [3303]), [0, 2, 10]);
    assert.deepEqual(idsBelow(objects, [5]), []);
  });

  const wrong: readonly [string, string[], string, string][] = [
    ['no name', ['lwm2m=1.1'], '', 'malformed'],
    ['an unknown version', ['ep=a', 'lwm2m=2.0'], '', 'unsupportedVersion'],
    ['a lifetime that is too long', ['ep=a', 'lwm2m=1.1', 'lt=99999999999'], '', 'malformed'],
    ['a payload that is not link format', ['ep=a', 'lwm2m=1.1'], '<', 'malformed'],
    [
      'too long a list of links',
      ['ep=a', 'lwm2m=1.1'],
      '</3303/0>,'.repeat(1639).slice(0, 16_385),
      'tooLarge',
    ],
  ];
  for (const [name, query, payload, code] of wrong)
    test(`${name} is refused`, () => {
      assert.throws(() => readRegistration(query, Buffer.from(payload)), failsWith(code));
    });
});
