import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

for (const [script, args, code, said] of [
  ['image.ts', ['--help'], 0, /--board NAME/],
  ['image.ts', ['--board', 'toaster'], 2, /there is no board 'toaster'; there are qemu, /],
  ['image.ts', ['--version', 'new'], 2, /--version new: expected three numbers such as 1\.2\.3/],
  ['image.ts', ['--bord', 'qemu'], 2, /'--bord'/],
  ['image.ts', ['--boot-loader', '/none'], 2, /--boot-loader: there is no \/none/],
  ['image.ts', ['--keys', '/none'], 1, /--keys: \/none has no ca\.crt/],
  ['update-bundle.ts', ['--floor', '1'], 2, /--floor 1: expected three numbers/],
] as const)
  test(`${script} ${args.join(' ')} ends with ${code} and a message without a stack trace`, () => {
    const file = fileURLToPath(new URL(`../../firmware-image/${script}`, import.meta.url));
    const { status, stdout, stderr } = spawnSync(process.execPath, [file, ...args], { encoding: 'utf8' });
    assert.equal(status, code);
    assert.match(code === 0 ? stdout : stderr, said);
    assert.doesNotMatch(stderr, /^ +at /m);
  });
