import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { readElf } from '../../firmware-image/recipe/closure.ts';
import { segmentsOf, segmentType } from '../../firmware-image/recipe/elf.ts';
import {
  describePages,
  type PageRun,
  startPages,
  startPagesFile,
  startPagesFirst,
} from '../../firmware-image/recipe/start-pages.ts';

const page = 4096;
/** The Node that runs the tests stands for the board's. */
const program = readFileSync(process.execPath);
const loaded = segmentsOf(program).filter(({ type }) => type === segmentType.load);
/** One page in every ten. */
const touched: PageRun[] = loaded.flatMap(({ address, fileSize }) =>
  Array.from({ length: Math.floor(fileSize / page / 10) }, (_, index) => {
    const from = Math.floor(address / page) + 10 * index + 3;
    return { from, to: from + 1 };
  }),
);
const laidOut = startPagesFirst(program, touched);
const pieces = segmentsOf(laidOut).filter(({ type }) => type === segmentType.load);

/** Bytes from an address in memory to the end of the segment that is loaded there. */
function at(bytes: Buffer, segments: typeof pieces, address: number): Buffer {
  const found = segments.find((one) => address >= one.address && address < one.address + one.fileSize)!;
  const start = found.offset + address - found.address;
  return bytes.subarray(start, found.offset + found.fileSize);
}

test('the program has the same bytes at the same addresses in memory', () => {
  for (const [index, { address, fileSize, memorySize }] of loaded.entries()) {
    // The header of the file is left out, since it has the new offsets of the program headers.
    for (let done = index === 0 ? 64 : 0; done < fileSize; ) {
      const [now, before] = [at(laidOut, pieces, address + done), at(program, loaded, address + done)];
      const length = Math.min(now.length, before.length);
      assert.equal(now.compare(before, 0, length, 0, length), 0, `at ${(address + done).toString(16)}`);
      done += length;
    }
    const end = pieces.find((one) => one.address + one.memorySize === address + memorySize);
    assert.ok(end, 'the zeros at the end of the segment are there as well');
  }
  const addresses = pieces.map((one) => one.address);
  assert.deepEqual(
    addresses,
    addresses.toSorted((a, b) => a - b),
  );
  assert.ok(pieces.every(({ offset, address }) => offset % page === address % page));
});

test('the pages that a start touches come first in the file', () => {
  const written = loaded.filter(({ memorySize, fileSize }) => memorySize > fileSize);
  const most =
    touched.length + written.reduce((sum, { fileSize }) => sum + Math.ceil(fileSize / page) + 1, 1);
  for (const { from } of touched) {
    const address = from * page;
    const piece = pieces.find((one) => one.address <= address && address < one.address + one.fileSize)!;
    const offset = piece.offset + address - piece.address;
    assert.ok(offset < most * page, `page ${from.toString(16)} is at ${offset}`);
  }
});

test('the loader starts a program with more than 1000 segments', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-pages-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'node');
  writeFileSync(file, laidOut, { mode: 0o755 });
  assert.ok(pieces.length > 1000);
  const { interpreter } = readElf(laidOut);
  assert.equal(interpreter, readElf(program).interpreter);
  const script = "console.log(require('node:crypto').createHash('sha256').update('postern').digest('hex'))";
  const [before, now] = [
    execFileSync(process.execPath, ['-e', script]),
    execFileSync(interpreter!, [file, '-e', script]),
  ];
  assert.deepEqual(now, before);
});

test('runs of pages with a gap of up to two pages are joined', () => {
  const first = Math.floor(loaded[1]!.address / page) + 100;
  const segmentsWith = (runs: PageRun[]) => segmentsOf(startPagesFirst(program, runs)).length;
  const one = segmentsWith([{ from: first, to: first + 1 }]);
  assert.equal(segmentsWith([first, first + 3].map((from) => ({ from, to: from + 1 }))), one);
  assert.equal(segmentsWith([first, first + 4].map((from) => ({ from, to: from + 1 }))), one + 2);
});

test('the list of pages is read as it was written, and is valid for one version of Node', () => {
  const runs = Array.from({ length: 25 }, (_, index) => ({
    from: 0x400 + 16 * index,
    to: 0x402 + 16 * index,
  }));
  assert.deepEqual(startPages('26.1.0', describePages('26.1.0', runs)), runs);
  assert.deepEqual(startPages('26.1.1', describePages('26.1.0', runs)), []);
});

test('start-pages.txt was measured for the Node that images have', () => {
  const runs = startPages(process.versions.node);
  assert.ok(runs.length > 100, `${startPagesFile} was measured for another Node; run npm run image:pages`);
  for (const [index, { from, to }] of runs.entries())
    assert.ok(from < to && from >= (runs[index - 1]?.to ?? 0), `${from.toString(16)}-${to.toString(16)}`);
});

test('a file that is not an ELF program is refused', () => {
  assert.throws(() => startPagesFirst(Buffer.from('#!/bin/sh'), []), /only an ELF program/);
});
