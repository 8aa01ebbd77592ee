import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { transaction } from '../../../src/base/database.ts';
import { hashedName } from '../../../src/base/hashed-name.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { Acls } from '../../../src/dm/stored-nodes.ts';
import { ManagementTree } from '../../../src/dm/tree.ts';
import {
  type Act,
  childActs,
  type Rule,
  type ServerAct,
  serverActs,
  standings,
} from '../../../src/gateway/rights/acts.ts';
import { Authorisation } from '../../../src/gateway/rights/authorisation.ts';
import { authorisedNodes } from '../../../src/gateway/rights/authorised-nodes.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { ownVocabulary } from '../../../src/mo/vocabulary.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { freshState } from '../../state-files.ts';

const device = 'urn:dev:ops:1';
/** Names of accounts' nodes, as the tree has them. */
const nodes: Readonly<Record<string, string>> = { 'dm.example': 'a', 'other.example': 'b', third: 'c' };

/** A gateway with the accounts of `dm.example`, which may do all, and of `other.example`, which may do nothing. */
function start(file = ':memory:') {
  const database = openDatabase(file, gatewaySchema);
  const all = 'Add=dm.example&Delete=dm.example&Exec=dm.example&Get=dm.example&Replace=dm.example';
  const tree = new ManagementTree({}, new Acls(database, { '.': all }), (work) =>
    transaction(database, work),
  );
  const accounts = new Set(Object.keys(nodes));
  const tunnelled = new Set([device]);
  const events = new EventRecorder();
  const clock = new HandClock();
  const authorisation = new Authorisation({
    hasAccount: (server) => accounts.has(server),
    tunnelServers: ['tunnel.example'],
    permits: (...args) => tree.permits(...args),
    nodeOf: authorisedNodes(ownVocabulary, { nodeName: (server) => nodes[server] }),
    isTunnelled: (deviceId) => tunnelled.has(deviceId),
    clock,
    events,
  });
  return { database, tree, accounts, tunnelled, events, clock, authorisation };
}

/** What each act is done with, and the node whose ACL is asked. */
const objects = {
  device: [device, ['GwDeviceInventory', 'Records', hashedName(device)]],
  group: ['north', ['GwDeviceInventory', 'Groups', 'north']],
  image: ['fw', ['GwImageInventory', 'Images', 'fw']],
  account: ['third', ['DMAcc', 'c']],
} as const;

const words: Readonly<Record<Rule, string>> = {
  yes: 'yes',
  Add: 'Add',
  Delete: 'Delete',
  Exec: 'Exec',
  Get: 'Get',
  Replace: 'Replace',
  policy: 'a device of the tunnel policy',
  free: 'behind it, or nowhere else',
  behind: 'behind it',
  own: 'its own orders',
};

