import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { execute } from '../../src/dm/commands.ts';
import { LargeObjectReceiver, objectSize } from '../../src/dm/large-object.ts';
import { MemoryAcls } from '../../src/dm/node-store.ts';
import type { NodeOperation, Opening } from '../../src/dm/server-session.ts';
import { ManagementTree } from '../../src/dm/tree.ts';
import type { NodeView, TreeBranch } from '../../src/dm/tree-branch.ts';
import type { NodePath } from '../../src/dm/uri.ts';
import { MoId } from '../../src/mo/identifiers.ts';
import { unreadable } from '../../src/wire/syncml/elements.ts';
import type { Alert, Command, SyncmlMessage } from '../../src/wire/syncml/message.ts';
import { client, converse, manage, noncePair, server, siteTree, statusesOf } from './parties.ts';

const get = (uri: string): NodeOperation => ({ name: 'Get', uri });
const hall: NodeOperation = { name: 'Add', uri: './Site/Rooms/hall', format: 'node' };

/** What a client with this tree says to commands of a server that has proved itself. */
async function say(commands: readonly Command[], header: Partial<SyncmlMessage['header']> = {}) {
  const { device, dm } = noncePair();
  const site = siteTree();
  const clientSide = client(device, { tree: site.tree });
  const hello = await server(dm, {
    work: async function* () {
      yield [get('./Site/Name')];
    },
  }).receive(clientSide.start());
  const own = hello.commands.filter(({ name }) => name === 'Status');
  const answer = await clientSide.receive({
    ...hello,
    header: { ...hello.header, ...header },
    commands: [...own, ...commands],
  });
  assert.ok(answer);
  return { ...site, answer, msgId: hello.header.msgId };
}

/** What a server says to commands of a client that has proved itself. */
async function tell(...commands: readonly Command[]) {
  const { device, dm } = noncePair();
  const first = client(device).start();
  return await server(dm).receive({ ...first, commands: [...first.commands, ...commands] });
}

const ask = (cmdId: string, ...uris: readonly string[]): Command => ({
  name: 'Get',
  cmdId,
  items: uris.map((locUri) => ({ target: { locUri } })),
});
/** A chunk of a text for `./Site/Name`. `size` is that of the whole in the first chunk, and `data` what a codec makes of it. */
const chunkOf = (cmdId: string, data: string | Uint8Array, moreData?: true, size?: number): Command => ({
  name: 'Replace',
  cmdId,
  items: [
    {
      target: { locUri: './Site/Name' },
      data,
      ...(moreData && { moreData }),
      ...(size !== undefined && { meta: { size } }),
    },
  ],
});
const exec = (cmdId: string): Command => ({
  name: 'Exec',
  cmdId,
  items: [{ target: { locUri: './Do' }, data: cmdId }],
});

// conforms: PRO-12
test('a text that XML cannot hold is as large as its base64', () => {
  for (const [text, size] of [
    ['abc', 3],
    ['ab\0', 4],
    ['ab\0d', 8],
  ] as const)
    assert.equal(objectSize(text), size);
});

describe('a chunk whose value cannot be read', () => {
  // conforms: PRO-12
  test('ends its object: the chunks after it are refused, and what comes next is an object of its own', async () => {
    for (const [broken, statuses] of [
      [
        [chunkOf('1', 'ab', true, 4), chunkOf('2', unreadable)],
        ['213', '400'],
      ],
      [
        [chunkOf('1', 'ab', true, 6), chunkOf('2', unreadable, true), chunkOf('3', 'ef')],
        ['213', '400', '400'],
      ],
      [
        [chunkOf('1', unreadable, true, 4), chunkOf('2', 'cd')],
        ['400', '400'],
      ],
    ] as const) {
      const next = [chunkOf('8', 'so', true, 5), chunkOf('9', 'uth')];
      const { answer, tree } = await say([...broken, ...next]);
      const said = answer.commands.flatMap((each) =>
        each.name === 'Status' && each.cmd === 'Replace' ? [String(each.data)] : [],
      );
      assert.deepEqual(said, [...statuses, '213', '200']);
      assert.equal(tree.view(['Site', 'Name'])?.value, 'south');
    }
  });
});

