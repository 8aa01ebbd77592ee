import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MemoryAcls, MemoryNodes } from '../../src/dm/node-store.ts';
import type { NodeOperation } from '../../src/dm/server-session.ts';
import { StoredBranch } from '../../src/dm/stored-branch.ts';
import { ManagementTree } from '../../src/dm/tree.ts';
import { interior, leaf } from '../../src/wire/syncml/ddf.ts';
import { decodeTnds } from '../../src/wire/syncml/tnds.ts';
import { manage, siteTree } from './parties.ts';

const get = (uri: string): NodeOperation => ({ name: 'Get', uri });
const replace = (uri: string, data: string): NodeOperation => ({ name: 'Replace', uri, data });
const hall: NodeOperation = { name: 'Add', uri: './Site/Rooms/hall', format: 'node' };
const note: NodeOperation = { name: 'Add', uri: './Site/Rooms/hall/Note', data: 'x' };

/** Statuses, and what was found, in short. */
async function run(...operations: NodeOperation[]) {
  const { outcomes } = await manage(operations);
  return outcomes.map(({ status, results }) => [status, ...results.map(({ data }) => String(data))]);
}

describe('URIs', () => {
  // conforms: TND-1
  test('the root is named by a dot; a URI of few names that are long together gets 414', async () => {
    const [root, long] = await run(get('.'), get(`./${Array(5).fill('a'.repeat(120)).join('/')}`));
    assert.deepEqual(root, [200, 'DevInfo/Site/Do']);
    assert.deepEqual(long, [414]);
  });
});

describe('nodes that stay', () => {
  /** Everything is allowed but what the scope forbids: `A` is permanent, all other names are not. */
  function tree() {
    const access = ['Add', 'Delete', 'Get', 'Replace'] as const;
    const description = interior(access, '', {
      A: leaf('chr', access, ''),
      '*': leaf('chr', access, '', { occurs: 'ZeroOrMore' }),
    });
    const branch = new StoredBranch('B', description, new MemoryNodes());
    branch.plant([], {
      name: 'B',
      format: 'node',
      children: ['A', 'x'].map((name) => ({ name, format: 'chr', value: name })),
    });
    return new ManagementTree({ B: branch }, new MemoryAcls({ '.': 'Delete=*&Get=*&Replace=dm.example' }));
  }

  // conforms: REP-6, TND-8, TND-19
  test('a permanent node is neither deleted nor renamed, though its AccessType and the ACL allow both', async () => {
    const there = tree();
    await assert.rejects(there.delete(['B', 'A'], 'dm.example'), { dmStatus: 405 });
    assert.throws(() => there.rename(['B', 'A'], 'y', 'dm.example'), { dmStatus: 405 });
    there.rename(['B', 'x'], 'y', 'dm.example');
    await there.delete(['B', 'y'], 'dm.example');
    assert.deepEqual(there.view(['B'])?.children, ['A']);
  });

  // conforms: TND-8
  test('a server without the right Replace renames nothing and gets 425', () => {
    const there = tree();
    assert.throws(() => there.rename(['B', 'x'], 'y', 'other.example'), { dmStatus: 425 });
    assert.deepEqual(there.view(['B'])?.children, ['A', 'x']);
  });
});

describe('rights', () => {
  // conforms: TND-4
  test('the ACL of a leaf is replaced by the right at its parent alone; that of the root cannot be emptied', () => {
    const { tree } = siteTree();
    tree.setAcl(['Site'], 'Get=*');
    tree.setAcl(['Site', 'Name'], 'Get=*&Replace=dm.example');
    assert.throws(() => tree.replaceAcl(['Site', 'Name'], 'Get=x', 'dm.example'), { dmStatus: 425 });
    tree.setAcl(['Site'], 'Get=*&Replace=dm.example');
    tree.setAcl(['Site', 'Name'], 'Get=*');
    tree.replaceAcl(['Site', 'Name'], 'Get=x', 'dm.example');
    assert.equal(tree.getAcl(['Site', 'Name'], 'x'), 'Get=x');
    tree.setAcl([], 'Get=*&Replace=dm.example');
    assert.throws(() => tree.replaceAcl([], '', 'dm.example'), { dmStatus: 405 });
    assert.equal(tree.getAcl([], 'dm.example'), 'Get=*&Replace=dm.example');
  });

  // conforms: TND-5
  test('a server that has the right to change the ACL of the node that it adds gets no ACL of its own there', async () => {
    const { outcomes, acls } = await manage([hall]);
    assert.equal(outcomes[0]?.status, 200);
    assert.equal(acls.acls.has('./Site/Rooms/hall'), false);
  });

  // conforms: TND-6
  test('a node whose ACL named only a server that is gone inherits; a server with a longer name keeps its rights', () => {
    const { tree, acls } = siteTree();
    tree.setAcl(['Site', 'Rooms'], 'Get=gone&Add=gone');
    tree.setAcl(['Site', 'Name'], 'Get=gone+gone.example');
    tree.setAcl([], 'Get=gone');
    tree.forgetServer('gone');
    assert.equal(acls.acls.get('./Site/Rooms'), undefined);
    assert.equal(tree.permits(['Site', 'Rooms'], 'Add', 'dm.example'), true, 'the ACL of the site counts');
    assert.equal(acls.acls.get('./Site/Name'), 'Get=gone.example');
    assert.equal(acls.acls.get('.'), '', 'the root has an ACL always');
  });
});

