import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

const source = new URL('../../src/cli/frugality.ts', import.meta.url).href;

/**
 * Runs a program with a V8 flag and returns what it prints. The program has `beFrugal`, `tidyUp`, `tidyUpWhenQuiet`, `watchedForWork`,
 * timers that it moves by `mock`, and `burn`, which takes CPU time.
 */
function output(flag: string, program: string): string {
  const code = `
    import { mock } from 'node:test';
    import { beFrugal, tidyUp, tidyUpWhenQuiet, watchedForWork } from ${JSON.stringify(source)};
    mock.timers.enable({ apis: ['setInterval'] });
    const burn = (milliseconds) => {
      const from = process.threadCpuUsage();
      const used = ({ user, system } = process.threadCpuUsage()) => user + system - from.user - from.system;
      while (used() < milliseconds * 1000);
    };
    beFrugal();
    ${program}`;
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    [flag, '--no-warnings', '--input-type=module', '-e', code],
    { encoding: 'utf8' },
  );
  assert.equal(status, 0, stderr);
  return stdout;
}

/** Those of a program's functions that V8 compiles while it runs. */
function compiled(program: string): string[] {
  const marks = output('--trace-opt', program).matchAll(/\[marking \S+ <JSFunction (\w+)/g);
  const marked = [...marks].map(([, name = '']) => name);
  return ['early', 'idle', 'byEvents', 'byCpu'].filter((name) => marked.includes(name));
}

/** How many collections of all garbage a program asked for. */
const collections = (program: string): number =>
  [...output('--trace-gc', program).matchAll(/Mark-Compact .*GC in old space requested/g)].length;

/** Program text that runs a function of this name often. */
const work = (name: string) =>
  `function ${name}(n) { let sum = 0; for (let i = 0; i < 100; i++) sum += i % n; return sum; }
  for (let i = 0; i < 30000; i++) ${name}(7);`;
const watch = `const events = watchedForWork({ emit() {} });`;

test('an idle gateway compiles nothing, however often a function runs; its start does', () => {
  const program = `${watch} ${work('early')} tidyUp(); burn(300); mock.timers.tick(5000); mock.timers.tick(20000); ${work('idle')}`;
  assert.deepEqual(compiled(program), ['early']);
});

test('a hundred events make a gateway busy, and the end of its start does not take that back', () => {
  const emit = `for (let i = 0; i < 100; i++) events.emit('device.attached', {});`;
  assert.deepEqual(compiled(`${watch} tidyUp(); ${emit} ${work('byEvents')}`), ['byEvents']);
  assert.deepEqual(compiled(`${watch} ${emit} tidyUp(); ${work('byEvents')}`), ['byEvents']);
});

test('CPU time after the start makes a gateway busy without events', () => {
  const program = `${watch} tidyUp(); mock.timers.tick(5000); burn(150); mock.timers.tick(5000); ${work('byCpu')}`;
  assert.deepEqual(compiled(program), ['byCpu']);
});

test('the garbage of the start is collected in the first second that is quiet, and once', () => {
  const busySeconds = `for (let at = 0; at < 3; at++) { burn(100); mock.timers.tick(1000); }`;
  assert.equal(collections(`tidyUpWhenQuiet(); ${busySeconds}`), 0);
  const once = collections(`tidyUpWhenQuiet(); ${busySeconds} mock.timers.tick(1000);`);
  assert.ok(once > 0);
  assert.equal(
    collections(`tidyUpWhenQuiet(); ${busySeconds} mock.timers.tick(1000); mock.timers.tick(9000);`),
    once,
  );
});

test('a gateway that became busy is not stopped by a collection of its start', () => {
  const emit = `for (let i = 0; i < 100; i++) events.emit('device.attached', {});`;
  assert.equal(collections(`${watch} tidyUpWhenQuiet(); ${emit} mock.timers.tick(9000);`), 0);
});
