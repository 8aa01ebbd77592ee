import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { writeMinified } from '../../build/minified.ts';

test('a module is minified, kept for the same code, and made again when code or file changed', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-minified-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'a.mjs');
  const code = (name: string) =>
    `export function ${name}(first) { const twice = first * 2; return twice + 1; }`;
  await writeMinified(code('one'), file);
  const made = readFileSync(file, 'utf8');
  assert.ok(made.length < code('one').length, made);
  assert.equal((await import(file)).one(4), 9);

  utimesSync(file, 1, 1);
  await writeMinified(code('one'), file);
  assert.equal(statSync(file).mtimeMs, 1000, 'kept');
  writeFileSync(file, 'export const damaged = 1;');
  await writeMinified(code('one'), file);
  assert.equal(readFileSync(file, 'utf8'), made);
  await writeMinified(code('two'), file);
  assert.match(readFileSync(file, 'utf8'), /two/);
});

test('a function stays where it is made once', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-minified-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'b.mjs');
  const big =
    'function read(x) { for (let i = 0; i < x; i++) if (x % i === 3) return x - i; throw new Error("none"); }';
  await writeMinified(`${big}\nexport const all = (list) => list.map((one) => read(one));`, file);
  assert.match(readFileSync(file, 'utf8'), /^function /);
});
