import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { jsonLevels, parseJson } from '../../src/base/json.ts';

const read = (text: string) => parseJson(Buffer.from(text));

test('JSON is read as by JSON.parse', () => {
  fc.assert(fc.property(fc.json({ maxDepth: 8 }), (text) => assert.deepEqual(read(text), JSON.parse(text))));
});

test('what is nested too deep is refused before it is parsed, in arrays, objects and both', () => {
  const nested = (levels: number, open: string, close: string) =>
    `${open.repeat(levels)}1${close.repeat(levels)}`;
  for (const [open, close, each] of [
    ['[', ']', 1],
    ['{"a":', '}', 1],
    ['[{"a":', '}]', 2],
  ] as const) {
    const most = jsonLevels / each;
    assert.ok(read(nested(most, open, close)));
    assert.throws(() => read(nested(most + 1, open, close)), /more than 64 levels/);
    assert.throws(() => read(open.repeat(300_000)), /more than 64 levels/);
  }
});

test('brackets in texts are no levels, whatever is escaped there', () => {
  for (const text of [
    '['.repeat(100),
    `\\"${'{'.repeat(100)}`,
    `${'\\\\'.repeat(3)}`,
    '"[',
    '\\',
    'ä['.repeat(99),
  ])
    assert.equal(read(JSON.stringify(text)), text);
  assert.throws(() => read(`["\\\\",${'['.repeat(100)}`), /more than 64 levels/);
});

test('siblings do not add up', () => {
  assert.equal((read(`[${'[{}],'.repeat(1000)}1]`) as unknown[]).length, 1001);
});
