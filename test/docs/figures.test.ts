import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { figurePages, fillBlocks, runBlock } from '../../build/figure-pages.ts';
import { measured, readFigures, single } from '../../build/figures.ts';

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
const runs = readFigures();

/** A number with a unit that measurements have. */
const quantity =
  /\d[\d.,]*[ \u00a0]?(?:%|(?:µs|ms|s|seconds?|minutes?|bytes|octets|[kKMG]i?B|times)\b)(?:\/s\b)?|\d[\d.,]*[ \u00a0]?(?:devices|requests|sessions|packages)(?:\/s| a second| per second)/g;

/** Quantities of a page's prose: outside of generated blocks and of code. */
const quantities = (page: string): string[] =>
  page
    .replace(/<!-- ([a-z]+) -->.*?<!-- \/\1 -->/gs, '')
    .replace(/^```.*?^```$/gms, '')
    .match(quantity) ?? [];

for (const [path, text] of figurePages(runs))
  test(`${path} shows the figures of docs/figures.json (npm run docs)`, () => assert.equal(read(path), text));

test('README and docs/performance.md quote no figure outside of the generated tables', () => {
  for (const path of ['README.md', 'docs/performance.md']) assert.deepEqual(quantities(read(path)), [], path);
});

test('the chapter "Figures" of docs/firmware.md quotes no figure outside of the generated tables', () => {
  const chapter = /^## Figures\n.*?(?=^## )/ms.exec(read('docs/firmware.md'))?.[0];
  assert.ok(chapter, 'docs/firmware.md has the chapter');
  // The memory of the emulated board is no measurement.
  assert.deepEqual(
    quantities(chapter).filter((found) => found !== '128 MB'),
    [],
  );
});

test('the search for figures finds them in prose, and ignores generated blocks and code', () => {
  const block = '<!-- a -->\n| 7 MB |\n<!-- /a -->';
  assert.deepEqual(
    quantities(`It takes 8.4 µs, 0.98 times, 22 MB/s.\n${block}\nNode 24, 5 sites, 460 devices/s, 3 %`),
    ['8.4 µs', '0.98 times', '22 MB/s', '460 devices/s', '3 %'],
  );
  assert.deepEqual(quantities('```\n   0.16 s\n```\n'), []);
});

test('the recorded size of the bundle is within 2 % of the bundle in dist/ (npm run build -- --write)', () => {
  const code = readFileSync(new URL('../../dist/postern.mjs', import.meta.url));
  const { minified, gzipped } = runs.bundle!.figures;
  for (const [figure, bytes] of [
    [minified!, code.length],
    [gzipped!, gzipSync(code, { level: 9 }).length],
  ] as const) {
    const difference = Math.abs(figure.value * 1000 - bytes) / bytes;
    assert.ok(
      difference <= 0.02,
      `${figure.what}: recorded ${figure.value} KB, built ${(bytes / 1000).toFixed(1)} KB`,
    );
  }
});

test('a table shows median, range and target in words', () => {
  const run = {
    title: 'T',
    date: '2026-11-28',
    machine: '2 cores',
    how: 'By hand.',
    figures: {
      ratio: measured('Ratio', 'times', [1.1, 3, 1.341], { atMost: 1.1 }),
      even: measured('Even', 'µs', [1000, 3000.04]),
      memory: single('Memory', 'MB', 7.96, { atMost: 8, atLeast: 2 }),
    },
  };
  assert.equal(
    runBlock(run),
    `By hand. Measured: 2026-11-28; 2 cores.

| Figure | Value | Least to most | Target |
|---|---|---|---|
| Ratio | 1.34 times | 1.10 to 3.00 | at most 1.1: missed |
| Even | 2,000 µs | 1,000 to 3,000 | |
| Memory | 8 MB | | at most 8, at least 2: met |`.replaceAll('| |', '|  |'),
  );
});

test('a page without markers is reported', () =>
  assert.throws(
    () => fillBlocks('page.md', 'text', { coap: 'table' }),
    /page\.md has no markers <!-- coap -->/,
  ));
