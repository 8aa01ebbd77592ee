import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { hashedName } from '../../src/base/hashed-name.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { forgetfulNodes, MemoryAcls } from '../../src/dm/node-store.ts';
import type { Operation, OperationOutcome } from '../../src/dm/server-session.ts';
import { StoredBranch } from '../../src/dm/stored-branch.ts';
import { ManagementTree } from '../../src/dm/tree.ts';
import { Inventory } from '../../src/gateway/store/inventory.ts';
import { gatewaySchema } from '../../src/gateway/store/schema.ts';
import { bytesOfSession } from '../../src/headend/sessions.ts';
import { gwDeviceInventory, InventoryBranch, membersOf } from '../../src/mo/gw-device-inventory.ts';
import { RenamedBranch } from '../../src/mo/renamed-branch.ts';
import { ownVocabulary, type Vocabulary } from '../../src/mo/vocabulary.ts';
import { encodeTnds, TndsMediaType, type TndsNode } from '../../src/wire/syncml/tnds.ts';
import { client, converse, server as dmServer, noncePair, type OnTheWay } from '../dm/parties.ts';

const server = 'dm.example';
const leafOf = (name: string, value: string): TndsNode => ({ name, format: 'chr', value });
const none = {
  names: () => [],
  demandRoom: () => {},
  named: () => undefined,
  add: () => {},
  remove: () => {},
  addressFor: () => '',
};

/** Has the DM server do operations on a tree, in a session. */
async function operate(tree: ManagementTree, operations: readonly Operation[], onTheWay?: OnTheWay) {
  const { device, dm } = noncePair();
  const outcomes: OperationOutcome[] = [];
  const serverSide = dmServer(dm, {
    mostWeight: bytesOfSession,
    work: async function* () {
      outcomes.push(...(yield operations));
    },
  });
  await converse(client(device, { tree }), serverSide, onTheWay);
  return outcomes;
}

function treeOf(count: number, vocabulary: Vocabulary = ownVocabulary) {
  const inventory = new Inventory(openDatabase(':memory:', gatewaySchema), count + 1);
  for (let at = 0; at < count; at++)
    inventory.put({
      deviceId: `urn:dev:${at}`,
      state: 'attached',
      mode: 1,
      origin: 'local',
      address: 'coap://192.0.2.1:5683',
      lastSeen: 1_700_000_000_000,
      manufacturer: 'Maker',
      model: 'Meter',
      firmware: '1.0.0',
      protocol: 'OMA-DM',
      isGateway: at === 1,
    });
  const groups = new StoredBranch('GwDeviceInventory', gwDeviceInventory.root, forgetfulNodes);
  const branch = new InventoryBranch({
    inventory,
    expected: none,
    remove: () => {},
    groups,
    vocabulary,
  });
  const { names } = vocabulary;
  const tree = new ManagementTree(
    { Devices: new RenamedBranch(branch, gwDeviceInventory.root, names), GwDeviceInventory: branch },
    new MemoryAcls({ '.': `Add=${server}&Delete=${server}&Exec=${server}&Get=${server}&Replace=${server}` }),
  );
  return { tree, branch, inventory, groups };
}

describe('an inventory of ten thousand devices', () => {
  // conforms: GW-21
  test('a list of 10,000 devices is read from the inventory message by message', async () => {
    const { tree, branch } = treeOf(10_000);
    const view = branch.view.bind(branch);
    let views = 0;
    branch.view = (path) => {
      views++;
      return view(path);
    };
    const perMessage: number[] = [];
    const get = [{ name: 'Get', uri: './GwDeviceInventory/Records?list=Struct' }] as const;
    const [outcome] = await operate(tree, get, (message, from) => {
      if (from === 'client') perMessage.push(views);
      views = from === 'client' ? 0 : views;
      return message;
    });
    assert.equal(outcome?.status, 200);
    assert.equal(new Set(outcome?.results.map(({ uri }) => uri)).size, 1 + 10_000 * 12);
    assert.ok(perMessage.length > 150, `${perMessage.length} messages`);
    assert.ok(Math.max(...perMessage) < 2000, `${Math.max(...perMessage)} nodes read for one message`);
  });

  // conforms: GW-21
  test('the names of 10,000 devices arrive as one large object', async () => {
    const { tree } = treeOf(10_000);
    const [outcome] = await operate(tree, [{ name: 'Get', uri: './GwDeviceInventory/Records' }]);
    assert.equal(outcome?.status, 200);
    assert.equal(String(outcome?.results[0]?.data).split('/').length, 10_000);
  });
});

