import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { Device } from '../../src/device/device.ts';
import type { ServiceProcess } from '../cli/service-process.ts';
import { EventRecorder } from '../event-recorder.ts';
import { SmallDisk } from '../peers/small-disk.ts';
import { DepartingBoard, deviceId } from './departing-board.ts';
import { EnrolmentSite } from './enrolment-site.ts';
import { nextOwner, orderFor, ownerBy } from './next-owner.ts';
import { deviceConfig } from './site.ts';

const probe = SmallDisk.mount(1);
const skip = probe ? false : 'file systems cannot be mounted here';
probe?.[Symbol.dispose]();

const allow = [{ gateway: 'gw-1' }];
const limit = { timeout: 150_000 };

/** The folder of the identity of a board. */
const identityOf = (board: DepartingBoard) => join(board.folder, 'state', 'identity');

async function attached(site: EnrolmentSite, board: DepartingBoard): Promise<void> {
  const top = { network: { gateway: `coap://127.0.0.1:${board.port}`, interface: '127.0.0.1' } };
  const config = deviceConfig(deviceId, { coapPort: board.port }, { factory: true, top });
  const device = site.use(new Device(config, { events: new EventRecorder() }));
  await device.start();
  await device.attached;
  await site.headendEvents.until('alert.device-attach', { device: deviceId });
}

describe('a gateway whose disk is full departs', { skip }, () => {
  test(
    'decommissioned: a rename begins it, the wipe makes room, and the last step waits for room',
    limit,
    async () => {
      using disk = SmallDisk.mount(4)!;
      await using site = await EnrolmentSite.open();
      const headend = await site.headend({ allow });
      await using board = await DepartingBoard.make(site, 'gw-1', undefined, disk.folder);
      await board.start().until('gateway.started');
      await site.headendEvents.until('gateway.state', { gateway: 'gw-1', online: true });

      disk.fill();
      headend.enrolment!.leave('gw-1', 'ann', false);
      await site.headendEvents.until('gateway.departed', { gateway: 'gw-1', by: 'ann' });
      await board.kill();
      // The power went before the last mark, wherever the board was. The room that the wipe made is taken again.
      rmSync(identityOf(board), { recursive: true });
      mkdirSync(identityOf(board), { mode: 0o700 });
      writeFileSync(join(identityOf(board), 'told'), '{}');
      disk.fill();
      const stalled = board.start();
      const { reason } = await stalled.until('departure.stalled');
      assert.match(String(reason), /ENOSPC|no space/);
      assert.equal(
        stalled.lines.filter(({ event }) => event === 'gateway.started').length,
        0,
        'it serves nobody',
      );
      disk.clear();
      await stalled.until('departure.left');
      assert.deepEqual(board.files, ['identity', 'identity/left']);
    },
  );

  test('passed on: each step waits for room, and the gateway has one owner at any time', limit, async () => {
    using disk = SmallDisk.mount(4)!;
    await using site = await EnrolmentSite.open();
    const former = await site.headend({ allow });
    const next = await nextOwner();
    await using _next = next.site;
    await using board = await DepartingBoard.make(site, 'gw-1', undefined, disk.folder);
    const first = board.start();
    await first.until('gateway.started');
    await attached(site, board);
    const order = () => {
      const { code } = next.headend.enrolment!.makeCode(1, 'gw-1');
      former.enrolment!.leave('gw-1', 'ann', false, orderFor(next, code));
    };
    const state = () => former.enrolment!.departures.latest('gw-1')?.state;

    // The next owner cannot be reached until all that comes before is seen.
    await next.site.broker.stop();
    /** The board has asked at the broker of the next owner. */
    const asked = (process: ServiceProcess, from: number) => process.until('enrolment.begun', {}, from);

    // The order has no room: it waits, and comes again when there is some.
    disk.fill();
    order();
    await first.until('dm.command', { uri: './GwOwner/Transfer', status: 420 });
    assert.equal(await ownerBy(former), 'dm.example');
    assert.equal(state(), 'ordered');
    let from = first.lines.length;
    disk.clear();
    await former.manage('gw-1', [{ name: 'Get', uri: './DevInfo/DevId' }]);
    await asked(first, from);
    await board.kill();

    // The key at the next owner has no room: the transfer has failed, and the owner hears of it when the outbox has room.
    rmSync(join(identityOf(board), 'next', 'gateway.key'), { force: true });
    disk.fill();
    const second = board.start();
    await second.until('departure.transfer-failed');
    assert.equal(state(), 'accepted', 'nothing can be told yet');
    disk.clear();
    await site.headendEvents.until('gateway.departure-refused', { gateway: 'gw-1', order: 'transfer' });
    assert.equal(await ownerBy(former), 'dm.example');

    // The grant of the next owner has no room: it is asked for again.
    from = second.lines.length;
    order();
    await asked(second, from);
    disk.fill();
    await next.site.broker.restart();
    await second.until('enrolment.failed', {}, from);
    assert.equal(state(), 'accepted');
    disk.clear();
    await second.until('enrolment.done', {}, from);
    await board.kill();

    // What was the former owner's cannot be taken out of the state: the gateway serves nobody until it can. The room of each file that
    // a step deletes is taken at once.
    const taking = setInterval(() => disk.fill(), 1);
    const fourth = board.start();
    const step = await Promise.race([
      fourth.until('departure.stalled'),
      fourth.until('departure.transferred'),
    ]).finally(() => clearInterval(taking));
    assert.equal(step.event, 'departure.stalled');
    disk.clear();
    await fourth.until('departure.transferred', { server: 'dm.next' });
    from = fourth.lines.findIndex(({ event }) => event === 'departure.transferred');
    await fourth.until('gateway.started', { devices: 1 }, from);
    await next.site.headendEvents.until('alert.device-attach', { device: deviceId, gateway: 'gw-1' });
    await site.headendEvents.until('gateway.departed', { gateway: 'gw-1', order: 'transfer' });
    assert.equal(await ownerBy(next.headend), 'dm.next');
    await assert.rejects(ownerBy(former), { code: 'notFound' });
  });
});
