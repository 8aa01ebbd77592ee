import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { annotations, complaints, conformancePage } from './table.ts';

test('every requirement is shown by a test or does not apply, and every annotation names one', () => {
  assert.deepEqual(complaints(), []);
});

test('an annotation that names nothing, and a requirement that nobody shows, are told', () => {
  const [[known] = ['']] = annotations();
  assert.ok(complaints(new Map([['NO-1', []]])).some((complaint) => complaint.includes('NO-1')));
  assert.ok(complaints(new Map()).includes(`no test shows ${known}`));
});

test('docs/conformance.md is what the tests say; `npm run docs` makes it', () => {
  const page = readFileSync(new URL('../../docs/conformance.md', import.meta.url), 'utf8');
  assert.ok(page === conformancePage(), 'docs/conformance.md is out of date: npm run docs');
});
