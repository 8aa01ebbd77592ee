import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdtempSync, writeFileSync } from 'node:fs';
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

const local = [1, 2, 3].map((number) => `urn:dev:local:${number}`);
const served = [1, 2, 3].map((number) => `urn:dev:served:${number}`);
const client = 'urn:dev:client:1';
const clientKey = 'sesame-sesame-16';
const all = [...local, ...served, client];
const order = '<Get><CmdID>1</CmdID><Item><Target><LocURI>./DevInfo/DevId</LocURI></Target></Item></Get>';

/** Starts a board as a process. Its files are in a folder of its own. */
function start(site: EnrolmentSite, folder: string, port: number): ServiceProcess {
  const file = join(folder, 'gateway.toml');
  writeFileSync(
    file,
    stringify({
      gateway: {
        id: 'gw-1',
        state: join(folder, 'state.db'),
        'admin-socket': join(folder, 'admin.sock'),
      },
      coap: { port, interfaces: ['lo'], leisure: 50 },
      coaps: { port: port + 1 },
      mqtt: { url: site.url, ca: site.ca },
      enrolment: site.claim,
      lwm2m: { lifetime: 60, device: [{ id: client, 'bootstrap-key': clientKey }] },
      bootstrap: { device: local.map((id) => ({ id, 'factory-secret': secrets.factory(id) })) },
    }),
  );
  return ServiceProcess.postern(['gateway', '--config', file]);
}

