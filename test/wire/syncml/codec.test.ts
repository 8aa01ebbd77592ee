import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { toCbor } from '../../../src/base/cbor.ts';
import { asPosternError, PosternError } from '../../../src/base/errors.ts';
import { fitsXml } from '../../../src/base/presentable.ts';
import { decodeCbor } from '../../../src/wire/syncml/cbor.ts';
import { decodeDocument, encodeMessage, MediaType } from '../../../src/wire/syncml/codec.ts';
import { keyOf, messageLimits } from '../../../src/wire/syncml/elements.ts';
import { itemsOf, type SyncHdr, type SyncmlMessage } from '../../../src/wire/syncml/message.ts';
import { decodeTnds, encodeTnds } from '../../../src/wire/syncml/tnds.ts';
import { fullestMessage } from './fullest-message.ts';
import { firstPackage, message } from './messages.ts';

const codings = [MediaType.Xml, MediaType.Wbxml, MediaType.Cbor];

const xmlOf = (inner: string) =>
  Buffer.from(
    `<SyncML xmlns="SYNCML:SYNCML1.2"><SyncHdr><VerDTD>1.2</VerDTD><VerProto>DM/1.2</VerProto><SessionID>1</SessionID><MsgID>1</MsgID><Target><LocURI>s</LocURI></Target><Source><LocURI>c</LocURI></Source></SyncHdr><SyncBody>${inner}</SyncBody></SyncML>`,
  );

for (const coding of codings) {
  // conforms: REP-17
  describe(coding, () => {
    test('a first package is the same after encoding and decoding', () => {
      assert.deepEqual(decodeDocument(encodeMessage(firstPackage, coding), coding), firstPackage);
    });

    test('a message with every element is the same after encoding and decoding', () => {
      assert.deepEqual(decodeDocument(encodeMessage(fullestMessage, coding), coding), fullestMessage);
    });

    test('any message is the same after encoding and decoding', () => {
      fc.assert(
        fc.property(message, (one) =>
          assert.deepEqual(decodeDocument(encodeMessage(one, coding), coding), one),
        ),
      );
    });

    test('truncated at any byte, a message is refused by a PosternError', () => {
      const coded = encodeMessage(firstPackage, coding);
      for (let length = 0; length < coded.length; length++)
        assert.throws(
          () => decodeDocument(coded.subarray(0, length), coding),
          PosternError,
          `${length} bytes`,
        );
    });

    test('any octets are read or refused by a PosternError', () => {
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 200 }), (octets) => {
          try {
            decodeDocument(octets, coding);
          } catch (error) {
            assert.ok(error instanceof PosternError, String(error));
          }
        }),
      );
    });

    test('a SessionID and a RespURI have a bound of their own, because they are remembered', () => {
      const { sessionId, respUri } = messageLimits;
      const withHeader = (more: Partial<SyncHdr>) =>
        encodeMessage({ ...firstPackage, header: { ...firstPackage.header, ...more } }, coding);
      const longest = { sessionId: 'A'.repeat(sessionId), respUri: 'u'.repeat(respUri) };
      assert.equal(decodeDocument(withHeader(longest), coding).header.sessionId.length, sessionId);
      for (const [name, value] of Object.entries(longest))
        assert.throws(() => decodeDocument(withHeader({ [name]: `${value}x` }), coding), {
          code: 'tooLarge',
        });
    });

    test('a message above the bound of bytes is refused', () => {
      assert.throws(() => decodeDocument(new Uint8Array(messageLimits.bytes + 1), coding), {
        code: 'tooLarge',
      });
    });
  });
}

test('CBOR of a first package is less than half of its XML', () => {
  const [xml = 0, , cbor = 0] = codings.map((coding) => encodeMessage(firstPackage, coding).length);
  assert.ok(cbor < xml / 2, `${cbor} against ${xml}`);
});

test('CBOR heads with a length above all bounds are malformed', () => {
  for (const head of ['9a01312d00', '9a00010000', 'ba00ffffff', '5affffffff'])
    assert.throws(
      () => decodeDocument(Buffer.from(`${head}00`, 'hex'), MediaType.Cbor),
      (thrown: PosternError) => thrown.code === 'malformed' || thrown.code === 'tooLarge',
      head,
    );
});

