// Scripts of the board for its clock and its addresses, in the board's shell.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const scripts = fileURLToPath(new URL('../../firmware-image/rootfs/usr/lib/postern', import.meta.url));
const built = 1_700_000_000;

/** Runs `time-floor` with a clock that shows `now`. Returns what the clock is set to, or undefined. */
function clockAfter(t: TestContext, now: number, last?: number): number | undefined {
  const folder = mkdtempSync(join(tmpdir(), 'postern-time-'));
  t.after(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'root'));
  writeFileSync(join(folder, 'release'), `version=1.0.0\ndate=${built}\n`);
  if (last !== undefined) {
    writeFileSync(join(folder, 'root/time'), '');
    utimesSync(join(folder, 'root/time'), last, last);
  }
  const script = readFileSync(join(scripts, 'time-floor'), 'utf8')
    .replace(
      '. /usr/lib/postern/common',
      `date() { if [ "$1" = -s ]; then echo "$2" > ${folder}/set; else echo ${now}; fi; }`,
    )
    .replace('/etc/postern-release', `${folder}/release`)
    .replaceAll('/data/', `${folder}/`);
  const { status, stderr } = spawnSync('busybox', ['sh', '-c', script], { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  const set = spawnSync('cat', [join(folder, 'set')], { encoding: 'utf8' }).stdout.trim();
  return set === '' ? undefined : Number(set.replace('@', ''));
}

describe('the clock of a board', { skip: spawnSync('busybox').status !== 0 && 'needs busybox' }, () => {
  test('that shows 1970 is set to the date of the build, or to the last time that it was stopped, if that is later', (t) => {
    assert.equal(clockAfter(t, 5), built);
    assert.equal(clockAfter(t, 5, built + 86_400), built + 86_400);
    assert.equal(clockAfter(t, 5, 100), built);
  });

  test('that is right, or ahead, is left alone', (t) => {
    for (const now of [built, built + 86_400, built * 2]) assert.equal(clockAfter(t, now, built), undefined);
    assert.equal(clockAfter(t, built + 10, built + 20), built + 20);
  });
});

const why =
  spawnSync('unshare', ['-n', 'ip', 'link', 'add', 'lan', 'type', 'veth']).status !== 0 &&
  'needs network namespaces';

test('a lease that ends takes the addresses of IPv4 alone', { skip: why }, () => {
  const lease = readFileSync(join(scripts, 'lease'), 'utf8').replace('. /usr/lib/postern/common', '');
  const script = `ip link add lan type veth peer name other && ip link set other up && ip link set lan up
ip addr add 198.51.100.7/24 dev lan && ip addr add fd00:7057::7/64 dev lan
interface=lan busybox sh -c "$0" lease deconfig
ip -o addr show dev lan`;
  const { stdout, stderr, status } = spawnSync('unshare', ['-n', 'sh', '-c', script, lease], {
    encoding: 'utf8',
  });
  assert.equal(status, 0, stderr);
  assert.doesNotMatch(stdout, /198\.51\.100\.7/);
  assert.match(stdout, /fe80:/);
  assert.match(stdout, /fd00:7057::7/);
});