describe('packages', () => {
  // conforms: PRO-1, OBJ-2
  for (const [notified, code] of [
    [false, 1201],
    [true, 1200],
  ] as const)
    test(`package 1 has alert ${code} and all leaves of DevInfo, and the server learns them`, async () => {
      const { device, dm } = noncePair();
      const first = client(device, { notified }).start();
      const devInfo = { DevId: 'urn:dev:1', Man: 'Maker', Mod: 'M1', DmV: '1.2', Lang: 'en' };
      const [alert, replace] = first.commands;
      assert.ok(alert?.name === 'Alert' && replace?.name === 'Replace');
      assert.equal(alert.data, code);
      assert.deepEqual(
        Object.fromEntries(replace.items.map(({ source, data }) => [source?.locUri, data])),
        Object.fromEntries(Object.entries(devInfo).map(([name, value]) => [`./DevInfo/${name}`, value])),
      );
      const learned: Opening[] = [];
      const serverSide = server(dm, {
        // biome-ignore lint/correctness/useYield: it only looks at how the session opened
        work: async function* (opening) {
          learned.push(opening);
        },
      });
      await serverSide.receive(first);
      assert.deepEqual(
        learned.map((opening) => [{ ...opening.devInfo }, opening.notified]),
        [[devInfo, notified]],
      );
    });

  // conforms: PRO-5
  test('a message in the name of another party ends the session at the client, and is answered with 400 by the server', async () => {
    const { device, dm } = noncePair();
    const clientSide = client(device);
    const serverSide = server(dm);
    const first = clientSide.start();
    const answer = await server(dm).receive(first);
    const from = (message: SyncmlMessage) => ({
      ...message,
      header: { ...message.header, source: { locUri: 'other.example' } },
    });
    assert.equal(await clientSide.receive(from(answer)), undefined);
    assert.equal(clientSide.outcome?.status, 400);
    assert.deepEqual(statusesOf(await serverSide.receive(from(first))), ['SyncHdr 400']);
    assert.equal(serverSide.outcome?.status, 400);
  });

  // conforms: PRO-19
  test('a generic alert arrives with its Correlator, Source, Type, Format and Mark', async () => {
    const { device, dm } = noncePair();
    const heard: Alert[] = [];
    const items = [
      {
        source: { locUri: './FwUpdate' },
        meta: { type: 'urn:x', format: 'chr', mark: 'warning' },
        data: '200',
      },
    ];
    const alerts = [{ code: 1226, correlator: 'order-1', items }];
    const alerted = (alert: Alert) => {
      heard.push(alert);
      return 200;
    };
    await converse(client(device, { alerts }), server(dm, { alerted }));
    assert.deepEqual(
      heard.map(({ data, correlator, items: got }) => ({ data, correlator, items: got })),
      [{ data: 1226, correlator: 'order-1', items }],
    );
  });
});

