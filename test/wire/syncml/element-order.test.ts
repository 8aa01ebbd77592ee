import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { SaxesParser } from 'saxes';
import { encodeMessage, MediaType } from '../../../src/wire/syncml/codec.ts';
import { fullestMessage } from './fullest-message.ts';

/**
 * Content of each element, as the DTD has it: SyncML representation protocol 1.2.2, section 6, and for Meta the root of SyncML
 * meta information 1.2. Elements that Postern never writes are left out (Archive, SftDel, Lang, Cred of a command,
 * SourceParent, TargetParent, Filter; Anchor, Version, EMI, Mem, FieldLevel).
 */
const contents: Readonly<Record<string, string>> = {
  SyncML: 'SyncHdr SyncBody',
  SyncHdr: 'VerDTD VerProto SessionID MsgID Target Source RespURI NoResp Cred Meta',
  SyncBody: 'Status Alert Results Get Add Replace Delete Copy Exec Atomic Sequence Final',
  Target: 'LocURI LocName',
  Source: 'LocURI LocName',
  Cred: 'Meta Data',
  Chal: 'Meta',
  Meta: 'Format Type Mark Size NextNonce MaxMsgSize MaxObjSize',
  Item: 'Target Source Meta Data MoreData',
  Status: 'CmdID MsgRef CmdRef Cmd TargetRef SourceRef Cred Chal Data Item',
  Alert: 'CmdID NoResp Data Correlator Item',
  Results: 'CmdID MsgRef CmdRef Meta TargetRef SourceRef Item',
  Get: 'CmdID NoResp Meta Item',
  Add: 'CmdID NoResp Meta Item',
  Replace: 'CmdID NoResp Meta Item',
  Delete: 'CmdID NoResp Meta Item',
  Copy: 'CmdID NoResp Meta Item',
  Exec: 'CmdID NoResp Meta Correlator Item',
  Atomic: 'CmdID NoResp Meta Replace',
  Sequence: 'CmdID NoResp Meta Replace',
};

/** Each element of a document with the names of its children, in their order, by a parser that is not Postern's reader. */
function childrenIn(xml: string): [name: string, children: string][] {
  const found: [string, string[]][] = [];
  const open: string[][] = [];
  const parser = new SaxesParser({ xmlns: true });
  parser.on('opentag', ({ local }) => {
    open.at(-1)?.push(local);
    const children: string[] = [];
    found.push([local, children]);
    open.push(children);
  });
  parser.on('closetag', () => void open.pop());
  parser.write(xml).close();
  return found.map(([name, children]) => [name, children.join(' ')]);
}

const scratch = mkdtempSync(join(tmpdir(), 'postern-order-'));
after(() => rmSync(scratch, { recursive: true }));

/** The XML that libwbxml makes of a document in WBXML: it keeps the order. */
function unpacked(wbxml: Uint8Array): string {
  const [from, to] = [join(scratch, 'a.wbxml'), join(scratch, 'a.xml')] as const;
  writeFileSync(from, wbxml);
  execFileSync('wbxml2xml', ['-k', '-m', '0', '-o', to, from], { stdio: 'pipe' });
  return readFileSync(to, 'utf8');
}

// conforms: REP-23
describe('elements are written in the order of the DTD', () => {
  const documents = {
    XML: Buffer.from(encodeMessage(fullestMessage, MediaType.Xml)).toString(),
    WBXML: unpacked(encodeMessage(fullestMessage, MediaType.Wbxml)),
  };
  for (const [coding, xml] of Object.entries(documents)) {
    const children = childrenIn(xml);
    for (const [name, expected] of Object.entries(contents))
      test(`${coding}: ${name}`, () => {
        const fullest = children
          .filter((each) => each[0] === name)
          .map(([, own]) => own)
          // The Replace inside Atomic and Sequence has only what it needs.
          .toSorted((a, b) => b.length - a.length)[0];
        assert.equal(fullest, expected);
      });
  }
});
