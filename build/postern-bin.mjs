#!/usr/bin/env node
// `npx postern` in a checkout: runs the sources on the pinned Node, independent of the machine's own Node. It ends when the
// program ends, and the program ends when it does.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const pinned = `${root}node_modules/.bin/node`;
if (!existsSync(pinned)) {
  console.error(`postern: its packages are not installed; run first: npm --prefix ${root} install`);
  process.exit(1);
}
// Without this option SIGUSR1 would open the inspector before the program can prevent it.
const child = spawn(pinned, ['--disable-sigusr1', `${root}src/cli/main.ts`, ...process.argv.slice(2)], {
  stdio: 'inherit',
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGQUIT'])
  process.on(signal, () => child.kill(signal));
child.on('error', ({ message }) => {
  console.error(`postern: the program cannot be started: ${message}`);
  process.exit(1);
});
child.on('exit', (code, signal) => process.exit(signal ? 128 + constants.signals[signal] : code));

// npm runs this by a shell. It passes signals on to that shell alone, which dies of them and leaves its child behind.
const parent = process.ppid;
if (process.env.npm_command === 'exec') {
  const watch = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(watch);
    child.kill('SIGTERM');
  }, 500);
}