describe('groups of the inventory', () => {
  // conforms: GW-20
  test('a server adds, changes and deletes a group', async () => {
    const { tree, groups } = treeOf(2);
    const at = './GwDeviceInventory/Groups/g';
    const outcomes = await operate(tree, [
      { name: 'Add', uri: `${at}/GroupID`, data: 'north' },
      { name: 'Add', uri: `${at}/Members/a/DeviceID`, data: 'urn:dev:0' },
      { name: 'Add', uri: `${at}/Members/b/DeviceID`, data: 'urn:dev:1' },
      { name: 'Delete', uri: `${at}/Members/a` },
      { name: 'Get', uri: `${at}/Members` },
      { name: 'Add', uri: './GwDeviceInventory/Records/x', format: 'node' },
    ]);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [200, 200, 200, 200, 200, 405],
    );
    const all = () => true;
    assert.deepEqual(membersOf(groups, 'north', all), ['urn:dev:1']);
    assert.equal(
      membersOf(groups, 'north', () => false),
      undefined,
    );
    assert.equal(membersOf(groups, 'south', all), undefined);
    await operate(tree, [{ name: 'Delete', uri: at }]);
    assert.equal(membersOf(groups, 'north', all), undefined);
  });

  test('a group that is added as a TNDS object keeps the ACLs that it brings', async () => {
    const { tree } = treeOf(1);
    const member = {
      name: 'a',
      format: 'node',
      acl: 'Get=*&Replace=other',
      children: [leafOf('DeviceID', 'urn:dev:0')],
    } as const;
    const root: TndsNode = {
      name: 'g',
      format: 'node',
      acl: 'Get=*&Delete=dm.example',
      children: [leafOf('GroupID', 'north'), { name: 'Members', format: 'node', children: [member] }],
    };
    const uri = './GwDeviceInventory/Groups/g';
    const add = {
      name: 'Add',
      uri,
      format: 'xml',
      type: TndsMediaType.Xml,
      data: encodeTnds({ root }),
    } as const;
    const [added] = await operate(tree, [add]);
    assert.equal(added?.status, 200);
    const [own, inner] = await operate(tree, [
      { name: 'Get', uri: `${uri}?prop=ACL` },
      { name: 'Get', uri: `${uri}/Members/a?prop=ACL` },
    ]);
    assert.deepEqual(
      [own, inner].map((one) => one?.results[0]?.data),
      [root.acl, member.acl],
    );
    const broken = encodeTnds({ root: { ...root, name: 'h', acl: 'Get=/factory' } });
    const [refused] = await operate(tree, [{ ...add, uri: './GwDeviceInventory/Groups/h', data: broken }]);
    assert.equal(refused?.status, 400);
    const [absent] = await operate(tree, [{ name: 'Get', uri: './GwDeviceInventory/Groups/h' }]);
    assert.equal(absent?.status, 404, 'an object with a wrong ACL is not added');
  });
});

describe('names and codes that GwMO leaves open', () => {
  // conforms: GW-23
  test('configured node names and codes replace the default ones', async () => {
    const vocabulary: Vocabulary = {
      ...ownVocabulary,
      names: { Records: 'Devs', DeviceID: 'ID', Groups: 'Sets', Members: 'Of' },
      modes: [10, 11, 12],
      componentTypes: [7, 8],
    };
    const { tree } = treeOf(2, vocabulary);
    const at = `./Devices/Devs/${hashedName('urn:dev:1')}`;
    const outcomes = await operate(tree, [
      { name: 'Get', uri: './Devices' },
      { name: 'Get', uri: `${at}/ID` },
      { name: 'Get', uri: `${at}/Mode` },
      { name: 'Get', uri: `${at}/ComponentType` },
      { name: 'Get', uri: `${at}/DeviceID` },
      { name: 'Get', uri: './Devices/Records' },
      { name: 'Add', uri: './Devices/Sets/g/Of/m/ID', data: 'x' },
      { name: 'Get', uri: './Devices/Sets/g/Of/m' },
      { name: 'Delete', uri: at },
    ]);
    assert.deepEqual(
      outcomes.map(({ status, results }) => results[0]?.data ?? status),
      ['Devs/Sets/Expected', 'urn:dev:1', '11', '8', 404, 404, 200, 'ID', 200],
    );
  });
});
