import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { execute } from '../../src/dm/commands.ts';
import { MemoryAcls, MemoryNodes } from '../../src/dm/node-store.ts';
import { StoredBranch } from '../../src/dm/stored-branch.ts';
import { ManagementTree } from '../../src/dm/tree.ts';
import { managementObjects } from '../../src/mo/catalogue.ts';
import { interior } from '../../src/wire/syncml/ddf.ts';
import type { DdfElement } from '../../src/wire/syncml/ddf-builder.ts';
import { ddfDocument, indented } from '../../src/wire/syncml/ddf-document.ts';
import { childOf, parseDdf, textOf } from '../../src/wire/syncml/ddf-xml.ts';
import type { Command } from '../../src/wire/syncml/message.ts';
import { isNodeFormat, type TndsNode } from '../../src/wire/syncml/tnds.ts';

const dtd = fileURLToPath(new URL('../vectors/dm-ddf.dtd', import.meta.url));

interface Described {
  readonly path: string;
  readonly access: readonly string[];
  readonly format: string;
  readonly scope: string;
}

const nameOf = (node: DdfElement) => textOf(node, 'NodeName') || 'x';
const formatOf = (node: DdfElement) =>
  childOf(childOf(node, 'DFProperties'), 'DFFormat')?.children[0]?.tag ?? '';

/** What the document says, node by node; nodes without a name are called x. */
function* nodesOf(node: DdfElement, above: string): Generator<Described> {
  const path = `${above}/${nameOf(node)}`;
  const properties = childOf(node, 'DFProperties');
  yield {
    path,
    access: childOf(properties, 'AccessType')?.children.map(({ tag }) => tag) ?? [],
    format: formatOf(node),
    scope: childOf(properties, 'Scope')?.children[0]?.tag ?? '',
  };
  for (const child of node.children.filter(({ tag }) => tag === 'Node')) yield* nodesOf(child, path);
}

const samples: Readonly<Record<string, string | Uint8Array>> = {
  int: '1',
  bool: 'true',
  bin: Buffer.from([1]),
};

/** One of each node that the document describes. */
function instance(node: DdfElement): TndsNode {
  const format = formatOf(node);
  assert.ok(isNodeFormat(format), format);
  const children = node.children.filter(({ tag }) => tag === 'Node').map(instance);
  return {
    name: nameOf(node),
    format,
    ...(format === 'node' ? { children } : { value: samples[format] ?? 'v' }),
  };
}

for (const [name, object] of Object.entries(managementObjects)) {
  // conforms: TND-19, TND-20, OBJ-2, OBJ-3, GW-14
  describe(`the DDF of ${name}`, () => {
    const text = ddfDocument(object, name);
    const root = childOf(parseDdf(text), 'Node')!;

    test('is valid against the DTD', () => {
      const input = text.replace('<MgmtTree', '<?xml version="1.0"?><MgmtTree');
      execFileSync('xmllint', ['--noout', '--dtdvalid', dtd, '-'], {
        input,
        stdio: ['pipe', 'pipe', 'pipe'],
      });
    });

    test('has the same content when indented', () => {
      assert.equal(indented(text).replace(/\n */g, ''), text);
    });

    test('allows a command on a node exactly if the engine does', async () => {
      // An object that may be there many times stands below a node that holds them all.
      const isMany = object.root.occurs === 'ZeroOrMore';
      const description = isMany ? interior(['Get'], '', { '*': object.root }) : object.root;
      const whole = instance(root);
      for (const { path, access, format, scope } of nodesOf(root, isMany ? './Holder' : '.')) {
        const holder = isMany ? 'Holder' : name;
        const branch = new StoredBranch(holder, description, new MemoryNodes());
        branch.plant([], isMany ? { name: holder, format: 'node', children: [whole] } : whole);
        const tree = new ManagementTree(
          { [holder]: branch },
          new MemoryAcls({ '.': 'Add=*&Delete=*&Exec=*&Get=*&Replace=*' }),
        );
        const status = async (command: 'Get' | 'Replace' | 'Delete' | 'Add') => {
          const value = format === 'node' ? {} : { data: samples[format] ?? 'v' };
          const item = { target: { locUri: path }, meta: { format }, ...value };
          const done = await execute({ tree, serverId: 's' }, {
            name: command,
            cmdId: '1',
            items: [item],
          } as Command);
          return done[0]?.items[0]?.status;
        };
        const allowed = (right: string) => access.includes(right);
        const { permanent } = tree.view(path.split('/').slice(1)) ?? {};
        assert.equal(scope, permanent ? 'Permanent' : 'Dynamic', `Scope of ${path}`);
        assert.equal(await status('Get'), allowed('Get') ? 200 : 405, `Get ${path}`);
        if (format !== 'node')
          assert.equal(await status('Replace'), allowed('Replace') ? 200 : 405, `Replace ${path}`);
        const mayGo = allowed('Delete') && scope === 'Dynamic';
        assert.equal(await status('Delete'), mayGo ? 200 : 405, `Delete ${path}`);
        if (mayGo) assert.equal(await status('Add'), allowed('Add') ? 200 : 405, `Add ${path}`);
      }
    });
  });
}