describe('properties and lists', () => {
  // conforms: TND-14
  test('a property that is unknown, or not kept, gets 406 whatever the command', async () => {
    assert.deepEqual(
      await run(
        get('./Site/Name?prop=Colour'),
        replace('./Site/Name?prop=Colour', 'red'),
        { name: 'Delete', uri: './Site/Name?prop=Colour' },
        get('./DevInfo/Man?prop=TStamp'),
        get('./Site/Name?Title'),
      ),
      [[406], [406], [406], [406], [406]],
    );
  });

  // conforms: TND-16, TND-17
  test('lists leave out what an ACL hides; TNDS has ACLs only when asked', async () => {
    const hidden = [hall, note, replace('./Site/Rooms/hall/Note?prop=ACL', 'Get=other.example')];
    const { outcomes } = await manage([
      ...hidden,
      replace('./Site/Rooms/hall?prop=ACL', 'Get=*&Replace=dm.example'),
      get('./Site/Rooms?list=TNDS'),
      get('./Site/Rooms?list=TNDS+ACL'),
      get('./Site/Rooms?list=StructData'),
    ]);
    const trees = [4, 5].map((at) => decodeTnds(String(outcomes[at]?.results[0]?.data)).root);
    for (const root of trees) {
      const [room] = root.children ?? [];
      assert.deepEqual([room?.name, room?.children?.length ?? 0], ['hall', 0]);
    }
    assert.deepEqual(
      trees.map((root) => root.children?.[0]?.acl),
      [undefined, 'Get=*&Replace=dm.example'],
    );
    assert.deepEqual(
      outcomes[6]?.results.map(({ uri }) => uri),
      ['./Site/Rooms', './Site/Rooms/hall'],
    );
  });

  const acl = '<ACL>Get=*&amp;Replace=dm.example</ACL>';
  const format = '<Format><chr/></Format>';
  const title = '<Title>Sign</Title>';
  const type = '<Type><MIME>text/plain</MIME></Type>';
  const value = '<Value>x</Value>';
  // conforms: TND-17, TND-18
  for (const [asked, properties, kept] of [
    ['', format + type, value],
    ['+ACL', acl + format + type, value],
    ['-ACL', format + type, value],
    // The DTD has no RTProperties without Format.
    ['+Format', format + type, value],
    ['-Format', format + type, value],
    ['+Title', format + title + type, value],
    ['-Title', format + type, value],
    ['+Type', format + type, value],
    ['-Type', format, value],
    ['+Value', format + type, value],
    ['-Value', format + type, ''],
    ['+ACL+Title-Type-Value', acl + format + title, ''],
    ['+Title-Title', format + type, value],
    ['-Value+Value+ACL', acl + format + type, value],
  ] as const)
    test(`list=TNDS${asked} has the properties that it asks for`, async () => {
      const uri = './Site/Rooms/hall/Note';
      const { outcomes } = await manage([
        hall,
        note,
        replace(`${uri}?prop=Title`, 'Sign'),
        replace(`${uri}?prop=ACL`, 'Get=*&Replace=dm.example'),
        get(`${uri}?list=TNDS${asked}`),
      ]);
      const found = outcomes[4]?.results[0];
      assert.equal(found?.type, 'application/vnd.syncml.dmtnds+xml');
      assert.equal(
        found?.data,
        `<MgmtTree xmlns="syncml:dmddf1.2"><VerDTD>1.2</VerDTD><Node><NodeName>Note</NodeName><Path>./Site/Rooms/hall</Path><RTProperties>${properties}</RTProperties>${kept}</Node></MgmtTree>`,
      );
    });

  // conforms: TND-14
  test('list=TNDS with a property that a TNDS object has not, or without a sign, gets 406', async () => {
    const queries = ['+Size', '-Name', '+TStamp', '+acl', '+', '-', 'ACL', '+ACL+', '+ACL Title', '*'];
    const found = await run(...queries.map((each) => get(`./Site?list=TNDS${each}`)));
    assert.deepEqual(
      found,
      queries.map(() => [406]),
    );
  });
});
