// The board has no systemd. What the unit promises of the process, the board's own script has to do: this runs the script itself,
// with a program in the gateway's place that tells what it has become.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const board = fileURLToPath(new URL('../../firmware-image/rootfs', import.meta.url));
const scripts = join(board, 'usr/lib/postern');
const unit = readFileSync(join(board, '../postern.service'), 'utf8').split('\n');
const limit = { timeout: 30_000 };

/** Whether this machine can run the script: as root, in a mount namespace of its own. */
const why =
  process.getuid?.() !== 0
    ? 'needs root'
    : spawnSync('unshare', ['-m', 'true']).status !== 0
      ? 'needs a mount namespace'
      : ['su', 'setpriv', 'logger'].some((program) => spawnSync('which', [program]).status !== 0)
        ? 'needs su, setpriv and logger'
        : false;

/** What stands in the gateway's place: it tells its rights, and writes a file. */
const witness = `#!/bin/sh
grep -E '^(Uid|Gid|Groups|NoNewPrivs|Cap(Inh|Prm|Eff|Amb)):' /proc/self/status > $OUT/told
echo "Umask: $(umask)" >> $OUT/told
echo "Core: $(ulimit -Hc)" >> $OUT/told
echo "Files: $(ulimit -n)" >> $OUT/told
echo "Arguments: $*" >> $OUT/told
echo "Proxy: $HTTPS_PROXY $HTTP_PROXY $NO_PROXY" >> $OUT/told
echo secret > $OUT/written
stat -c 'Written: %a' $OUT/written >> $OUT/told
(cat $OUT/../of-root > /dev/null) 2> /dev/null && echo 'Root: read' >> $OUT/told
exit 0
`;

/** Runs the script that starts the gateway, with a change to it. Returns what the witness told, by name. */
function serve(
  t: { after: (end: () => void) => void },
  change = (script: string) => script,
  network?: string,
) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-board-'));
  t.after(() => rmSync(folder, { recursive: true }));
  chmodSync(folder, 0o755);
  for (const name of ['bin', 'run', 'run/log', 'out', 'scripts']) mkdirSync(join(folder, name));
  chmodSync(join(folder, 'out'), 0o777);
  writeFileSync(join(folder, 'of-root'), 'x', { mode: 0o600 });
  writeFileSync(join(folder, 'bin/postern'), witness.replaceAll('$OUT', join(folder, 'out')), {
    mode: 0o755,
  });
  // The launcher of the board is a program for its processor (test/firmware/confinement.test.ts).
  writeFileSync(join(folder, 'scripts/confine'), '#!/bin/sh\nshift\nexec postern "$@"\n', { mode: 0o755 });
  writeFileSync(join(folder, 'bin/logger'), '#!/bin/sh\nexec cat > /dev/null\n', { mode: 0o755 });
  const here = (script: string) =>
    script
      .replaceAll('/usr/lib/postern/', `${folder}/scripts/`)
      .replaceAll('/run/', `${folder}/run/`)
      .replaceAll('/data/root/', `${folder}/`)
      .replace('export PATH=', `export PATH=${folder}/bin:`);
  if (network !== undefined) writeFileSync(join(folder, 'network'), network);
  for (const name of ['common', 'serve']) {
    const script = here(readFileSync(join(scripts, name), 'utf8'));
    writeFileSync(join(folder, 'scripts', name), name === 'serve' ? change(script) : script, { mode: 0o755 });
  }
  // The users of the board, for this process alone.
  const users = ['passwd', 'group', 'shadow'].map((file) => `mount --bind ${board}/etc/${file} /etc/${file}`);
  const script = `set -e; ${users.join('; ')}; exec sh ${folder}/scripts/serve`;
  const { status, stderr } = spawnSync('unshare', ['-m', 'sh', '-c', script], {
    encoding: 'utf8',
    timeout: 20_000,
  });
  assert.equal(status, 0, stderr);
  const told = readFileSync(join(folder, 'out/told'), 'utf8').trim().split('\n');
  return Object.fromEntries(
    told.map((line) => {
      const [, name = '', value = ''] = /^(\w+):\s*(.*)$/.exec(line) ?? [];
      return [name, value.trim().replaceAll('\t', ' ')];
    }),
  );
}

