import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { encodeMessage, MediaType, sizesOf } from '../../../src/wire/syncml/codec.ts';
import { elementOf, elementOfCommand, type Item } from '../../../src/wire/syncml/message.ts';
import { firstPackage, message } from './messages.ts';

for (const mediaType of [MediaType.Xml, MediaType.Wbxml, MediaType.Cbor]) {
  const sizes = sizesOf(mediaType);

  test(`${mediaType}: what a message takes is found without writing it, command by command, with at most 16 bytes too many`, () => {
    fc.assert(
      fc.property(fc.array(message, { minLength: 1, maxLength: 12 }), ([first, ...more]) => {
        const { header, commands: some } = first!;
        const commands = [...some, ...more.flatMap(({ commands }) => commands)];
        const { length } = encodeMessage({ header, commands, final: true }, mediaType);
        const empty = sizes.document(elementOf({ header, commands: [], final: true }));
        const found = commands.reduce((sum, each) => sum + sizes.of(elementOfCommand(each)), empty);
        assert.ok(found >= length, `${found} of ${length}`);
        assert.ok(found - length <= 16, `${found} of ${length}`);
      }),
    );
  });

  test(`${mediaType}: packed objects, octets and texts of any length`, () => {
    for (const length of [0, 1, 2, 22, 23, 24, 127, 128, 255, 256, 16_383, 16_384, 65_535, 65_536])
      for (const item of [
        { meta: { format: 'bin' }, data: new Uint8Array(length) },
        {
          meta: { format: 'xml', type: 'application/vnd.syncml.dmtnds+wbxml' },
          data: new Uint8Array(length),
        },
        { meta: { format: 'chr' }, data: 'é'.repeat(length / 2) },
        { data: '<&>"\r'.repeat(Math.ceil(length / 5)) },
      ] satisfies Item[]) {
        const one = { ...firstPackage, commands: [{ name: 'Add', cmdId: '1', items: [item] } as const] };
        const { length: written } = encodeMessage(one, mediaType);
        const found = sizes.document(elementOf(one));
        assert.ok(found >= written && found - written <= 4, `${length}: ${found} of ${written}`);
      }
  });
}