describe('commands', () => {
  // conforms: REP-8
  test('Results refer to the message and the command of their Get, and each item of a Get has its own', async () => {
    const { device, dm } = noncePair();
    const serverSide = server(dm, {
      work: async function* () {
        yield [get('./Site/Name')];
        yield [get('./Site/Serial'), get('./Site/Name'), get('./Site/Count')];
      },
    });
    const said = await converse(client(device), serverSide);
    const references = (message: SyncmlMessage | undefined) =>
      message?.commands.flatMap((command) =>
        command.name === 'Results'
          ? [[command.msgRef, command.cmdRef, command.items[0]?.source?.locUri]]
          : [],
      );
    const ids = said[3]?.commands.flatMap(({ name, cmdId }) => (name === 'Get' ? [cmdId] : [])) ?? [];
    assert.deepEqual(references(said[4]), [
      [2, ids[0], './Site/Serial'],
      [2, ids[1], './Site/Name'],
      [2, ids[2], './Site/Count'],
    ]);
    const { answer, msgId } = await say([ask('9', './Site/Name', './Site/Count')]);
    assert.deepEqual(references(answer), [
      [msgId, '9', './Site/Name'],
      [msgId, '9', './Site/Count'],
    ]);
  });

  // conforms: REP-11
  test('the items of a command share one Status where it is the same for all, and have one each where it is not', async () => {
    const { answer } = await say([
      ask('8', './Site/Name', './Site/Count'),
      ask('9', './Site/Name', './Site/Nobody'),
    ]);
    assert.deepEqual(
      answer.commands.flatMap((command) =>
        command.name === 'Status' && command.cmd === 'Get'
          ? [[command.cmdRef, command.data, ...command.targetRefs]]
          : [],
      ),
      [
        ['8', 200, './Site/Name', './Site/Count'],
        ['9', 200, './Site/Name'],
        ['9', 404, './Site/Nobody'],
      ],
    );
  });

  // conforms: REP-12
  test('NoResp in the header suppresses all statuses; the Results come', async () => {
    const { answer, done } = await say([ask('8', './Site/Name'), exec('9')], { noResp: true });
    assert.deepEqual(statusesOf(answer), []);
    assert.equal(done.length, 1);
    assert.ok(answer.commands.some(({ name }) => name === 'Results'));
  });

  // conforms: REP-13
  test('the CmdID of a command within a Sequence is taken as well', async () => {
    const { answer, done } = await say([{ name: 'Sequence', cmdId: '8', commands: [exec('9')] }, exec('9')]);
    assert.deepEqual(statusesOf(answer).slice(1), ['Sequence 200', 'Exec 202', 'Exec 400']);
    assert.equal(done.length, 1);
  });

  // conforms: REP-14
  test('a server answers a command that only it may send with 405, and an unknown one with 406', async () => {
    const unknown = { name: 'Unknown', cmdId: '9', element: { name: 'Search', content: [] } } as const;
    const answer = await tell(ask('8', './Site/Name'), unknown);
    assert.deepEqual(statusesOf(answer).slice(-2), ['Get 405', 'Search 406']);
  });

  // conforms: REP-5
  test('a Copy leaves out what the server may not read', async () => {
    const note = './Site/Rooms/hall/Note';
    const { outcomes, stored } = await manage([
      { name: 'Copy', uri: './Site/Rooms/within', from: './Site/Rooms' },
      hall,
      { name: 'Add', uri: './Site/Rooms/hall/Floor', format: 'int', data: '2' },
      { name: 'Add', uri: note, data: 'private' },
      { name: 'Replace', uri: `${note}?prop=ACL`, data: 'Get=other.example' },
      { name: 'Copy', uri: './Site/Rooms/copy', from: './Site/Rooms/hall' },
      get('./Site/Rooms/copy'),
    ]);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [403, 200, 200, 200, 200, 200, 200],
    );
    assert.equal(outcomes.at(-1)?.results[0]?.data, 'Floor');
    for (const none of ['copy/Note', 'within']) assert.equal(stored.nodes.has(`Site/Rooms/${none}`), false);
  });

  // conforms: REP-3
  test('in an Atomic that fails, what its branch cannot take back gets 516: any Exec, and a change of a branch without levels', async () => {
    const access = ['Add', 'Delete', 'Exec', 'Get', 'Replace'] as const;
    const view = (path: NodePath): NodeView | undefined =>
      path.length === 0 ? { format: 'chr', access, value: '' } : undefined;
    const levels = { begin: () => {}, commit: () => {}, rollback: () => {} };
    const branches: Readonly<Record<string, TreeBranch>> = {
      Kept: { view, replace: () => {} },
      Undone: { view, replace: () => {}, exec: () => 200, ...levels },
    };
    const acls = new MemoryAcls({ '.': 'Exec=*&Get=*&Replace=*' });
    const onNode = (name: 'Exec' | 'Replace', uri: string): Command => ({
      name,
      cmdId: '',
      items: [{ target: { locUri: uri }, data: 'x' }],
    });
    const commands = [
      onNode('Replace', './Kept'),
      onNode('Replace', './Undone'),
      onNode('Exec', './Undone'),
      onNode('Replace', './Nobody'),
    ];
    const outcomes = await execute(
      { tree: new ManagementTree(branches, acls), serverId: 'dm.example' },
      { name: 'Atomic', cmdId: '', commands },
    );
    assert.deepEqual(
      outcomes.map(({ items }) => items[0]?.status),
      [507, 516, 216, 516, 404],
    );
  });

  // conforms: REP-6
  test('the ACL of a deleted node is gone: a node that is added in its place inherits', async () => {
    const { outcomes } = await manage([
      hall,
      { name: 'Replace', uri: './Site/Rooms/hall?prop=ACL', data: 'Get=*&Delete=dm.example' },
      { name: 'Delete', uri: './Site/Rooms/hall' },
      hall,
      get('./Site/Rooms/hall?prop=ACL'),
    ]);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [200, 200, 200, 200, 200],
    );
    assert.equal(outcomes.at(-1)?.results[0]?.data, '');
  });

  // conforms: REP-7
  test('the data and the Correlator of an Exec reach its node', async () => {
    const { outcomes, done } = await manage([
      { name: 'Exec', uri: './Do', data: 'go', correlator: 'order-1' },
      { name: 'Exec', uri: './Do', data: 'on' },
    ]);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [202, 202],
    );
    assert.deepEqual(done, ['go order-1', 'on undefined']);
  });

  // conforms: REP-9
  test('a Replace of a node that could be added, but is not there, gets 404 and adds nothing', async () => {
    const { outcomes, stored } = await manage([
      hall,
      { name: 'Replace', uri: './Site/Rooms/hall/Note', data: 'x' },
      { name: 'Replace', uri: './Site/Name', data: 'south' },
      get('./Site/Name'),
    ]);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [200, 404, 200, 200],
    );
    assert.equal(outcomes[3]?.results[0]?.data, 'south');
    assert.equal(stored.nodes.has('Site/Rooms/hall/Note'), false);
  });
});

