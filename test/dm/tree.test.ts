import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { NodeOperation } from '../../src/dm/server-session.ts';
import { decodeTnds, encodeTnds, encodeTndsWbxml, TndsMediaType } from '../../src/wire/syncml/tnds.ts';
import { manage, siteTree } from './parties.ts';

const hall: NodeOperation = { name: 'Add', uri: './Site/Rooms/hall', format: 'node' };
const floor: NodeOperation = { name: 'Add', uri: './Site/Rooms/hall/Floor', format: 'int', data: '2' };
const get = (uri: string): NodeOperation => ({ name: 'Get', uri });
const replace = (uri: string, data: string): NodeOperation => ({ name: 'Replace', uri, data });

/** Statuses, and what was found, in short. */
async function run(...operations: NodeOperation[]) {
  const { outcomes } = await manage(operations);
  return outcomes.map(({ status, results }) => [status, ...results.map(({ data }) => String(data))]);
}

describe('properties', () => {
  // conforms: TND-7, TND-8, TND-9, TND-11, TND-12
  test('a leaf has the properties Format, Name, Size, Title, TStamp, Type, VerNo and ACL', async () => {
    const found = await run(
      replace('./Site/Name', 'zwölf'),
      ...['Format', 'Name', 'Size', 'Title', 'TStamp', 'Type', 'VerNo', 'ACL'].map((name) =>
        get(`./Site/Name?prop=${name}`),
      ),
    );
    assert.deepEqual(found.slice(1), [
      [200, 'chr'],
      [200, 'Name'],
      [200, '6'],
      [200, ''],
      [200, '20231114T221321Z'],
      [200, 'text/plain'],
      [200, '1'],
      [200, ''],
    ]);
  });

  // conforms: TND-13
  test('VerNo counts each change', async () => {
    const found = await run(
      replace('./Site/Count', '4'),
      replace('./Site/Count', '5'),
      get('./Site/Count?prop=VerNo'),
    );
    assert.deepEqual(found[2], [200, '2']);
  });

  // conforms: TND-9
  test('an interior node has a Format but no Size; the root has a Format and an ACL', async () => {
    assert.deepEqual(
      await run(get('./Site?prop=Size'), get('./Site?prop=Format'), get('.?prop=Format'), get('.?prop=ACL')),
      [[406], [200, 'node'], [200, 'node'], [200, 'Get=*']],
    );
  });

  test('the Format of a secret can be read; its Size gets 405', async () => {
    assert.deepEqual(await run(get('./Site/Secret?prop=Format'), get('./Site/Secret?prop=Size')), [
      [200, 'chr'],
      [405],
    ]);
  });

  // conforms: TND-10, TND-14
  test('Title can be replaced; Replace of Format, Type, Size, TStamp and VerNo gets 405', async () => {
    const fixed = ['Format', 'Type', 'Size', 'TStamp', 'VerNo'].map((name) =>
      replace(`./Site/Name?prop=${name}`, 'x'),
    );
    const found = await run(
      replace('./Site/Name?prop=Title', 'The name'),
      get('./Site/Name?prop=Title'),
      ...fixed,
    );
    assert.deepEqual(found, [[200], [200, 'The name'], [405], [405], [405], [405], [405]]);
  });

  // conforms: TND-10
  test('a Title above its bound gets 413', async () => {
    assert.deepEqual(await run(replace('./Site/Name?prop=Title', 'x'.repeat(300))), [[413]]);
  });

  // conforms: TND-14
  test('Add and Delete of a property get 405', async () => {
    assert.deepEqual(
      await run(
        { name: 'Add', uri: './Site/Name?prop=Title', data: 'x' },
        { name: 'Delete', uri: './Site/Name?prop=ACL' },
      ),
      [[405], [405]],
    );
  });
});

