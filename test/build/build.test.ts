import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { prepareSnapshot } from '../../firmware-image/recipe/snapshot.ts';
import { loadConfig } from '../../src/base/config.ts';
import { gatewayConfigSchema } from '../../src/gateway-config.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const node = (...args: string[]) => spawnSync(process.execPath, args, { encoding: 'utf8', cwd: root });

test('the check of the floors names the pair that goes against them', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-floors-'));
  t.after(() => rmSync(folder, { recursive: true }));
  for (const floor of ['base', 'coap', 'device', 'southbound', 'attic']) mkdirSync(join(folder, floor));
  writeFileSync(join(folder, 'base/a.ts'), "import { b } from '../coap/b.ts';\n");
  writeFileSync(join(folder, 'coap/b.ts'), "import { a } from '../base/a.ts';\n");
  writeFileSync(join(folder, 'device/c.ts'), "const d = await import('../southbound/d.ts');\n");
  writeFileSync(join(folder, 'southbound/d.ts'), '');
  writeFileSync(join(folder, 'attic/e.ts'), '');
  const { status, stderr } = node('build/check-floors.mjs', `${folder}/`);
  assert.equal(status, 1);
  assert.match(stderr, /base\/a\.ts \(base\) imports coap\/b\.ts \(coap\), a floor below it/);
  assert.match(
    stderr,
    /device\/c\.ts \(device\) imports southbound\/d\.ts \(southbound\), another party's floor/,
  );
  assert.match(stderr, /attic\/e\.ts: no floor 'attic'/);
  assert.doesNotMatch(stderr, /coap\/b\.ts \(coap\) imports/);
});

test('the bundle of the gateway runs by itself, and holds no stack of other parties', () => {
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

test('a start-up snapshot can be made of the gateway, and comes out the same each time', (t) => {
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

test('the configuration that the service starts from is right', () => {
  assert.equal(loadConfig(gatewayConfigSchema, join(root, 'firmware-image/gateway.toml')).gateway.id, 'gw-1');
});
