// The script of the board that mounts its data partition, on a file with a real file system, in a mount namespace of its own.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { BootStateCopies } from '../../src/gateway/update/boot-state.ts';

const board = fileURLToPath(new URL('../../firmware-image/rootfs', import.meta.url));
const limit = { timeout: 60_000 };
const mebibyte = 1024 * 1024;

/** Reason why this machine cannot run the script, or false. */
const why =
  process.getuid?.() !== 0
    ? 'needs root'
    : ['busybox', 'mke2fs', 'e2fsck', 'losetup'].some((name) => spawnSync('which', [name]).status !== 0)
      ? 'needs busybox and e2fsprogs'
      : spawnSync('unshare', ['-m', 'sh', '-c', 'f=$(losetup -f)']).status !== 0 ||
          !/\bext4\b/.test(readFileSync('/proc/filesystems', 'utf8'))
        ? 'needs loop devices and ext4'
        : false;

/** A board whose first boot is over, unless `isNew`. */
function machine(t: TestContext, { isNew = false } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-data-'));
  for (const name of ['bin', 'scripts', 'dev', 'data', 'run', 'block/vda3'])
    mkdirSync(join(folder, name), { recursive: true });
  const disk = join(folder, 'disk');
  writeFileSync(disk, '');
  truncateSync(disk, 192 * mebibyte);
  const device = execFileSync('losetup', ['-f', '--show', disk], { encoding: 'utf8' }).trim();
  t.after(() => {
    execFileSync('losetup', ['-d', device]);
    rmSync(folder, { recursive: true });
  });
  const copies = [join(folder, 'dev/state-1'), join(folder, 'dev/state-2')] as const;
  for (const copy of copies) {
    writeFileSync(copy, '');
    truncateSync(copy, mebibyte);
  }
  writeFileSync(join(folder, 'block/vda3/partition'), '8\n');
  symlinkSync('/dev/vda1', join(folder, 'dev/root-a'));
  if (isNew) symlinkSync(device, join(folder, 'dev/data-new'));
  else {
    symlinkSync(device, join(folder, 'dev/data'));
    execFileSync('mke2fs', ['-q', '-F', '-t', 'ext4', '-L', 'data', '-b', '4096', '-g', '8192', device]);
  }
  for (const name of [
    'cat',
    'chown',
    'cp',
    'cpio',
    'crc32',
    'dd',
    'find',
    'grep',
    'head',
    'ln',
    'mkdir',
    'rm',
    'sort',
    'tail',
    'tr',
    'wc',
    'basename',
    'readlink',
    'sleep',
  ])
    symlinkSync('/bin/busybox', join(folder, 'bin', name));
  // The disk's table is told here only.
  writeFileSync(join(folder, 'bin/sfdisk'), `#!/bin/sh\necho "$*" >> ${folder}/table\n`, { mode: 0o755 });
  const here = (script: string) =>
    script
      .replaceAll('/usr/lib/postern/', `${folder}/scripts/`)
      .replaceAll('/dev/postern/', `${folder}/dev/`)
      .replaceAll('/dev/console', '/dev/null')
      .replaceAll('/dev/watchdog', `${folder}/no-watchdog`)
      .replaceAll('/sys/class/block/$(basename "$(readlink $fresh)")', `${folder}/block/vda3`)
      .replaceAll(/(?<![\w.])\/run\//g, `${folder}/run/`)
      .replaceAll(/(?<![\w./-])\/data\b/g, `${folder}/data`)
      .replace('export PATH=', `export PATH=${folder}/bin:`);
  for (const name of ['common', 'mount-data', 'second-copy'])
    writeFileSync(
      join(folder, 'scripts', name),
      here(readFileSync(join(board, 'usr/lib/postern', name), 'utf8')),
      { mode: 0o755 },
    );
  writeFileSync(
    join(folder, 'scripts/common'),
    `say() { echo "$*" >> ${folder}/said; }\nreboot() { echo reboot >> ${folder}/said; exit 7; }\nsync() { :; }\n`,
    { flag: 'a' },
  );
  return {
    folder,
    device,
    copies,
    /** Bytes of the disk are overwritten. */
    overwrite(at: number, bytes: Uint8Array) {
      const file = openSync(device, 'r+');
      writeSync(file, bytes, 0, bytes.length, at);
      closeSync(file);
    },
    /** Mounts the data partition as the board does, and runs `then` while it is mounted. Returns what `then` prints. */
    mount(then: string): string {
      const users = ['passwd', 'group'].map((file) => `mount --bind ${board}/etc/${file} /etc/${file}`);
      const script = `${users.join('; ')}; busybox sh ${folder}/scripts/mount-data || exit; cd ${folder}/data; ${then}; cd /; umount ${folder}/data`;
      const { stdout, stderr, status } = spawnSync('unshare', ['-m', 'sh', '-c', script], {
        encoding: 'utf8',
        timeout: 40_000,
      });
      assert.equal(status, 0, stderr);
      return stdout.trim();
    },
    said: () => (existsSync(join(folder, 'said')) ? readFileSync(join(folder, 'said'), 'utf8') : ''),
    table: () => (existsSync(join(folder, 'table')) ? readFileSync(join(folder, 'table'), 'utf8') : ''),
  };
}

const fill = `mkdir -p config identity root state; echo 'id = 1' > config/gateway.toml; echo key > identity/gateway.key; echo seal > state/identity.key
echo rules > root/firewall.nft; echo gw-1 > hostname; echo row > state/state.db; chown -R 100 config identity`;

describe('the data partition of a board', { skip: why, timeout: 300_000 }, () => {
  test(
    'it is formatted once, while it has the name of a partition that nobody has used, and gets its own name then',
    limit,
    (t) => {
      const made = machine(t, { isNew: true });
      assert.equal(made.mount('echo kept > file; cat file'), 'kept');
      assert.match(made.table(), /--part-label \S+ 8 data\n$/);
      // The next start finds it by its own name.
      assert.equal(made.mount('cat file'), 'kept');
      assert.equal(made.said(), '');
    },
  );

  test(
    'a power cut between the file system and its name: nobody has used it, so it is made again',
    limit,
    (t) => {
      const made = machine(t, { isNew: true });
      made.mount('true');
      rmSync(join(made.folder, 'dev/data'));
      assert.equal(made.mount('echo kept > file; cat file'), 'kept');
    },
  );

  for (const [what, at, bytes] of [
    ['its head zeroed', 0, 4096],
    ['its first superblock full of ones', 1024, 1024],
    ['its first megabyte zeroed', 0, mebibyte],
    ['its first group zeroed', 0, 32 * mebibyte],
  ] as const)
    test(`with ${what} it is repaired from a copy of its superblock, and is not formatted`, limit, (t) => {
      const made = machine(t);
      made.mount(`${fill}; busybox sh ${made.folder}/scripts/second-copy save; sync`);
      made.overwrite(at, Buffer.alloc(bytes, what.includes('ones') ? 0xff : 0));
      const found = made.mount(
        'findmnt -n -o FSTYPE .; cat config/gateway.toml root/firewall.nft; stat -c %u identity/gateway.key; cat state/state.db || true',
      );
      assert.match(made.said(), /damaged/);
      assert.equal(made.table(), '');
      // What was in the first group itself is lost with it. Configuration and identity are not.
      assert.match(found, /^ext4\nid = 1\nrules\n\d+/);
      if (bytes <= 4096) assert.match(found, /row$/);
      // And it is mounted at once the next time.
      rmSync(join(made.folder, 'said'));
      assert.match(made.mount('cat config/gateway.toml'), /id = 1/);
      assert.equal(made.said(), '');
    });

  test(
    'it cannot be repaired: the second copy of configuration and identity is used from memory, and the disk is left alone',
    limit,
    (t) => {
      const made = machine(t);
      new BootStateCopies(made.copies).change({ good: 'B' });
      made.mount(`${fill}; busybox sh ${made.folder}/scripts/second-copy save`);
      for (const [at, size] of [[0, 192]] as const) made.overwrite(at, Buffer.alloc(size * mebibyte));
      const found = made.mount(
        'cat config/gateway.toml identity/gateway.key state/identity.key root/firewall.nft hostname; stat -c %u identity/gateway.key root/firewall.nft; findmnt -n -o FSTYPE .',
      );
      assert.equal(found, 'id = 1\nkey\nseal\nrules\ngw-1\n100\n0\ntmpfs');
      assert.match(made.said(), /cannot be repaired/);
      assert.match(made.said(), /second copy/);
      assert.equal(new BootStateCopies(made.copies).read().good, 'B', 'the boot state is beside the copy');
      // A later start does not format it either.
      assert.match(made.mount('findmnt -n -o FSTYPE .'), /tmpfs/);
    },
  );

  test('a disk that takes no writes: what was on it is used from memory', limit, (t) => {
    const made = machine(t);
    made.mount(`${fill}; sync`);
    execFileSync('blockdev', ['--setro', made.device]);
    t.after(() => execFileSync('blockdev', ['--setrw', made.device]));
    const found = made.mount(
      'cat state/state.db config/gateway.toml; echo new > state/state.db; findmnt -n -o FSTYPE .',
    );
    assert.match(found, /^row\nid = 1\n(tmpfs|ext4)$/);
  });

  test(
    'the second copy: one of the two that was cut is not used, links are not followed, and it is written only when it has changed',
    limit,
    (t) => {
      const made = machine(t);
      const save = `busybox sh ${made.folder}/scripts/second-copy save`;
      const secret = join(made.folder, 'of-root');
      writeFileSync(secret, 'secret of root');
      made.mount(`${fill}; ln -s ${secret} config/link; echo x > 'config/with
root'; mkdir -p 'config/..x'; ${save}`);
      const [first, second] = made.copies.map((copy) => readFileSync(copy));
      assert.deepEqual(first, second);
      assert.ok(!first!.includes('secret of root') && !first!.includes('config/link'));
      made.mount(save);
      assert.deepEqual(readFileSync(made.copies[0]), first);
      made.mount(`echo 'id = 2' > config/gateway.toml; ${save}`);
      assert.notDeepEqual(readFileSync(made.copies[0]), first);
      // The power is cut while the first one is written again.
      writeFileSync(
        made.copies[0],
        Buffer.concat([first!.subarray(0, 132 * 1024 + 100), Buffer.alloc(mebibyte - 132 * 1024 - 100)]),
      );
      made.overwrite(0, Buffer.alloc(192 * mebibyte));
      assert.equal(made.mount('cat config/gateway.toml'), 'id = 2');
    },
  );
});
