import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { BootStateCopies, versionNumber } from '../../../src/gateway/update/boot-state.ts';
import { chooseSlot } from '../../../src/gateway/update/launcher.ts';

function copies(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-state-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const files = [join(folder, '1'), join(folder, '2')] as const;
  return { files, state: new BootStateCopies(files) };
}

test('changes are read back; without any copy the good slot is A, and no slot is tried', (t) => {
  const { files, state } = copies(t);
  assert.deepEqual(state.read(), { good: 'A', trying: undefined, left: 0, floor: 0, failed: undefined });
  state.change({ trying: 'B', left: 3 });
  state.change({ floor: 0x010203 });
  const expected = { good: 'A', trying: 'B', left: 3, floor: 0x010203, failed: undefined };
  assert.deepEqual(new BootStateCopies(files).read(), expected);
});

test('the copies are written in turn, in the form of U-Boot environments', (t) => {
  const { files, state } = copies(t);
  for (const left of [3, 2, 1]) state.change({ trying: 'B', left });
  const texts = files.map((file) =>
    readFileSync(file).subarray(4).toString('latin1').split('\0\0')[0]?.split('\0'),
  );
  assert.deepEqual(texts, [
    ['serial=0x3', 'good=A', 'try=B', 'left=1', 'floor=0x0', 'failed=none'],
    ['serial=0x2', 'good=A', 'try=B', 'left=2', 'floor=0x0', 'failed=none'],
  ]);
  for (const file of files) assert.equal(readFileSync(file).length, 4096);
});

test('after a write that is cut off at any octet, the state is the old one or the new one', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 4095 }), fc.boolean(), (cut, isTorn) => {
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
  assert.deepEqual(chooseSlot(state), { slot: 'A', isTried: false });
  state.change({ trying: 'B', left: 2 });
  assert.deepEqual(
    [chooseSlot(state), chooseSlot(state), chooseSlot(state)],
    [
      { slot: 'B', isTried: true },
      { slot: 'B', isTried: true },
      { slot: 'A', isTried: false },
    ],
  );
  assert.deepEqual(state.read(), { good: 'A', trying: undefined, left: 0, floor: 0, failed: 'B' });
});

test('versions compare as numbers; a text that is not a version has no number', () => {
  assert.ok(versionNumber('1.10.0')! > versionNumber('1.9.255')!);
  assert.equal(versionNumber('1.2.3-rc1'), 0x010203);
  for (const text of ['', '1', '1.2', '1.2.256', '128.0.0', 'v1.2.3', '1.2.3.4'])
    assert.equal(versionNumber(text), undefined, text);
});
