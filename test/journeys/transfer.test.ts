import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Device } from '../../src/device/device.ts';
import { EventRecorder } from '../event-recorder.ts';
import { DepartingBoard, deviceId } from './departing-board.ts';
import { EnrolmentSite } from './enrolment-site.ts';
import { nextOwner, orderFor, ownerBy } from './next-owner.ts';
import { deviceConfig } from './site.ts';

const allow = [{ gateway: 'gw-1' }];
const limit = { timeout: 150_000 };

describe('a gateway passes to another owner', () => {
  test('with its devices, killed at each step: it has one owner at any time', limit, async () => {
    await using site = await EnrolmentSite.open();
    const former = await site.headend({ allow });
    const next = await nextOwner();
    await using _next = next.site;
    await using board = await DepartingBoard.make(site);
    const first = board.start();
    await first.until('mqtt.connected');
    const config = deviceConfig(
      deviceId,
      { coapPort: board.port },
      {
        factory: true,
        top: { network: { gateway: `coap://127.0.0.1:${board.port}`, interface: '127.0.0.1' } },
      },
    );
    const device = site.use(new Device(config, { events: new EventRecorder() }));
    await device.start();
    await device.attached;
    await site.headendEvents.until('alert.device-attach', { device: deviceId, gateway: 'gw-1' });

    // A code that is none: the gateway stays.
    former.enrolment!.leave('gw-1', 'ann', false, orderFor(next, 'not-a-code'));
    await site.headendEvents.until('gateway.departure-refused', { gateway: 'gw-1', order: 'transfer' });
    assert.equal(await ownerBy(former), 'dm.example');

    const { code } = next.headend.enrolment!.makeCode(1, 'gw-1');
    former.enrolment!.leave('gw-1', 'ann', false, orderFor(next, code));
    await first.until('enrolment.begun', {}, first.lines.length);
    await board.kill();
    for (const step of [
      'enrolment.begun',
      'enrolment.done',
      'departure.begun',
      'alert.delivered',
      'departure.transferred',
    ]) {
      const process = board.start();
      await Promise.race([
        process.until(step),
        process.until('gateway.started'),
        process.until('departure.transferred'),
      ]);
      await board.kill();
    }
    const last = board.start();
    await last.until('gateway.started');
    await next.site.headendEvents.until('alert.device-attach', { device: deviceId, gateway: 'gw-1' });
    await site.headendEvents.until('gateway.departed', { gateway: 'gw-1', by: 'ann', order: 'transfer' });
    assert.equal(await ownerBy(next.headend), 'dm.next');
    await assert.rejects(ownerBy(former), { code: 'notFound' });
    assert.ok(!board.files.some((name) => /told|leaving|next|claim|order/.test(name)), board.files.join());
    assert.equal(former.enrolment!.list(1)[0]?.reason, 'passed to another owner by ann');
  });

  test('without its devices and its state', limit, async () => {
    await using site = await EnrolmentSite.open();
    const former = await site.headend({ allow });
    const next = await nextOwner();
    await using _next = next.site;
    await using board = await DepartingBoard.make(site);
    const process = board.start();
    await process.until('gateway.started');
    const epoch = (await process.until('state.new-epoch')).epoch;
    const { code } = next.headend.enrolment!.makeCode(1, 'gw-1');
    former.enrolment!.leave('gw-1', 'ann', false, orderFor(next, code, false));
    await process.until('departure.transferred', { server: 'dm.next' });
    const begun = process.lines.findIndex((line) => line.event === 'departure.begun');
    await process.until('gateway.started', { devices: 0 }, begun);
    const [, , again] = process.lines.filter((line) => line.event === 'state.new-epoch');
    assert.ok(again && again.epoch !== epoch);
    await next.site.headendEvents.until('gateway.state', { gateway: 'gw-1', online: true });
    assert.equal(await ownerBy(next.headend), 'dm.next');
  });
});
