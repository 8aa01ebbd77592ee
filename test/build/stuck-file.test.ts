import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

/** Runs a test file with the watch on its end. */
function run(body: string): { status: number | null; output: string } {
  const folder = mkdtempSync(join(tmpdir(), 'postern-stuck-'));
  const file = join(folder, 'a.test.mjs');
  writeFileSync(file, `import { createServer } from 'node:net';\nimport { test } from 'node:test';\n${body}`);
  const watch = fileURLToPath(new URL('../stuck-file.ts', import.meta.url));
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const { status, stdout } = spawnSync(process.execPath, ['--import', watch, '--test', file], {
    encoding: 'utf8',
    env: { ...env, POSTERN_TEST_GRACE: '200' },
    timeout: 60_000,
  });
  rmSync(folder, { recursive: true });
  return { status, output: stdout };
}

test('a file whose test ran out of time ends, and says what kept it', () => {
  const { status, output } = run(
    `test('hangs', { timeout: 200 }, async () => { createServer().listen(0, '127.0.0.1'); await new Promise(() => {}); });`,
  );
  assert.equal(status, 1);
  assert.match(output, /keeps the process alive: .*TCPServerWrap/);
});

test('a file that leaves a socket open after tests that passed fails', () => {
  const { status, output } = run(`test('passes', async () => { createServer().listen(0, '127.0.0.1'); });`);
  assert.equal(status, 1);
  assert.match(output, /keeps the process alive: .*TCPServerWrap/);
});

test('a file that leaves nothing passes', () => {
  assert.equal(run(`test('passes', () => {});`).status, 0);
});
