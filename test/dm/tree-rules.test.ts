import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PosternError } from '../../src/base/errors.ts';
import type { Operation } from '../../src/dm/server-session.ts';
import { DmStatus } from '../../src/dm/status.ts';
import type { TreeBranch } from '../../src/dm/tree-branch.ts';
import { Inbox } from '../../src/mo/inbox.ts';
import { encodeTnds, TndsMediaType, type TndsNode } from '../../src/wire/syncml/tnds.ts';
import { manage, siteTree } from './parties.ts';

const statuses = async (
  operations: readonly Operation[],
  branches: Readonly<Record<string, TreeBranch>> = {},
) => {
  const done = await manage(operations, undefined, branches);
  return { ...done, statuses: done.outcomes.map(({ status }) => status) };
};

describe('commands of a DM 1.2 server', () => {
  // conforms: REP-5
  test('a Copy of a leaf onto a leaf replaces its value; anything else onto a node that is there gets 403', async () => {
    const copy = (from: string, uri: string): Operation => ({ name: 'Copy', from, uri });
    const done = await statuses([
      { name: 'Replace', uri: './Site/Name', data: '17' },
      copy('./Site/Name', './Site/Count'),
      { name: 'Replace', uri: './Site/Name', data: 'south' },
      // An interior node on one side or on both.
      copy('./Site/Name', './Site/Rooms'),
      copy('./Site/Rooms', './Site/Name'),
      copy('./Site/Rooms', './Site/Rooms'),
      copy('./Site', './DevInfo'),
      // Leaves whose values do not fit.
      copy('./Site/Name', './Site/Count'),
      copy('./Site/Blob', './Site/Count'),
      // Into itself.
      copy('./Site/Rooms', './Site/Rooms/R'),
      copy('./Site/Name', './Site/Name'),
    ]);
    assert.deepEqual(done.statuses, [200, 200, 200, 403, 403, 403, 403, 403, 403, 403, 200]);
    assert.equal(done.stored.nodes.get('Site/Count')?.value, '17');
    assert.equal(done.stored.nodes.get('Site/Name')?.value, 'south');
    assert.equal(done.stored.nodes.get('Site/Rooms')?.format, 'node');
  });

  // conforms: REP-5
  test('a Copy that the disk does not take gets 420, and one to nowhere or from nowhere 404 or 405', async () => {
    const site = siteTree();
    const copy = (from: string, to: string) => site.tree.copy(['Site', from], ['Site', to], 'dm.example');
    await assert.rejects(copy('None', 'Name'), { dmStatus: 404 });
    await assert.rejects(copy('Name', 'None'), { dmStatus: 405 });
    site.stored.apply = () => {
      throw new PosternError('storage', 'the disk is full');
    };
    await assert.rejects(copy('Serial', 'Name'), { dmStatus: 420 });
  });

  // conforms: REP-5
  test('a Copy onto a leaf without the right to replace it gets 425, and onto a read-only leaf 405', async () => {
    const site = siteTree();
    await assert.rejects(site.tree.copy(['Site', 'Name'], ['Site', 'Count'], 'other.example'), {
      dmStatus: DmStatus.PermissionDenied,
    });
    await assert.rejects(site.tree.copy(['Site', 'Name'], ['Site', 'Serial'], 'dm.example'), {
      dmStatus: DmStatus.CommandNotAllowed,
    });
  });

  // conforms: REP-4
  test('a Get inside a Sequence inside an Atomic is refused, as directly in it, and nothing is done', async () => {
    const replace: Operation = { name: 'Replace', uri: './Site/Name', data: 'x' };
    for (const inner of [
      { name: 'Get', uri: './Site/Name' },
      { name: 'Sequence', operations: [{ name: 'Get', uri: './Site/Name' }] },
      {
        name: 'Sequence',
        operations: [{ name: 'Sequence', operations: [{ name: 'Atomic', operations: [replace] }] }],
      },
    ] as const) {
      const done = await statuses([{ name: 'Atomic', operations: [replace, inner] }]);
      assert.deepEqual(done.statuses, [DmStatus.AtomicFailed]);
      assert.equal(done.stored.nodes.get('Site/Name')?.value, 'north');
    }
  });

  test('a text can be no interior node: its Add gets 415, and an Add without a format and a value adds the node', async () => {
    const done = await statuses([
      { name: 'Add', uri: './Site/Rooms/R1', data: 'lost' },
      { name: 'Add', uri: './Site/Rooms/R2' },
      { name: 'Add', uri: './Site/Rooms/R3', format: 'node' },
    ]);
    assert.deepEqual(done.statuses, [415, 200, 200]);
    assert.equal(done.stored.nodes.has('Site/Rooms/R1'), false);
  });

  test('the property Type of a leaf is its MIME type, in a TNDS object as well', async () => {
    const done = await statuses([
      { name: 'Get', uri: './Site/Count?prop=Type' },
      { name: 'Get', uri: './Site/Blob?prop=Type' },
      { name: 'Get', uri: './Site?prop=Type' },
      { name: 'Get', uri: './DevInfo?prop=Type' },
      { name: 'Get', uri: './Site/Blob?list=TNDS' },
    ]);
    const values = done.outcomes.map(({ results }) => String(results[0]?.data));
    assert.deepEqual(values.slice(0, 4), [
      'text/plain',
      'application/octet-stream',
      '',
      'urn:oma:mo:oma-dm-devinfo:1.0',
    ]);
    assert.match(values[4] ?? '', /<Type><MIME>application\/octet-stream<\/MIME><\/Type>/);
  });
});

