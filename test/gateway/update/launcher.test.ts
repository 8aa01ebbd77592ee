// The supervisor of slots that are folders, with programs in processes of their own that do what a faulty version does.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { mostStarts, type SlotName } from '../../../src/gateway/update/boot-state.ts';
import {
  bootStateOf,
  configurationExitCode,
  programOf,
  restartExitCode,
} from '../../../src/gateway/update/directory-slots.ts';
import { launch } from '../../../src/gateway/update/launcher.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';

const limit = { timeout: 60_000 };
const hang = 'Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);\n';
const feed = "(await import('node:fs')).writeSync(3, '\\0');\n";
const ends = (code: number) => `process.exit(${code});\n`;
/** Serves until it is told to end. */
const serves = `process.on('SIGTERM', () => process.exit(0)); setInterval(() => {}, 1e6);\n${feed}`;

/** A folder of slots, and a launcher that runs until the test ends. */
function launcher(t: TestContext, own = serves) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-launcher-'));
  const ownProgram = join(folder, 'own.mjs');
  writeFileSync(ownProgram, own);
  const directory = join(folder, 'slots');
  mkdirSync(directory);
  const clock = new HandClock();
  const events = new EventRecorder();
  const emit = events.emit.bind(events);
  events.emit = (name, fields) => {
    emit(name, fields);
    // The pause before the next start is over at once.
    if (name === 'slot.ended') setImmediate(() => clock.advance(40_000));
  };
  const stop = new AbortController();
  let running: Promise<void> | undefined;
  t.after(async () => {
    stop.abort();
    await running?.catch(() => {});
    rmSync(folder, { recursive: true });
  });
  const boot = bootStateOf(directory);
  return {
    boot,
    clock,
    events,
    stop,
    directory,
    fill(slot: SlotName, program: string, version = '1.0.0') {
      const file = programOf(directory, slot);
      mkdirSync(join(file, '..'));
      writeFileSync(file, program);
      const sha256 = createHash('sha256').update(program).digest('hex');
      const manifest = { compatible: 'postern-node', version, size: program.length, sha256 };
      writeFileSync(join(file, '../manifest.json'), JSON.stringify(manifest));
    },
    run() {
      const parts = { directory, ownProgram, args: [], clock, entropy: seededEntropy(1), events };
      running = launch({ ...parts, onReload: () => {} }, stop.signal);
      return running;
    },
    /** Slots in the order of their starts. */
    starts: () => events.all.filter(({ name }) => name === 'slot.starting').map(({ fields }) => fields.slot),
    /** Resolves when the launcher has set a timer that is due in so many milliseconds. */
    async due(milliseconds: number) {
      while (clock.next !== milliseconds) await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

describe('the launcher supervises', { timeout: 300_000 }, () => {
  test(
    'a version on trial that hangs: it is ended after five minutes, and given up after its starts',
    limit,
    async (t) => {
      const made = launcher(t);
      made.fill('A', serves);
      made.fill('B', hang);
      made.boot.change({ trying: 'B', left: 2 });
      made.run();
      for (let start = 0; start < 2; start++) {
        await made.due(300_000);
        const ended = made.events.next('slot.ended', { slot: 'B' });
        made.clock.advance(299_999);
        assert.equal(made.events.count('slot.silent'), start);
        made.clock.advance(1);
        await ended;
      }
      await made.events.until('slot.starting', { slot: 'A' });
      const { good, trying, failed } = made.boot.read();
      assert.deepEqual([good, trying, failed], ['A', undefined, 'B']);
      assert.deepEqual(made.starts(), ['B', 'B', 'A']);
    },
  );

  test(
    'a version that has fed it and falls silent: on trial or not, it is ended after a minute and started again',
    limit,
    async (t) => {
      const made = launcher(t);
      made.fill('A', feed + hang);
      made.run();
      for (let start = 0; start < 3; start++) {
        await made.due(60_000);
        const again = made.events.next('slot.starting', { slot: 'A' });
        made.clock.advance(60_000);
        await again;
      }
      assert.equal(made.events.count('slot.silent'), 3);
    },
  );

  test(
    'a good version that has not fed yet has all the time: it may wait for its enrolment',
    limit,
    async (t) => {
      const made = launcher(t);
      const ready = join(made.directory, 'ready');
      made.fill('A', `(await import('node:fs')).writeFileSync('${ready}', '');\n${hang}`);
      made.run();
      while (!existsSync(ready)) await new Promise((resolve) => setImmediate(resolve));
      made.clock.advance(3_600_000);
      assert.equal(made.clock.timers, 0);
      assert.equal(made.events.count('slot.silent'), 0);
      // It does not end by SIGTERM either. That has an end too.
      made.stop.abort();
      await made.due(60_000);
      made.clock.advance(60_000);
      await made.events.until('slot.silent');
    },
  );

  test(
    'exit code 0 is an end like others: a version on trial is given up, a good one is started again',
    limit,
    async (t) => {
      const made = launcher(t);
      made.fill('A', ends(0));
      made.fill('B', ends(0));
      made.boot.change({ trying: 'B', left: 2 });
      made.run();
      while (made.starts().length < 5) await made.events.next('slot.starting');
      assert.deepEqual(made.starts().slice(0, 5), ['B', 'B', 'A', 'A', 'A']);
      assert.equal(made.boot.read().failed, 'B');
    },
  );

  test(
    'a good version that ends again and again gives way to the one before; one that cannot start with its configuration does not',
    limit,
    async (t) => {
      const made = launcher(t);
      made.fill('A', serves);
      made.fill('B', ends(1), '1.1.0');
      made.boot.change({ good: 'B', spare: 'A' });
      made.run();
      await made.events.until('slot.starting', { slot: 'A' });
      assert.deepEqual(made.starts(), [...Array.from({ length: mostStarts }, () => 'B'), 'A']);
      const { good, spare, failed } = made.boot.read();
      assert.deepEqual([good, spare, failed], ['A', 'B', 'B']);

      const mistaken = launcher(t);
      mistaken.fill('A', serves);
      mistaken.fill('B', ends(configurationExitCode), '1.1.0');
      mistaken.boot.change({ good: 'B', spare: 'A' });
      mistaken.run();
      while (mistaken.starts().length < mostStarts + 3) await mistaken.events.next('slot.starting');
      assert.ok(!mistaken.starts().includes('A'));
    },
  );

  test(
    'the program of a slot before each start: one that was changed is not started, and that is said once',
    limit,
    async (t) => {
      const made = launcher(t);
      made.fill('A', ends(restartExitCode));
      made.fill('B', serves, '1.1.0');
      made.boot.change({ good: 'B', spare: 'A' });
      const program = readFileSync(programOf(made.directory, 'B'));
      program[10]! ^= 1;
      writeFileSync(programOf(made.directory, 'B'), program);
      made.run();
      for (let start = 0; start < 3; start++) await made.events.next('slot.starting', { slot: 'A' });
      assert.deepEqual(new Set(made.starts()), new Set(['A']));
      const unusable = made.events.all.filter(({ name }) => name === 'slot.unusable');
      assert.deepEqual(
        unusable.map(({ fields }) => fields),
        [{ slot: 'B', reason: 'its program was changed' }],
      );
    },
  );

  test('a slot on trial that was changed is given up without a start', limit, async (t) => {
    const made = launcher(t);
    made.fill('A', serves);
    made.fill('B', serves, '1.1.0');
    writeFileSync(programOf(made.directory, 'B'), 'cut');
    made.boot.change({ trying: 'B', left: 3 });
    made.run();
    await made.events.until('slot.starting', { slot: 'A', tried: false });
    const { trying, left, failed } = made.boot.read();
    assert.deepEqual([trying, left, failed], [undefined, 0, 'B']);
  });

  test("both slots damaged: slot A gets the launcher's own program", limit, async (t) => {
    const made = launcher(t);
    for (const slot of ['A', 'B'] as const) {
      made.fill(slot, serves);
      writeFileSync(programOf(made.directory, slot), '');
    }
    made.boot.change({ good: 'B' });
    made.run();
    await made.events.until('slot.starting', { slot: 'A' });
    assert.equal(readFileSync(programOf(made.directory, 'A'), 'utf8'), serves);
    await made.due(60_000);
  });

  test("the floor: a version below it is not started, also not the launcher's own", limit, async (t) => {
    const made = launcher(t);
    made.fill('A', serves, '1.0.0');
    made.fill('B', serves, '1.1.0');
    made.boot.change({ good: 'A', floor: 0x010001 });
    made.run();
    await made.events.until('slot.starting');
    assert.deepEqual(made.starts(), ['B']);
    const { fields } = await made.events.until('slot.unusable');
    assert.deepEqual(fields, { slot: 'A', reason: '1.0.0 is below the floor' });

    const none = launcher(t);
    none.fill('A', serves, '1.0.0');
    none.boot.change({ floor: 0x7f_0000 });
    await assert.rejects(none.run(), { code: 'configuration', message: /no slot in .* can be started/ });
  });

  test(
    'a boot state that cannot be written: nothing is tried, and the good slot is started',
    limit,
    async (t) => {
      const made = launcher(t);
      made.fill('A', serves);
      made.fill('B', serves);
      made.boot.change({ good: 'A' });
      made.boot.change({ trying: 'B', left: 3 });
      // The copy that would be written next becomes a folder.
      rmSync(join(made.directory, 'state-1'));
      mkdirSync(join(made.directory, 'state-1'));
      made.run();
      await made.events.until('slot.starting');
      assert.deepEqual(made.starts(), ['A']);
    },
  );
});
