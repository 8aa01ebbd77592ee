import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { byFloor } from '../../build/module-order.ts';

test('modules stand by floor, folder and name', () => {
  const house = { src: [['base'], ['wire'], ['cli']], 'src/wire': [['.'], ['syncml', 'coap']] };
  const sorted = [
    'src/base/a.ts',
    'src/base/b.ts',
    'src/wire/z.ts',
    'src/wire/syncml/c.ts',
    'src/wire/coap/a.ts',
    'src/wire/coap/deep/b.ts',
    'src/wire/coap/x.ts',
    'src/cli/a.ts',
  ];
  assert.deepEqual(byFloor(sorted.toReversed(), house), sorted);
});

test('the bundle of the gateway has them in this order', () => {
  const bundle = readFileSync(new URL('../../dist/postern.mjs', import.meta.url), 'utf8');
  const texts = [
    ['src/base', 'the disk has no room for a copy'],
    ['src/wire/tunnel', 'unknown kind of envelope'],
    ['src/dm', 'a Copy without a source'],
    ['src/gateway/update', 'no package is there'],
    ['src/cli', 'Usage: postern gateway'],
  ] as const;
  const places = texts.map(([folder, text]) => ({ folder, at: bundle.indexOf(text) }));
  assert.ok(places.every(({ at }) => at > 0));
  assert.deepEqual(
    places,
    places.toSorted((a, b) => a.at - b.at),
  );
});