describe('names', () => {
  // conforms: TND-8
  test('a dynamic node is renamed with the nodes below it and its ACL', async () => {
    const found = await run(
      hall,
      floor,
      replace('./Site/Rooms/hall?prop=ACL', 'Get=*&Replace=dm.example&Delete=dm.example'),
      replace('./Site/Rooms/hall?prop=Name', 'lobby'),
      get('./Site/Rooms/lobby/Floor'),
      get('./Site/Rooms/hall'),
      get('./Site/Rooms/lobby?prop=ACL'),
      get('./Site/Rooms/lobby?prop=Name'),
    );
    assert.deepEqual(found.slice(3), [
      [200],
      [200, '2'],
      [404],
      [200, 'Get=*&Replace=dm.example&Delete=dm.example'],
      [200, 'lobby'],
    ]);
  });

  // conforms: REP-6, TND-8
  test('renaming or deleting a permanent node gets 405; renaming to an existing name gets 418', async () => {
    const found = await run(
      hall,
      { ...hall, uri: './Site/Rooms/b' },
      replace('./Site/Name?prop=Name', 'x'),
      { name: 'Delete', uri: './Site/Name' },
      replace('./Site/Rooms/b?prop=Name', 'hall'),
      { name: 'Delete', uri: '.' },
    );
    assert.deepEqual(found.slice(2), [[405], [405], [418], [405]]);
  });

  // conforms: TND-1, TND-2
  test('special characters of URIs are escaped in node names, and two spellings of a URI are the same node', async () => {
    const found = await run(
      { ...hall, uri: './Site/Rooms/a%2Fb%3F%25' },
      get('./Site/Rooms/%61%2fb%3f%25?prop=Name'),
      { ...hall, uri: './Site/Rooms/%61%2fb%3f%25' },
      get('Site/Rooms'),
      get('./Site/Rooms/%zz'),
    );
    assert.deepEqual(found, [[200], [200, 'a/b?%'], [418], [200, 'a%2Fb%3F%25'], [404]]);
  });

  // conforms: TND-1
  test('a URI beyond MaxDepth, MaxTotLen or MaxSegLen gets 414', async () => {
    const found = await run(
      get(`./${'a/'.repeat(16)}a`),
      get(`./${'abcdefg/'.repeat(100)}a`),
      get(`./${'a'.repeat(129)}`),
    );
    assert.deepEqual(found, [[414], [414], [414]]);
  });
});

describe('subtrees', () => {
  // conforms: TND-16
  test('list=Struct returns an item for each node without its value; StructData includes the values', async () => {
    const { outcomes } = await manage([
      hall,
      floor,
      get('./Site/Rooms?list=Struct'),
      get('./Site/Rooms?list=StructData'),
    ]);
    const shape = (at: number) => outcomes[at]?.results.map(({ uri, format, data }) => [uri, format, data]);
    assert.deepEqual(shape(2), [
      ['./Site/Rooms', 'node', ''],
      ['./Site/Rooms/hall', 'node', ''],
      ['./Site/Rooms/hall/Floor', 'int', ''],
    ]);
    assert.deepEqual(shape(3)?.at(-1), ['./Site/Rooms/hall/Floor', 'int', '2']);
  });

  // conforms: TND-17
  test('list=TNDS returns one object without the nodes that cannot be read', async () => {
    const { outcomes } = await manage([hall, floor, get('./Site?list=TNDS')]);
    const [found] = outcomes[2]?.results ?? [];
    assert.deepEqual([found?.format, found?.type], ['xml', TndsMediaType.Xml]);
    const { root } = decodeTnds(String(found?.data));
    assert.deepEqual(
      root.children?.map(({ name }) => name),
      ['Name', 'Count', 'Serial', 'Blob', 'Rooms'],
      'the secret is not among them',
    );
    assert.equal(root.children?.at(-1)?.children?.[0]?.children?.[0]?.value, '2');
  });

  // conforms: TND-17
  test('list=TNDS includes and omits properties as asked; an unknown property or list gets 406', async () => {
    const { outcomes } = await manage([
      replace('./Site?prop=ACL', 'Get=*&Replace=dm.example'),
      get('./Site?list=TNDS+ACL-Value'),
      get('./Site?list=TNDS+Colour'),
      get('./Site?list=Everything'),
      { name: 'Delete', uri: './Site?list=Struct' },
    ]);
    const { root } = decodeTnds(String(outcomes[1]?.results[0]?.data));
    assert.equal(root.acl, 'Get=*&Replace=dm.example');
    assert.equal(root.children?.[0]?.value, '');
    assert.deepEqual(
      outcomes.slice(2).map(({ status }) => status),
      [406, 406, 405],
    );
  });

  // conforms: TND-18
  test('a subtree is added from TNDS in XML or WBXML, completely or not at all', async () => {
    const root = {
      name: 'hall',
      format: 'node',
      acl: 'Get=*&Delete=dm.example',
      children: [
        { name: 'Floor', format: 'int', value: '3' },
        { name: 'Note', format: 'chr', value: 'old' },
      ],
    } as const;
    const add = (uri: string, type: string, data: string | Uint8Array): NodeOperation => ({
      name: 'Add',
      uri,
      format: 'xml',
      type,
      data,
    });
    const bad = {
      ...root,
      children: [...root.children, { name: 'Colour', format: 'chr', value: 'x' }],
    } as const;
    const found = await run(
      add('./Site/Rooms/a', TndsMediaType.Xml, encodeTnds({ root })),
      add('./Site/Rooms/b', TndsMediaType.Wbxml, encodeTndsWbxml({ root })),
      get('./Site/Rooms/a/Floor'),
      get('./Site/Rooms/b/Note'),
      get('./Site/Rooms/b?prop=ACL'),
      add('./Site/Rooms/c', TndsMediaType.Xml, encodeTnds({ root: bad })),
      get('./Site/Rooms/c'),
      add('./Site/Rooms/d', TndsMediaType.Xml, '<MgmtTree'),
    );
    assert.deepEqual(found, [
      [200],
      [200],
      [200, '3'],
      [200, 'old'],
      [200, 'Get=*&Delete=dm.example'],
      [405],
      [404],
      [400],
    ]);
  });

  // conforms: REP-1, TND-15
  test('Add also creates missing interior nodes above the new node, where the description allows it', async () => {
    assert.deepEqual(
      await run(floor, get('./Site/Rooms/hall'), { name: 'Add', uri: './Site/Nowhere/x', data: '1' }),
      [[200], [200, 'Floor'], [404]],
    );
  });

  // conforms: REP-5
  test('Copy includes the nodes below; it gets 403 if the target exists, and for a copy into itself', async () => {
    const found = await run(
      hall,
      floor,
      { name: 'Copy', uri: './Site/Rooms/b', from: './Site/Rooms/hall' },
      get('./Site/Rooms/b/Floor'),
      { name: 'Copy', uri: './Site/Rooms/b', from: './Site/Rooms/hall' },
      { name: 'Copy', uri: './Site/Rooms/hall/x', from: './Site/Rooms/hall' },
      { name: 'Copy', uri: './Site/Rooms/c', from: './Site/Nobody' },
      { name: 'Copy', uri: './Site/Rooms/c' },
    );
    assert.deepEqual(found.slice(2), [[200], [200, '2'], [403], [403], [404], [400]]);
  });
});