// conforms: REP-15, REP-18
describe('XML is refused', () => {
  const refused: [string, Buffer, string][] = [
    ['document type', Buffer.from('<!DOCTYPE SyncML [<!ENTITY a "b">]><SyncML/>'), 'malformed'],
    ['entity', xmlOf('<Alert><CmdID>&a;</CmdID></Alert>'), 'malformed'],
    ['other root', Buffer.from('<html/>'), 'malformed'],
    ['no header', Buffer.from('<SyncML><SyncBody/></SyncML>'), 'malformed'],
    ['command without CmdID', xmlOf('<Get/>'), 'malformed'],
    ['code that is not a number', xmlOf('<Alert><CmdID>1</CmdID><Data>x</Data></Alert>'), 'malformed'],
    ['element that occurs twice', xmlOf('<Get><CmdID>1</CmdID><CmdID>2</CmdID></Get>'), 'malformed'],
    [
      'data that is not base64',
      xmlOf('<Add><CmdID>1</CmdID><Item><Meta><Format>b64</Format></Meta><Data>%</Data></Item></Add>'),
      'malformed',
    ],
    ['text that is not UTF-8', Buffer.from([0x3c, 0xff, 0x3e]), 'malformed'],
    ['too deep', xmlOf('<Atomic>'.repeat(30) + '</Atomic>'.repeat(30)), 'tooLarge'],
    [
      'too many commands',
      xmlOf('<Get><CmdID>1</CmdID></Get>'.repeat(messageLimits.commands + 1)),
      'tooLarge',
    ],
    [
      'too many commands inside a command',
      xmlOf(
        `<Atomic><CmdID>1</CmdID>${'<Get><CmdID>1</CmdID></Get>'.repeat(messageLimits.commands)}</Atomic>`,
      ),
      'tooLarge',
    ],
    [
      'too large a value',
      xmlOf(`<Add><CmdID>1</CmdID><Item><Data>${'x'.repeat(messageLimits.value + 1)}</Data></Item></Add>`),
      'tooLarge',
    ],
    [
      'too many elements',
      xmlOf('<Get><CmdID>1</CmdID></Get>'.repeat(messageLimits.elements / 2)),
      'tooLarge',
    ],
    [
      'XML in Data that is too deep',
      xmlOf(`<Add><CmdID>1</CmdID><Item><Data>${'<a>'.repeat(65)}${'</a>'.repeat(65)}</Data></Item></Add>`),
      'tooLarge',
    ],
    [
      'skipped elements that are too deep',
      xmlOf(`<Get><CmdID>1</CmdID>${'<Vendor>'.repeat(17)}${'</Vendor>'.repeat(17)}</Get>`),
      'tooLarge',
    ],
  ];
  for (const [what, coded, code] of refused)
    test(what, () => {
      assert.throws(
        () => decodeDocument(coded, MediaType.Xml),
        (error) => asPosternError(error).code === code,
      );
    });
});

// conforms: REP-18
describe('CBOR is refused', () => {
  /** A message whose SyncBody has this content, in the keys of CBOR. */
  const message = (body: readonly unknown[]) => toCbor([keyOf('SyncML'), [keyOf('SyncBody'), body]]);
  const nested = (levels: number): unknown[] => [keyOf('Atomic'), levels > 1 ? nested(levels - 1) : []];
  const several = (count: number) => Array.from({ length: count }, () => [keyOf('Final'), true]).flat();
  for (const [what, coded, code] of [
    ['too deep', message(nested(messageLimits.depth - 1)), 'tooLarge'],
    ['too many elements', message(several(messageLimits.elements - 1)), 'tooLarge'],
    ['an element without its content', message([keyOf('Final')]), 'malformed'],
    ['an unknown element without its content', message([63]), 'malformed'],
    ['a number for a text', message([keyOf('CmdID'), 1]), 'malformed'],
    ['no element', toCbor([]), 'malformed'],
    ['two roots', toCbor([keyOf('SyncML'), [], keyOf('SyncML'), []]), 'malformed'],
  ] as const)
    test(what, () => {
      assert.throws(() => decodeCbor(coded), { code });
    });

  test('but not at the bounds', () => {
    const { name } = decodeCbor(message(nested(messageLimits.depth - 2)));
    assert.equal(name, 'SyncML');
    assert.equal(decodeCbor(message(several(messageLimits.elements - 2))).name, 'SyncML');
  });
});

// conforms: REP-15
test('prefixes, comments, white space, unknown elements and XML in Data are read', () => {
  const coded = xmlOf(
    '<!-- note --><Add>\n <CmdID> 7 </CmdID><Vendor><CmdID>8</CmdID></Vendor><Item><Meta><m:Format xmlns:m="syncml:metinf">xml</m:Format></Meta>' +
      '<Data><MgmtTree xmlns="syncml:dmddf1.2"><Node a="1"/>a&amp;b</MgmtTree></Data></Item></Add><Final/>',
  );
  assert.deepEqual(decodeDocument(coded, MediaType.Xml).commands, [
    {
      name: 'Add',
      cmdId: '7',
      items: [
        {
          meta: { format: 'xml' },
          data: '<MgmtTree xmlns="syncml:dmddf1.2"><Node a="1"/>a&amp;b</MgmtTree>',
        },
      ],
    },
  ]);
});