describe('which server may do what', () => {
  test('the table of docs/security.md is the table of the code', () => {
    const page = readFileSync('docs/security.md', 'utf8');
    const [, section = ''] = page.split('\n## Which server may do what');
    const documented = section
      .split('\n## ')[0]!
      .split('\n')
      .flatMap((line) => {
        const [, act = '', , ...cells] = /^\| `([^`]+)` \|([^|]*)\|(.*)\|$/.exec(line) ?? [];
        return act === '' ? [] : [[act, ...cells[0]!.split('|').map((cell) => cell.trim())]];
      });
    const inCode = Object.entries({ ...serverActs, ...childActs }).map(([name, act]: [string, Act]) => [
      name,
      ...standings.map((standing) => {
        const rule = act[standing];
        return rule === undefined ? 'no' : words[rule];
      }),
      'no',
    ]);
    assert.deepEqual(documented, inCode);
  });

  for (const [name, act] of Object.entries(serverActs) as [ServerAct, Act][])
    test(`${name}: each column allows and denies as the table says`, async () => {
      const { authorisation, tree, accounts, tunnelled, database } = start();
      const [object, path] = act.at ? objects[act.at] : ['', []];
      const may = (server: string) => authorisation.may(server, name, object);
      const hasRule = act.account !== undefined;
      const isByAcl = act.at !== undefined;
      assert.equal(may('dm.example'), hasRule, 'an account and all rights');
      assert.equal(may('other.example'), hasRule && !isByAcl, 'an account without rights');
      assert.equal(may('tunnel.example'), act.tunnel !== undefined);
      assert.equal(may('nobody.example'), false);
      assert.equal(may(''), false);
      assert.equal(may('*'), false);
      if (isByAcl) {
        await transaction(database, () => tree.setAcl(path, `${act.account}=other.example`));
        assert.equal(may('other.example'), true, 'with the right');
        assert.equal(may('dm.example'), false, 'an ACL of its own takes the right of others');
        await transaction(database, () => tree.setAcl(path, `Get=nobody.example&Exec=*&Replace=*`));
        assert.equal(may('nobody.example'), false, 'a right without an account');
        // Whatever the ACL says, another object has its own.
        assert.equal(authorisation.may('other.example', name, 'another'), false);
      }
      accounts.delete('dm.example');
      assert.equal(may('dm.example'), false, 'nothing is left after its account');
      if (act.tunnel === 'policy') {
        tunnelled.delete(device);
        assert.equal(may('tunnel.example'), false, 'a device that the tunnel policy does not admit');
      }
    });

  test('no server puts its own account in', () => {
    const { authorisation } = start();
    assert.equal(authorisation.may('dm.example', 'replace-account', 'other.example'), true);
    assert.equal(authorisation.may('dm.example', 'replace-account', 'dm.example'), false);
  });

  test('a restart in the middle: rights are those that were stored; a write that fails changes none', (t) => {
    const file = freshState(t);
    const before = start(file);
    const [, path] = objects.device;
    const give = ({ database, tree }: typeof before, acl: string) =>
      transaction(database, () => tree.setAcl(path, acl));
    give(before, 'Exec=other.example');
    before.database.prepare(
      "CREATE TEMP TRIGGER stop BEFORE INSERT ON acl BEGIN SELECT raise(ABORT, 'stop'); END",
    );
    before.database
      .prepare("CREATE TEMP TRIGGER stop BEFORE INSERT ON acl BEGIN SELECT raise(ABORT, 'stop'); END")
      .run();
    assert.throws(() => give(before, 'Exec=dm.example'), /stop/);
    const may = ({ authorisation }: typeof before) =>
      ['dm.example', 'other.example'].map((server) => authorisation.may(server, 'manage-device', device));
    assert.deepEqual(may(before), [false, true]);
    before.database.close();
    const after = start(file);
    assert.deepEqual(may(after), [false, true]);
    after.tree.forgetServer('other.example');
    assert.deepEqual(may(after), [true, false], 'the right goes back to the ACL above');
  });

  test('what is demanded is refused with a status, told once for each cause, and counted', () => {
    const { authorisation, events, clock } = start();
    const ask = (server: string) => authorisation.demand(server, 'wake-device', device);
    ask('dm.example');
    ask('tunnel.example');
    assert.equal(events.count('notification.denied'), 0);
    const told = () => events.all.map(({ fields }) => [fields.server, fields.refused]);
    for (let times = 0; times < 5; times++) {
      assert.throws(() => ask('other.example'), { dmStatus: 425, coapCode: '4.03' });
      assert.throws(() => ask('nobody.example'), { dmStatus: 404 });
    }
    assert.deepEqual(told(), [
      ['other.example', 1],
      ['nobody.example', 1],
    ]);
    clock.advance(600_000);
    assert.throws(() => ask('other.example'), { dmStatus: 425 });
    assert.deepEqual(told()[2], ['other.example', 5]);
    const long = 'x'.repeat(300);
    assert.throws(() => authorisation.demand(long, 'wake-gateway'), { dmStatus: 404 });
    assert.deepEqual(told()[3], [long.slice(0, 64), 1]);
    // The causes are bounded: more of them forget the oldest, which is told anew.
    for (let number = 0; number < 256; number++) assert.throws(() => ask(`invented.${number}`));
    assert.throws(() => ask('other.example'), { dmStatus: 425 });
    assert.deepEqual(told().at(-1), ['other.example', 1]);
  });
});
