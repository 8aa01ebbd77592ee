import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readDiagnosis } from '../../src/gateway/update/diagnosis.ts';

const scripts = fileURLToPath(new URL('../../firmware-image/rootfs/usr/lib/postern', import.meta.url));
const skip = spawnSync('busybox', ['true']).status === 0 ? false : 'needs busybox';
const most = 16_384;

/** A folder in place of the board's, in which the board's own script looks for what happened. */
function board(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-diagnosis-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const watchdog = 'sys/class/watchdog/watchdog0';
  for (const name of ['run', 'data/root', 'data/crash', 'sys/fs/pstore', watchdog, 'bin'])
    mkdirSync(join(folder, name), { recursive: true });
  writeFileSync(join(folder, 'bin/mount'), '#!/bin/sh\n', { mode: 0o755 });
  const script = readFileSync(join(scripts, 'diagnose'), 'utf8')
    .replaceAll('/usr/lib/postern/common', '/dev/null')
    .replaceAll(/(?<![\w.])\/(run|data|sys)\//g, `${folder}/$1/`);
  const file = join(folder, 'diagnose');
  writeFileSync(file, script);
  return {
    put: (name: string, text: string) => writeFileSync(join(folder, name), text),
    read: (name: string) => readFileSync(join(folder, name), 'utf8'),
    has: (name: string) => existsSync(join(folder, name)),
    age: (name: string) => utimesSync(join(folder, name), 1, 1),
    watchdog: `${watchdog}/bootstatus`,
    /** A start of the board. */
    start: () => {
      const env = { ...process.env, PATH: `${join(folder, 'bin')}:${process.env.PATH}` };
      const { status, stderr } = spawnSync('busybox', ['sh', file], { env });
      assert.equal(status, 0, String(stderr));
      const { Slots: _, ...told } = readDiagnosis(join(folder, 'run/diagnosis'), '');
      return told as Record<'ResetCause' | 'Starts' | 'LastCrash' | 'KernelLog', string>;
    },
  };
}

test('a board of which nothing is known tells that its power came, and counts', { skip }, (t) => {
  const made = board(t);
  assert.deepEqual(made.start(), { ResetCause: 'power', Starts: '1', LastCrash: '', KernelLog: '' });
  assert.equal(made.start().Starts, '2');
});

for (const [what, files, cause] of [
  ['an order', { 'data/root/stopped': 'ordered\n' }, 'ordered'],
  ['the watchdog', { 'sys/class/watchdog/watchdog0/bootstatus': '32\n' }, 'watchdog'],
  ['an overheated board', { 'sys/class/watchdog/watchdog0/bootstatus': '1\n' }, 'power'],
  ['a panic', { 'sys/fs/pstore/dmesg-ramoops-0': 'Oops' }, 'panic'],
  [
    'a panic that the watchdog ended',
    { 'sys/fs/pstore/dmesg-ramoops-0': 'Oops', 'sys/class/watchdog/watchdog0/bootstatus': '32\n' },
    'panic',
  ],
  [
    'an order, with an old bit of the watchdog',
    { 'data/root/stopped': 'ordered', 'sys/class/watchdog/watchdog0/bootstatus': '32' },
    'ordered',
  ],
  ['a watchdog without a number', { 'sys/class/watchdog/watchdog0/bootstatus': 'none\n' }, 'power'],
] as const)
  test(`the cause of a start after ${what} is ${cause}, and is told once`, { skip }, (t) => {
    const made = board(t);
    for (const [name, text] of Object.entries(files)) made.put(name, text);
    assert.equal(made.start().ResetCause, cause);
    made.put(made.watchdog, '0\n');
    assert.equal(made.start().ResetCause, 'power');
  });

test('the log of a panic stays until there is another log, and is taken out of the memory of the kernel', {
  skip,
}, (t) => {
  const made = board(t);
  made.put('data/root/kernel-log', 'an ordered stop');
  made.put('sys/fs/pstore/dmesg-ramoops-0', `${'x'.repeat(most)}Kernel panic`);
  made.put('sys/fs/pstore/console-ramoops-0', 'console');
  const told = made.start();
  assert.equal(told.KernelLog.length, most);
  assert.match(told.KernelLog, /x{100}Kernel panic$/);
  assert.ok(!made.has('sys/fs/pstore/dmesg-ramoops-0'));
  assert.match(made.start().KernelLog, /Kernel panic$/);
  assert.equal(made.read('data/root/kernel-log').length, most);
});

test('the copies for the gateway are bounded, whatever the originals are', { skip }, (t) => {
  const made = board(t);
  made.put('data/root/kernel-log', 'z'.repeat(5 * most));
  made.put('data/crash/1.log', 'z'.repeat(5 * most));
  made.start();
  for (const name of ['KernelLog', 'LastCrash'])
    assert.equal(made.read(`run/diagnosis/${name}`).length, most, name);
});

test('the latest of the logs of crashes is told, and its end if it is long', { skip }, (t) => {
  const made = board(t);
  made.put('data/crash/1.log', 'old');
  made.age('data/crash/1.log');
  made.put('data/crash/3.log', `${'y'.repeat(2 * most)}TypeError\u0007\ufffd\n`);
  const { LastCrash } = made.start();
  assert.ok(LastCrash.length <= most);
  assert.match(LastCrash, /y{100}TypeError\ufffd\ufffd$/, 'without what XML cannot hold');
});

for (const [what, text] of [
  ['empty', ''],
  ['no number', 'a b\n'],
  ['a command', '$(reboot)\n'],
  ['too long', `${'9'.repeat(30)}\n`],
  ['negative', '-5\n'],
] as const)
  test(`a counter of starts that is ${what} begins again`, { skip }, (t) => {
    const made = board(t);
    made.put('data/root/starts', text);
    assert.equal(made.start().Starts, '1');
  });

test('a file longer than any of the board is told to its end only, and a folder in its place not at all', (t) => {
  const made = mkdtempSync(join(tmpdir(), 'postern-diagnosis-'));
  t.after(() => rmSync(made, { recursive: true }));
  writeFileSync(join(made, 'KernelLog'), `a${'b'.repeat(most)}`);
  mkdirSync(join(made, 'LastCrash'));
  const { KernelLog, LastCrash } = readDiagnosis(made, '');
  assert.equal(KernelLog, 'b'.repeat(most));
  assert.equal(LastCrash, '');
});