describe('rights', () => {
  // conforms: TND-3
  test('the nearest ACL on the way to the root decides', async () => {
    const { tree } = siteTree();
    tree.setAcl(['Site', 'Rooms'], 'Get=other&Add=other');
    assert.equal(tree.permits(['Site', 'Rooms', 'x'], 'Get', 'dm.example'), false);
    assert.equal(tree.permits(['Site', 'Rooms', 'x'], 'Add', 'other'), true);
    assert.equal(tree.permits(['Site', 'Name'], 'Replace', 'dm.example'), true);
  });

  // conforms: TND-6
  test('a server that is no longer known is removed from all ACLs', () => {
    const { tree, acls } = siteTree();
    tree.setAcl(['Site', 'Rooms'], 'Get=dm.example+other&Add=dm.example');
    tree.forgetServer('dm.example');
    assert.equal(acls.acls.get('./Site/Rooms'), 'Get=other');
    assert.equal(acls.acls.get('./Site'), 'Get=*');
    assert.equal(tree.permits(['Site', 'Name'], 'Replace', 'dm.example'), false);
  });

  // conforms: TND-5
  test('a server that adds an interior node gets all rights to it if it would otherwise have none', async () => {
    const { tree } = siteTree();
    tree.setAcl(['Site', 'Rooms'], 'Get=*&Add=adder');
    await tree.add(['Site', 'Rooms', 'x'], { format: 'node' }, 'adder');
    assert.equal(tree.permits(['Site', 'Rooms', 'x'], 'Delete', 'adder'), true);
  });
});

test('what two sessions change at once is kept or taken back by itself', async () => {
  const { tree } = siteTree();
  const change = (name: string, format: 'chr' | 'int', value: string) =>
    tree.replace(['Site', name], { format, value }, 'dm.example');
  const first = tree.inTurn(() =>
    tree.atomically(async () => {
      await change('Name', 'chr', 'south');
      await new Promise((resolve) => setImmediate(resolve));
      throw new Error('the disk is full');
    }),
  );
  const second = tree.inTurn(() => tree.atomically(async () => change('Count', 'int', '4')));
  await assert.rejects(first, /the disk is full/);
  await second;
  assert.deepEqual(
    ['Name', 'Count'].map((name) => tree.view(['Site', name])?.value),
    ['north', '4'],
  );
});