// conforms: PRO-13
test('an object whose chunks are more than it said is refused at once, though it has no last chunk', () => {
  const receiver = new LargeObjectReceiver(1000);
  const chunk = (data: string, size?: number) => ({
    name: 'Replace' as const,
    cmdId: '1',
    items: [
      {
        target: { locUri: './Site/Name' },
        data,
        ...(size !== undefined && { meta: { size } }),
        moreData: true as const,
      },
    ],
  });
  const statuses = [chunk('abcd', 6), chunk('efgh'), chunk('ijkl')].map((each) =>
    receiver.assemble(each).statuses.map(({ status }) => status),
  );
  // Octets of this size have 8 bytes of base64, and a size of octets is accepted.
  assert.deepEqual(statuses, [[213], [213], [424]]);
  assert.equal(receiver.bytes, 0, 'and nothing of it is kept');
});

describe('properties', () => {
  // conforms: TND-7, TND-12
  test('Format is that of the node; Type is the MIME type of a leaf, and the identifier of a management object', async () => {
    const expected = [
      ['./Site/Name', 'chr', 'text/plain'],
      ['./Site/Count', 'int', 'text/plain'],
      ['./Site/Blob', 'bin', 'application/octet-stream'],
      ['./Site/Rooms', 'node', ''],
      ['./DevInfo', 'node', MoId.DevInfo],
      ['./Do', 'null', ''],
    ] as const;
    const { outcomes } = await manage(
      expected.flatMap(([uri]) => [get(`${uri}?prop=Format`), get(`${uri}?prop=Type`)]),
    );
    const found = outcomes.map(({ results }) => results[0]?.data);
    assert.deepEqual(
      expected.map(([uri], at) => [uri, found[2 * at], found[2 * at + 1]]),
      expected,
    );
  });

  // conforms: TND-11, TND-13
  test('TStamp is the time of the last change, and VerNo counts a change of the Title as well', async () => {
    const { tree, clock } = siteTree();
    const seen = () => {
      const { timeStamp, version } = tree.view(['Site', 'Name']) ?? {};
      return [timeStamp, version];
    };
    const change = (value: string) => tree.replace(['Site', 'Name'], { format: 'chr', value }, 'dm.example');
    await change('south');
    assert.deepEqual(seen(), ['20231114T221321Z', 1]);
    clock.advance(60_000);
    await change('south');
    assert.deepEqual(seen(), ['20231114T221421Z', 2], 'also where the value is the same');
    clock.advance(60_000);
    tree.retitle(['Site', 'Name'], 'The name', 'dm.example');
    assert.deepEqual(seen(), ['20231114T221521Z', 3]);
    assert.deepEqual(
      [tree.view(['Site', 'Count'])?.version, tree.view(['Site', 'Count'])?.timeStamp],
      [0, undefined],
      'of this node alone',
    );
  });
});
