// The keys that the boot loader trusts, and their rotation: U-Boot itself, on QEMU's machine `virt`.
import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { bootKeyNode } from '../../firmware-image/recipe/boot-image.ts';
import { makeDevelopmentKeys, type SigningKeys } from '../../firmware-image/recipe/keys.ts';
import { run } from '../../firmware-image/recipe/tools.ts';
import type { SlotName } from '../../src/gateway/update/boot-state.ts';
import { BootLoader } from './boot-loader.ts';
import { skipImages } from './images.ts';

const limit = { timeout: 120_000 };
const version = '1.0.0';
type Key = 'old' | 'new' | 'foreign';

describe('the keys of the boot loader', { skip: skipImages, timeout: 600_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-boot-keys-'));
  let loader: BootLoader;
  /** Device trees of boot loaders, by what they trust. */
  const loaders: Record<string, string> = {};
  const images: Partial<Record<Key, Buffer>> = {};
  const keysOf = (name: Key): SigningKeys => ({ folder: join(folder, name), areForDevelopment: true });
  const crt = (name: Key) => join(keysOf(name).folder, 'boot.crt');

  before(() => {
    for (const name of ['old', 'new', 'foreign'] as const) makeDevelopmentKeys(keysOf(name).folder);
    loader = new BootLoader({ A: version, B: version }, keysOf('old'));
    for (const name of ['old', 'new', 'foreign'] as const) {
      loaders[name] = loader.sign('A', version, keysOf(name));
      images[name] = loader.image('A');
    }
    // What the recipe makes during a rotation: first the old key signs, and then the new one.
    for (const [signs, other] of [
      ['old', 'new'],
      ['new', 'old'],
    ] as const) {
      copyFileSync(crt(other), join(keysOf(signs).folder, 'other-boot.crt'));
      loaders[`${signs} and ${other}`] = loader.sign('A', version, keysOf(signs));
    }
  });
  after(() => {
    loader?.[Symbol.dispose]();
    rmSync(folder, { recursive: true });
  });

  /** Starts a boot loader with two images. Resolves with the slot that it boots. */
  const boot = async (trust: string, a: Key, b: Key): Promise<SlotName | undefined> => {
    loader.load(loaders[trust]!);
    loader.put('boot-a', images[a]!);
    loader.put('boot-b', images[b]!);
    loader.state({ good: 'A', trying: undefined, left: 0, starts: 0, spare: undefined });
    const { slot, said } = await loader.start();
    if (slot !== 'A') assert.match(said, /slot A does not boot/);
    return slot;
  };

  test('a key without its private half is the same in the device tree as the one that mkimage writes', () => {
    const source = run('dtc', ['-q', '-I', 'dtb', '-O', 'dts', loaders.old!]);
    const ours = run('dtc', ['-q', '-I', 'dts', '-O', 'dts', '-'], {
      input: `/dts-v1/; / { signature {${bootKeyNode(readFileSync(crt('old'), 'utf8'), 'boot')} }; };`,
    });
    const lines = (text: string) =>
      text
        .split('\n')
        .map((line) => line.trim())
        .filter((line) => /^(rsa,|algo|required|key-)/.test(line))
        .toSorted();
    assert.ok(lines(ours).length >= 8);
    assert.deepEqual(lines(ours), lines(source));
  });

  for (const [trust, booted] of [
    ['old', { old: 'A', new: 'B', foreign: 'B' }],
    ['old and new', { old: 'A', new: 'A', foreign: 'B' }],
    ['new and old', { old: 'A', new: 'A', foreign: 'B' }],
    ['new', { old: 'B', new: 'A', foreign: 'B' }],
  ] as const)
    test(
      `a boot loader that trusts ${trust} boots what these have signed, and nothing else`,
      limit,
      async () => {
        const other: Key = trust === 'new' ? 'new' : 'old';
        for (const key of ['old', 'new', 'foreign'] as const)
          assert.equal(await boot(trust, key, other), booted[key], `an image by the ${key} key`);
        assert.equal(await boot(trust, 'foreign', 'foreign'), undefined);
      },
    );

  test('a signature is needed by one key at least: an image with none is not booted', limit, async () => {
    loader.load(loaders['old and new']!);
    const bare = Buffer.from(images.old!);
    const at = bare.indexOf('signature-1');
    bare.write('signaturf-1', at, 'latin1');
    loader.put('boot-a', bare);
    loader.put('boot-b', bare);
    assert.equal((await loader.start()).slot, undefined);
  });

  test('a power cut at any step of a rotation leaves a boot loader that boots', limit, async () => {
    // The boot loader is written to the one of two places that does not run. So after a cut the old or the new one starts.
    for (const [step, places, a, b] of [
      ['the boot loader that trusts both is written', ['old', 'old and new'], 'old', 'old'],
      ['a slot gets an image by the new key', ['old and new'], 'old', 'new'],
      ['the other slot does', ['old and new'], 'new', 'new'],
      ['the boot loader that trusts the new one is written', ['old and new', 'new'], 'new', 'new'],
    ] as const)
      for (const place of places) assert.equal(await boot(place, a, b), 'A', `${step}; ${place} starts`);
  });
});
