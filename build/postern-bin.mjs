#!/usr/bin/env node
// `npx postern` in a checkout: runs the sources on the pinned Node, independent of the machine's own Node.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const pinned = `${root}node_modules/.bin/node`;
const child = spawn(
  existsSync(pinned) ? pinned : process.execPath,
  [`${root}src/cli/main.ts`, ...process.argv.slice(2)],
  {
    stdio: 'inherit',
  },
);
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
child.on('exit', (code, signal) => process.exit(signal ? 1 : (code ?? 1)));
