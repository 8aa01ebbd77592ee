// The boot script in U-Boot itself, on QEMU's machine `virt`. The kernel only tells with which arguments it was started.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { crc32 } from 'node:zlib';
import { qemu } from '../../firmware-image/boards/qemu.ts';
import { mebibyte } from '../../firmware-image/recipe/layout.ts';
import { seededEntropy } from '../../src/base/entropy.ts';
import {
  type BootState,
  BootStateCopies,
  copyBytes,
  mostStarts,
  otherSlot,
  type SlotName,
  stateFields,
  versionNumber,
} from '../../src/gateway/update/boot-state.ts';
import { chooseSlot } from '../../src/gateway/update/launcher.ts';
import { BootLoader } from './boot-loader.ts';
import { counterDevice, emulatedCounter } from './emulated-counter.ts';
import { skipImages } from './images.ts';

const limit = { timeout: 120_000 };
const seed = Number(process.env.POSTERN_SEED ?? Date.now() % 100_000);
/** Random copies that are given to the boot script. */
const rounds = Number(process.env.POSTERN_ROUNDS ?? 16);
const versions = { A: '1.0.0', B: '1.1.0' } as const;
/** What U-Boot would run if it took a text of the disk for a part of a command. */
const commands = [
  "A'; setenv bootargs rdinit=/bin/busybox; '",
  'A rdinit=/bin/busybox -- sh -c x',
  'A"; setenv bootargs rdinit=/bin/busybox; "',
  // biome-ignore lint/suspicious/noTemplateCurlyInString: a variable of U-Boot
  '${bootcmd}; reset',
] as const;

/** Position of an octet of the packed kernel in an image: behind the head of gzip (RFC 1952 section 2.3). */
const inKernel = (image: Buffer): number => {
  const at = image.indexOf(Buffer.of(0x1f, 0x8b, 8));
  assert.ok(at > 0);
  return at + 12;
};

/** A copy of the boot state with these bytes behind a checksum that is right. */
function sealed(body: Uint8Array): Buffer {
  const bytes = Buffer.alloc(copyBytes);
  bytes.set(body.subarray(0, copyBytes - 4), 4);
  bytes.writeUInt32BE(crc32(bytes.subarray(4)));
  return bytes;
}

const initial: BootState = {
  ...{ good: 'A', trying: undefined, left: 0, floor: 0, failed: undefined, starts: 0, spare: undefined },
  recovered: false,
};
/** A copy that is valid, unless `changes` of its fields say otherwise. */
function copyOf(changes: Partial<Record<keyof typeof stateFields, number>>): Buffer {
  const body = Buffer.alloc(copyBytes - 4);
  for (const [index, [name, [least]]] of Object.entries(stateFields).entries())
    body.writeUInt32LE(changes[name as keyof typeof stateFields] ?? least, 4 * index);
  return sealed(body);
}

