import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { hashedName } from '../../src/base/hashed-name.ts';
import type { Operation } from '../../src/dm/server-session.ts';
import { startAedes } from '../peers/brokers.ts';
import { Site } from './site.ts';

const limit = { timeout: 60_000 };
const ids = ['urn:dev:ops:1', 'urn:dev:ops:2', 'urn:dev:ops:3'];
const at = './GwFanout/Fanout/label';
const label =
  '<Replace><CmdID>1</CmdID><Item><Target><LocURI>./DevInfo/Lang</LocURI></Target><Data>de</Data></Item></Replace>';
const look = '<Get><CmdID>1</CmdID><Item><Target><LocURI>./DevDetail/FwV</LocURI></Target></Item></Get>';
const leaf = (name: string, format: string, data: string): Operation => ({
  name: 'Add',
  uri: `${at}/${name}`,
  format,
  data,
});

describe('journey 4: the gateway executes one order of the DM server on its devices', limit, () => {
  // conforms: GW-10, GW-11, GW-12
  test('one order leads to a session with each matching device and to one aggregated result', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const gateway = await site.gateway(ids);
    for (const [number, id] of ids.entries()) {
      const device = site.device(id, gateway, {
        factory: true,
        more: { model: number === 2 ? 'Other' : 'Meter' },
      });
      await device.start();
      await device.attached;
    }
    await site.headendEvents.until('alert.device-attach', { device: ids[2] });
    const outcomes = await headend.manage('gw-1', [
      leaf('Command', 'xml', look),
      leaf('ReturnFormat', 'int', '0'),
      { name: 'Add', uri: `${at}/Targets/Condition/c/Path`, data: 'Mod' },
      { name: 'Add', uri: `${at}/Targets/Condition/c/Value`, data: 'Meter' },
      { name: 'Exec', uri: `${at}/Start`, correlator: 'order-7' },
    ]);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [200, 200, 200, 200, 202],
    );
    const alert = await site.headendEvents.until('alert.command-fanout', {
      name: 'label',
      correlator: 'order-7',
    });
    assert.equal(alert.fields.gateway, 'gw-1');
    const [{ result } = { result: '' }] = headend.fanouts();
    assert.match(
      result,
      /^<CampaignResult Total="2" Done="2" Failed="0" Pending="0"><Group Status="200" Commands="200" Count="2">/,
    );
    for (const id of ids.slice(0, 2))
      assert.match(
        result,
        new RegExp(`<Device ID="${id}"><Result URI="./DevDetail/FwV">1.0.0</Result></Device>`),
      );
    const asked = await headend.manage('gw-1', [
      { name: 'Get', uri: `${at}/State` },
      { name: 'Get', uri: `${at}/Progress/Done` },
      { name: 'Get', uri: `${at}/Results` },
      { name: 'Get', uri: `${at}?list=Struct` },
      { name: 'Get', uri: `${at}/Detail/${hashedName(ids[0] ?? '')}` },
      { name: 'Get', uri: `${at}/Detail/${hashedName('nobody')}` },
      { name: 'Get', uri: `./GwDeviceInventory/Records/${hashedName(ids[0] ?? '')}/DevTyp` },
    ]);
    assert.deepEqual(
      asked.slice(0, 3).map(({ results }) => results[0]?.data),
      ['2', '2', result],
    );
    assert.equal(asked[3]?.status, 200);
    assert.deepEqual(
      asked.slice(4).map(({ status, results }) => results[0]?.data ?? status),
      [
        `<DeviceResult Status="200" Commands="200"><Device ID="${ids[0]}"><Result URI="./DevDetail/FwV">1.0.0</Result></Device></DeviceResult>`,
        404,
        'device',
      ],
    );
  });

  test('the result has the status of a device that refuses and 404 for an unknown device; a malformed command gets 400', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const gateway = await site.gateway(ids);
    const device = site.device(ids[0] ?? '', gateway, { factory: true });
    await device.start();
    await device.attached;
    await headend.manage('gw-1', [
      leaf('Command', 'xml', label),
      { name: 'Add', uri: `${at}/Targets/DeviceList/a/DeviceID`, data: ids[0] ?? '' },
      { name: 'Add', uri: `${at}/Targets/DeviceList/b/DeviceID`, data: 'urn:dev:nobody' },
      { name: 'Exec', uri: `${at}/Start`, correlator: 'one' },
    ]);
    await site.headendEvents.until('alert.command-fanout', { correlator: 'one' });
    assert.match(
      headend.fanouts()[0]?.result ?? '',
      /<Group Status="405" Commands="405" Count="1"><Device ID="urn:dev:ops:1"\/>/,
    );
    assert.match(
      headend.fanouts()[0]?.result ?? '',
      /<Group Status="404" Commands="" Count="1"><Device ID="urn:dev:nobody"\/>/,
    );
    const bad = await headend.manage('gw-1', [
      { name: 'Replace', uri: `${at}/Command`, format: 'xml', data: '<Dance/>' },
      { name: 'Exec', uri: `${at}/Start` },
      { name: 'Exec', uri: `${at}/Stop` },
      { name: 'Delete', uri: at },
      { name: 'Get', uri: at },
    ]);
    assert.deepEqual(
      bad.map(({ status }) => status),
      [200, 400, 404, 200, 404],
    );
  });

  // conforms: GW-12
  test('the result waits for a DM server that is away, and is delivered when it returns', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const gateway = await site.gateway(ids, { tunnel: { timeout: 2 } });
    const id = ids[0] ?? '';
    {
      await using away = site.device(id, gateway, { factory: true });
      await away.start();
      await away.attached;
      await site.headendEvents.until('alert.device-attach');
    }
    // The order waits for the device, and the device returns when the DM server is away.
    await headend.fanOut('gw-1', { name: 'gone', targets: {}, command: look });
    await headend[Symbol.asyncDispose]();
    await site.device(id, gateway, { factory: true }).start();
    await site.gatewayEvents.until('fanout.ended', { name: 'gone' });
    // The second Device Attach Alert waits before the result.
    assert.equal(gateway.status().outbox.waiting, 2);
    await broker.stop();
    await broker.restart();
    await site.headend([]);
    const { fields } = await site.headendEvents.until('alert.command-fanout', { name: 'gone' });
    assert.equal(fields.gateway, 'gw-1');
    await site.gatewayEvents.until('alert.delivered', { device: 'gone' });
    assert.equal(gateway.status().outbox.waiting, 0);
  });

  test('a device that is detached while its order is pending gets 404 in the result', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const gateway = await site.gateway(ids);
    const id = ids[0] ?? '';
    {
      await using device = site.device(id, gateway, { factory: true });
      await device.start();
      await device.attached;
      await site.headendEvents.until('alert.device-attach');
    }
    const { correlator } = await headend.fanOut('gw-1', { name: 'left', targets: {}, command: look });
    await headend.manage('gw-1', [{ name: 'Delete', uri: `./GwDeviceInventory/Records/${hashedName(id)}` }]);
    await site.headendEvents.until('alert.command-fanout', { correlator });
    assert.match(headend.fanouts()[0]?.result ?? '', /<Group Status="404" Commands="" Count="1">/);
  });
});
