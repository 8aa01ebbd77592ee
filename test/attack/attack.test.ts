import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { attacks } from './attacks.ts';
import { type AttackedSite, attackedSite } from './site.ts';
import { suffer } from './suffer.ts';

const seed = Number(process.env.POSTERN_SEED ?? 1 + Math.floor(Math.random() * 1e6));
const devices = 10;
/** Seconds of each attack. `npm run attack` measures; here is only shown that honest work goes on. */
const seconds = 1;

describe(`attacks beside honest devices, a second each (POSTERN_SEED=${seed})`, { timeout: 170_000 }, () => {
  let site: AttackedSite;
  before(async () => {
    site = await attackedSite(devices, seed);
  });
  after(async () => {
    await site[Symbol.asyncDispose]();
  });
  for (const name of Object.keys(attacks))
    test(name, async (t) => {
      const { died, lockedOut, logged, work } = await suffer(site, name, seconds, seed);
      t.diagnostic(`${work} pieces of honest work, ${logged} bytes logged`);
      assert.deepEqual([died, lockedOut], [false, 0]);
      assert.ok(logged < 1e6, `${logged} bytes logged`);
    });
});
