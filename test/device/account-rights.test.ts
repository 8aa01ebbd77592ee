import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { transaction } from '../../src/base/database.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { deviceSchema } from '../../src/device/schema.ts';
import type { Operation } from '../../src/dm/server-session.ts';
import { Acls, Nodes } from '../../src/dm/stored-nodes.ts';
import { ManagementTree } from '../../src/dm/tree.ts';
import { AccountsBranch } from '../../src/mo/accounts-branch.ts';
import { Accounts, accountNodes, accountsDescription, type DmAccount } from '../../src/mo/dm-acc.ts';
import { encodeTnds, TndsMediaType } from '../../src/wire/syncml/tnds.ts';
import { accountNode, Site } from '../journeys/site.ts';
import { startAedes } from '../peers/brokers.ts';

const id = 'urn:dev:ops:1';
const limit = { timeout: 60_000 };
const both = 'Get=*&Replace=dm.example+other.example';

const account: DmAccount = {
  serverId: 'other.example',
  address: 'https://other.example/dm',
  own: { name: id, secret: 'client-secret', nonce: new Uint8Array() },
  peer: { name: 'other.example', secret: 'server-secret', nonce: new Uint8Array() },
};

/** The account of a further DM server, added by the one that the device knows. */
const addOther: Operation = {
  name: 'Add',
  uri: './Inbox',
  format: 'xml',
  type: TndsMediaType.Xml,
  data: encodeTnds({ path: './Inbox', root: accountNodes('other', account) }),
};
const give = (uri: string, acl: string): Operation => ({
  name: 'Replace',
  uri: `${uri}?prop=ACL`,
  data: acl,
});
const ask = (uri: string): Operation => ({ name: 'Get', uri: `${uri}?prop=ACL` });

/** A device with its state in a file, attached to a gateway. Its DM server has given `other.example` an account, and rights. */
async function start(t: TestContext, broker: string) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-rights-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const state = join(folder, 'device.db');
  const site = new Site(broker);
  t.after(() => site[Symbol.asyncDispose]());
  const headend = await site.headend([id]);
  const gateway = await site.gateway([]);
  const device = site.device(id, gateway, { server: true, more: { state } });
  await device.start();
  await device.attached;
  const manage = async (...operations: Operation[]) => await headend.manage(id, operations);
  const given = await manage(
    addOther,
    give('./Settings', both),
    give('./Settings/Label', 'Get=other.example&Replace=other.example'),
    give('./FwUpdate', 'Add=other.example&Exec=gw-1+other.example&Get=*&Replace=dm.example'),
  );
  assert.deepEqual(
    given.map(({ status }) => status),
    [200, 200, 200, 200],
  );
  assert.ok(device.servers.includes('other.example'));
  const node = `./DMAcc/${await accountNode(headend, id, 'other.example')}`;
  /** The ACLs that are in the state. The device ends with this. */
  const stored = async () => {
    await device[Symbol.asyncDispose]();
    const database = openDatabase(state, deviceSchema);
    const acls = new Map(new Acls(database, {}).load());
    await database.close();
    return acls;
  };
  return { device, manage, node, stored };
}

const without = {
  './Settings': 'Get=*&Replace=dm.example',
  './Settings/Label': undefined,
  './FwUpdate': 'Exec=gw-1&Get=*&Replace=dm.example',
};

// conforms: TND-6
describe('a server whose account at a device goes, goes from every ACL of the tree', limit, () => {
  const ways: readonly (readonly [string, (node: string) => Operation])[] = [
    ['Delete of the account', (node) => ({ name: 'Delete', uri: node })],
    [
      'another ServerID in its account',
      (node) => ({ name: 'Replace', uri: `${node}/ServerID`, data: 'third.example' }),
    ],
  ];
  for (const [way, command] of ways)
    test(`by ${way}`, async (t) => {
      await using broker = await startAedes();
      const { manage, node, stored, device } = await start(t, broker.url);
      const [done] = await manage(command(node));
      assert.equal(done?.status, 200);
      assert.ok(!device.servers.includes('other.example'));
      assert.ok(device.servers.includes('dm.example'));
      const acls = await stored();
      for (const [uri, acl] of Object.entries(without)) assert.equal(acls.get(uri), acl, uri);
      assert.ok(![...acls.values()].some((acl) => acl.includes('other.example')));
    });

  test('when the device leaves its gateway', async (t) => {
    await using broker = await startAedes();
    const { device, stored } = await start(t, broker.url);
    await device.detach();
    const acls = await stored();
    assert.equal(acls.get('./FwUpdate'), 'Add=other.example&Exec=other.example&Get=*&Replace=dm.example');
    assert.ok(![...acls.values()].some((acl) => acl.includes('gw-1')));
  });

  test('but not when the Delete is taken back with its Atomic, nor when its account is given once more', async (t) => {
    await using broker = await startAedes();
    const { device, manage, node, stored } = await start(t, broker.url);
    const failing = [
      { name: 'Delete', uri: node },
      { name: 'Delete', uri: './DMAcc/none' },
    ] as const;
    const [atomic, settings, label] = await manage(
      { name: 'Atomic', operations: failing },
      ask('./Settings'),
      ask('./Settings/Label'),
    );
    assert.deepEqual([atomic?.status, settings?.results[0]?.data], [507, both]);
    // Only the other server may read that one.
    assert.equal(label?.status, 425);
    assert.ok(device.servers.includes('other.example'));
    const [again] = await manage(addOther);
    assert.equal(again?.status, 200);
    const acls = await stored();
    assert.equal(acls.get('./Settings'), both);
    assert.equal(acls.get('./Settings/Label'), 'Get=other.example&Replace=other.example');
  });

  test('a disk that takes the ACLs not keeps the account too', async (t) => {
    const database = openDatabase(':memory:', deviceSchema);
    t.after(() => database.close());
    const branch = new AccountsBranch('DMAcc', accountsDescription, new Nodes(database));
    const accounts = new Accounts(branch);
    const acls = new Acls(database, { '.': 'Delete=dm.example&Get=*' });
    const tree = new ManagementTree({ DMAcc: branch }, acls, (work) => transaction(database, work));
    branch.listen({ lost: (server) => tree.forgetServer(server) });
    const path = ['DMAcc', accounts.put(account)];
    tree.setAcl(['DMAcc'], 'Delete=dm.example&Get=other.example');
    database
      .prepare("CREATE TEMP TRIGGER full BEFORE INSERT ON acl BEGIN SELECT raise(ABORT, 'full'); END")
      .run();
    const drop = () => tree.atomically(async () => await tree.delete(path, 'dm.example'));
    await assert.rejects(drop(), /full/);
    assert.ok(accounts.find('other.example'));
    assert.ok(tree.permits(['DMAcc'], 'Get', 'other.example'));
    database.prepare('DROP TRIGGER full').run();
    await drop();
    assert.equal(accounts.find('other.example'), undefined);
    assert.ok(!tree.permits(['DMAcc'], 'Get', 'other.example'));
  });
});
