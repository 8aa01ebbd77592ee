import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { copyFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { imx8mMini } from '../../firmware-image/boards/imx8m-mini.ts';
import { qemu } from '../../firmware-image/boards/qemu.ts';
import { raspberryPi3, virt } from '../../firmware-image/qemu/hardware.ts';
import type { BuiltImage } from '../../firmware-image/recipe/image.ts';
import { makeDevelopmentKeys } from '../../firmware-image/recipe/keys.ts';
import { mebibyte, startOf } from '../../firmware-image/recipe/layout.ts';
import { output, run } from '../../firmware-image/recipe/tools.ts';
import { versionNumber } from '../../src/gateway/update/boot-state.ts';
import { Board, patience } from './board.ts';
import { copyWithin, flip, putIntoData, readFromData, thousandDevices, zeroData } from './disk.ts';
import { emulatedPi } from './emulated-pi.ts';
import { Field } from './field.ts';
import { buildFor, versions } from './images.ts';

const isLong = process.env.POSTERN_FIRMWARE === 'long';
const limit = { timeout: 900_000 };
/** Minutes that the test of the idle hour measures, at most 60. The default is ten, and the result is scaled up. */
const idleMinutes = Math.min(Number(process.env.POSTERN_IDLE_MINUTES ?? 10), 60);
const cuts = 20;
const seed = Number(process.env.POSTERN_SEED ?? Date.now() % 100_000);

/** Pseudo-random numbers from 0 to 1, determined by the seed (mulberry32). */
function* numbers(from: number): Generator<number, never> {
  for (let state = from; ; ) {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    yield ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  }
}

const digest = (file: string): string => createHash('sha256').update(readFileSync(file)).digest('hex');
const devices = ['urn:dev:ops:1', 'urn:dev:ops:2'] as const;

describe('the firmware image on an emulated board, the long form', {
  skip: !isLong,
  timeout: 7_200_000,
}, () => {
  let first: BuiltImage;
  let next: BuiltImage;

  before(async () => {
    console.log(`POSTERN_SEED=${seed}`);
    first = await buildFor('first', versions.first, { withDisk: true });
    next = await buildFor('next', versions.next);
  });

  test('two builds of one commit have the same root, FIT and disk', limit, async () => {
    const again = await buildFor('again', versions.first, { withDisk: true });
    for (const part of ['rootImage', 'fit', 'disk'] as const)
      assert.equal(digest(again[part]!), digest(first[part]!), part);
  });

  describe('faulty versions and bundles', () => {
    let field: Field;
    before(async () => {
      const keys = { folder: join(output, 'foreign-keys'), areForDevelopment: true };
      makeDevelopmentKeys(keys.folder);
      const foreign = await buildFor('foreign', versions.next, { keys });
      const other = await buildFor('other', versions.next, { board: { ...qemu, name: 'other-board' } });
      const older = await buildFor('older', '0.9.0');
      const crashing = await buildFor('crashing', versions.bad, { fault: 'crashes' });
      const deaf = await buildFor('deaf', versions.bad, { fault: 'deaf' });
      const corrupt = join(output, 'corrupt.raucb');
      copyFileSync(next.bundle, corrupt);
      flip(corrupt, 20 * mebibyte);
      const cut = join(output, 'cut.raucb');
      writeFileSync(cut, readFileSync(next.bundle).subarray(0, 30 * mebibyte));
      const huge = join(output, 'huge.raucb');
      copyFileSync(next.bundle, huge);
      // Larger than the data partition.
      truncateSync(huge, 400 * mebibyte);
      field = await Field.prepare({
        image: first,
        files: {
          corrupt,
          cut,
          huge,
          foreign: foreign.bundle,
          other: other.bundle,
          older: older.bundle,
          crashing: crashing.bundle,
          deaf: deaf.bundle,
          next: next.bundle,
        },
        devices,
        update: { attempts: 2, 'health-deadline': 20 },
      });
      await field.board.start();
      await field.attach(devices[0]);
    });
    after(async () => await field?.[Symbol.asyncDispose]());

    for (const [name, results] of [
      ['foreign', [404]],
      ['other', [403]],
      ['older', [405]],
      ['cut', [402, 404]],
      ['corrupt', [402, 410]],
      ['huge', [501]],
      ['crashing', [410]],
      ['deaf', [410]],
    ] as const)
      test(`${name}: result ${results.join(' or ')}, and the old version still runs`, limit, async () => {
        await field.update(name, name);
        const result = await field.told(name);
        assert.ok((results as readonly unknown[]).includes(result), `${name} had the result ${result}`);
        const { version, devices: seen } = await field.seen();
        assert.deepEqual([version, String(seen).split('/').length], [versions.first, 1]);
        assert.equal(field.board.bootState().good, 'A');
      });

    test('after these failures a good bundle from the Image Inventory is installed', limit, async () => {
      await field.stage('next');
      await field.execute('DownloadAndUpdate', 'good', 'gw-image:next');
      assert.equal(await field.told('good'), 200);
      assert.equal((await field.seen()).version, versions.next);
    });

    test('the end of the log of the crashing version is on flash, at most 16 KB of it', limit, async () => {
      await field.board.machine.cutPower();
      const log = readFromData(field.board.disk, '/crash/1.log');
      assert.match(log, /this version is broken/);
      assert.ok(log.length <= 16_384, `${log.length} characters`);
    });
  });

  test('after each of twenty power cuts, in installations and first starts, the result fits the version that runs, and no device is lost', {
    timeout: 5_400_000,
  }, async (t) => {
    const many = Array.from({ length: cuts + 1 }, (_, number) => `urn:dev:ops:${number}`);
    await using field = await Field.prepare({
      image: first,
      files: { [versions.first]: first.bundle, [versions.next]: next.bundle },
      devices: many,
      update: { attempts: 1, 'allow-older': true },
    });
    const { board, site, broker } = field;
    const otherThan = (version: unknown) => (version === versions.next ? versions.first : versions.next);
    await board.start();
    await field.attach(many[cuts]!);
    // An undisturbed update measures how long its two parts take on this machine.
    const whole = { healthy: board.event('update.healthy'), told: field.told('whole') };
    await field.update(versions.next, 'whole');
    await board.event('update.installing');
    const installing = performance.now();
    await board.machine.says(/Starting kernel/, patience.update);
    const starting = performance.now();
    await whole.healthy;
    const milliseconds = { installation: starting - installing, 'first start': performance.now() - starting };
    assert.equal(await whole.told, 200);
    const draw = numbers(seed);
    for (let round = 0; round < cuts; round++) {
      const part = round % 2 === 0 ? 'installation' : 'first start';
      const { version: old } = await field.seen();
      const wanted = otherThan(old);
      const correlator = `cut-${round}`;
      await field.update(wanted, correlator);
      await board.event('update.installing');
      // From now on the board's alerts wait in its outbox.
      await broker.stop();
      await field.attach(many[round]!);
      if (part === 'first start') await board.machine.says(/Starting kernel/, patience.update);
      const delay = draw.next().value * milliseconds[part];
      await new Promise((resolve) => setTimeout(resolve, delay));
      await board.machine.cutPower();
      const started = board.start();
      await broker.restart();
      await started;
      const result = await field.told(correlator);
      await site.headendEvents.until('alert.device-attach', { device: many[round] });
      const { version, devices: kept } = await field.seen();
      t.diagnostic(
        `cut ${round}: ${Math.round(delay)} of ${Math.round(milliseconds[part])} ms into the ${part}: ${result}, ${version} runs`,
      );
      assert.ok(result === 410 || result === 200);
      assert.equal(version, result === 200 ? wanted : old);
      assert.equal(String(kept).split('/').length, round + 2, String(kept));
      assert.equal(board.bootState().trying, undefined);
    }
    // Both slots still work: each gets one more installation.
    for (const correlator of ['last-but-one', 'last']) {
      const wanted = otherThan((await field.seen()).version);
      await field.update(wanted, correlator);
      assert.equal(await field.told(correlator), 200);
      assert.equal((await field.seen()).version, wanted);
    }
  });

  test(
    'a FIT that was changed is not booted, but the other slot is; with both changed the recovery system is started',
    limit,
    async () => {
      await using field = await Field.prepare({ image: first, files: {}, devices });
      await field.board.start();
      await field.board.machine.cutPower();
      const { disk } = field.board;
      copyWithin(disk, startOf('boot-a'), startOf('boot-b'), 24);
      copyWithin(disk, startOf('root-a'), startOf('root-b'), 96);
      flip(disk, startOf('boot-a') * mebibyte + 5 * mebibyte);
      const refused = field.board.machine.says(/slot A does not boot/, patience.start);
      await field.board.start();
      await refused;
      await field.board.machine.cutPower();
      flip(disk, startOf('boot-b') * mebibyte + 5 * mebibyte);
      // U-Boot tries both slots, then starts the recovery system, and never offers a prompt.
      const { machine } = field.board;
      const from = machine.serial.length;
      machine.start();
      const recovery = machine.says(/recovery: no URL is known/, patience.start);
      await machine.says(/slot A does not boot/, patience.start);
      await recovery;
      assert.doesNotMatch(machine.serial.slice(from).join('\n'), /^=>|Hit any key/m);
    },
  );

  test('a version below the floor is not booted', limit, async () => {
    await using board = await Board.flash({ disk: first.disk!, hardware: virt(first) });
    board.changeBootState({ floor: versionNumber('1.0.1')! });
    const tooOld = board.machine.says(/slot A, version 0x0*10000, floor 0x10001/, patience.start);
    const refused = board.machine.says(/slot A does not boot/, patience.start);
    board.machine.start();
    await tooOld;
    await refused;
    await board.machine.cutPower();
    board.changeBootState({ floor: versionNumber(versions.first)! });
    await board.start();
  });

  test('the image of the i.MX8M Mini has its boot loader at the offset where the chip reads it, and a signed device tree', async () => {
    const bootLoader = join(output, 'boot-loader');
    writeFileSync(bootLoader, 'the boot loader of a board');
    const { disk, fit } = await buildFor('imx8m-mini', versions.first, {
      board: imx8mMini,
      bootLoader,
      withDisk: true,
    });
    const start = readFileSync(disk!).subarray(33 * 1024);
    assert.equal(start.toString('latin1', 0, 26), 'the boot loader of a board');
    const described = run('mkimage', ['-l', fit]);
    assert.match(described, /FDT:\s+fdt-1/);
    assert.match(described, /Sign algo:\s+sha256,rsa2048:boot/);
  });

  test(
    'the image of the Raspberry Pi runs on an emulated one; with a changed FIT it does not boot',
    limit,
    async () => {
      const image = await buildFor('raspberry-pi', versions.first, { board: emulatedPi, withDisk: true });
      const built = (name: string) => join(image.folder, 'boot', name);
      await using field = await Field.prepare({
        image,
        hardware: raspberryPi3({ bootLoader: built('u-boot.bin'), tree: built('bcm2837-rpi-3-b.dtb') }),
        files: {},
        devices,
        update: { watchdog: '/dev/null' },
      });
      const { machine, disk } = field.board;
      machine.start();
      // The emulated board cannot reset itself without its watchdog, so it is switched off and on.
      await machine.says(/Restarting system/, patience.start);
      await machine.cutPower();
      await field.board.start();
      await field.attach(devices[0]);
      await field.site.headendEvents.until('alert.device-attach', { device: devices[0] });
      await machine.cutPower();
      flip(disk, startOf('boot-a') * mebibyte + 5 * mebibyte);
      machine.start();
      await machine.says(/slot A does not boot/, patience.start);
    },
  );

  test('a board whose root was changed starts again', limit, async () => {
    await using board = await Board.flash({ disk: first.disk!, hardware: virt(first) });
    for (let at = 0; at < 40; at++) flip(board.disk, startOf('root-a') * mebibyte + at * mebibyte + 4096);
    board.machine.start();
    await board.machine.says(
      /device-mapper: verity|dm-verity device corrupted|Restarting system|Kernel panic/,
      patience.start,
    );
    await board.machine.says(/postern: slot A/, patience.start);
  });

  test(
    'the root of the good slot damaged: the slot that was good before runs after some resets, and the DM server is told',
    limit,
    async (t) => {
      await using field = await Field.prepare({ image: first, files: {}, devices });
      const { board } = field;
      await board.start();
      await field.attach(devices[0]);
      await board.machine.cutPower();
      copyWithin(board.disk, startOf('boot-a'), startOf('boot-b'), 24);
      copyWithin(board.disk, startOf('root-a'), startOf('root-b'), 96);
      board.changeBootState({ good: 'B', spare: 'A', starts: 0 });
      for (let at = 0; at < 40; at++) flip(board.disk, startOf('root-b') * mebibyte + at * mebibyte + 4096);
      const begun = performance.now();
      const lost = board.event('slot.lost', 300_000);
      const told = field.site.headendEvents.until('alert.gateway-fault', { kind: 'slot' });
      board.machine.start();
      assert.deepEqual((await lost).slot, 'B');
      await told;
      t.diagnostic(`the other slot runs ${((performance.now() - begun) / 1000).toFixed(0)} s after power-on`);
      assert.equal(String((await field.seen()).devices).split('/').length, 1);
      const { good, spare } = board.bootState();
      assert.deepEqual([good, spare], ['A', 'B']);
    },
  );

  test(
    'the head of the data partition zeroed: identity, configuration and devices are there after the next start',
    limit,
    async () => {
      await using field = await Field.prepare({ image: first, files: {}, devices });
      const { board } = field;
      const written = board.machine.says(/second copy .* is written/, patience.start);
      await board.start();
      await field.attach(devices[0]);
      await field.site.headendEvents.until('alert.device-attach', { device: devices[0] });
      await written;
      await board.machine.cutPower();
      zeroData(board.disk, 4096);
      const repaired = board.machine.says(/the data partition is damaged, and is repaired/, patience.start);
      await board.start();
      await repaired;
      const { version, devices: seen } = await field.seen();
      assert.deepEqual([version, String(seen).split('/').length], [versions.first, 1]);
      // Nothing is left of the file system: the board can still be reached.
      await board.machine.cutPower();
      zeroData(board.disk, 200 * mebibyte);
      const inMemory = board.machine.says(
        /the second copy of the configuration and the identity is used/,
        patience.start,
      );
      await board.start();
      await inMemory;
      assert.equal((await field.seen()).version, versions.first);
    },
  );

  test('a hostile process with the rights of the gateway does not become root', limit, async () => {
    const image = await buildFor('developer', versions.first, { withDisk: true, isDeveloperImage: true });
    await using field = await Field.prepare({ image, files: {}, devices });
    const { machine } = field.board;
    await field.board.start();
    const attack = async (name: string, command: string): Promise<string> => {
      const said = machine.says(new RegExp(`^attack ${name}: (.*)$`), 60_000);
      machine.type(`su -s /bin/sh postern -c '${command}' 2> /dev/null; echo "attack ${name}: $?"`);
      return (await said)[1]!;
    };
    for (const [name, command] of [
      ['state', 'echo x > /dev/postern/state-1'],
      ['slot A', 'echo x > /dev/postern/root-a'],
      ['slot B', 'echo x > /dev/postern/root-b'],
      ['disk', 'head -c 1 /dev/vda'],
      ['firewall', 'echo flush ruleset > /data/root/firewall.nft'],
      ['older', 'echo > /data/root/allow-older'],
      ['folder', 'mv /data/root /data/mine'],
      ['link', 'ln /data/machine-id /data/state/mine'],
      ['namespace', 'unshare -U true'],
      ['addresses', 'grep -qv ^0000000000000000 /proc/kallsyms'],
      ['answers', 'echo x > /run/agent/answers/x'],
      ['marker', 'echo > /run/slot-is-written'],
      ['forward', 'ln -sf /data/root/firewall.nft /run/resolv.conf'],
    ] as const)
      assert.notEqual(await attack(name, command), '0', name);
    // What the launcher takes from the gateway, it takes from root too.
    const confined = async (name: string, command: string): Promise<string> => {
      const said = machine.says(new RegExp(`^confined ${name}: (.*)$`), 60_000);
      machine.type(`${command} 2> /dev/null; echo "confined ${name}: $?"`);
      return (await said)[1]!;
    };
    const launcher = '/usr/lib/postern/confine /bin/busybox';
    assert.equal(await confined('control', `${launcher} true`), '0');
    assert.equal(await confined('none', `${launcher.replace('busybox', 'none')} true`), '126');
    for (const [name, command] of [
      ['mount', `${launcher} mount -t tmpfs tmpfs /tmp`],
      ['hostname', `${launcher} hostname other`],
      ['namespace', `${launcher} unshare -m true`],
      ['module', `${launcher} insmod /usr/lib/modules/loop.ko`],
      // Nobody sees the processes of root.
      ['processes', 'su -s /bin/sh postern -c "ls /proc/1/status"'],
    ] as const)
      assert.notEqual(await confined(name, command), '0', name);
    assert.equal(
      await confined('filter', 'grep -q "^Seccomp:.2" /proc/$(pidof node | cut -d" " -f1)/status'),
      '0',
    );
    assert.equal(await confined('lockdown', 'dmesg | grep -q "locked down"'), '0');
    // What it may do, as a control; and what the agent makes of its requests.
    assert.equal(await attack('control', 'head -c 1 /dev/postern/state-1 > /data/state/x'), '0');
    assert.equal(
      await attack(
        'request',
        'echo "try 1-1 9" > /run/agent/ask; until [ -e /run/agent/answers/1-1 ]; do sleep 1; done; grep -q "no slot was written" /run/agent/answers/1-1',
      ),
      '0',
    );
    assert.equal(field.board.bootState().trying, undefined);
  });

  test('with a thousand idle devices, at least 24 MB of 128 are free', limit, async (t) => {
    await using field = await Field.prepare({ image: first, files: {}, devices });
    await field.board.start();
    await field.board.machine.cutPower();
    const state = join(field.board.folder, 'state.db');
    thousandDevices(state);
    putIntoData(field.board.disk, state, '/state/state.db');
    const [started] = await Promise.all([
      field.board.event('gateway.started'),
      field.board.event('mqtt.connected'),
      field.board.start(),
    ]);
    t.diagnostic(
      `${started.devices} devices: ${started.rss} MB of RSS, ${started.free} MB available to others`,
    );
    assert.equal(started.devices, 1000);
    assert.ok(Number(started.free) >= 24, `${started.free} MB are free`);
  });

  test('an idle hour writes less than a megabyte to flash', { timeout: 4_500_000 }, async (t) => {
    await using field = await Field.prepare({ image: first, files: {}, devices });
    await field.board.start();
    for (const device of devices) await field.attach(device);
    await field.site.headendEvents.until('alert.device-attach', { device: devices[1] });
    // The pending writes of the start are not counted.
    await new Promise((resolve) => setTimeout(resolve, 120_000));
    const from = await field.board.machine.bytesWritten();
    await new Promise((resolve) => setTimeout(resolve, idleMinutes * 60_000));
    const written = (await field.board.machine.bytesWritten()) - from;
    t.diagnostic(`${written} bytes in ${idleMinutes} minutes`);
    assert.ok(written * (60 / idleMinutes) < 1_000_000, `${written} bytes in ${idleMinutes} minutes`);
  });
});
