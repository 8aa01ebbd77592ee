import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hashedName } from '../../src/base/hashed-name.ts';
import { startAedes } from '../peers/brokers.ts';
import { Site } from './site.ts';

const ids = ['urn:dev:ops:1', 'urn:dev:ops:2'];
const gwmo = {
  objects: { GwFanout: 'urn:x:fanout' },
  alerts: { DeviceAttach: 'urn:x:attach', CommandFanout: 'urn:x:fan', DeviceTrigger: 'urn:x:trigger' },
  names: {
    GwDeviceInventory: 'Inv',
    Records: 'R',
    Expected: 'E',
    Address: 'Addr',
    DeviceID: 'Dev',
    GwFanout: 'Fan',
    Fanout: 'F',
    Command: 'Cmd',
    Targets: 'T',
    DeviceList: 'L',
    Start: 'Go',
    GwEdTrigger: 'Trg',
    Notifications: 'N',
    Pkg0: 'P',
  },
  modes: [5, 6, 7],
};

// conforms: GW-23
test('with other identifiers, names and codes at all parties: assisted bootstrap, alerts, fan-out and trigger', {
  timeout: 60_000,
}, async () => {
  await using broker = await startAedes();
  await using site = new Site(broker.url);
  const headend = await site.headend(ids, { gwmo });
  const gateway = await site.gateway([], { gwmo });
  for (const id of ids) {
    const device = site.device(id, gateway, { server: true, top: { gwmo } });
    await device.start();
    await device.attached;
    await site.headendEvents.until('alert.device-attach', { device: id, bootstrap: 'server' });
  }
  const at = `./Inv/R/${hashedName(ids[0] ?? '')}`;
  const seen = await headend.manage('gw-1', [
    { name: 'Get', uri: `${at}/Dev` },
    { name: 'Get', uri: `${at}/Mode` },
    { name: 'Get', uri: './Fan?prop=Type' },
    { name: 'Get', uri: './GwFanout' },
  ]);
  assert.deepEqual(
    seen.map(({ status, results }) => results[0]?.data ?? status),
    [ids[0], '5', 'urn:x:fanout', 404],
  );
  const started = await headend.fanOut('gw-1', {
    name: 'f',
    targets: { devices: [ids[1] ?? ''] },
    command: '<Get><CmdID>1</CmdID><Item><Target><LocURI>./DevInfo/Man</LocURI></Target></Item></Get>',
  });
  await site.headendEvents.until('alert.command-fanout', { correlator: started.correlator });
  assert.match(headend.fanouts()[0]?.result ?? '', /Total="1" Done="1"/);
  const triggered = await headend.trigger('gw-1', {
    name: 't',
    targets: {},
    devices: ids,
    operations: [{ name: 'Get', uri: './DevInfo/Man' }],
  });
  await site.headendEvents.until('alert.device-trigger', { correlator: triggered.correlator });
});