// conforms: REP-15
test('codes and credentials of an indented message are read, and a value keeps its white space', () => {
  const coded = Buffer.from(
    String(xmlOf('<Alert><CmdID>1</CmdID><Data>\n  1201\n</Data></Alert><Final/>')).replace(
      '</SyncHdr>',
      '<Cred><Meta><Type>syncml:auth-basic</Type></Meta><Data>\n  QTpi\n</Data></Cred></SyncHdr>',
    ),
  );
  const { header, commands } = decodeDocument(coded, MediaType.Xml);
  assert.equal(header.cred?.data, 'QTpi');
  assert.equal(commands[0]?.name === 'Alert' && commands[0].data, 1201);
  const value = xmlOf('<Add><CmdID>1</CmdID><Item><Data> v\n</Data></Item></Add><Final/>');
  const [add] = decodeDocument(value, MediaType.Xml).commands;
  assert.equal(add?.name === 'Add' && add.items[0]?.data, ' v\n');
});

// conforms: REP-15
test('CDATA is text, as it stands', () => {
  const coded = xmlOf('<Add><CmdID>1</CmdID><Item><Data>a <![CDATA[<b> & c]]> d</Data></Item></Add><Final/>');
  const [command] = decodeDocument(coded, MediaType.Xml).commands;
  assert.equal(command?.name === 'Add' && command.items[0]?.data, 'a <b> & c d');
});

// conforms: REP-17
test('any message is the same after passing through any two codings', () => {
  fc.assert(
    fc.property(message, (one) => {
      for (const first of codings)
        for (const second of codings) {
          const between = decodeDocument(encodeMessage(one, first), first);
          assert.deepEqual(decodeDocument(encodeMessage(between, second), second), one, `${first} ${second}`);
        }
    }),
  );
});

// conforms: REP-15
test('elements in another order than in the DTD are read', () => {
  const [command] = decodeDocument(
    xmlOf(
      '<Add><Item><Data>v</Data><Target><LocURI>./x</LocURI></Target></Item><CmdID>1</CmdID></Add><Final/>',
    ),
    MediaType.Xml,
  ).commands;
  assert.deepEqual(command, { name: 'Add', cmdId: '1', items: [{ target: { locUri: './x' }, data: 'v' }] });
});

test('an unknown command is kept with its CmdID', () => {
  const [command] = decodeDocument(xmlOf('<Search><CmdID>4</CmdID></Search>'), MediaType.Xml).commands;
  assert.equal(command?.name, 'Unknown');
  assert.equal(command?.cmdId, '4');
});

describe('values that XML has no form for', () => {
  const anyText = fc.string({ unit: fc.nat(0xffff).map((unit) => String.fromCharCode(unit)), maxLength: 50 });
  const withData = (data: string): SyncmlMessage => ({
    ...firstPackage,
    commands: [{ name: 'Replace', cmdId: '1', items: [{ source: { locUri: './x' }, data }] }],
  });

  for (const coding of codings)
    test(`any text of a node goes through ${coding}: as text where XML can hold it, else as its octets`, () => {
      fc.assert(
        fc.property(anyText, (text) => {
          const [command] = decodeDocument(encodeMessage(withData(text), coding), coding).commands;
          const item = command && itemsOf(command)[0];
          assert.deepEqual(item?.data, fitsXml(text) ? text : Buffer.from(text));
          assert.equal(item?.meta?.format, fitsXml(text) ? undefined : 'bin');
        }),
        { numRuns: 500 },
      );
    });

  for (const coding of [MediaType.Wbxml, MediaType.Cbor])
    test(`a URI or name that XML cannot hold is malformed in ${coding} too`, () => {
      const message = (locUri: string): SyncmlMessage => ({
        ...firstPackage,
        commands: [{ name: 'Get', cmdId: '1', items: [{ target: { locUri } }] }],
      });
      const coded = Buffer.from(encodeMessage(message('./aXb'), coding));
      decodeDocument(coded, coding);
      coded[coded.indexOf('./aXb') + 3] = 0x1b;
      assert.throws(() => decodeDocument(coded, coding), { code: 'malformed' });
    });

  test('a leaf of a TNDS object with such a text is shown as its octets', () => {
    fc.assert(
      fc.property(anyText, (value) => {
        const { root } = decodeTnds(encodeTnds({ root: { name: 'x', format: 'chr', value } }));
        // XML parsers read each kind of line end as one line feed.
        const read = typeof root.value === 'string' ? root.value : Buffer.from(root.value!).toString();
        assert.equal(read, Buffer.from(value).toString());
        assert.equal(root.format, fitsXml(value) ? 'chr' : 'bin');
      }),
      { numRuns: 500 },
    );
  });
});
