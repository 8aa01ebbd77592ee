import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { SaxesParser } from 'saxes';
import { encodeMessage, MediaType } from '../../../src/wire/syncml/codec.ts';
import type { Command, Item, Meta, SyncmlMessage } from '../../../src/wire/syncml/message.ts';

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

// Each object has its fields in an order that is not that of the DTD, and has all of them.
const meta: Meta = {
  maxObjSize: 9,
  maxMsgSize: 8,
  nextNonce: Buffer.from('nonce'),
  size: 7,
  mark: 'critical',
  type: 'text/plain',
  format: 'chr',
};
const location = { locName: 'name', locUri: './a' };
const item: Item = { moreData: true, data: 'value', meta, source: location, target: location };
const noResp = true as const;
const plain = { items: [item], meta, noResp };
const replace: Command = { name: 'Replace', cmdId: '99', items: [item] };
const commands: readonly Command[] = [
  {
    name: 'Status',
    items: [item],
    data: 200,
    chal: { meta },
    cred: { data: 'secret', meta },
    sourceRefs: ['./s'],
    targetRefs: ['./t'],
    cmd: 'Get',
    cmdRef: '2',
    msgRef: 1,
    cmdId: '1',
  },
  { name: 'Alert', items: [item], correlator: 'c', data: 1226, noResp, cmdId: '2' },
  {
    name: 'Results',
    items: [item],
    sourceRefs: ['./s'],
    targetRefs: ['./t'],
    meta,
    cmdRef: '2',
    msgRef: 1,
    cmdId: '3',
  },
  { name: 'Get', ...plain, cmdId: '4' },
  { name: 'Add', ...plain, cmdId: '5' },
  { name: 'Replace', ...plain, cmdId: '6' },
  { name: 'Delete', ...plain, cmdId: '7' },
  { name: 'Copy', ...plain, cmdId: '8' },
  { name: 'Exec', correlator: 'c', ...plain, cmdId: '9' },
  { name: 'Atomic', commands: [replace], meta, noResp, cmdId: '10' },
  { name: 'Sequence', commands: [replace], meta, noResp, cmdId: '11' },
];
const message: SyncmlMessage = {
  final: true,
  commands,
  header: {
    meta,
    cred: { data: 'secret', meta },
    noResp,
    respUri: 'http://r/',
    source: location,
    target: location,
    msgId: 1,
    sessionId: '1',
    verProto: 'DM/1.2',
    verDtd: '1.2',
  },
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
    XML: Buffer.from(encodeMessage(message, MediaType.Xml)).toString(),
    WBXML: unpacked(encodeMessage(message, MediaType.Wbxml)),
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
