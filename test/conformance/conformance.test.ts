import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { annotations, complaints, conformancePage } from './table.ts';

test('every requirement has a test or does not apply, and every annotation names a requirement', () => {
  assert.deepEqual(complaints(), []);
});

test('an annotation of an unknown requirement, and a requirement without a test, are reported', () => {
  const [[known] = ['']] = annotations();
  assert.ok(complaints(new Map([['NO-1', []]])).some((complaint) => complaint.includes('NO-1')));
  assert.ok(complaints(new Map()).includes(`no test for ${known}`));
});

test('docs/conformance.md is up to date with the annotations of the tests', () => {
  const page = readFileSync(new URL('../../docs/conformance.md', import.meta.url), 'utf8');
  assert.ok(page === conformancePage(), 'docs/conformance.md is out of date; run npm run docs');
});
