// Damage to each partition of an emulated board in turn, the long form: the board comes back each time, and the DM server reaches it.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { mebibyte, type PartitionName, startOf } from '../../firmware-image/recipe/layout.ts';
import { type Entropy, seededEntropy } from '../../src/base/entropy.ts';
import { patience } from './board.ts';
import { copyWithin, dataStart, flip, readPart, writePart, zero } from './disk.ts';
import { Field } from './field.ts';
import { buildFor, versions } from './images.ts';

const limit = { timeout: 900_000 };
const device = 'urn:dev:ops:1';
const seed = Number(process.env.POSTERN_SEED ?? Date.now() % 100_000);
const headBytes = 65_536;

/** Inverts octets at random places: some in the first 4 KiB of a partition, most of them anywhere in its first `bytes`. */
function flipSome({ uniform }: Pick<Entropy, 'uniform'>, disk: string, at: number, bytes: number): void {
  const place = (within: number) => at + Math.floor(uniform() * within);
  for (let count = 0; count < 16; count++) flip(disk, place(4096));
  for (let count = 0; count < 400; count++) flip(disk, place(bytes));
}

describe('a board with a damaged partition', {
  skip: process.env.POSTERN_FIRMWARE !== 'long',
  timeout: 3_600_000,
}, () => {
  let field: Field;
  before(async () => {
    console.log(`POSTERN_SEED=${seed}`);
    const image = await buildFor('first', versions.first, { withDisk: true });
    field = await Field.prepare({ image, files: {}, devices: [device] });
    await field.runOnce(device);
    copyWithin(field.board.disk, startOf('boot-a'), startOf('boot-b'), 24);
    copyWithin(field.board.disk, startOf('root-a'), startOf('root-b'), 96);
  }, limit);
  after(async () => await field?.[Symbol.asyncDispose]());

  /** Starts the board until its slot is healthy, and the DM server has reached it. Returns the slot, and the devices that are there. */
  const run = async () => {
    const { machine } = field.board;
    const from = machine.serial.length;
    const connected = field.board.event('mqtt.connected', 300_000);
    machine.start();
    await connected;
    const { version, devices } = await field.seen();
    assert.equal(version, versions.first);
    const starts = machine.serial
      .slice(from)
      .flatMap((line) => /postern: slot (.), version/.exec(line) ?? []);
    return { slot: starts.at(-1), devices: String(devices).split('/').filter(Boolean).length };
  };

  const entropy = seededEntropy(seed);
  /** Partitions, MiB of them that hold something, and the slot that runs with the damage. */
  const fixed: readonly (readonly [PartitionName, number, string])[] = [
    ['state-1', 1, 'A'],
    ['state-2', 1, 'A'],
    ['config', 16, 'A'],
    ['recovery', 12, 'A'],
    ['boot-b', 16, 'A'],
    ['root-b', 36, 'A'],
    ['boot-a', 16, 'B'],
    ['root-a', 36, 'B'],
  ];
  for (const [name, size, slot] of fixed)
    for (const [how, harm] of [
      ['its head zeroed', (disk: string, at: number) => zero(disk, at, headBytes)],
      ['flipped octets', (disk: string, at: number) => flipSome(entropy, disk, at, size * mebibyte)],
    ] as const)
      test(`${name} with ${how}: slot ${slot} runs, with its device`, limit, async () => {
        const { board, site } = field;
        board.changeBootState({ good: 'A', spare: 'B', starts: 0, failed: undefined });
        const at = startOf(name) * mebibyte;
        const whole = readPart(board.disk, at, size * mebibyte);
        harm(board.disk, at);
        const told = slot === 'B' && site.headendEvents.next('alert.gateway-fault', { kind: 'slot' });
        assert.deepEqual(await run(), { slot, devices: 1 });
        await told;
        await board.machine.cutPower();
        // The board writes its state itself.
        if (!name.startsWith('state')) writePart(board.disk, at, whole);
      });

  for (const [how, harm] of [
    ['flipped octets', (disk: string, at: number) => flipSome(entropy, disk, at, mebibyte)],
    ['its head zeroed', (disk: string, at: number) => zero(disk, at, headBytes)],
  ] as const)
    test(`data with ${how}: the board runs, and is reached by its name`, limit, async (t) => {
      const { board } = field;
      board.changeBootState({ good: 'A', spare: 'B', starts: 0, failed: undefined });
      harm(board.disk, dataStart(board.disk) * mebibyte);
      const repaired = board.machine.says(/the data partition is damaged, and is repaired/, patience.start);
      const { slot, devices } = await run();
      await repaired;
      t.diagnostic(`${devices} of 1 devices are left`);
      assert.equal(slot, 'A');
      await board.machine.cutPower();
    });
});