describe('ACLs of a DM 1.2 server', () => {
  const acl = (uri: string, data: string): Operation => ({ name: 'Replace', uri: `${uri}?prop=ACL`, data });

  // conforms: TND-4
  test('a server with Replace on the parent may replace the ACL of an interior node that names others only', async () => {
    const done = await statuses([
      { name: 'Add', uri: './Site/Rooms/R', format: 'node' },
      acl('./Site/Rooms/R', 'Get=other.example&Replace=other.example'),
      acl('./Site/Rooms/R', 'Get=*&Replace=dm.example'),
    ]);
    assert.deepEqual(done.statuses, [200, 200, 200]);
    assert.equal(done.tree.getAcl(['Site', 'Rooms', 'R'], 'dm.example'), 'Get=*&Replace=dm.example');
    assert.throws(() => done.tree.replaceAcl(['Site', 'Rooms', 'R'], 'Get=*', 'other.example'), {
      dmStatus: DmStatus.PermissionDenied,
    });
  });

  // conforms: TND-22
  for (const wrong of [
    'Get=a=b',
    'Get=/factory',
    'Get=a+',
    'Get=a\u0007',
    'Gett=*',
    `Get=${'x'.repeat(300)}`,
  ])
    test(`the ACL ${JSON.stringify(wrong.slice(0, 20))} gets 400, and the node keeps its own`, async () => {
      const site = siteTree();
      assert.throws(() => site.tree.replaceAcl(['Site'], wrong, 'dm.example'), {
        dmStatus: DmStatus.BadRequest,
      });
      assert.match(site.tree.getAcl(['Site'], 'dm.example'), /^Get=\*&Add=dm.example/);
    });
});

describe('the Inbox', () => {
  const object = (type: string, name = 'x'): TndsNode => ({ name, format: 'node', type, children: [] });
  /** A TNDS object of several root nodes. */
  const several = (...nodes: readonly TndsNode[]) =>
    encodeTnds({ path: './Inbox', root: nodes[0]! }).replace(
      '</MgmtTree>',
      `${nodes
        .slice(1)
        .map((root) => /<Node>.*<\/Node>/s.exec(encodeTnds({ root }))?.[0])
        .join('')}</MgmtTree>`,
    );
  const add = (data: string): Operation => ({
    name: 'Add',
    uri: './Inbox',
    type: TndsMediaType.Xml,
    format: 'xml',
    data,
  });
  const taking = () => {
    const taken: string[] = [];
    const inbox = new Inbox({ 'urn:mo:account': ({ name }) => void taken.push(name) });
    return { taken, inbox };
  };

  // conforms: TND-23
  test('of several objects those count that the device has a place for; without any it is 404', async () => {
    const { taken, inbox } = taking();
    const site = siteTree({ Inbox: inbox });
    site.tree.setAcl(['Inbox'], 'Add=dm.example');
    const deposit = (data: string) =>
      site.tree.add(['Inbox'], { format: 'xml', type: TndsMediaType.Xml, value: data }, 'dm.example');
    await deposit(
      several(object('urn:mo:conn'), object('urn:mo:account', 'a'), object('urn:mo:account', '')),
    );
    assert.deepEqual(taken, ['a', ''], 'a root may be without a name');
    await assert.rejects(deposit(several(object('urn:mo:conn'), object('urn:mo:other'))), {
      dmStatus: DmStatus.NotFound,
    });
  });

  test('a node below the Inbox has no address: 405', async () => {
    const { inbox } = taking();
    const done = await statuses(
      [
        { name: 'Get', uri: './Inbox/x' },
        { name: 'Delete', uri: './Inbox/x' },
        { ...add(encodeTnds({ root: object('urn:mo:account') })), uri: './Inbox/x' } as Operation,
      ],
      { Inbox: inbox },
    );
    assert.deepEqual(done.statuses, [405, 405, 405]);
  });
});
