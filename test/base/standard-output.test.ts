import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const source = (name: string) => fileURLToPath(new URL(`../../src/base/${name}`, import.meta.url));

/** What a program ends by, after it has logged three lines one after the other, the last two of which wait. */
const ends = {
  'by itself': '',
  'by process.exit': 'process.exit(0);',
  'by an error that nobody catches': "setImmediate(() => { throw new Error('broken'); });",
  'by a rejection that nobody catches': "Promise.reject(new Error('broken'));",
  'by SIGTERM, as the commands take it':
    "process.on('SIGTERM', () => process.exit(0)); setInterval(() => {}, 1000); process.kill(process.pid, 'SIGTERM');",
} as const;

for (const [end, code] of Object.entries(ends))
  test(`lines that wait to be written together are out when the process ends ${end}`, async () => {
    const child = spawn(
      process.execPath,
      [
        '--input-type=module',
        '-e',
        `import { LogEvents } from '${source('log.ts')}';
         const log = new LogEvents('info', 'gateway');
         for (const gateway of ['1', '2', '3']) log.emit('gateway.stopping', { gateway });
         ${code}`,
      ],
      { stdio: ['ignore', 'pipe', 'ignore'] },
    );
    const lines: string[] = [];
    createInterface({ input: child.stdout! }).on('line', (line) => lines.push(JSON.parse(line).gateway));
    await once(child, 'close');
    // A thread may still be at the first line when the exit writes the others.
    assert.deepEqual(lines.slice(0, 3).toSorted(), ['1', '2', '3']);
  });

test('an error is written at once, with the lines that wait, also when the process is killed then', async () => {
  // No timer ever fires and no time passes, so nothing else writes what waits.
  const code = `import { LogEvents } from '${source('log.ts')}';
    globalThis.setTimeout = () => ({ unref: () => {} });
    performance.now = () => 1000;
    const log = new LogEvents('info', 'gateway');
    log.emit('gateway.stopping', { gateway: '1' });
    process.stdin.on('data', () => {
      for (const gateway of ['2', '3']) log.emit('gateway.stopping', { gateway });
      log.emit('background.failed', { work: 'image', reason: 'r', failures: 1 });
    });`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const lines: string[] = [];
  createInterface({ input: child.stdout! }).on('line', (line) => {
    lines.push(JSON.parse(line).gateway ?? 'the error');
    if (lines.length === 1) child.stdin!.write('go on');
    if (lines.length === 4) child.kill('SIGKILL');
  });
  await once(child, 'close');
  assert.deepEqual(lines, ['1', '2', '3', 'the error']);
});

test('lines that wait are written after a while, though the program goes on and logs nothing more', async () => {
  const code = `import { LogEvents } from '${source('log.ts')}';
    const log = new LogEvents('info', 'gateway');
    for (const gateway of ['1', '2', '3']) log.emit('gateway.stopping', { gateway });
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  for (const gateway of ['1', '2', '3'])
    assert.equal(JSON.parse(String((await lines.next()).value)).gateway, gateway);
  child.kill('SIGKILL');
  await once(child, 'close');
});

/** A program that logs `lines` events, tells on standard error what was lost, and ends by itself. */
const program = (lines: number) => `
  import { LogEvents } from '${source('log.ts')}';
  const log = new LogEvents('info', 'gateway');
  log.onError = ({ code, message }) => console.error('lost', code ?? message);
  for (let at = 0; at < ${lines}; at++) log.emit('gateway.stopping', { gateway: 'g'.repeat(1000) });
  console.error('logged');
`;
const run = (lines: number, stdout: 'pipe' | number) =>
  spawn(process.execPath, ['--input-type=module', '-e', program(lines)], {
    stdio: ['ignore', stdout, 'pipe'],
  });

async function errorsOf(child: ReturnType<typeof run>): Promise<string[]> {
  const said: string[] = [];
  createInterface({ input: child.stderr! }).on('line', (line) => said.push(line));
  const [code] = await once(child, 'close');
  assert.equal(code, 0);
  return said;
}

test('a log on a full disk: lines are lost and that is told, the program runs on and ends by itself', async () => {
  assert.deepEqual(await errorsOf(run(2, openSync('/dev/full', 'w'))), [
    'logged',
    'lost ENOSPC',
    'lost ENOSPC',
  ]);
});

test('a log whose reader has gone', async () => {
  const child = run(2, 'pipe');
  child.stdout!.destroy();
  const said = await errorsOf(child);
  assert.ok(said.includes('logged') && said.includes('lost EPIPE'), said.join());
});

test('a log whose reader is slow: what waits is bounded, the rest is lost, whole lines arrive', async () => {
  const child = run(1000, 'pipe');
  const said = errorsOf(child);
  // The reader begins when everything was logged.
  await once(child.stderr!, 'data');
  let lines = 0;
  for await (const line of createInterface({ input: child.stdout! })) {
    assert.equal(JSON.parse(line).event, 'gateway.stopping');
    lines++;
  }
  const lost = (await said).filter((each) => each === 'lost standard output is too slow').length;
  assert.equal(lines + lost, 1000);
  assert.ok(lost > 500, `${lost} of 1000 lines of 1 KB were lost`);
});
