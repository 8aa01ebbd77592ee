import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { FumoState } from '../../src/mo/fumo.ts';
import { patience } from './board.ts';
import { Field } from './field.ts';
import { buildFor, skipImages, versions } from './images.ts';
import { startTimeServer } from './time-server.ts';

const [first, second] = ['urn:dev:ops:1', 'urn:dev:ops:2'] as const;
/** Milliseconds for what a fresh machine has to get, and to build. */
const preparing = { timeout: 600_000 };
const limit = { timeout: patience.update };
const twoDays = 2 * 86_400_000;

describe('the firmware image on an emulated board', { timeout: 1_500_000, skip: skipImages }, () => {
  let field: Field;
  let timeServer: Awaited<ReturnType<typeof startTimeServer>>;

  before(async () => {
    const image = await buildFor('first', versions.first, { withDisk: true });
    const next = await buildFor('next', versions.next);
    const hanging = await buildFor('hanging', versions.bad, { fault: 'hangs' });
    timeServer = await startTimeServer(twoDays);
    field = await Field.prepare({
      image,
      files: { next: next.bundle, hanging: hanging.bundle },
      devices: [first, second],
      update: { attempts: 1, 'health-deadline': 120 },
      timeServers: [timeServer.name],
    });
  }, preparing);
  after(async () => {
    await field?.[Symbol.asyncDispose]();
    await timeServer?.[Symbol.asyncDispose]();
  });

  test('it boots from nothing, and a device is bootstrapped and attached', limit, async (t) => {
    const ready = await field.board.start();
    t.diagnostic(`first boot, the last start of it: ${(ready / 1000).toFixed(1)} s from power-on to ready`);
    // A port that is not open is silent: where there is no firewall, the guest's kernel refuses at once.
    let isRefused = false;
    const knocking = connect(field.board.closedPort, '127.0.0.1');
    knocking.on('close', () => (isRefused = true)).on('error', () => (isRefused = true));
    await field.attach(first);
    await field.site.headendEvents.until('alert.device-attach', { device: first });
    assert.equal(isRefused, false);
    knocking.destroy();
  });

  test('the DM server updates it by FUMO; it keeps its devices, and says 200', limit, async (t) => {
    const hasTime = field.board.machine.says(timeServer.pattern(), patience.update);
    assert.deepEqual(await field.update('next', 'u1'), [200, 202]);
    await hasTime;
    const installed = await field.board.machine.says(/"update\.progress".*"percent":(\d+)/, patience.update);
    assert.ok(Number(installed[1]) <= 100);
    await field.board.event('gateway.started');
    t.diagnostic(`start into the new slot: ${(field.board.machine.age / 1000).toFixed(1)} s`);
    assert.equal(await field.told('u1'), 200);
    assert.equal(field.board.bootState().good, 'B');
    assert.deepEqual((await field.seen()).version, versions.next);
  });

  test(
    'a power cut while it installs leaves the version that ran, its devices, and alerts that wait',
    limit,
    async () => {
      assert.deepEqual(await field.update('hanging', 'u2'), [200, 202]);
      await field.board.event('update.installing');
      await field.broker.stop();
      await field.attach(second);
      await field.board.machine.cutPower();
      const started = field.board.start();
      await field.broker.restart();
      await started;
      assert.equal(await field.told('u2'), 410);
      await field.site.headendEvents.until('alert.device-attach', { device: second });
      const { version } = await field.seen();
      assert.equal(version, versions.next);
      assert.deepEqual(field.board.bootState(), {
        good: 'B',
        trying: undefined,
        left: 0,
        floor: 0,
        failed: undefined,
      });
    },
  );

  test(
    'the package is still there; a version that hangs is reset by the watchdog, and the old one comes back',
    limit,
    async () => {
      const [state] = await field.headend.manage('gw-1', [{ name: 'Get', uri: './FwUpdate/State' }]);
      assert.equal(Number(state?.results[0]?.data), FumoState.FailedWithData);
      assert.deepEqual(await field.execute('Update', 'u3'), [202]);
      assert.equal(await field.told('u3'), 410);
      const { good, failed } = field.board.bootState();
      assert.deepEqual([good, failed], ['B', 'A']);
      const seen = await field.seen();
      assert.equal(seen.version, versions.next);
      assert.equal(String(seen.devices).split('/').length, 2, String(seen.devices));
    },
  );
});
