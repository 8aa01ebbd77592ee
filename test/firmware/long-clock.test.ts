// An emulated board whose clock shows 1970 at each start, the long form.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { virt } from '../../firmware-image/qemu/hardware.ts';
import { sourceDate } from '../../firmware-image/recipe/tools.ts';
import { patience } from './board.ts';
import { Field } from './field.ts';
import { buildFor, versions } from './images.ts';
import { startTimeServer } from './time-server.ts';

const device = 'urn:dev:ops:1';
const month = 30 * 86_400;

test('at a clock of 1970 a device attaches, and an update over HTTPS is installed when a time server has set the clock', {
  skip: process.env.POSTERN_FIRMWARE !== 'long',
  timeout: 1_800_000,
}, async () => {
  // The certificate of the update server is younger than the image.
  process.env.SOURCE_DATE_EPOCH = String(sourceDate() - month);
  const built = new Date(sourceDate() * 1000).toISOString().slice(0, 10);
  const image = await buildFor('old', versions.first, { withDisk: true });
  delete process.env.SOURCE_DATE_EPOCH;
  const next = await buildFor('next', versions.next);
  await using timeServer = await startTimeServer(0);
  const board = virt(image);
  await using field = await Field.prepare({
    image,
    hardware: {
      ...board,
      arguments: (disk) => [...board.arguments(disk), '-rtc', 'base=1970-01-01T00:00:00'],
    },
    files: { next: next.bundle },
    devices: [device],
    timeServers: [timeServer.name],
  });
  const started = field.board.event('gateway.started', patience.start);
  field.board.machine.start();
  const { time } = await started;
  assert.ok(String(time) >= built, `${time}: the date of the image is the earliest that is known`);
  await field.attach(device);
  await field.site.headendEvents.until('alert.device-attach', { device });
  // Until the time server has set the clock, the certificate of the update server is not yet valid.
  await field.update('next', 'early');
  assert.equal(await field.told('early'), 200);
  assert.equal((await field.seen()).version, versions.next);
});
