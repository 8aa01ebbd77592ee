import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { qemu } from '../../firmware-image/boards/qemu.ts';
import { boardKind } from '../../firmware-image/recipe/image.ts';
import { makeDevelopmentKeys, signingKeys } from '../../firmware-image/recipe/keys.ts';

for (const [script, args, code, said] of [
  ['image.ts', ['--help'], 0, /--board NAME/],
  ['image.ts', ['--board', 'toaster'], 2, /there is no board 'toaster'; there are qemu, /],
  ['image.ts', ['--version', 'new'], 2, /--version new: expected three numbers such as 1\.2\.3/],
  ['image.ts', ['--bord', 'qemu'], 2, /'--bord'/],
  ['image.ts', ['--boot-loader', '/none'], 2, /--boot-loader: there is no \/none/],
  ['image.ts', ['--keys', '/none'], 1, /--keys: \/none has no ca\.crt/],
  ['image.ts', ['--with', 'wifi,lte'], 2, /--with lte: there are wifi, cellular/],
  ['image.ts', ['--board', 'imx8m-mini', '--with', 'wifi'], 2, /the recipe knows no wifi of NXP/],
  ['update-bundle.ts', ['--floor', '1'], 2, /--floor 1: expected three numbers/],
] as const)
  test(`${script} ${args.join(' ')} ends with ${code} and a message without a stack trace`, () => {
    const file = fileURLToPath(new URL(`../../firmware-image/${script}`, import.meta.url));
    const { status, stdout, stderr } = spawnSync(process.execPath, [file, ...args], { encoding: 'utf8' });
    assert.equal(status, code);
    assert.match(code === 0 ? stdout : stderr, said);
    assert.doesNotMatch(stderr, /^ +at /m);
  });

test('keys for development are not taken for production, whatever their folder is called', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-keys-'));
  t.after(() => rmSync(folder, { recursive: true }));
  makeDevelopmentKeys(folder);
  assert.throws(() => signingKeys(folder), /ca\.crt is for development only/);
});

test('a board for production is of another kind than one with keys for development, or with a shell', () => {
  const kind = (areForDevelopment: boolean, isDeveloperImage: boolean) =>
    boardKind({ board: qemu, keys: { folder: '', areForDevelopment }, isDeveloperImage });
  assert.equal(kind(false, false), 'qemu-arm64');
  for (const [keys, shell] of [
    [true, false],
    [false, true],
    [true, true],
  ] as const)
    assert.equal(kind(keys, shell), 'qemu-arm64-development');
});
