import fc, { type RecordConstraints } from 'fast-check';
import type { Command, Item, SyncmlMessage } from '../../../src/wire/syncml/message.ts';

/** A client's first package, written by hand. */
export const firstPackage: SyncmlMessage = {
  header: {
    verDtd: '1.2',
    verProto: 'DM/1.2',
    sessionId: '1A',
    msgId: 1,
    target: { locUri: 'dm.example' },
    source: { locUri: 'urn:dev:sn-1', locName: 'urn:dev:sn-1' },
    cred: { meta: { format: 'b64', type: 'syncml:auth-md5' }, data: 'Zz6EivR3yeaaENcRN6lpAQ==' },
    meta: { maxMsgSize: 65536 },
  },
  commands: [
    { name: 'Alert', cmdId: '1', data: 1201, items: [] },
    {
      name: 'Replace',
      cmdId: '2',
      items: [
        { source: { locUri: './DevInfo/DevId' }, data: 'urn:dev:sn-1' },
        { source: { locUri: './DevInfo/Man' }, data: 'a & b <c> "d"' },
        { source: { locUri: './Ext/Blob' }, meta: { format: 'bin' }, data: Buffer.from([0, 255, 13, 10]) },
      ],
    },
    {
      name: 'Status',
      cmdId: '3',
      msgRef: 1,
      cmdRef: '0',
      cmd: 'SyncHdr',
      targetRefs: [],
      sourceRefs: [],
      chal: { meta: { format: 'b64', type: 'syncml:auth-md5', nextNonce: Buffer.from('Nonce') } },
      data: 212,
      items: [],
    },
  ],
  final: true,
};

/** Records with the prototype of ordinary objects, which the decoders make as well. */
const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.record(model, { noNullPrototype: true } as RecordConstraints<keyof T>);

const word = fc.string({
  unit: fc.constantFrom(...'abcXYZ019 -_./:<>&"\'é€😀'),
  minLength: 1,
  maxLength: 24,
});
/** Text for elements other than Data. It has no white space at its ends, since XML does not keep it there. */
const trimmed = word.map((text) => `x${text}x`);

const item: fc.Arbitrary<Item> = fc.oneof(
  record({ target: record({ locUri: trimmed }), data: word }),
  record({
    source: record({ locUri: trimmed, locName: trimmed }),
    meta: record({ format: fc.constant('bin') }),
    data: fc.uint8Array({ maxLength: 40 }).map((octets) => Buffer.from(octets)),
  }),
  record({
    target: record({ locUri: trimmed }),
    meta: record({ format: fc.constantFrom('chr', 'int'), type: trimmed, size: fc.nat(1e8) }),
    moreData: fc.constant(true as const),
  }),
);

const items = fc.array(item, { maxLength: 3 });
const cmdId = fc.integer({ min: 1, max: 99999 }).map(String);
const meta = { meta: record({ type: trimmed }) };

const simple: fc.Arbitrary<Command> = fc.oneof(
  record({ name: fc.constantFrom('Get', 'Add', 'Replace', 'Delete', 'Copy'), cmdId, items, ...meta }),
  record({ name: fc.constant('Exec'), cmdId, items, correlator: trimmed }),
  record({ name: fc.constant('Alert'), cmdId, data: fc.nat(1300), items }),
  record({
    name: fc.constant('Results'),
    cmdId,
    msgRef: fc.nat(99),
    cmdRef: cmdId,
    targetRefs: fc.array(trimmed, { maxLength: 2 }),
    sourceRefs: fc.constant([]),
    items,
  }),
) as fc.Arbitrary<Command>;

const command: fc.Arbitrary<Command> = fc.oneof(
  { arbitrary: simple, weight: 4 },
  {
    arbitrary: record({
      name: fc.constantFrom('Atomic' as const, 'Sequence' as const),
      cmdId,
      commands: fc.array(simple, { maxLength: 3 }),
    }),
    weight: 1,
  },
);

/** Any message that all codings can express. */
export const message: fc.Arbitrary<SyncmlMessage> = record({
  header: record({
    verDtd: fc.constant('1.2'),
    verProto: fc.constantFrom('DM/1.2', 'DM/1.3'),
    sessionId: fc.integer({ min: 1, max: 65535 }).map((id) => id.toString(16)),
    msgId: fc.nat(9999),
    target: record({ locUri: trimmed }),
    source: record({ locUri: trimmed }),
  }),
  commands: fc.array(command, { maxLength: 5 }),
  final: fc.boolean(),
});
