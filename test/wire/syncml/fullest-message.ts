import type { Command, Item, Meta, SyncmlMessage } from '../../../src/wire/syncml/message.ts';

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
/** A message with every element that Postern writes. Each object has its fields in an order that is not that of the DTD. */
export const fullestMessage: SyncmlMessage = {
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
