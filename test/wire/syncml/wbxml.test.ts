import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { asPosternError, PosternError } from '../../../src/base/errors.ts';
import { decodeDocument, encodeMessage, MediaType } from '../../../src/wire/syncml/codec.ts';
import type { SyncmlMessage } from '../../../src/wire/syncml/message.ts';
import { decodeTnds, encodeTnds, encodeTndsWbxml, type Tnds } from '../../../src/wire/syncml/tnds.ts';
import { firstPackage } from './messages.ts';

const hex = (text: string) => Buffer.from(text.replace(/\s+/g, ''), 'hex');
const str = (text: string) => `03${Buffer.from(text).toString('hex')}00`;

/** Header elements up to SyncBody: VerDTD, VerProto, SessionID, MsgID, Target, Source. */
const header = `6d 6c 71${str('1.2')}01 72${str('DM/1.2')}01 65${str('1')}01 5b${str('1')}01 6e57${str('s')}0101 67 57${str('c')}0101 01`;
const document = (prologue: string, body: string) => hex(`${prologue} ${header} 6b ${body} 01 01`);
const plain = '03 a401 6a 00';

const read = (prologue: string, body: string): SyncmlMessage =>
  decodeDocument(document(prologue, body), MediaType.Wbxml);
const dataOf = (message: SyncmlMessage) => {
  const [command] = message.commands;
  return command && 'items' in command ? command.items[0]?.data : undefined;
};
const add = (data: string, meta = '') => `45 4b${str('1')}01 54 ${meta} 4f ${data} 01 01 01`;

// conforms: REP-16
describe('WBXML is read', () => {
  for (const [what, prologue] of [
    ['version 1.0, which has no character set', '00 a401 00'],
    ['version 1.1', '01 a401 6a 00'],
    ['version 1.2', '02 a401 6a 00'],
    ['version 1.3', plain],
    ['public identifier of SyncML 1.1', '02 9f53 6a 00'],
    ['unknown public identifier', '03 01 6a 00'],
    [
      'public identifier by name',
      `03 00 00 6a 1d ${Buffer.from('-//SYNCML//DTD SyncML 1.2//EN').toString('hex')}`,
    ],
    ['US-ASCII', '03 a401 03 00'],
  ] as const)
    test(what, () => assert.equal(dataOf(read(prologue, add(str('v')))), 'v'));

  test('text that consists of inline strings, table strings, entities and opaque data', () => {
    const table = `03 a401 6a 04 ${Buffer.from('abc\0').toString('hex')}`;
    assert.equal(dataOf(read(table, add(`${str('x')} 8301 02 8169 c302 797a`))), 'xbc\u00e9yz');
  });

  test('a literal tag is read by its name; an unknown one is skipped with its content', () => {
    const names = Buffer.from('Data\0Vendor\0').toString('hex');
    const message = read(
      `03 a401 6a 0c ${names}`,
      `45 4b${str('1')}01 54 4405 4b${str('9')}01 01 4400 ${str('v')} 01 01 01`,
    );
    assert.equal(dataOf(message), 'v');
  });

  test('attributes are ignored', () => {
    const message = read(
      `03 a401 6a 02 6100`,
      `c5 05 ${str('v')} 86 01 4b${str('1')}01 54 4f${str('w')}01 01 01`,
    );
    assert.equal(dataOf(message), 'w');
  });

  const meta = (format: string) => `5a 0001 47${str(format)}01 0000 01`;
  // conforms: REP-19
  test('octets: for format b64 base64 or raw octets in opaque data, for format bin raw octets', () => {
    assert.deepEqual(dataOf(read(plain, add('c304 41514944', meta('b64')))), Buffer.from([1, 2, 3]));
    assert.deepEqual(dataOf(read(plain, add('c303 0102ff', meta('b64')))), Buffer.from([1, 2, 255]));
    assert.deepEqual(dataOf(read(plain, add('c304 41514944', meta('bin')))), Buffer.from('AQID'));
    assert.deepEqual(dataOf(read(plain, add(str('AQID'), meta('b64')))), Buffer.from([1, 2, 3]));
  });

  test('a TNDS object in tokens of its code page is read as XML', () => {
    const tnds = `0002 60 77${str('1.2')}01 64 66${str('x')}01 6f 5c 0b 01 01 76 c303 612662 01 01 01 0000`;
    assert.deepEqual(decodeTnds(String(dataOf(read(plain, add(tnds))))), {
      root: { name: 'x', format: 'chr', value: 'a&b' },
    });
  });

  test('text with a NUL, which comes as opaque data', () => {
    assert.equal(dataOf(read(plain, add('c303 610062'))), 'a\0b');
  });
});

