import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import * as v from 'valibot';
import type { UserAnswer } from '../../src/dm/commands.ts';
import { MemoryAcls, MemoryNodes } from '../../src/dm/node-store.ts';
import type { Operation, OperationOutcome } from '../../src/dm/server-session.ts';
import { StoredBranch } from '../../src/dm/stored-branch.ts';
import { ManagementTree } from '../../src/dm/tree.ts';
import { outcomeAnswer } from '../../src/headend/api-answers.ts';
import { outcomesJson, outcomeView, storedOutcomes } from '../../src/headend/outcome-view.ts';
import { interior, leaf } from '../../src/wire/syncml/ddf.ts';
import type { CommandOf } from '../../src/wire/syncml/message.ts';
import { client, converse, manage, noncePair, server, siteTree, statusesOf } from './parties.ts';

const rename: Operation = { name: 'Replace', uri: './Site/Name', data: 'south' };
const room: Operation = { name: 'Add', uri: './Site/Rooms/hall', format: 'node' };
const fails: Operation = { name: 'Replace', uri: './Site/Serial', data: 'x' };
const exec: Operation = { name: 'Exec', uri: './Do', data: 'go' };

const atomic = async (...operations: Operation[]) => {
  const { outcomes, ...rest } = await manage([{ name: 'Atomic', operations }]);
  const [outcome] = outcomes;
  return { ...rest, statuses: [outcome?.status, ...(outcome?.parts ?? []).map(({ status }) => status)] };
};

describe('Atomic', () => {
  // conforms: REP-2
  test('if all commands succeed, each gets 200 and the changes are stored', async () => {
    const { statuses, stored } = await atomic(rename, room, {
      name: 'Replace',
      uri: './Site?prop=ACL',
      data: 'Get=*&Replace=dm.example',
    });
    assert.deepEqual(statuses, [200, 200, 200, 200]);
    assert.deepEqual(
      [stored.nodes.get('Site/Name')?.value, stored.nodes.has('Site/Rooms/hall')],
      ['south', true],
    );
  });

  // conforms: REP-2
  test('if one command fails, executed ones get 216, later ones 215, and nothing is stored', async () => {
    const { statuses, stored, tree, acls } = await atomic(
      rename,
      room,
      { name: 'Replace', uri: './Site/Rooms/hall?prop=ACL', data: 'Get=x' },
      fails,
      { name: 'Delete', uri: './Site/Rooms/hall' },
    );
    assert.deepEqual(statuses, [507, 216, 216, 216, 405, 215]);
    assert.deepEqual(
      [stored.nodes.get('Site/Name')?.value, stored.nodes.has('Site/Rooms/hall')],
      ['north', false],
    );
    assert.equal(tree.view(['Site', 'Name'])?.value, 'north');
    assert.equal(tree.view(['Site', 'Rooms', 'hall']), undefined);
    assert.equal(acls.acls.get('./Site/Rooms/hall'), undefined);
  });

  // conforms: REP-3
  test('a change that cannot be undone is reported with 516', async () => {
    const { statuses, done } = await atomic(rename, exec, fails);
    assert.deepEqual(statuses, [507, 216, 516, 405]);
    assert.equal(done.length, 1);
  });

  test('a Delete, a Copy and a rename are undone, including the nodes below', async () => {
    const { stored } = await manage([
      { name: 'Add', uri: './Site/Rooms/hall/Floor', format: 'int', data: '1' },
      {
        name: 'Atomic',
        operations: [
          { name: 'Copy', uri: './Site/Rooms/copy', from: './Site/Rooms/hall' },
          { name: 'Replace', uri: './Site/Rooms/copy?prop=Name', data: 'attic' },
          { name: 'Delete', uri: './Site/Rooms/hall' },
          fails,
        ],
      },
    ]);
    assert.deepEqual(
      [...stored.nodes.keys()].filter((path) => path.includes('Rooms/')),
      ['Site/Rooms/hall', 'Site/Rooms/hall/Floor'],
    );
    assert.equal(stored.nodes.get('Site/Rooms/hall/Floor')?.value, '1');
  });

  // conforms: REP-4
  for (const [what, operation] of [
    ['a Get', { name: 'Get', uri: './Site/Name' }],
    ['an Atomic', { name: 'Atomic', operations: [rename] }],
  ] as [string, Operation][])
    test(`${what} inside an Atomic gets 500, and nothing is stored`, async () => {
      const { statuses, stored } = await atomic(rename, operation);
      assert.deepEqual(statuses, [507, 216, 500]);
      assert.equal(stored.nodes.get('Site/Name')?.value, 'north');
    });

  test('if a command of a Sequence inside an Atomic fails, the Atomic fails and nothing is stored', async () => {
    const { statuses, stored } = await atomic({ name: 'Sequence', operations: [rename, fails] });
    assert.equal(statuses[0], 507);
    assert.equal(stored.nodes.get('Site/Name')?.value, 'north');
  });
});

