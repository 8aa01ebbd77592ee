import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { stringify } from 'smol-toml';
import { Device } from '../../src/device/device.ts';
import { LwM2mDevice } from '../../src/device/lwm2m-device.ts';
import { ServiceProcess } from '../cli/service-process.ts';
import { EventRecorder } from '../event-recorder.ts';
import { LeapClock } from '../leap-clock.ts';
import { freePair } from '../peers/free-pair.ts';
import { EnrolmentSite, moveBoard } from './enrolment-site.ts';
import { clientConfig, type DeviceKind, deviceConfig, secrets } from './site.ts';

const local = [1, 2].map((number) => `urn:dev:local:${number}`);
const served = [1, 2].map((number) => `urn:dev:served:${number}`);
const client = 'urn:dev:client:1';
const all = [...local, ...served, client];
const security = 'oscore';
const order = '<Get><CmdID>1</CmdID><Item><Target><LocURI>./DevInfo/DevId</LocURI></Target></Item></Get>';

/** Starts a board as a process. Its devices use OSCORE alone. */
function start(site: EnrolmentSite, folder: string, port: number): ServiceProcess {
  const file = join(folder, 'gateway.toml');
  const listed = (id: string) => ({ id, 'factory-secret': secrets.factory(id), security });
  writeFileSync(
    file,
    stringify({
      gateway: { id: 'gw-1', state: join(folder, 'state.db'), 'admin-socket': join(folder, 'admin.sock') },
      coap: { port, interfaces: ['lo'], leisure: 50 },
      coaps: { port: port + 1 },
      oscore: {},
      mqtt: { url: site.url, ca: site.ca },
      enrolment: site.claim,
      lwm2m: { lifetime: 60, device: [listed(client)] },
      bootstrap: { device: local.map(listed) },
    }),
  );
  return ServiceProcess.postern(['gateway', '--config', file]);
}

test('a dead board is replaced without a visit to its devices over OSCORE, also when the next one is cut off meanwhile', {
  timeout: 240_000,
}, async () => {
  await using site = await EnrolmentSite.open();
  const headend = await site.headend(
    { allow: [{ gateway: 'gw-1' }] },
    {
      device: served.map((id) => ({
        ...{ id, security },
        'client-secret': secrets.deviceClient(id),
        'server-secret': secrets.deviceServer(id),
      })),
    },
  );
  const port = await freePair();
  const [first, second, kept] = [1, 2, 3].map(() => mkdtempSync(join(site.folder, 'board-'))) as [
    string,
    string,
    string,
  ];
  const events = new EventRecorder();
  {
    await using board = start(site, first, port);
    await board.until('mqtt.connected');
    await board.until('gateway.started');
    const clock = new LeapClock(10);
    site.use({ [Symbol.asyncDispose]: async () => clock.stop() });
    const own = { 'factory-secret': secrets.factory(client), security };
    const lwm2m = site.use(
      new LwM2mDevice(clientConfig(client, { coapPort: port }, {}, own), { events, clock }),
    );
    await lwm2m.start();
    await lwm2m.attached;
    await site.headendEvents.until('alert.device-attach', { device: client, gateway: 'gw-1' });
    for (const id of [...local, ...served]) {
      const kind: DeviceKind = local.includes(id) ? { factory: true } : { server: true };
      const top = {
        network: { gateway: `coap://127.0.0.1:${port}`, interface: '127.0.0.1', 'attach-every': 10 },
      };
      const config = deviceConfig(id, { coapPort: port }, { ...kind, more: { security }, top });
      const device = site.use(new Device(config, { events }));
      await device.start();
      await device.attached;
      await site.headendEvents.until('alert.device-attach', { device: id, gateway: 'gw-1' });
    }
    board.child.kill('SIGKILL');
    await once(board.child, 'close');
  }
  moveBoard(first, kept);

  const mark = site.headendEvents.all.length;
  const attached = () =>
    site.headendEvents.all
      .slice(mark)
      .filter(({ name }) => name === 'alert.device-attach')
      .map(({ fields }) => String(fields.device));
  const dropped = events.count('device.account-dropped');
  headend.enrolment!.replace('gw-1', 1);
  {
    // Its power is cut when the first device has come to it.
    await using successor = start(site, second, port);
    await successor.until('enrolment.done');
    while (attached().length === 0) await site.headendEvents.nextOfAny();
    successor.child.kill('SIGKILL');
    await once(successor.child, 'close');
  }
  await using successor = start(site, second, port);
  await successor.until('gateway.started');
  await site.headendEvents.until('gateway.handed-over', { gateway: 'gw-1', devices: served.length });
  while (new Set(attached()).size < all.length) await site.headendEvents.nextOfAny();
  for (const id of served) {
    const [outcome] = await headend.manage(id, [{ name: 'Get', uri: './DevInfo/DevId' }]);
    assert.equal(outcome?.results[0]?.data, id);
  }
  await headend.fanOut('gw-1', { name: 'all', command: order, targets: {}, returnFormat: 2 } as never);
  await site.headendEvents.until('alert.command-fanout', { name: 'all' });
  assert.match(headend.fanouts().at(-1)?.result ?? '', /Total="5" Done="5" Failed="0"/);
  // Over OSCORE to the end: the devices gave up what the old board had issued, and opened no association.
  assert.ok(events.count('device.account-dropped') >= dropped + local.length + served.length);
  assert.equal(events.count('device.association-opened'), 0);

  // The old board comes back with all contexts. It steps back, and no device goes to it.
  await using old = start(site, kept, await freePair());
  await old.until('gateway.given-up', { gateway: 'gw-1' });
  await old.until('enrolment.refused');
  const [again] = await headend.manage(served[0]!, [{ name: 'Get', uri: './DevInfo/DevId' }]);
  assert.equal(again?.status, 200);
});
