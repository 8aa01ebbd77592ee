import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const unit = join(root, 'firmware-image/postern.service');
const read = (file: string) => readFileSync(join(root, file), 'utf8');
const limit = { timeout: 60_000 };
/** Exposure level of `systemd-analyze security`, from 0 to 10. */
const most = 2;

test('the shipped unit has an exposure level below 2', limit, (t) => {
  const args = ['security', '--offline=true', '--no-pager', unit];
  const { stdout, error } = spawnSync('systemd-analyze', args, { encoding: 'utf8' });
  if (error) return t.skip('systemd-analyze is not installed');
  const [, level] = /Overall exposure level for postern\.service: (\d+\.\d+)/.exec(stdout) ?? [];
  t.diagnostic(`exposure level ${level}`);
  assert.ok(Number(level) < most, stdout);
});

test('unit and board run the gateway as a user of its own, without a way to rights', () => {
  const service = read('firmware-image/postern.service');
  for (const line of [
    'DynamicUser=yes',
    'User=postern',
    'CapabilityBoundingSet=',
    'NoNewPrivileges=yes',
    'UnsetEnvironment=NODE_OPTIONS',
  ])
    assert.ok(service.split('\n').includes(line), line);
  const serve = read('firmware-image/rootfs/usr/lib/postern/serve');
  assert.match(
    serve,
    /su -s \/bin\/sh postern -c '(ulimit -n \d+; )?exec setpriv --nnp \/usr\/lib\/postern\/confine \/usr\/bin\/postern gateway /,
  );
  assert.match(read('firmware-image/rootfs/etc/passwd'), /^postern:x:100:100:/m);
});

test('the unit reads the configuration where it is replaced, and has its socket where postern status looks', () => {
  const service = read('firmware-image/postern.service');
  assert.match(service, /^ExecStart=.* gateway --config \/etc\/postern\/gateway\.toml$/m);
  assert.doesNotMatch(service, /^LoadCredential/m, 'a reload would see the copy of the start');
  assert.match(service, /^ExecReload=\/bin\/kill -HUP \$MAINPID$/m);
  const [, folder] = /^RuntimeDirectory=(\S+)$/m.exec(service) ?? [];
  assert.match(read('src/gateway/console/admin-socket.ts'), new RegExp(`'/run/${folder}'`));
});

/** Arguments of Node in the lines that start a gateway. */
const startLines = {
  unit: /^ExecStart=\/usr\/bin\/node (.*) \/usr\/lib\/postern\/postern\.mjs /m.exec(
    read('firmware-image/postern.service'),
  )?.[1],
  board: /\/usr\/lib\/node\/node (.*) --snapshot-blob /.exec(
    read('firmware-image/rootfs/usr/bin/postern'),
  )?.[1],
  launcher: /spawn\(process\.execPath, \['([^']*)', program/.exec(
    read('src/gateway/update/launcher.ts'),
  )?.[1],
};

for (const [place, args = ''] of Object.entries(startLines))
  test(`SIGUSR1 opens no debugger in a gateway that the ${place} starts`, limit, async () => {
    // Port 0: another program may have the usual one.
    const script = `process.debugPort = 0; console.log('ready'); process.stdin.on('data', () => process.exit(7));`;
    const child = spawn(process.execPath, [...args.split(' '), '-e', script]);
    let said = '';
    child.stderr.on('data', (text) => {
      said += text;
    });
    await once(child.stdout, 'data');
    child.kill('SIGUSR1');
    // Node tells about its debugger before it reads what comes later.
    child.stdin.write('x');
    const [code, signal] = await once(child, 'exit');
    assert.deepEqual([code, signal, said], [7, null, '']);
  });

test('the board and the launcher take no options of Node from the environment', () => {
  assert.match(read('firmware-image/rootfs/usr/bin/postern'), /^unset NODE_OPTIONS$/m);
  assert.match(
    read('src/gateway/update/launcher.ts'),
    /\{ NODE_OPTIONS: _, \.\.\.environment \} = process\.env/,
  );
});

// When this fails, Node's permission model can be used: docs/security.md says why it is not.
test(
  "Node's permission model takes away fsync, which the state needs, and does not confine SQLite",
  limit,
  (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-permission-'));
    t.after(() => rmSync(folder, { recursive: true }));
    mkdirSync(join(folder, 'allowed'));
    const script = `
    const fs = require('node:fs');
    const { DatabaseSync } = require('node:sqlite');
    const file = fs.openSync('${folder}/allowed/file', 'w');
    try { fs.fdatasyncSync(file); console.log('fdatasync works'); } catch ({ code }) { console.log(code); }
    new DatabaseSync('${folder}/elsewhere.db').exec('CREATE TABLE t (a)');
    console.log('SQLite wrote elsewhere');`;
    const { stdout } = spawnSync(
      process.execPath,
      ['--permission', `--allow-fs-write=${folder}/allowed`, `--allow-fs-read=${folder}`, '-e', script],
      { encoding: 'utf8' },
    );
    assert.deepEqual(stdout.trim().split('\n'), ['ERR_ACCESS_DENIED', 'SQLite wrote elsewhere']);
  },
);