describe('the boot script in U-Boot', { skip: skipImages, timeout: 600_000 }, () => {
  let loader: BootLoader;
  before(() => {
    console.log(`POSTERN_SEED=${seed}`);
    loader = new BootLoader(versions);
  });
  after(() => loader?.[Symbol.dispose]());

  const kernelArguments = (slot: SlotName, trying: boolean) =>
    `console=ttyAMA0 quiet cma=0 panic=3 cryptomgr.notests lockdown=integrity kpti=off postern.slot=${slot} postern.trying=${Number(trying)} rauc.slot=${slot} `;

  const recoveryArguments =
    'console=ttyAMA0 quiet cma=0 panic=3 cryptomgr.notests lockdown=integrity kpti=off postern.recovery=1 ';

  /** Writes both copies, starts, and checks that exactly what the launcher would do with these copies has happened. */
  async function startWith(copies: readonly [Buffer, Buffer], what: string): Promise<SlotName> {
    const folder = mkdtempSync(join(tmpdir(), 'postern-copies-'));
    try {
      const files = [join(folder, '1'), join(folder, '2')] as const;
      for (const [index, file] of files.entries()) writeFileSync(file, copies[index]!);
      loader.put('state-1', copies[0]);
      loader.put('state-2', copies[1]);
      const model = new BootStateCopies(files);
      const { slot, isTried, isLast } = chooseSlot(model);
      const refused = versionNumber(versions[slot])! < model.read().floor;
      const outcome = await loader.start();
      if (isLast) {
        assert.equal(outcome.kernelArguments, recoveryArguments, `${what}\n${outcome.said}`);
        assert.deepEqual(loader.state(), model.read(), what);
        return slot;
      }
      if (refused) {
        const other = otherSlot(slot);
        const isBootable = !isTried && versionNumber(versions[other])! >= model.read().floor;
        const expected = isBootable ? kernelArguments(other, false) : isTried ? undefined : recoveryArguments;
        assert.equal(outcome.kernelArguments, expected, what);
        return slot;
      }
      assert.equal(outcome.kernelArguments, kernelArguments(slot, isTried), `${what}\n${outcome.said}`);
      assert.deepEqual(loader.state(), model.read(), what);
      return slot;
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  test(
    'texts in a copy with a correct checksum are no state, and reach neither a command nor the kernel',
    limit,
    async () => {
      for (const text of commands) {
        const environment = Buffer.from(
          `serial=0x9\0good=${text}\0try=none\0left=0\0floor=0x0\0failed=none\0\0`,
        );
        const fields = copyOf({ serial: 9 });
        fields.write(text, 12, 'latin1');
        const slot = await startWith([sealed(environment), sealed(fields.subarray(4))], text);
        assert.equal(slot, 'A');
      }
    },
  );

  test('a value at each end of its range is taken, and one beyond it is no state', limit, async () => {
    const nothing = Buffer.alloc(copyBytes);
    const most = Object.fromEntries(Object.entries(stateFields).map(([name, range]) => [name, range[1]]));
    // The highest floor would be above both versions.
    assert.equal(await startWith([copyOf({ ...most, floor: 0x010100 }), nothing], 'all are highest'), 'B');
    for (const [name, range] of Object.entries(stateFields))
      for (const value of [range[0] - 1, range[1] + 1].filter((one) => one >= 0)) {
        const what = `${name} is ${value}`;
        assert.equal(await startWith([copyOf({ good: 2, [name]: value }), nothing], what), 'A', what);
      }
  });

  test(`random copies lead to what the launcher does with them (${rounds} starts)`, limit, async () => {
    const { bytes, uniform } = seededEntropy(seed);
    const draw = (count: number) => Math.floor(uniform() * count);
    for (let round = 0; round < rounds; round++) {
      const random = (): Buffer => {
        if (draw(4) === 0) return sealed(bytes(copyBytes));
        const changes = Object.entries(stateFields).map(([name, [least, most]]) => {
          const range = most - least + 1;
          // One value in twelve is out of its range.
          const value =
            draw(12) === 0 ? most + 1 + draw(3) : name === 'floor' ? draw(0x10200) : least + draw(range);
          return [name, Math.min(value, 0xffff_ffff)];
        });
        const made = copyOf(Object.fromEntries(changes));
        if (draw(6) === 0) made[draw(copyBytes)]! ^= 1 << draw(8);
        return made;
      };
      const copies = [random(), random()] as const;
      const texts = copies.map((copy) => copy.subarray(0, 48).toString('hex'));
      await startWith(copies, `seed ${seed}, round ${round}: ${texts.join(' ')}`);
    }
  });

  test(
    'the version of an image is a number too: a text in its place is no command, before its signature is checked',
    limit,
    async () => {
      using own = new BootLoader(versions);
      const image = own.image('A');
      const at = image.indexOf(Buffer.from([0, 0, 1, 0]), image.indexOf('configurations'));
      for (const text of ["';r;'", 'A\n;r']) {
        const changed = Buffer.from(image);
        changed.write(text.slice(0, 4), at, 'latin1');
        own.put('boot-a', changed);
        const outcome = await own.start();
        assert.equal(outcome.kernelArguments, kernelArguments('B', false), outcome.said);
        assert.match(outcome.said, /slot A does not boot/);
      }
    },
  );

  test('a copy that cannot be written is no trial: the good slot starts', limit, async () => {
    loader.state({ ...initial, trying: 'B', left: 9 });
    const outcome = await loader.start({ isReadOnly: true });
    assert.equal(outcome.kernelArguments, kernelArguments('A', false), outcome.said);
  });

  test(
    'the root of the good slot damaged: the slot that was good before is started after some resets',
    limit,
    async () => {
      loader.state({ ...initial, good: 'B', spare: 'A' });
      const slots: (SlotName | undefined)[] = [];
      for (let start = 0; start <= mostStarts; start++) slots.push((await loader.start()).slot);
      assert.deepEqual(slots, [...Array.from({ length: mostStarts }, () => 'B'), 'A']);
      assert.deepEqual(loader.state(), { ...initial, spare: 'B', failed: 'B', starts: 1 });
    },
  );

  test(
    'both slots damaged: after the starts of both the recovery system is started, and both have all their starts again after it',
    limit,
    async () => {
      loader.state({ ...initial, good: 'B', spare: 'A', starts: mostStarts });
      const first = await loader.start();
      assert.deepEqual([first.slot, loader.state().starts], ['A', 1]);
      loader.state({ starts: mostStarts });
      const second = await loader.start();
      assert.equal(second.kernelArguments, recoveryArguments, second.said);
      assert.deepEqual(loader.state(), { ...initial, spare: 'B' });
      // It found nothing, or its power was cut.
      assert.equal((await loader.start()).slot, 'A');
      // A board that has never had another version has one slot only.
      loader.state({ ...initial, starts: mostStarts });
      assert.equal((await loader.start()).isRecovery, true);
    },
  );

  test(
    'no slot has a signed image: the recovery system is started at once, at each start',
    limit,
    async () => {
      using own = new BootLoader(versions);
      const nothing = Buffer.alloc(own.image('A').length);
      for (const name of ['boot-a', 'boot-b'] as const) own.put(name, nothing);
      for (let start = 0; start < 2; start++) {
        const outcome = await own.start();
        assert.equal(outcome.kernelArguments, recoveryArguments, outcome.said);
      }
    },
  );

  test(
    'a recovery system that was changed, and an image of a slot in its place, are not started: the slots are tried',
    limit,
    async () => {
      using own = new BootLoader(versions);
      const changed = Buffer.from(own.recovery);
      changed[inKernel(changed)]! ^= 1;
      for (const image of [changed, own.image('A'), Buffer.alloc(changed.length)]) {
        own.put('recovery', image);
        own.state({ ...initial, starts: mostStarts });
        const outcome = await own.start();
        assert.equal(outcome.kernelArguments, kernelArguments('A', false), outcome.said);
        assert.match(outcome.said, /postern: recovery/);
      }
      // And the other way round: the recovery system is no slot.
      own.put('boot-a', own.recovery);
      own.state({ ...initial });
      assert.equal((await own.start()).kernelArguments, kernelArguments('B', false));
    },
  );

  test(
    'a disk that takes no writes: the recovery system could not write a slot either, so the good slot starts',
    limit,
    async () => {
      loader.state({ ...initial, starts: mostStarts });
      const outcome = await loader.start({ isReadOnly: true });
      assert.equal(outcome.kernelArguments, kernelArguments('A', false), outcome.said);
    },
  );

  test(
    'the floor is that of the counter of the board, if this is higher; one that cannot be read does not count',
    limit,
    async () => {
      const folder = mkdtempSync(join(tmpdir(), 'postern-counter-'));
      const counter = join(folder, 'counter');
      try {
        const write = (value: number) => {
          const bytes = Buffer.alloc(512);
          bytes.writeUInt32LE(value);
          writeFileSync(counter, bytes);
        };
        write(0);
        using own = new BootLoader(versions, undefined, {
          board: { ...qemu, floorCounter: emulatedCounter },
          devices: counterDevice(counter),
        });
        for (const [floor, value, slot] of [
          [0, 0, 'A'],
          [0, 0x010000, 'A'],
          [0, 0x010001, 'B'],
          // The boot state was put back, or is higher.
          [0x010001, 0x010000, 'B'],
          [0, 0x010101, undefined],
          // No value of a counter.
          [0, 0xffff_ffff, 'A'],
          [0, 0x80_0000, 'A'],
        ] as const) {
          own.state({ ...initial, floor });
          write(value);
          const { slot: started, said } = await own.start();
          assert.equal(started, slot, `floor ${floor}, counter ${value}: ${said}`);
        }
        // Without its device it counts as none: the board starts by the boot state.
        using without = new BootLoader(versions, undefined, {
          board: { ...qemu, floorCounter: emulatedCounter },
        });
        const outcome = await without.start();
        assert.equal(outcome.slot, 'A', outcome.said);
      } finally {
        rmSync(folder, { recursive: true });
      }
    },
  );

  test(
    'the button for a factory reset is an argument of the kernel, and only while it is held',
    limit,
    async () => {
      for (const [button, expected] of [
        ['true', `${kernelArguments('A', false)}postern.reset=1 `],
        ['false', kernelArguments('A', false)],
      ] as const) {
        using own = new BootLoader(versions, undefined, { board: { ...qemu, resetButton: button } });
        assert.equal((await own.start()).kernelArguments, expected);
      }
    },
  );

  test(
    'an image that is not signed is not started on trial; the good slot follows, and the trial has failed',
    limit,
    async () => {
      using own = new BootLoader(versions);
      const changed = Buffer.from(own.image('B'));
      changed[inKernel(changed)]! ^= 1;
      own.put('boot-b', changed);
      own.state({ trying: 'B', left: 3 });
      assert.equal((await own.start()).slot, undefined);
      assert.deepEqual(own.state(), { ...initial, left: 2, failed: 'B' });
      assert.equal((await own.start()).slot, 'A');
    },
  );

  test('a partition of zeros, and one that is full of ones, are no state', limit, async () => {
    for (const octet of [0, 0xff])
      assert.equal(
        await startWith([Buffer.alloc(copyBytes, octet), Buffer.alloc(copyBytes, octet)], 'filled'),
        'A',
      );
    assert.ok(copyBytes < mebibyte);
  });
});
