import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withoutProse } from '../../build/without-prose.ts';

test('a schema takes the place of its explanation, in calls within calls and over lines', () => {
  const source = `const a = described(
    v.object({ b: described(text, 'It\\'s "b", (of course)'), c: described(v.pipe(number, min(1)), \`c, d\`), }),
    why,
  );`;
  assert.equal(
    withoutProse(source, 'described').replaceAll(/\s+/g, ' '),
    'const a = ( v.object({ b: (text), c: (v.pipe(number, min(1))), }));',
  );
});

test('the text of a node goes, and its other arguments stay', () => {
  const source = "interior(access, 'All', { A: leaf('chr', rw, 'An A', zeroOrOne), B: other.leaf(1) })";
  const leaves = withoutProse(source, 'leaf');
  assert.equal(leaves, "interior(access, 'All', { A: leaf('chr', rw,'', zeroOrOne), B: other.leaf(1) })");
  assert.equal(
    withoutProse(leaves, 'interior'),
    "interior(access,'', { A: leaf('chr', rw,'', zeroOrOne), B: other.leaf(1) })",
  );
});

test('a call without a text in its place is refused, since it would be built wrong', () => {
  assert.throws(() => withoutProse('described(a)', 'described'), /argument 1 is no text/);
  assert.throws(() => withoutProse("leaf('chr', rw, f(x))", 'leaf'), /argument 2 is no text/);
});
