import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { prepareSnapshot } from '../../firmware-image/recipe/snapshot.ts';
import { loadGatewayConfig } from '../../src/gateway/enrolled-config.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const node = (...args: string[]) => spawnSync(process.execPath, args, { encoding: 'utf8', cwd: root });

test('the check of the floors reports forbidden imports, circles of imports, and folders without a place', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-floors-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const files = {
    'src/base/a.ts': "import { b } from '../wire/coap/b.ts';\n",
    'src/wire/coap/b.ts': "import { a } from '../../base/a.ts';\n",
    'src/device/c.ts': "const d = await import('../gateway/southbound/d.ts');\n",
    'src/gateway/southbound/d.ts': "import type { e } from '../northbound/e.ts';\n",
    'src/gateway/northbound/e.ts': "import { f } from '../gateway.ts';\n",
    'src/gateway/gateway.ts': "import { d } from './southbound/d.ts';\n",
    'src/attic/g.ts': '',
    'src/mo/i.ts': 'await import(`../device/c.ts`);\n',
    'src/mo/j.ts': "import '../../test/peers/h.ts';\n",
    'test/base/a.test.ts': '',
    'test/coap/b.test.ts': '',
    'test/peers/h.ts': '',
    'test/loose.test.ts': '',
  };
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(join(folder, file, '..'), { recursive: true });
    writeFileSync(join(folder, file), text);
  }
  const { status, stderr } = node('build/check-floors.mjs', `${folder}/`);
  assert.equal(status, 1);
  const [, ...said] = stderr.trimEnd().split('\n  ');
  const missing = said.filter((line) => line.endsWith('which does not exist'));
  assert.ok(missing.includes('build/floors.json names src/headend, which does not exist'));
  assert.deepEqual(
    said.filter((line) => !missing.includes(line)).sort(),
    [
      "src/attic/g.ts: build/floors.json has no place for 'attic' in src",
      'src/base/a.ts imports src/wire/coap/b.ts: src/wire is on a higher floor',
      'src/device/c.ts imports src/gateway/southbound/d.ts: src/gateway is another folder on the same floor',
      'src/gateway/northbound/e.ts imports src/gateway/gateway.ts: src/gateway/. is on a higher floor',
      'src/gateway/southbound/d.ts imports src/gateway/northbound/e.ts: src/gateway/northbound is another folder on the same floor',
      'import each other in a circle: src/base/a.ts, src/wire/coap/b.ts',
      'import each other in a circle: src/gateway/gateway.ts, src/gateway/northbound/e.ts, src/gateway/southbound/d.ts',
      'src/mo/i.ts imports src/device/c.ts: src/device is on a higher floor',
      'src/mo/j.ts imports test/peers/h.ts, which is not in src/',
      'test/coap has no counterpart in src/',
      'test/loose.test.ts is in no folder',
    ].sort(),
  );
});

test('the bundle of the gateway runs by itself, and contains no CoAP package or broker of the other parties', () => {
  const version = node('dist/postern.mjs', '--version');
  assert.equal(version.stdout.trim(), JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version);
  const help = node('dist/postern.mjs', 'gateway', '--help');
  assert.equal(help.status, 0);
  assert.match(help.stdout, /Usage: postern gateway/);
  const report = readFileSync(join(root, 'dist/size-report.txt'), 'utf8').split(/^dist\//m);
  const own = report.find((part) => part.startsWith('postern.mjs'))!;
  assert.match(own, / mqtt\n/);
  assert.doesNotMatch(own, / (aedes|coap)\n/);
});

test('a bundle that lacks a command names the one that has it', () => {
  for (const [bundle, command, said] of [
    [
      'postern.mjs',
      'headend',
      /no command 'headend'; that is in another one: node dist\/postern-headend\.mjs headend/,
    ],
    ['postern.mjs', 'device', /node dist\/postern-device\.mjs device/],
    ['postern-headend.mjs', 'status', /node dist\/postern\.mjs status/],
    ['postern.mjs', 'nothing', /there is no command 'nothing'/],
  ] as const) {
    const { status, stderr } = node(`dist/${bundle}`, command);
    assert.equal(status, 2);
    assert.match(stderr, said);
  }
});

test('two start-up snapshots of the gateway are equal, and commands run from one', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-snapshot-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'postern.snapshot');
  const args = prepareSnapshot(folder, join(root, 'dist/postern-snapshot.cjs'));
  const make = () => {
    const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', cwd: folder });
    assert.equal(status, 0, stderr);
    return readFileSync(file);
  };
  assert.ok(make().equals(make()));
  const run = (...args: string[]) => node('--snapshot-blob', file, 'postern', ...args);
  assert.equal(run('--version').stdout, node('dist/postern.mjs', '--version').stdout);
  const wrong = run('provision', '--from', folder, '--to', join(folder, 'nowhere'));
  assert.equal(wrong.status, 1);
  assert.match(wrong.stderr, /gateway\.toml/);
});

test('firmware-image/gateway.toml is a valid configuration', () => {
  assert.equal(loadGatewayConfig(join(root, 'firmware-image/gateway.toml')).gateway.id, 'gw-1');
});

test('the bundle of the demo runs all of its journeys', () => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['dist/postern-demo.mjs', 'demo', '--once'],
    {
      encoding: 'utf8',
      cwd: root,
      // Another gateway of this user may have the usual admin socket.
      env: { ...process.env, XDG_RUNTIME_DIR: mkdtempSync(join(tmpdir(), 'postern-demo-')) },
    },
  );
  assert.equal(status, 0, stderr);
  for (let journey = 1; journey <= 7; journey++)
    assert.match(stdout, new RegExp(`^--- Journey ${journey}: `, 'm'));
  // Nobody is served without security, the LwM2M client included, and the command for one more device keeps to that.
  assert.equal(stdout.match(/demo:8 and coaps:\S+ have proved their key/g)?.length, 2);
  assert.match(stdout, /npx postern device \S+ \S+ --gateway coaps:/);
  assert.doesNotMatch(stdout, /coap:\/\/|without security/);
});