test('a dead board is replaced without a visit to its devices, and does not fight when it comes back', {
  timeout: 240_000,
}, async () => {
  await using site = await EnrolmentSite.open();
  const startHeadend = () =>
    site.headend(
      { allow: [{ gateway: 'gw-1' }] },
      {
        device: served.map((id) => ({
          id,
          'client-secret': secrets.deviceClient(id),
          'server-secret': secrets.deviceServer(id),
        })),
      },
    );
  let headend = await startHeadend();
  const port = await freePair();
  const folders = [1, 2, 3].map(() => mkdtempSync(join(site.folder, 'board-')));
  const [first, second, kept] = folders as [string, string, string];

  // The first board with its devices, over DTLS.
  {
    await using board = start(site, first, port);
    await board.until('mqtt.connected');
    await board.until('gateway.started');
    const events = new EventRecorder();
    const clock = new LeapClock(10);
    site.use({ [Symbol.asyncDispose]: async () => clock.stop() });
    const lwm2m = site.use(
      new LwM2mDevice(clientConfig(client, { coapPort: port }, { 'bootstrap-key': clientKey }), {
        events,
        clock,
      }),
    );
    await lwm2m.start();
    await lwm2m.attached;
    await site.headendEvents.until('alert.device-attach', { device: client, gateway: 'gw-1' });
    for (const id of [...local, ...served]) {
      const kind: DeviceKind = local.includes(id) ? { factory: true } : { server: true };
      const top = {
        network: { gateway: `coap://127.0.0.1:${port}`, interface: '127.0.0.1', 'attach-every': 10 },
      };
      const config = deviceConfig(id, { coapPort: port }, { ...kind, top });
      const device = site.use(new Device(config, { events }));
      await device.start();
      await device.attached;
      await site.headendEvents.until('alert.device-attach', { device: id, gateway: 'gw-1' });
    }
    board.child.kill('SIGKILL');
    await once(board.child, 'close');
  }
  moveBoard(first, kept);

  // Another board under its name: without the order it waits, by the order it is the one.
  const mark = site.headendEvents.all.length;
  const after = (name: string) => site.headendEvents.all.slice(mark).filter((event) => event.name === name);
  await using board = start(site, second, port);
  await board.until('enrolment.waiting', { reason: 'another board is enrolled as gw-1' });
  headend.enrolment!.replace('gw-1', 1, 'SN-9');
  board.child.kill('SIGTERM');
  await once(board.child, 'close');
  {
    await using other = start(site, second, port);
    await other.until('enrolment.waiting');
    other.child.kill('SIGTERM');
    await once(other.child, 'close');
  }
  headend.enrolment!.replace('gw-1', 1);
  await using successor = start(site, second, port);
  // The head-end is restarted when it has approved the board, and before it hands anything over.
  await site.headendEvents.until('gateway.replaced', { gateway: 'gw-1' });
  await headend[Symbol.asyncDispose]();
  assert.equal(site.headendEvents.count('gateway.handed-over'), 0);
  headend = await startHeadend();
  await successor.until('enrolment.done');
  await successor.until('gateway.started');
  const replaced = await site.headendEvents.until('gateway.replaced', { gateway: 'gw-1' });
  assert.equal(replaced.fields.devices, all.length);
  await site.headendEvents.until('gateway.handed-over', { gateway: 'gw-1', devices: served.length });
  await site.headendEvents.until('gateway.new-epoch', { gateway: 'gw-1' });
  while (after('alert.device-attach').length < all.length) await site.headendEvents.nextOfAny();
  assert.deepEqual(
    after('alert.device-attach')
      .map(({ fields }) => [fields.device, fields.bootstrap])
      .toSorted(),
    all.map((id) => [id, served.includes(id) ? 'server' : 'local']).toSorted(),
  );
  const [outcome] = await headend.manage(served[0]!, [{ name: 'Get', uri: './DevInfo/DevId' }]);
  assert.equal(outcome?.results[0]?.data, served[0]);
  // The client has asked for another bootstrap by its key from the factory.
  await successor.until('lwm2m.bootstrapped', { device: client });
  await headend.fanOut('gw-1', { name: 'all', command: order, targets: {}, returnFormat: 2 } as never);
  await site.headendEvents.until('alert.command-fanout', { name: 'all' });
  assert.match(headend.fanouts().at(-1)?.result ?? '', /Total="7" Done="7" Failed="0"/);

  // The old board comes back with all its files.
  await using old = start(site, kept, await freePair());
  await old.until('gateway.given-up', { gateway: 'gw-1' });
  await old.until('enrolment.refused');
  await site.headendEvents.until('gateway.cloned', { gateway: 'gw-1' });
  assert.ok(headend.gateways()[0]?.cloned);
  const [again] = await headend.manage('gw-1', [{ name: 'Get', uri: './DevInfo/DevId' }]);
  assert.equal(again?.status, 200);
  assert.ok(!existsSync(join(kept, 'identity/enrolled.json')));
  const states = headend.enrolment!.list(10).map(({ state, by }) => `${state} by ${by}`);
  assert.deepEqual(states, ['issued by replacement', 'replaced by list']);
});

test('a session that a board had begun ends when another board gets its name', {
  timeout: 60_000,
}, async () => {
  await using site = await EnrolmentSite.open();
  const headend = await site.headend({ allow: [{ gateway: 'gw-1' }] });
  const first = site.board('gw-1');
  await first.enrol();
  const gateway = await first.start();
  // An order for a board that is not known to be online would be refused.
  await site.headendEvents.until('gateway.state', { gateway: 'gw-1', online: true });
  const started = site.headendEvents.next('session.started', { device: 'gw-1' });
  headend.manage('gw-1', [{ name: 'Get', uri: './DevInfo/Man' }]).catch(() => {});
  const { session } = (await started).fields as { session: string };
  // The board is gone in the middle of the session, which stays open.
  await gateway[Symbol.asyncDispose]();
  const isOpen = () => headend.sessions().some((open) => open.session === session);
  assert.ok(isOpen());
  headend.enrolment!.replace('gw-1', 1);
  await site.board('gw-1').enrol();
  const { fields } = await site.headendEvents.until('session.failed', { device: 'gw-1', session });
  assert.equal(fields.reason, 'the party has no account any more');
  assert.ok(!isOpen());
});
