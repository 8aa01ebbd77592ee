import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import {
  type BootState,
  BootStateCopies,
  copyBytes,
  keptState,
  lostSlot,
  mostStarts,
  stateFields,
  versionNumber,
} from '../../../src/gateway/update/boot-state.ts';
import { chooseSlot } from '../../../src/gateway/update/launcher.ts';

/** The boot state when there is no copy. */
const fresh: BootState = {
  good: 'A',
  trying: undefined,
  left: 0,
  floor: 0,
  failed: undefined,
  starts: 0,
  spare: undefined,
  recovered: false,
};

function copies(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-state-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const files = [join(folder, '1'), join(folder, '2')] as const;
  return { files, state: new BootStateCopies(files) };
}

test('changes are read back; without any copy the good slot is A, and no slot is tried', (t) => {
  const { files, state } = copies(t);
  assert.deepEqual(state.read(), fresh);
  state.change({ trying: 'B', left: 3 });
  state.change({ floor: 0x010203 });
  assert.deepEqual(new BootStateCopies(files).read(), { ...fresh, trying: 'B', left: 3, floor: 0x010203 });
});

test('the copies are written in turn, as numbers behind a checksum', (t) => {
  const { files, state } = copies(t);
  for (const left of [3, 2, 1]) state.change({ trying: 'B', left, floor: 0x010203 });
  const words = files.map((file) => {
    const bytes = readFileSync(file);
    assert.equal(bytes.length, copyBytes);
    assert.equal(bytes.readUInt32BE(), crc32(bytes.subarray(4)));
    return Array.from({ length: 10 }, (_, index) => bytes.readUInt32LE(4 * index + 4));
  });
  const magic = Buffer.from('PBS2').readUInt32LE();
  assert.deepEqual(words, [
    [magic, 3, 1, 2, 1, 0x010203, 0, 0, 0, 0],
    [magic, 2, 1, 2, 2, 0x010203, 0, 0, 0, 0],
  ]);
});

test('a copy with a value out of its range is no copy, also with a correct checksum', (t) => {
  const { files, state } = copies(t);
  for (const [index, [name, [least, most]]] of Object.entries(stateFields).entries())
    for (const value of [least - 1, most + 1, 0xffff_ffff]) {
      if (value < 0 || value > 0xffff_ffff) continue;
      state.change({ good: 'B' });
      for (const file of files) {
        const bytes = Buffer.from(readFileSync(files[0]));
        bytes.writeUInt32LE(value, 4 * index + 4);
        bytes.writeUInt32BE(crc32(bytes.subarray(4)));
        writeFileSync(file, bytes);
      }
      assert.deepEqual(state.read(), fresh, `${name} is ${value}`);
      // And the next change goes through.
      state.change({ good: 'B' });
      assert.equal(state.read().good, 'B');
    }
});

test('after a write that is cut off at any octet, the state is the old one or the new one', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: copyBytes - 1 }), fc.boolean(), (cut, isTorn) => {
      const { files, state } = copies(t);
      state.change({ good: 'B' });
      state.change({ good: 'B', trying: 'A', left: 2 });
      const before = readFileSync(files[0]);
      state.change({ good: 'A', trying: undefined, left: 0 });
      const after = readFileSync(files[0]);
      // Either the rest of the old copy is still there, or the file ends.
      writeFileSync(
        files[0],
        Buffer.concat([after.subarray(0, cut), isTorn ? before.subarray(cut) : Buffer.alloc(0)]),
      );
      const found = new BootStateCopies(files).read();
      const isOld = found.good === 'B' && found.trying === 'A' && found.left === 2;
      const isNew = found.good === 'A' && found.trying === undefined;
      assert.ok(isOld || isNew, JSON.stringify(found));
      // And the next change goes through.
      new BootStateCopies(files).change({ failed: 'A' });
      assert.equal(new BootStateCopies(files).read().failed, 'A');
    }),
    { numRuns: 200 },
  );
});

