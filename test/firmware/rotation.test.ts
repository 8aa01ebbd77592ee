// Both keys of a product line replaced on an emulated board, the long form: the authority of bundles, and the key of the boot loader.
import assert from 'node:assert/strict';
import { copyFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Hardware, virt } from '../../firmware-image/qemu/hardware.ts';
import type { BuiltImage } from '../../firmware-image/recipe/image.ts';
import { makeDevelopmentKeys, type SigningKeys } from '../../firmware-image/recipe/keys.ts';
import { output } from '../../firmware-image/recipe/tools.ts';
import { patience } from './board.ts';
import { Field } from './field.ts';
import { buildFor } from './images.ts';

const device = 'urn:dev:ops:1';

/** A folder with files of other folders of keys, each as `[from, its file, file here]`. */
function keysOf(name: string, ...files: (readonly [SigningKeys | undefined, string, string])[]): SigningKeys {
  const keys = { folder: join(output, `rotation-${name}`), areForDevelopment: true };
  rmSync(keys.folder, { recursive: true, force: true });
  makeDevelopmentKeys(keys.folder);
  for (const [from, file, here] of files) copyFileSync(join(from!.folder, file), join(keys.folder, here));
  return keys;
}
const pair = (from: SigningKeys, name: string) =>
  (['crt', 'key'] as const).map((end) => [from, `${name}.${end}`, `${name}.${end}`] as const);

test('authority and boot key are replaced by updates; afterwards the old ones count no more', {
  skip: process.env.POSTERN_FIRMWARE !== 'long',
  timeout: 1_800_000,
}, async () => {
  const old = keysOf('old');
  const fresh = keysOf('fresh');
  // The bundle is by the old authority, and so is the FIT. What it brings trusts both.
  const both = keysOf(
    'both',
    ...pair(fresh, 'ca'),
    ...pair(old, 'update'),
    ...pair(old, 'boot'),
    [old, 'ca.crt', 'old-ca.crt'],
    [fresh, 'boot.crt', 'other-boot.crt'],
  );
  writeFileSync(join(both.folder, 'old-ca.until'), `${new Date().getUTCFullYear() + 2}-01-01`);
  // Both slots have to be by the new boot key before the boot loader forgets the old one.
  const later = keysOf('later', ...pair(fresh, 'ca'), ...pair(fresh, 'update'), ...pair(fresh, 'boot'), [
    old,
    'boot.crt',
    'other-boot.crt',
  ]);
  const images: Record<string, BuiltImage> = {};
  for (const [version, keys, withDisk] of [
    ['1.0.0', old, true],
    ['1.1.0', both, false],
    ['1.2.0', later, false],
    ['1.3.0', fresh, false],
    ['1.4.0', old, false],
  ] as const)
    images[version] = await buildFor(`rotation-${version}`, version, { keys, withDisk });
  let loader = virt(images['1.0.0']!);
  const hardware: Hardware = {
    ...loader,
    tree: (...given) => loader.tree(...given),
  };
  await using field = await Field.prepare({
    image: images['1.0.0']!,
    hardware,
    files: Object.fromEntries(Object.entries(images).map(([version, { bundle }]) => [version, bundle])),
    devices: [device],
  });
  const { board } = field;
  await field.runOnce(device);
  await board.start();
  const update = async (version: string) => {
    await field.update(version, version);
    return await field.told(version);
  };
  /** Puts the boot loader of a version in place of the one before, while the board is off. */
  const replaceLoader = async (version: string) => {
    await board.machine.cutPower();
    loader = virt(images[version]!);
    await board.start();
    assert.doesNotMatch(board.machine.serial.slice(-200).join('\n'), /does not boot/);
  };
  assert.equal(await update('1.1.0'), 200);
  await replaceLoader('1.1.0');
  assert.equal(await update('1.2.0'), 200, 'a bundle by the new authority, with a FIT by the new key');
  assert.equal(await update('1.3.0'), 200, 'and the other slot');
  await replaceLoader('1.3.0');
  assert.equal(await update('1.4.0'), 404, 'the old authority has gone');
  const { version, devices } = await field.seen();
  assert.deepEqual([version, String(devices).split('/').length], ['1.3.0', 1]);
  // The old boot loader starts nothing that the new key has signed, and the recovery system of the flashed image.
  await board.machine.cutPower();
  loader = virt(images['1.0.0']!);
  const recovery = board.machine.says(/postern: recovery/, patience.start);
  board.machine.start();
  await board.machine.says(/slot . does not boot/, patience.start);
  await recovery;
});
