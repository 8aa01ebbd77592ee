import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Device } from '../../src/device/device.ts';
import { EventRecorder } from '../event-recorder.ts';
import { DepartingBoard, deviceId } from './departing-board.ts';
import { EnrolmentSite } from './enrolment-site.ts';
import { deviceConfig } from './site.ts';

const allow = [{ gateway: 'gw-1' }, { gateway: 'gw-2' }];

async function device(site: EnrolmentSite, port: number): Promise<Device> {
  const top = {
    network: { gateway: `coap://127.0.0.1:${port}`, interface: '127.0.0.1', 'attach-every': 10 },
  };
  const config = deviceConfig(deviceId, { coapPort: port }, { factory: true, top });
  const made = site.use(new Device(config, { events: new EventRecorder() }));
  await made.start();
  await made.attached;
  return made;
}

test('a gateway is decommissioned: it wipes itself and tells, its device goes to another one, it begins anew by a code alone', {
  timeout: 240_000,
}, async () => {
  await using site = await EnrolmentSite.open();
  const headend = await site.headend({ allow });
  const enrolment = headend.enrolment!;
  await using board = await DepartingBoard.make(site);
  const first = board.start();
  await first.until('mqtt.connected');
  await first.until('gateway.started');
  await device(site, board.port);
  await site.headendEvents.until('alert.device-attach', { device: deviceId, gateway: 'gw-1' });

  enrolment.leave('gw-1', 'ann', false);
  await first.until('departure.left');
  assert.deepEqual(board.files, ['identity', 'identity/left']);
  const departed = await site.headendEvents.until('gateway.departed', { gateway: 'gw-1' });
  assert.deepEqual(departed.fields, { gateway: 'gw-1', by: 'ann', order: 'decommission' });
  const [order] = enrolment.departures.list(10);
  assert.deepEqual([order?.state, order?.by, order?.ended !== undefined], ['done', 'ann', true]);
  assert.deepEqual(
    enrolment.list(10).map(({ state, reason }) => [state, reason]),
    [['gone', 'decommissioned by ann']],
  );
  assert.throws(() => enrolment.leave('gw-1', 'ann', false), { code: 'notFound' });
  assert.deepEqual(
    headend.devices().filter(({ attached }) => attached),
    [],
  );
  assert.match(board.status(), /SERVES NOBODY {2}departure left/);

  // Its device bootstraps anew at a board of another name in the same place.
  await using other = await DepartingBoard.make(site, 'gw-2', board.port);
  const second = other.start();
  await second.until('gateway.started');
  await site.headendEvents.until('alert.device-attach', { device: deviceId, gateway: 'gw-2' });
  await other.kill();

  // A restart changes nothing; the list does not let it in, and neither does a board without that mark.
  await board.kill();
  const again = board.start();
  await again.until('departure.left');
  await board.kill();
  const { code } = enrolment.makeCode(1, 'gw-1');
  const anew = board.start({ code });
  await anew.until('enrolment.done');
  await anew.until('gateway.started');
  await anew.until('mqtt.connected');
  const [get] = await headend.manage('gw-1', [{ name: 'Get', uri: './GwOwner/Server' }]);
  assert.equal(get?.results[0]?.data, 'dm.example');
  assert.deepEqual(
    enrolment.list(10).map(({ gateway, state }) => `${gateway} ${state}`),
    ['gw-1 issued', 'gw-2 issued', 'gw-1 gone'],
  );
});