test('a copy that is too short is ignored', (t) => {
  const { files, state } = copies(t);
  state.change({ good: 'B' });
  truncateSync(files[0], 100);
  assert.equal(new BootStateCopies(files).read().good, 'A');
});

test('starts of a tried slot are counted down; at zero the good slot starts, and the tried one is recorded as failed', (t) => {
  const { state } = copies(t);
  assert.deepEqual(chooseSlot(state), { slot: 'A', isTried: false, isLast: false });
  state.change({ trying: 'B', left: 2 });
  assert.deepEqual(
    Array.from({ length: 3 }, () => chooseSlot(state)).map(({ slot, isTried }) => [slot, isTried]),
    [
      ['B', true],
      ['B', true],
      ['A', false],
    ],
  );
  assert.deepEqual(state.read(), { ...fresh, starts: 2, failed: 'B' });
});

test('a good slot that is started too often without being found healthy gives way to the spare one; then it is time to recover, and both get all their starts again', (t) => {
  const { state } = copies(t);
  state.change({ good: 'B', spare: 'A' });
  const choices = Array.from({ length: 4 * mostStarts + 2 }, () => chooseSlot(state));
  const times = (slot: 'A' | 'B') => Array.from({ length: mostStarts }, () => slot);
  const slots = choices.map(({ slot }) => slot);
  assert.deepEqual(slots, [...times('B'), ...times('A'), 'A', ...times('A'), ...times('B'), 'B']);
  const last = choices.flatMap(({ isLast }, at) => (isLast ? [at] : []));
  assert.deepEqual(last, [2 * mostStarts, 4 * mostStarts + 1]);
  assert.deepEqual(state.read(), { ...fresh, good: 'B', spare: 'A' });
});

test('a good slot without a spare one is started for ever, and each time after its starts it is time to recover', (t) => {
  const { state } = copies(t);
  const choices = Array.from({ length: 2 * (mostStarts + 1) }, () => chooseSlot(state));
  assert.ok(choices.every(({ slot }) => slot === 'A'));
  assert.deepEqual(
    choices.flatMap(({ isLast }, at) => (isLast ? [at] : [])),
    [mostStarts, 2 * mostStarts + 1],
  );
  assert.deepEqual(state.read(), fresh);
});

test('a slot that is kept is good, and the one before is its spare; what is ordered to be tried next stays ordered', () => {
  const tried = { ...fresh, trying: 'B', left: 1, starts: 3 } as const;
  assert.deepEqual(keptState(tried, 'B'), { ...fresh, good: 'B', spare: 'A' });
  assert.deepEqual(keptState(tried, 'A'), { ...tried, starts: 0 });
  // A trial that has failed stays known, a slot that was lost is told before.
  assert.deepEqual(keptState({ ...fresh, starts: 3, failed: 'B' }, 'A'), { ...fresh, failed: 'B' });
  assert.deepEqual(keptState({ ...fresh, starts: 3, spare: 'B', failed: 'B' }, 'A'), {
    ...fresh,
    spare: 'B',
  });
  assert.deepEqual(keptState({ ...fresh, starts: 3 }, 'B'), { ...fresh, good: 'B', spare: 'A' });
});

test('a slot is lost when the running one has taken its place, and not when a trial ends', () => {
  for (const [state, current, lost] of [
    [fresh, 'A', undefined],
    [fresh, 'B', 'A'],
    [{ ...fresh, trying: 'B', left: 1 }, 'B', undefined],
    [{ ...fresh, failed: 'B' }, 'A', undefined],
    [{ ...fresh, failed: 'B', spare: 'B' }, 'A', 'B'],
  ] as const)
    assert.equal(lostSlot(state, current), lost, JSON.stringify(state));
});

test('versions compare as numbers; a text that is not a version has no number', () => {
  assert.ok(versionNumber('1.10.0')! > versionNumber('1.9.255')!);
  assert.equal(versionNumber('1.2.3-rc1'), 0x010203);
  for (const text of ['', '1', '1.2', '1.2.256', '128.0.0', 'v1.2.3', '1.2.3.4'])
    assert.equal(versionNumber(text), undefined, text);
});
