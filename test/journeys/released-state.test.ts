import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { openDatabase } from '../../src/base/open-database.ts';
import { deviceSchema } from '../../src/device/schema.ts';
import { gatewaySchema } from '../../src/gateway/store/schema.ts';
import { headendSchema } from '../../src/headend/schema.ts';
import { startAedes } from '../peers/brokers.ts';
import { freshState, releasedState, shapeOf } from '../state-files.ts';
import { Site, secrets } from './site.ts';

const party = (id: string) => ({
  id,
  'client-secret': secrets.gatewayClient,
  'server-secret': secrets.gatewayServer,
});

describe('states of Postern 0.1.0 (test/vectors/state)', { timeout: 60_000 }, () => {
  test('gateway and head-end continue: waiting alerts are delivered, and a moved device is detached', async (t) => {
    const files = { gateway: releasedState(t, 'gateway'), headend: releasedState(t, 'headend') };
    const before = { gateway: shapeOf(files.gateway), headend: shapeOf(files.headend) };
    {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      await using otherSite = new Site(broker.url);
      await otherSite.headend([], { headend: { id: 'other.example', state: ':memory:' } });
      const headend = await site.headend([], {
        headend: { id: 'dm.example', state: files.headend, 'session-timeout': 20 },
        gateway: ['gw-1', 'gw-2', 'gw-3'].map(party),
      });
      const gateway = await site.gateway([], {
        gateway: { id: 'gw-1', state: files.gateway },
        lwm2m: { device: [{ id: 'urn:dev:lwm2m:1' }], 'insecure-no-security': true },
      });
      assert.equal(gateway.devices().length, 7);
      for (const [event, fields] of [
        ['alert.device-detach', { device: 'urn:dev:ops:3', reason: 'left' }],
        ['alert.firmware-update', { party: 'gw-1', correlator: 'order-8', result: 402 }],
        ['alert.device-attach', { device: 'urn:dev:ops:5', gateway: 'gw-1' }],
        ['alert.command-fanout', { name: 'gone', correlator: '0ed858e22b90fb21' }],
        ['alert.device-trigger', { name: 'evening', correlator: '002bde6ffc8a914f' }],
        // It had begun with a device when the power went, and an Exec is not repeated.
        ['alert.command-fanout', { name: 'reboot', correlator: '996672e59b8c602e' }],
        // Its record stands in the state, and no account of it does.
        ['alert.device-presence', { device: 'urn:dev:ops:5' }],
        ['device.let-go', { device: 'urn:dev:ops:4', gateway: 'gw-1', status: 200 }],
      ] as const)
        await site.headendEvents.until(event, fields);
      await otherSite.headendEvents.until('alert.command-fanout', { correlator: '0a086455d5843900' });
      assert.match(
        headend.records.result('CommandFanout', 'gw-1', 'reboot')?.result ?? '',
        /<Group Status="500" Commands="" Count="1"><Device ID="urn:dev:lwm2m:1"\/>/,
      );
      const { lastHeard: _, ...shown } = headend.devices().find(({ id }) => id === 'urn:dev:ops:5') ?? {};
      assert.deepEqual(shown, {
        ...{ id: 'urn:dev:ops:5', known: false, gateway: 'gw-1', attached: true },
        unreachable: 'locked out: its account has ended, and no list has it',
      });
      const [label] = await headend.manage('gw-1', [
        { name: 'Get', uri: './GwFanout/Fanout/label?prop=Title' },
      ]);
      assert.equal(label?.results[0]?.data, 'Names of rooms');
    }
    for (const name of ['gateway', 'headend'] as const) {
      const { tables, integrity } = shapeOf(files[name]);
      assert.equal(integrity, 'ok');
      assert.deepEqual({ ...tables, ...before[name].tables }, tables, 'the released tables are as they were');
    }
  });
});

test('no party opens a new state of another party', (t) => {
  const schemas = [gatewaySchema, headendSchema, deviceSchema];
  for (const own of schemas) {
    const file = freshState(t);
    openDatabase(file, own).close();
    for (const other of schemas.filter((schema) => schema !== own))
      assert.throws(() => openDatabase(file, other), {
        code: 'configuration',
        message: `the state file ${file} cannot be used: it is not the state of a ${other.party} but of another program`,
      });
    openDatabase(file, own).close();
  }
});
