import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { hashedName } from '../../src/base/hashed-name.ts';
import { accountNodes } from '../../src/mo/dm-acc.ts';
import { encodeTnds, TndsMediaType } from '../../src/wire/syncml/tnds.ts';
import { startAedes } from '../peers/brokers.ts';
import { accountNode, Site, secrets } from './site.ts';

const limit = { timeout: 60_000 };
const ids = ['urn:dev:ops:1', 'urn:dev:ops:2'];
const look = '<Get><CmdID>1</CmdID><Item><Target><LocURI>./DevInfo/Man</LocURI></Target></Item></Get>';

describe('two DM servers, one gateway', limit, () => {
  // conforms: GW-16, GW-24
  test('a second server can do what the first one granted, and gets the results of its own orders', async () => {
    await using broker = await startAedes();
    await using first = new Site(broker.url);
    await using second = new Site(broker.url);
    const own = await first.headend([]);
    const other = await second.headend([], {
      headend: { id: 'other.example', state: ':memory:', 'session-timeout': 20 },
    });
    const gateway = await first.gateway(ids);
    for (const id of ids) {
      const device = first.device(id, gateway, { factory: true });
      await device.start();
      await device.attached;
    }
    await first.headendEvents.until('alert.device-attach', { device: ids[1] });
    await assert.rejects(other.manage('gw-1', [{ name: 'Get', uri: './DevInfo' }]), /no account|404/);

    const account = accountNodes('other', {
      serverId: 'other.example',
      name: 'Other',
      address: broker.url,
      own: { name: 'gw-1', secret: secrets.gatewayClient, nonce: new Uint8Array() },
      peer: { name: 'other.example', secret: secrets.gatewayServer, nonce: new Uint8Array() },
    });
    const record = `./GwDeviceInventory/Records/${hashedName(ids[0] ?? '')}`;
    const given = await own.manage('gw-1', [
      {
        name: 'Add',
        uri: './Inbox',
        format: 'xml',
        type: TndsMediaType.Xml,
        data: encodeTnds({ path: './Inbox', root: account }),
      },
      {
        name: 'Replace',
        uri: './GwFanout/Fanout?prop=ACL',
        data: 'Add=dm.example+other.example&Delete=dm.example+other.example&Exec=dm.example&Get=dm.example&Replace=dm.example',
      },
      {
        name: 'Replace',
        uri: `${record}?prop=ACL`,
        data: 'Delete=dm.example&Exec=dm.example+other.example&Get=dm.example+other.example&Replace=dm.example',
      },
      { name: 'Get', uri: './DMAcc' },
    ]);
    assert.deepEqual(
      given.map(({ status }) => status),
      [200, 200, 200, 200],
    );
    const seen = await other.manage('gw-1', [
      { name: 'Get', uri: `${record}/Man` },
      { name: 'Get', uri: `./GwDeviceInventory/Records/${hashedName(ids[1] ?? '')}/Man` },
      { name: 'Delete', uri: record },
    ]);
    assert.deepEqual(
      seen.map(({ status, results }) => results[0]?.data ?? status),
      ['Maker & Sons', 425, 425],
    );
    const started = await other.fanOut('gw-1', {
      name: 'mine',
      targets: { devices: ids },
      returnFormat: 2,
      command: look,
    });
    await second.headendEvents.until('alert.command-fanout', { correlator: started.correlator });
    assert.match(
      other.fanouts()[0]?.result ?? '',
      new RegExp(
        `<Group Status="200" Commands="200" Count="1"><Device ID="${ids[0]}"/></Group><Group Status="425" Commands="" Count="1"><Device ID="${ids[1]}"/></Group>`,
      ),
    );
    assert.deepEqual(own.fanouts(), [], 'the first server gets no result of an order that it did not start');
    const stolen = await other.manage('gw-1', [
      { name: 'Get', uri: './GwConfig/Mode' },
      { name: 'Replace', uri: `${record}?prop=ACL`, data: 'Exec=*' },
    ]);
    assert.deepEqual(
      stolen.map(({ status }) => status),
      [425, 425],
    );
  });

  // conforms: GW-16
  test('what a server started ends with its account: its fan-out, its rights, and what it was to hear', async () => {
    await using broker = await startAedes();
    await using first = new Site(broker.url);
    await using second = new Site(broker.url);
    const own = await first.headend([]);
    const other = await second.headend([], {
      headend: { id: 'other.example', state: ':memory:', 'session-timeout': 20 },
    });
    const gateway = await first.gateway(ids);
    const [awake, asleep] = ids.map((id) => first.device(id, gateway, { factory: true }));
    for (const device of [awake!, asleep!]) {
      await device.start();
      await device.attached;
    }
    await asleep![Symbol.asyncDispose]();
    const account = accountNodes('other', {
      serverId: 'other.example',
      name: 'Other',
      address: broker.url,
      own: { name: 'gw-1', secret: secrets.gatewayClient, nonce: new Uint8Array() },
      peer: { name: 'other.example', secret: secrets.gatewayServer, nonce: new Uint8Array() },
    });
    const acl = (places: string) =>
      `Add=${places}&Delete=${places}&Exec=${places}&Get=${places}&Replace=${places}`;
    const both = ['./GwFanout/Fanout', ...ids.map((id) => `./GwDeviceInventory/Records/${hashedName(id)}`)];
    await own.manage('gw-1', [
      {
        name: 'Add',
        uri: './Inbox',
        format: 'xml',
        type: TndsMediaType.Xml,
        data: encodeTnds({ path: './Inbox', root: account }),
      },
      ...both.map((uri) => ({
        name: 'Replace' as const,
        uri: `${uri}?prop=ACL`,
        data: acl('dm.example+other.example'),
      })),
    ]);
    const order = {
      name: 'mine',
      targets: {},
      returnFormat: 2,
      command:
        '<Replace><CmdID>1</CmdID><Item><Target><LocURI>./Settings/Label</LocURI></Target><Data>theirs</Data></Item></Replace>',
    };
    await other.fanOut('gw-1', order);
    await first.gatewayEvents.until('fanout.started', { name: 'mine' });
    const node = await accountNode(own, 'gw-1', 'other.example');
    const [deleted] = await own.manage('gw-1', [{ name: 'Delete', uri: `./DMAcc/${node}` }]);
    assert.equal(deleted?.status, 200);
    await first.gatewayEvents.until('dm.server-gone', { server: 'other.example' });
    const state = await own.manage('gw-1', [
      { name: 'Get', uri: './GwFanout/Fanout/mine/State' },
      ...both.map((uri) => ({ name: 'Get' as const, uri: `${uri}?prop=ACL` })),
    ]);
    const [phase, ...acls] = state.map(({ results }) => String(results[0]?.data));
    assert.equal(phase, '3', 'it is cancelled');
    assert.deepEqual(
      acls,
      both.map(() => acl('dm.example')),
    );
    // The device that was asleep comes back, and gets nothing of it.
    const back = first.device(ids[1] ?? '', gateway, { factory: true });
    await back.start();
    await back.attached;
    assert.equal(back.value('Settings', 'Label'), 'not named yet');
    assert.deepEqual(other.fanouts(), []);
    assert.equal(gateway.status().outbox.undeliverable, 0);
    await assert.rejects(other.manage('gw-1', [{ name: 'Get', uri: './DevInfo' }]), /no account|404/);
  });
});
