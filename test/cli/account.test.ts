// `postern provision --check` at a desk, the board's own provisioning, and `postern account` at the operator's, as processes.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'smol-toml';
import { checkConfig } from '../../src/base/config.ts';
import { headendConfigSchema } from '../../src/headend/config.ts';

const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const limit = { timeout: 60_000 };

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-account-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

const postern = (cwd: string, ...args: string[]) =>
  spawnSync(process.execPath, [main, ...args], { cwd, encoding: 'utf8', timeout: 30_000 });

const toml = `[coap]
insecure-plain-coap = true
[mqtt]
url = "mqtt://broker.example"
[dm-server]
id = "dm.example"
[provision]
operator-key = "operator.key.pub"
`;

test(
  'a key is made, a board seals its account to it, and the account becomes an entry of the head-end',
  limit,
  (t) => {
    const desk = folderOf(t);
    const [from, to] = [join(desk, 'config'), join(desk, 'data')];
    mkdirSync(from);
    const made = postern(desk, 'account', '--new-key', 'operator.key');
    assert.equal(made.status, 0, made.stderr);
    assert.equal(statSync(join(desk, 'operator.key')).mode & 0o777, 0o600);
    writeFileSync(join(from, 'gateway.toml'), toml);
    writeFileSync(join(from, 'operator.key.pub'), readFileSync(join(desk, 'operator.key.pub')));
    const checked = postern(desk, 'provision', '--check', '--from', from);
    assert.match(checked.stdout, /gateway\.toml is valid for a board/, checked.stderr);
    assert.deepEqual(readdirSync(from).toSorted(), ['gateway.toml', 'operator.key.pub']);
    const provisioned = postern(desk, 'provision', '--from', from, '--to', to);
    assert.equal(provisioned.status, 0, provisioned.stderr);
    assert.doesNotMatch(provisioned.stdout, /WARNING/);
    const opened = postern(desk, 'account', join(from, 'enrolment.json'), '--key', 'operator.key');
    assert.equal(opened.status, 0, opened.stderr);
    const headend = `[mqtt]\nurl = "mqtt://broker.example"\n[headend]\nid = "dm.example"\n${opened.stdout}`;
    const [entry] = checkConfig(headendConfigSchema, parse(headend), 'headend.toml').gateway;
    const own = parse(readFileSync(join(to, 'config/gateway.toml'), 'utf8')) as Record<
      string,
      Record<string, unknown>
    >;
    assert.deepEqual(
      [entry?.id, entry?.['client-secret'], entry?.['server-secret']],
      [own.gateway?.id, own['dm-server']?.['client-secret'], own['dm-server']?.['server-secret']],
    );
  },
);

test(
  'a wrong or missing key, and a key that is there already, are told in one line, and nothing is overwritten',
  limit,
  (t) => {
    const desk = folderOf(t);
    postern(desk, 'account', '--new-key', 'a.key');
    const before = readFileSync(join(desk, 'a.key'));
    const again = postern(desk, 'account', '--new-key', 'a.key');
    assert.match(again.stderr, /^postern: a\.key exists already/);
    assert.deepEqual(readFileSync(join(desk, 'a.key')), before);
    assert.match(
      postern(desk, 'account', '--new-key', 'nowhere/a.key').stderr,
      /cannot be written: .*ENOENT/,
    );
    writeFileSync(join(desk, 'enrolment.json'), '{}');
    for (const [args, why] of [
      [['account'], /expected enrolment\.json/],
      [['account', 'none.json'], /none\.json cannot be read \(ENOENT\)/],
      [['account', 'enrolment.json'], /id: this key is missing/],
      [['account', 'enrolment.json', '--key', 'a.key.pub'], /holds no private key of P-256/],
    ] as const) {
      const { status, stderr } = postern(desk, ...args);
      assert.equal(status, 1);
      assert.match(stderr, why);
    }
  },
);

test(
  'without a key the secrets of a board are on CONFIG in clear only when that is allowed, with a warning',
  limit,
  (t) => {
    const desk = folderOf(t);
    writeFileSync(
      join(desk, 'gateway.toml'),
      toml.replace(/operator-key.*/, 'insecure-plain-secrets = true'),
    );
    const { stdout, stderr } = postern(desk, 'provision', '--from', desk, '--to', join(desk, 'data'));
    assert.match(stdout, /WARNING: enrolment\.json on CONFIG has the secrets/, stderr);
    const opened = postern(desk, 'account', 'enrolment.json');
    assert.match(opened.stdout, /^\[\[gateway\]\]\nid = "gw-/m);
    writeFileSync(join(desk, 'gateway.toml'), toml.replace(/\[provision\][\s\S]*/, ''));
    const refused = postern(desk, 'provision', '--check', '--from', desk);
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /set provision\.operator-key/);
    assert.ok(existsSync(join(desk, 'gateway.toml')));
  },
);
