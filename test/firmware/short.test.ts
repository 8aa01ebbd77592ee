import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { signingKeys } from '../../firmware-image/recipe/keys.ts';
import { sourceDate } from '../../firmware-image/recipe/tools.ts';
import { FumoState } from '../../src/mo/fumo.ts';
import { revocationList } from './agent-rig.ts';
import { patience } from './board.ts';
import { Field } from './field.ts';
import { buildFor, skipImages, versions } from './images.ts';
import { startTimeServer } from './time-server.ts';

const [first, second] = ['urn:dev:ops:1', 'urn:dev:ops:2'] as const;
/** Milliseconds for downloads and builds on a fresh machine. */
const preparing = { timeout: 600_000 };
const limit = { timeout: patience.update };
const twoDays = 2 * 86_400_000;
const listPath = './FwUpdate/Ext/RevocationList';

describe('the firmware image on an emulated board', { timeout: 1_500_000, skip: skipImages }, () => {
  let field: Field;
  let list: string;
  let timeServer: Awaited<ReturnType<typeof startTimeServer>>;

  before(async () => {
    const image = await buildFor('first', versions.first, { withDisk: true });
    // A day later: no date may move what two versions have in common.
    process.env.SOURCE_DATE_EPOCH = String(sourceDate() + 86_400);
    const next = await buildFor('next', versions.next);
    delete process.env.SOURCE_DATE_EPOCH;
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

  test(
    'a flashed board boots, a device attaches, and a TCP port that is not open stays silent',
    limit,
    async (t) => {
      const ready = await field.board.start();
      t.diagnostic(`last start of the first boot: ${(ready / 1000).toFixed(1)} s from power-on to ready`);
      // Without the firewall the guest's kernel would refuse the connection at once.
      let isRefused = false;
      const knocking = connect(field.board.closedPort, '127.0.0.1');
      knocking.on('close', () => (isRefused = true)).on('error', () => (isRefused = true));
      await field.attach(first);
      await field.site.headendEvents.until('alert.device-attach', { device: first });
      assert.equal(isRefused, false);
      knocking.destroy();
    },
  );

  test(
    'the DM server updates the board by FUMO, with result 200; the board gets its time by NTP',
    limit,
    async (t) => {
      const hasTime = field.board.machine.says(timeServer.pattern(), patience.update);
      const delta = field.board.event('update.delta');
      assert.deepEqual(await field.update('next', 'u1'), [200, 202]);
      await hasTime;
      const installed = await field.board.machine.says(
        /"update\.install-progress".*"percent":(\d+)/,
        patience.update,
      );
      assert.ok(Number(installed[1]) <= 100);
      t.diagnostic(`new in the update: ${(await delta).bytes} bytes; downloaded: ${field.downloaded} bytes`);
      assert.ok(field.downloaded < 3_000_000, `${field.downloaded} bytes`);
      await field.board.event('gateway.started');
      t.diagnostic(`start into the new slot: ${(field.board.machine.age / 1000).toFixed(1)} s`);
      assert.equal(await field.told('u1'), 200);
      assert.equal(field.board.bootState().good, 'B');
      assert.deepEqual((await field.seen()).version, versions.next);
    },
  );

  test(
    'the DM server writes a revocation list, which RAUC on the board uses from then on',
    limit,
    async (t) => {
      const folder = mkdtempSync(join(tmpdir(), 'postern-list-'));
      t.after(() => rmSync(folder, { recursive: true }));
      cpSync(signingKeys(undefined).folder, folder, { recursive: true });
      list = revocationList(folder, 1, []);
      const put = async (data: string) => {
        const [outcome] = await field.headend.manage('gw-1', [{ name: 'Replace', uri: listPath, data }]);
        return outcome?.status;
      };
      assert.deepEqual([await put(list), await put('x')], [200, 409]);
    },
  );

  test(
    'after a power cut during an installation the old version runs, the result is 410, and a waiting alert arrives',
    limit,
    async () => {
      // The link breaks in the middle of the blocks that are new.
      const broken = field.board.event('update.download-broken');
      field.breakNext();
      const before = field.downloaded;
      assert.deepEqual(await field.update('hanging', 'u2'), [200, 202]);
      const installing = field.board.event('update.installing');
      await broken;
      await installing;
      assert.ok(field.downloaded - before < 3_000_000, `${field.downloaded - before} bytes`);
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
      const { good, trying } = field.board.bootState();
      assert.deepEqual([good, trying], ['B', undefined]);
      const [kept] = await field.headend.manage('gw-1', [{ name: 'Get', uri: listPath }]);
      assert.equal(String(kept?.results[0]?.data).trim(), list.trim());
    },
  );

  test(
    'after a power cut the package is kept; a version that hangs ends with 410, and the old version returns with its devices',
    limit,
    async () => {
      const [state] = await field.headend.manage('gw-1', [{ name: 'Get', uri: './FwUpdate/State' }]);
      assert.equal(Number(state?.results[0]?.data), FumoState.FailedWithData);
      assert.deepEqual(await field.execute('Update', 'u3'), [202]);
      assert.equal(await field.told('u3'), 410);
      const { good, failed } = field.board.bootState();
      assert.deepEqual([good, failed], ['B', 'A']);
      const [cause, log, starts] = await field.headend.manage('gw-1', [
        { name: 'Get', uri: './GwDiagnostics/ResetCause' },
        { name: 'Get', uri: './GwDiagnostics/KernelLog' },
        { name: 'Get', uri: './GwDiagnostics/Starts' },
      ]);
      // QEMU is started anew after a reset, so the emulated watchdog forgets that it was the cause.
      assert.match(String(cause?.results[0]?.data), /^(watchdog|power)$/);
      assert.match(String(log?.results[0]?.data), /Linux version|squashfs|virtio/);
      assert.ok(Number(starts?.results[0]?.data) >= 5);
      const seen = await field.seen();
      assert.equal(seen.version, versions.next);
      assert.equal(String(seen.devices).split('/').length, 2, String(seen.devices));
    },
  );
});