describe('Sequence', () => {
  // conforms: REP-10
  test('a Sequence continues after a failed command', async () => {
    const { outcomes, stored } = await manage([{ name: 'Sequence', operations: [fails, rename] }]);
    assert.deepEqual(
      outcomes[0]?.parts?.map(({ status }) => status),
      [405, 200],
    );
    assert.equal(stored.nodes.get('Site/Name')?.value, 'south');
  });

  // conforms: PRO-24
  test('without a user, a question to the user gets 406 and the next command 215', async () => {
    const ask: Operation = { name: 'Alert', code: 1101, items: ['', 'Rename?'] };
    const { outcomes, stored } = await manage([{ name: 'Sequence', operations: [ask, rename] }]);
    assert.deepEqual(
      outcomes[0]?.parts?.map(({ status }) => status),
      [406, 215],
    );
    assert.equal(stored.nodes.get('Site/Name')?.value, 'north');
  });

  // conforms: PRO-24
  test('after a refusal by the user (304) the next command gets 215; after a consent it is executed', async () => {
    for (const [answer, status, name] of [
      [304, 215, 'north'],
      [200, 200, 'south'],
    ] as const) {
      const { device, dm } = noncePair();
      const { tree, stored } = siteTree();
      const heard: CommandOf<'Alert'>[] = [];
      const interact = (alert: CommandOf<'Alert'>) => {
        heard.push(alert);
        return { status: answer };
      };
      const statuses: number[] = [];
      const serverSide = server(dm, {
        work: async function* () {
          const [outcome] = yield [
            {
              name: 'Sequence',
              operations: [{ name: 'Alert', code: 1101, items: ['MINDT=10', 'Rename?'] }, rename],
            },
          ];
          statuses.push(...(outcome?.parts ?? []).map((part) => part.status));
        },
      });
      await converse(client(device, { tree, interact }), serverSide);
      assert.deepEqual(statuses, [answer, status]);
      assert.equal(heard[0]?.items[1]?.data, 'Rename?');
      assert.equal(stored.nodes.get('Site/Name')?.value, name);
    }
  });
});

// conforms: PRO-27
test('what the user typed or chose comes back with the status, also from within a Sequence', async () => {
  const { device, dm } = noncePair();
  const answers: Readonly<Record<number, UserAnswer>> = {
    1101: { status: 200 },
    1102: { status: 200, said: ['Café <17>'] },
    1103: { status: 200, said: ['2'] },
    1104: { status: 200, said: ['3', '2'] },
  };
  const codes = [1101, 1102, 1103, 1104];
  const questions = codes.map(
    (code): Operation => ({ name: 'Alert', code, items: ['', 'What?', 'A', 'B', 'C'] }),
  );
  const outcomes: OperationOutcome[] = [];
  const serverSide = server(dm, {
    work: async function* () {
      outcomes.push(...(yield [...questions, { name: 'Sequence', operations: questions }]));
    },
  });
  const interact = ({ data }: CommandOf<'Alert'>) => answers[data] ?? { status: 406 };
  await converse(client(device, { interact }), serverSide);
  const said = codes.map((code) => answers[code]?.said);
  assert.deepEqual(
    outcomes.slice(0, 4).map((outcome) => outcome.said),
    said,
  );
  assert.deepEqual(
    outcomes[4]?.parts?.map((outcome) => outcome.said),
    said,
  );
  const view = outcomes.map(outcomeView);
  assert.deepEqual(view[1], { name: 'Alert', uri: '1102', status: 200, said: ['Café <17>'] });
  assert.deepEqual(v.parse(storedOutcomes, JSON.parse(outcomesJson(view))), view);
  assert.deepEqual(v.parse(v.array(outcomeAnswer), view), view);
});

// conforms: PRO-23
for (const code of [1100, 1101, 1102, 1103, 1104])
  test(`a device without a user answers alert ${code} with 406`, async () => {
    const { outcomes } = await manage([{ name: 'Alert', code, items: ['', 'text'] }]);
    assert.equal(outcomes[0]?.status, 406);
  });

// conforms: TND-21
test('the changes of one message are written together; before the end of the message nothing is written', async () => {
  const writes: number[] = [];
  const stored = new MemoryNodes();
  const apply = stored.apply.bind(stored);
  stored.apply = (changes) => {
    writes.push((changes.put ?? []).length);
    apply(changes);
  };
  const branch = new StoredBranch(
    'B',
    interior(['Get'], 'b', {
      X: leaf('chr', ['Get', 'Replace'], 'x'),
      Y: leaf('chr', ['Get', 'Replace'], 'y'),
    }),
    stored,
  );
  branch.plant([], {
    name: 'B',
    format: 'node',
    children: [
      { name: 'X', format: 'chr', value: '' },
      { name: 'Y', format: 'chr', value: '' },
    ],
  });
  let durable = 0;
  const tree = new ManagementTree({ B: branch }, new MemoryAcls({ '.': 'Get=*&Replace=*' }), (work) => {
    durable++;
    return work();
  });
  writes.length = 0;
  const { device, dm } = noncePair();
  const serverSide = server(dm, {
    work: async function* () {
      yield [
        { name: 'Replace', uri: './B/X', data: '1' },
        { name: 'Replace', uri: './B/Y', data: '2' },
        { name: 'Replace', uri: './B/X', data: '3' },
      ];
    },
  });
  const said = await converse(client(device, { tree }), serverSide);
  assert.deepEqual(writes, [2], 'one write of both nodes');
  assert.ok(durable > 0);
  assert.deepEqual(statusesOf(said[2]!).slice(1), ['Replace 200', 'Replace 200', 'Replace 200']);
  tree.begin();
  await tree.replace(['B', 'X'], { format: 'chr', value: 'half' }, 'x');
  assert.equal(stored.nodes.get('B/X')?.value, '3', 'a power cut now would lose it whole');
});
