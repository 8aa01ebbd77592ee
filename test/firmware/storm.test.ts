import assert from 'node:assert/strict';
import { test } from 'node:test';
import { boardStorms, skipStorms } from '../bench/board-storms.ts';
import { buildFor, imageIn, skipImages, versions } from './images.ts';

const isLong = process.env.POSTERN_FIRMWARE === 'long';
const devices = 40;

test('devices that come to a board at once shake hands; after a power cut of the board they go on in kept associations', {
  skip: !isLong || skipImages || skipStorms,
  timeout: 900_000,
}, async (t) => {
  const image = await buildFor('storm', versions.first, { withDisk: true, isDeveloperImage: true });
  const { first, kept, anew } = await boardStorms({ ...imageIn(image.folder), devices });
  for (const [name, { seconds, cpuSeconds, peak }] of Object.entries({ first, kept, anew }))
    t.diagnostic(
      `${name}: ${seconds.toFixed(1)} s, ${cpuSeconds.toFixed(1)} s of CPU, ${peak.toFixed(1)} MB of RSS`,
    );
  // Each request was answered, otherwise the storms would not have ended.
  assert.deepEqual([first.handshakes, kept.handshakes, anew.handshakes], [devices, 0, devices]);
  for (const { free } of [first, kept, anew]) assert.ok(free >= 24, `${free} MB are free`);
});