describe('the script that starts the gateway on the board', { skip: why }, () => {
  test(
    'gives it what the unit promises: a user of its own, no capabilities, no way to rights, private files',
    limit,
    (t) => {
      const told = serve(t);
      for (const promise of [
        'DynamicUser=yes',
        'CapabilityBoundingSet=',
        'AmbientCapabilities=',
        'NoNewPrivileges=yes',
        'UMask=0077',
        'LimitCORE=0',
        'LimitNOFILE=4096',
      ])
        assert.ok(unit.includes(promise), promise);
      assert.deepEqual([told.Uid, told.Gid, told.Groups], ['100 100 100 100', '100 100 100 100', '100']);
      for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb']) assert.match(told[set] ?? '', /^0+$/, set);
      assert.equal(told.NoNewPrivs, '1');
      assert.deepEqual([told.Umask, told.Written], ['0077', '600']);
      assert.equal(told.Core, '0', 'a crash writes no memory, and with it no key, to a file');
      assert.equal(told.Files, '4096');
      assert.equal(told.Root, undefined, 'it cannot read what belongs to root');
      assert.equal(told.Arguments, 'gateway --config /data/config/gateway.toml');
    },
  );

  test('gives it the proxy of the network as a word of the environment, and none without', limit, (t) => {
    const proxy = 'http://user:p%40ss@[2001:db8::1]:3128';
    const told = (network?: string) => serve(t, undefined, network).Proxy;
    assert.equal(
      told(`fall-back 10\nproxy ${proxy} *.plant.example,10.0.0.1\n`),
      `${proxy} ${proxy} *.plant.example,10.0.0.1`,
    );
    assert.equal(told(`proxy ${proxy} -\n`), `${proxy} ${proxy}`);
    assert.equal(told('fall-back 10\n'), '');
    assert.equal(told(), '');
  });

  test('this test would notice it if one of them were missing', limit, (t) => {
    const umask = serve(t, (script) => script.replace('umask 077', 'umask 022'));
    assert.deepEqual([umask.Umask, umask.Written], ['0022', '644']);
    assert.notEqual(serve(t, (script) => script.replace('ulimit -n 4096;', '')).Files, '4096');
    assert.equal(serve(t, (script) => script.replace('setpriv --nnp ', '')).NoNewPrivs, '0');
    const root = serve(t, (script) => script.replace('su -s /bin/sh postern', 'sh'));
    assert.match(root.Uid ?? '', /^0 /);
    assert.equal(root.Root, 'read');
  });
});

test('no other script of the board starts the gateway, and none starts it as root', () => {
  const starting = readdirSync(scripts).filter((name) =>
    /^(?!\s*#).*\bpostern (gateway|headend|device|launch)\b/m.test(readFileSync(join(scripts, name), 'utf8')),
  );
  assert.deepEqual(starting, ['serve']);
  const inittab = readFileSync(join(board, 'etc/inittab'), 'utf8');
  assert.match(inittab, /^::respawn:\/usr\/lib\/postern\/serve$/m);
});

test('data, configuration and log of the board cannot hold programs, devices or set-user-ID files', () => {
  for (const name of readdirSync(scripts)) {
    const script = readFileSync(join(scripts, name), 'utf8');
    for (const [line] of script.matchAll(
      /^.*\bmount (?!--bind|-o move|-t (proc|sysfs|devtmpfs|devpts|cgroup2?)\b).*$/gm,
    )) {
      if (/^\s*#|umount/.test(line)) continue;
      const options = line.includes('$options') ? (/^options=(.*)$/m.exec(script)?.[1] ?? '') : line;
      assert.match(options, /nodev/, `${name}: ${line}`);
      assert.match(options, /nosuid/, `${name}: ${line}`);
    }
  }
});

test('root reads nothing that the gateway can write, but the bundle and revocation lists, whose signatures it checks, and the configuration while it is provisioned', () => {
  const ofGateway = /\/data\/(config|identity|state|update)\b[^\s;)"']*/g;
  const found = readdirSync(scripts).flatMap((name) =>
    readFileSync(join(scripts, name), 'utf8')
      .split('\n')
      .filter((line) => !/^\s*#/.test(line))
      .flatMap((line) => [...line.matchAll(ofGateway)].map(([path]) => `${name} ${path}`)),
  );
  assert.deepEqual(
    new Set(found),
    new Set([
      'agent /data/update/bundle.raucb',
      // An authority must have signed it.
      'agent /data/update/revoked.pem',
      // Before the gateway runs.
      'first-boot /data/config',
      'first-boot /data/config/gateway.toml',
      'first-boot /data/identity',
      // Whether it is there.
      'mount-data /data/config/gateway.toml',
      // The folders get their owner.
      'second-copy /data/config',
      'second-copy /data/identity',
      'start /data/update',
      'start /data/state',
      // As the gateway's user.
      'serve /data/config/gateway.toml',
    ]),
  );
});

test('no script of the board changes the owner of what is in folders of the gateway while the gateway may have made links there', () => {
  for (const name of readdirSync(scripts).filter((one) => one !== 'first-boot'))
    assert.doesNotMatch(readFileSync(join(scripts, name), 'utf8'), /^(?!\s*#).*\bch(own|mod) -R/m, name);
  const settings = readFileSync(join(board, 'etc/sysctl.conf'), 'utf8');
  assert.match(settings, /^fs\.protected_hardlinks = 1$/m);
});

test('nobody but root has a password field to try, and none of them has a password', () => {
  const shadow = readFileSync(join(board, 'etc/shadow'), 'utf8').trim().split('\n');
  for (const line of shadow) assert.match(line, /^[a-z_]+:[*!]/, line.replace(/:.*/, ''));
});