// conforms: REP-16, REP-18
describe('WBXML is refused', () => {
  const refused: [string, Buffer, string][] = [
    ['an empty document', Buffer.alloc(0), 'malformed'],
    ['version 1.4', document('04 a401 6a 00', ''), 'unsupportedVersion'],
    ['another public identifier', document('03 0b 6a 00', ''), 'unsupportedFormat'],
    ['UTF-16', document('03 a401 8777 00', ''), 'unsupportedFormat'],
    ['a string table longer than the document', hex('03 a401 6a ffff7f'), 'malformed'],
    ['a number of six octets', hex('03 808080808001'), 'malformed'],
    ['a number above 32 bits', hex('03 ffffffff7f'), 'malformed'],
    ['a string without its final NUL', hex(`${plain} 6d 03 41`), 'malformed'],
    ['truncated opaque data', hex(`${plain} 6d c3 05 01`), 'malformed'],
    ['an offset beyond the string table', hex(`${plain} 6d 8305`), 'malformed'],
    ['an entity that is not a character', document(plain, add('02 83b000')), 'malformed'],
    ['text that is not UTF-8', document(plain, add('03 ff 00')), 'malformed'],
    ['an END without an open element', hex(`${plain} 01`), 'malformed'],
    ['two roots', hex(`${plain} 2d 2d`), 'malformed'],
    ['text outside the root', hex(`${plain} ${str('x')}`), 'malformed'],
    ['an extension token', hex(`${plain} 6d 40`), 'malformed'],
    ['a processing instruction', hex(`${plain} 6d 43`), 'malformed'],
    ['another root', hex(`${plain} 45 01`), 'malformed'],
    ['too many levels', hex(`${plain} ${'48'.repeat(40)}`), 'tooLarge'],
    ['too many levels of skipped elements', hex(`${plain} 6d 0009 ${'7f'.repeat(80)}`), 'tooLarge'],
    ['too many elements', document(plain, `45 4b${str('1')}01 ${'14'.repeat(8200)} 01`), 'tooLarge'],
    [
      'too much text of the string table, in an element that is skipped',
      hex(`03 a401 6a a000 ${'61'.repeat(4096)} 6d 0009 7f ${'8300'.repeat(65)} 01 01`),
      'tooLarge',
    ],
    ['a value above its bound', document(plain, add(str('x'.repeat(140_000)))), 'tooLarge'],
    ['a TNDS token that does not exist', document(plain, add('0002 7f 01 0000')), 'malformed'],
    ['raw octets as text', document(plain, add('c303 ff0102')), 'malformed'],
  ];
  for (const [what, coded, code] of refused)
    test(what, () => {
      assert.throws(
        () => decodeDocument(coded, MediaType.Wbxml),
        (error) => asPosternError(error).code === code,
        what,
      );
    });
});

const object: Tnds = {
  path: './Inbox',
  root: {
    name: 'gateway',
    format: 'node',
    type: 'urn:oma:mo:oma-dm-dmacc:1.0',
    acl: 'Get=*&Replace=gw',
    title: 'A & B',
    children: [
      { name: 'AppID', format: 'chr', type: 'text/plain', value: 'w7' },
      { name: 'AAuthData', format: 'bin', value: Buffer.from([1, 2, 250]) },
      { name: 'Empty', format: 'node', children: [] },
    ],
  },
};

// conforms: TND-18
describe('TNDS in WBXML', () => {
  test('is the same after encoding and decoding, and has less than half the size of its XML', () => {
    const coded = encodeTndsWbxml(object);
    assert.deepEqual(decodeTnds(coded), object);
    assert.ok(coded.length * 2 < encodeTnds(object).length);
  });

  test('has the same octets after passing through a message of any coding', () => {
    const data = Buffer.from(encodeTndsWbxml(object));
    const type = 'application/vnd.syncml.dmtnds+wbxml';
    const message: SyncmlMessage = {
      ...firstPackage,
      commands: [{ name: 'Add', cmdId: '1', items: [{ meta: { format: 'xml', type }, data }] }],
    };
    for (const coding of Object.values(MediaType))
      assert.deepEqual(decodeDocument(encodeMessage(message, coding), coding), message, coding);
  });

  test('truncated at any byte it is refused', () => {
    const coded = encodeTndsWbxml(object);
    for (let length = 0; length < coded.length; length++)
      assert.throws(() => decodeTnds(coded.subarray(0, length)), PosternError);
  });
});

test('any octets after a valid header are read or refused by a PosternError', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (octets) => {
      try {
        decodeDocument(Buffer.concat([hex(`${plain} ${header} 6b`), octets]), MediaType.Wbxml);
      } catch (error) {
        assert.ok(error instanceof PosternError, String(error));
      }
    }),
  );
});
