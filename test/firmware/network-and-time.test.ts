// Scripts of the board for its clock, in the board's shell, and with chrony itself.
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
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
    .replaceAll('/data/', `${folder}/`)
    .replaceAll('/run/', `${folder}/`);
  const { status, stderr } = spawnSync('busybox', ['sh', '-c', script], { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  const set = spawnSync('cat', [join(folder, 'set')], { encoding: 'utf8' }).stdout.trim();
  assert.equal(existsSync(join(folder, 'clock-was-behind')), set !== '');
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

const skipChrony =
  process.getuid?.() !== 0
    ? 'needs root'
    : ['chronyd', 'faketime', 'openssl'].some((name) => spawnSync('which', [name]).status !== 0) &&
      'needs chrony and faketime';

/** An authority, and a certificate of it for `localhost` that is valid from a time on (as for `faketime`) for two days. */
function certificates(folder: string, from: string) {
  const openssl = (...args: string[]) =>
    execFileSync('faketime', [from, 'openssl', ...args], { cwd: folder, stdio: 'ignore' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  openssl('req', '-x509', ...key, '-subj', '/CN=ca', '-keyout', 'ca.key', '-out', 'ca.pem');
  openssl(
    'req',
    ...key.slice(0, -2),
    '-subj',
    '/CN=localhost',
    '-keyout',
    'server.key',
    '-out',
    'server.csr',
  );
  writeFileSync(join(folder, 'names'), 'subjectAltName=DNS:localhost\n');
  const by = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-extfile', 'names', '-days', '2'];
  openssl('x509', '-req', '-in', 'server.csr', ...by, '-out', 'server.pem');
}

const ports = { ntp: 21_123, ke: 24_460 };

/** A time server with NTS, whose certificate is valid from a time on, and a board that asks it once by the script `clock`. */
async function timeServer(t: TestContext, from: string) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-nts-'));
  t.after(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'root'));
  certificates(folder, from);
  const lines = [
    ...['local stratum 1', 'allow', `port ${ports.ntp}`, `ntsport ${ports.ke}`, 'cmdport 0', 'user root'],
    ...[`ntsserverkey ${folder}/server.key`, `ntsservercert ${folder}/server.pem`, `pidfile ${folder}/pid`],
  ];
  writeFileSync(join(folder, 'server.conf'), lines.map((line) => `${line}\n`).join(''));
  const server = spawn('chronyd', ['-x', '-d', '-f', join(folder, 'server.conf')], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  t.after(() => server.kill());
  await once(server.stderr, 'data');
  const ask = (line = `localhost nts port ${ports.ntp} ntsport ${ports.ke}`, isFirst = true) => {
    if (isFirst) rmSync(join(folder, 'chrony'), { recursive: true, force: true });
    writeFileSync(join(folder, 'root/ntp-servers'), `${line}\n`);
    const script = readFileSync(join(scripts, 'clock'), 'utf8')
      .replace('. /usr/lib/postern/common', '')
      .replaceAll('/data/', `${folder}/`)
      .replaceAll('/run/', `${folder}/`)
      // One question, and no change of the clock of this machine.
      .replace('chronyd -u _chrony', 'chronyd -Q -t 8 -u root')
      .replace("echo 'port 0'", "echo 'port 0'; echo 'maxdistance 16'");
    const { status } = spawnSync('busybox', ['sh', '-c', script], { encoding: 'utf8' });
    return status === 0;
  };
  const file = (name: string) => readFileSync(join(folder, name), 'utf8');
  const put = (name: string, text: string) => writeFileSync(join(folder, name), text);
  return { ask, file, put, trust: () => put('root/ntp-ca.pem', file('ca.pem')) };
}

describe('the time server of a board', { skip: skipChrony, concurrency: 1 }, () => {
  test('with NTS proves who it is by the authority of the configuration', async (t) => {
    const { ask, put, trust } = await timeServer(t, '-1 hour');
    trust();
    assert.equal(ask(), true);
    put(
      'root/ntp-ca.pem',
      execFileSync('sh', ['-c', 'cat /etc/ssl/certs/*.pem 2> /dev/null | head -n 40'], { encoding: 'utf8' }),
    );
    assert.equal(ask(), false, 'another authority');
  });

  test('with a certificate that is not valid yet is believed only by a clock that was behind all that is known', async (t) => {
    const { ask, file, put, trust } = await timeServer(t, '+30 days');
    trust();
    assert.equal(ask(), false);
    assert.doesNotMatch(file('chrony.conf'), /nocerttimecheck/);
    put('clock-was-behind', '');
    assert.equal(ask(), true);
    assert.match(file('chrony.conf'), /^nocerttimecheck 1$/m);
  });

  test('is asked by one chronyd, however often the network comes up', async (t) => {
    const { ask, file, put } = await timeServer(t, '-1 hour');
    ask(`127.0.0.1 port ${ports.ntp}`);
    assert.match(file('chrony.conf'), /^server 127\.0\.0\.1 port 21123 iburst\nmakestep 1 -1$/m);
    assert.equal(/^rtcsync$/m.test(file('chrony.conf')), existsSync('/dev/rtc0'));
    assert.doesNotMatch(file('chrony.conf'), /^nts|^server.* nts/m);
    put('chrony.conf', 'of the first');
    ask(undefined, false);
    assert.equal(file('chrony.conf'), 'of the first');
  });
});
