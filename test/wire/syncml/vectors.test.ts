import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { decodeDocument, encodeMessage, MediaType } from '../../../src/wire/syncml/codec.ts';
import type { Command, SyncmlMessage } from '../../../src/wire/syncml/message.ts';
import { decodeTnds, isTndsType } from '../../../src/wire/syncml/tnds.ts';

const folder = fileURLToPath(new URL('../../vectors/messages/', import.meta.url));
const names = readdirSync(folder).map((file) => file.replace('.xml', ''));
const doctype =
  '<!DOCTYPE SyncML PUBLIC "-//SYNCML//DTD SyncML 1.2//EN" "http://www.openmobilealliance.org/tech/DTD/OMA-TS-SyncML_RepPro_DTD-V1_2.dtd">';

const scratch = mkdtempSync(join(tmpdir(), 'postern-vectors-'));
after(() => rmSync(scratch, { recursive: true }));
const [xmlFile, wbxmlFile] = [join(scratch, 'a.xml'), join(scratch, 'a.wbxml')] as const;

function libwbxmlPack(xml: string): Buffer {
  writeFileSync(xmlFile, xml.replace('?>', `?>${doctype}`));
  execFileSync('xml2wbxml', ['-k', '-o', wbxmlFile, xmlFile], { stdio: 'pipe' });
  return readFileSync(wbxmlFile);
}

function libwbxmlUnpack(wbxml: Uint8Array): Buffer {
  writeFileSync(wbxmlFile, wbxml);
  execFileSync('wbxml2xml', ['-k', '-m', '0', '-o', xmlFile, wbxmlFile], { stdio: 'pipe' });
  return Buffer.from(readFileSync(xmlFile, 'utf8').replace(/<!DOCTYPE[^>]*>/, ''));
}

/**
 * A message in which TNDS objects are replaced by their content and have one type. libwbxml writes them as documents of their
 * own and changes their type, so only the content can be compared.
 */
function plain(message: SyncmlMessage): SyncmlMessage {
  const read = (command: Command): Command =>
    'items' in command
      ? ({
          ...command,
          items: command.items.map((item) =>
            isTndsType(item.meta?.type) && item.data !== undefined
              ? { ...item, meta: { ...item.meta, type: 'tnds' }, data: JSON.stringify(decodeTnds(item.data)) }
              : item,
          ),
        } as Command)
      : 'commands' in command
        ? { ...command, commands: command.commands.map(read) }
        : command;
  return { ...message, commands: message.commands.map(read) };
}

test('there are at least 60 messages, and README.md gives the origin of each', () => {
  const readme = readFileSync(join(folder, '../README.md'), 'utf8');
  assert.ok(names.length >= 60, `${names.length}`);
  for (const name of names) assert.match(readme, new RegExp(`^\\| ${name} \\| .{10}`, 'm'), name);
});

// conforms: REP-16, REP-17, REP-19
describe('libwbxml and Postern', () => {
  for (const name of names)
    test(name, () => {
      const xml = readFileSync(join(folder, `${name}.xml`));
      const message = decodeDocument(xml, MediaType.Xml);
      const ours = encodeMessage(message, MediaType.Wbxml);
      const theirs = libwbxmlPack(xml.toString());
      assert.deepEqual(
        plain(decodeDocument(theirs, MediaType.Wbxml)),
        plain(message),
        "Postern reads libwbxml's WBXML",
      );
      assert.deepEqual(
        plain(decodeDocument(libwbxmlUnpack(ours), MediaType.Xml)),
        plain(message),
        "libwbxml reads Postern's WBXML",
      );
      for (const coding of Object.values(MediaType))
        assert.deepEqual(decodeDocument(encodeMessage(message, coding), coding), message, coding);
    });
});
