import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { LeapClock } from '../leap-clock.ts';
import { startAedes } from '../peers/brokers.ts';
import { freshState } from '../state-files.ts';
import { Site } from './site.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-deadline-'));
after(() => rmSync(folder, { recursive: true }));

const [prompt, late, never] = ['urn:dev:prompt', 'urn:dev:late', 'urn:dev:never'] as const;
const all = [prompt, late, never];
const label =
  '<Replace><CmdID>1</CmdID><Item><Target><LocURI>./Settings/Label</LocURI></Target><Data>x</Data></Item></Replace>';
const day = 86_400;

// Node's timers take at most 2^31 - 1 ms, which are 24.8 days, and fire at once for more.
describe('a fan-out with a long deadline', { timeout: 120_000 }, () => {
  for (const [what, deadline, wall] of [
    ['25 days, while the time of day jumps ahead', 25 * day, 40 * day],
    ['just above 2^31 ms, while the time of day jumps back', Math.ceil(2 ** 31 / 1000), -40 * day],
    ['50 days, which are more than 2^32 ms', 50 * day, 0],
    ['ten years', 3650 * day, -3650 * day],
  ] as const)
    test(`of ${what}: nothing ends early, also across a restart; who answers late is counted, and who never answers ends at the deadline`, async (t) => {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      const headend = await site.headend([]);
      const clock = new LeapClock();
      const state = join(mkdtempSync(join(folder, 'gw-')), 'state.db');
      const config = { gateway: { id: 'gw-1', state } };
      const lateState = freshState(t);
      let port = 0;
      {
        await using before = new Site(broker.url);
        const gateway = await before.gateway(all, config, true, { clock });
        port = gateway.coapPort;
        for (const id of all) {
          const device = site.device(id, gateway, {
            factory: true,
            ...(id === late && { more: { state: lateState } }),
          });
          await device.start();
          await device.attached;
          await site.headendEvents.until('alert.device-attach', { device: id });
          if (id !== prompt) await device[Symbol.asyncDispose]();
        }
        // Two devices are silent, and the gateway finds that out.
        for (const id of [late, never])
          while (
            before.gatewayEvents.all.every(
              (each) => each.name !== 'device.unreachable' || each.fields.device !== id,
            )
          )
            await clock.leap(60_000);
        const leaf = (name: string, format: string, data: string) =>
          ({ name: 'Add', uri: `./GwFanout/Fanout/long/${name}`, format, data }) as const;
        const started = await headend.manage('gw-1', [
          leaf('Command', 'xml', label),
          leaf('Deadline', 'int', String(deadline)),
          leaf('Timeout', 'int', String(deadline)),
          { name: 'Exec', uri: './GwFanout/Fanout/long/Start', correlator: 'long' },
        ]);
        assert.equal(started.at(-1)?.status, 202);
        await site.deviceEvents.until('device.command', { device: prompt, command: 'Replace' });
        await before.gatewayEvents.until('session.ended', { device: prompt, status: 200 });
        while (gateway.status().sessions > 0) await new Promise(setImmediate);
        await clock.leap((deadline - 60) * 1000);
        clock.moveWall(wall * 1000);
        await clock.leap(1000);
        assert.equal(before.gatewayEvents.count('fanout.ended'), 0, 'a minute before the deadline');
      }
      const coap = { port, leisure: 50, 'insecure-plain-coap': true };
      const gateway = await site.gateway(all, { ...config, coap }, true, { clock });
      // The deadline starts again at a restart.
      await clock.leap((deadline - 3600) * 1000);
      clock.moveWall(-wall * 1000);
      await clock.leap(1000);
      assert.equal(site.gatewayEvents.count('fanout.ended'), 0, 'an hour before the deadline');
      const back = site.device(late, gateway, { factory: true, more: { state: lateState } });
      await back.start();
      await back.contactServer('gw-1');
      await site.deviceEvents.until('device.command', { device: late, command: 'Replace' });
      assert.equal(site.gatewayEvents.count('fanout.ended'), 0);
      await clock.leap(3600 * 1000);
      await site.headendEvents.until('alert.command-fanout', { correlator: 'long' });
      const [{ result } = { result: '' }] = headend.fanouts();
      assert.match(result, /^<CampaignResult Total="3" Done="2" Failed="1" Pending="0">/);
      assert.match(result, new RegExp(`<Group Status="408"[^>]*><Device ID="${never}"/>`));
      clock.stop();
    });
});
