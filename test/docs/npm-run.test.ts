import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  scripts: Record<string, string>;
};
/** Programs of test/ behind `npm run`, as package.json starts them, without what is built before. */
const programs = Object.entries(scripts)
  .map(([name, script]) => [name, script.split(' && ').at(-1) ?? ''] as const)
  .filter(([, start]) => /^node (--expose-gc )?test\/.*\.ts$/.test(start) && !start.includes('conformance'));

const run = (start: string, ...args: string[]) =>
  spawnSync(process.execPath, [...start.split(' ').slice(1), ...args], { cwd: root, encoding: 'utf8' });

describe('programs behind npm run', { timeout: 170_000, concurrency: 2 }, () => {
  test('all measurements, soak, attack, fuzz, powercut, sessions and faults are among them', () => {
    const names = programs.map(([name]) => name.replace(/^bench:.*/, 'bench'));
    assert.deepEqual(
      [...new Set(names)].toSorted(),
      'attack bench faults fuzz powercut sessions soak'.split(' '),
      'a program of test/ that package.json starts',
    );
  });

  for (const [name, start] of programs)
    test(`npm run ${name} answers --help with its usage, and an unknown option in a line`, () => {
      const help = run(start, '--help');
      assert.deepEqual([help.status, help.stderr], [0, '']);
      assert.match(help.stdout, new RegExp(`npm run ${name}`));
      assert.match(help.stdout, /--\w+/);
      const wrong = run(start, '--no-such-option');
      assert.equal(wrong.status, 2);
      assert.match(wrong.stderr, /^Unknown option '--no-such-option'/);
      assert.doesNotMatch(wrong.stderr, /\n\s+at /);
      assert.equal(wrong.stdout, '', 'nothing was begun');
    });

  test('a wrong value is refused in a line', () => {
    for (const [start, args, said] of [
      [scripts.fuzz, ['--inputs', 'many'], /^--inputs many: expected a number of at least 0\n/],
      ['node test/powercut/command.ts', ['--cuts=-1'], /^--cuts -1: expected a number of at least 0\n/],
      ['node test/attack/attack.ts', ['--only', 'x'], /^--only x: expected one of /],
      ['node test/faults/command.ts', ['here'], /^Unexpected argument 'here'/],
    ] as const) {
      const { status, stderr } = run(start ?? '', ...args);
      assert.equal(status, 2);
      assert.match(stderr, said);
    }
  });
});
