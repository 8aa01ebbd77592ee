// The recovery system on an emulated board, the long form: both slots are lost, and the board gets a bundle by itself.
import assert from 'node:assert/strict';
import { copyFileSync, cpSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { qemu } from '../../firmware-image/boards/qemu.ts';
import { makeBundle } from '../../firmware-image/recipe/bundle.ts';
import { type BuiltImage, boardKind } from '../../firmware-image/recipe/image.ts';
import { makeDevelopmentKeys, signingKeys } from '../../firmware-image/recipe/keys.ts';
import { mebibyte, startOf } from '../../firmware-image/recipe/layout.ts';
import { output } from '../../firmware-image/recipe/tools.ts';
import { versionNumber } from '../../src/gateway/update/boot-state.ts';
import { certify, revocationList } from './agent-rig.ts';
import { patience } from './board.ts';
import { copyWithin, flip, zero, zeroData } from './disk.ts';
import { Field } from './field.ts';
import { buildFor, versions } from './images.ts';

const limit = { timeout: 900_000 };
const devices = ['urn:dev:ops:1'] as const;

/** Keys in a folder of their own, made anew: of an authority, a signer and a second signer. The boot key is the usual one. */
function keysOf(name: string) {
  const keys = { folder: join(output, name), areForDevelopment: true };
  rmSync(keys.folder, { recursive: true, force: true });
  makeDevelopmentKeys(keys.folder);
  for (const end of ['crt', 'key']) {
    copyFileSync(join(signingKeys(undefined).folder, `boot.${end}`), join(keys.folder, `boot.${end}`));
    // The second authority is another one.
    copyFileSync(join(signingKeys(undefined).folder, `ca.${end}`), join(keys.folder, `second-ca.${end}`));
  }
  certify(keys.folder, 'second', { name: 'second', ...signer }, 'second-ca');
  return keys;
}
const signer = { purpose: 'emailProtection,codeSigning', from: -1, until: 3650 } as const;

describe('a board that has lost both slots', {
  skip: process.env.POSTERN_FIRMWARE !== 'long',
  timeout: 3_600_000,
}, () => {
  let first: BuiltImage;
  let next: BuiltImage;
  /** Bundles with the images of `next`, by what is wrong with them. */
  const wrong: Record<string, string> = {};
  const bundleBy = (name: string, keys: typeof ours, version: string = versions.next, build?: string) => {
    const file = join(output, `recovery-${name}.raucb`);
    makeBundle(join(output, 'recovery-work'), file, {
      kind: boardKind({ board: qemu, keys, isDeveloperImage: false }),
      version,
      description: name,
      fit: next.fit,
      root: next.rootImage,
      date: 1_700_000_000,
      keys,
      ...(build !== undefined && { build }),
    });
    wrong[name] = file;
  };
  let ours: ReturnType<typeof keysOf>;
  before(async () => {
    ours = keysOf('recovery-keys');
    const stolen = { folder: join(output, 'recovery-stolen-keys'), areForDevelopment: true };
    rmSync(stolen.folder, { recursive: true, force: true });
    cpSync(ours.folder, stolen.folder, { recursive: true });
    certify(stolen.folder, 'update', { name: 'stolen', ...signer });
    // The board is flashed with a list, which the agent keeps with the data.
    const revoked = [join(stolen.folder, 'update.crt')];
    writeFileSync(join(ours.folder, 'update.crl'), revocationList(ours.folder, 1, revoked));
    first = await buildFor('recovery-first', versions.first, { withDisk: true, keys: ours });
    next = await buildFor('recovery-next', versions.next, { keys: ours });
    bundleBy('older', ours, '0.9.0');
    bundleBy('foreign', keysOf('foreign-keys'));
    bundleBy('stolen', stolen);
    bundleBy('alone', ours, versions.next, 'none');
    const corrupt = join(output, 'recovery-corrupt.raucb');
    copyFileSync(next.bundle, corrupt);
    flip(corrupt, 20 * mebibyte);
    wrong.corrupt = corrupt;
  });

  /** A board that has run, with one device, and is switched off. Its recovery fetches the file `recovery` of the update server. */
  async function lost(file: string): Promise<Field> {
    const field = await Field.prepare({
      image: first,
      files: { recovery: file, next: next.bundle },
      devices,
      recoveryFile: 'recovery',
    });
    await field.runOnce(devices[0]);
    return field;
  }

  test(
    'both roots damaged: after the starts of both slots it fetches a bundle, runs it with its devices, and tells the DM server',
    limit,
    async (t) => {
      await using field = await lost(next.bundle);
      const { board } = field;
      copyWithin(board.disk, startOf('boot-a'), startOf('boot-b'), 24);
      copyWithin(board.disk, startOf('root-a'), startOf('root-b'), 96);
      for (const root of ['root-a', 'root-b'] as const)
        for (let at = 0; at < 40; at++) flip(board.disk, startOf(root) * mebibyte + at * mebibyte + 4096);
      board.changeBootState({ good: 'A', spare: 'B', starts: 0 });
      const begun = performance.now();
      const told = field.site.headendEvents.until('alert.gateway-fault', { kind: 'slot' });
      const recovered = board.event('slot.recovered', 600_000);
      const healthy = board.event('update.healthy', 600_000);
      board.machine.start();
      const { slot, version } = await recovered;
      t.diagnostic(`recovered ${((performance.now() - begun) / 1000).toFixed(0)} s after power-on`);
      await told;
      await healthy;
      const seen = await field.seen();
      assert.deepEqual([version, seen.version], [versions.next, versions.next]);
      assert.equal(String(seen.devices).split('/').length, 1);
      assert.deepEqual([board.bootState().good, board.bootState().recovered], [slot, false]);
      // The other slot is written by an update.
      await field.update('next', 'after');
      assert.equal(await field.told('after'), 200);
    },
  );

  for (const [what, file, said] of [
    ['of another authority', 'foreign', /recovery: refused/],
    ['by a signer that was revoked', 'stolen', /recovery: refused: .*revoked/],
    ['without the second signature', 'alone', /recovery: refused: the second signature is missing or wrong/],
    ['that is older', 'older', /recovery: refused: 0\.9\.0 is older/],
    ['that is damaged', 'corrupt', /recovery: (refused|slot . cannot be written)/],
  ] as const)
    test(
      `a bundle ${what} is not started, and a good one is taken as soon as it is there`,
      limit,
      async () => {
        await using field = await lost(wrong[file]!);
        const { board } = field;
        for (const part of ['boot-a', 'boot-b'] as const)
          zero(board.disk, startOf(part) * mebibyte, mebibyte);
        const refused = board.machine.says(said, patience.update);
        board.machine.start();
        await refused;
        assert.equal(board.bootState().trying, undefined);
        const recovered = board.event('slot.recovered', patience.update);
        field.serve('recovery', next.bundle);
        await recovered;
      },
    );

  test('below the floor nothing is taken, whatever version the board had', limit, async () => {
    await using field = await lost(next.bundle);
    const { board } = field;
    for (const part of ['boot-a', 'boot-b'] as const) zero(board.disk, startOf(part) * mebibyte, mebibyte);
    board.changeBootState({ floor: versionNumber('1.1.1')! });
    const refused = board.machine.says(/recovery: refused: 1\.1\.0 is older than the floor/, patience.update);
    board.machine.start();
    await refused;
  });

  test(
    'power cuts while a slot is written and while a bundle is fetched: it begins again',
    limit,
    async () => {
      await using field = await lost(next.bundle);
      const { machine, disk } = field.board;
      for (const part of ['boot-a', 'boot-b'] as const) zero(disk, startOf(part) * mebibyte, mebibyte);
      for (const moment of [/recovery: fetches/, /recovery: writes/]) {
        const reached = machine.says(moment, patience.update);
        machine.start();
        await reached;
        await machine.cutPower();
        assert.equal(field.board.bootState().trying, undefined);
      }
      const recovered = field.board.event('slot.recovered', patience.update);
      machine.start();
      await recovered;
    },
  );

  test(
    'the data partition is lost too: URL, identity and configuration come from the second copy, and a slot holds the bundle',
    limit,
    async () => {
      await using field = await lost(next.bundle);
      const { board } = field;
      for (const part of ['boot-a', 'boot-b'] as const) zero(board.disk, startOf(part) * mebibyte, mebibyte);
      zeroData(board.disk, 200 * mebibyte);
      const recovered = board.event('slot.recovered', 600_000);
      board.machine.start();
      await recovered;
      assert.equal((await field.seen()).version, versions.next);
    },
  );

  test('a recovery system that was changed is not started: the board resets', limit, async () => {
    await using field = await lost(next.bundle);
    const { machine, disk } = field.board;
    for (const part of ['boot-a', 'boot-b'] as const) zero(disk, startOf(part) * mebibyte, mebibyte);
    flip(disk, startOf('recovery') * mebibyte + 5 * mebibyte);
    machine.start();
    for (let reset = 0; reset < 2; reset++) await machine.says(/postern: recovery/, patience.start);
    assert.doesNotMatch(machine.serial.join('\n'), /recovery: no slot starts|^=>/m);
  });
});
