import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { packagesIn, purlOf, sbomOf } from '../../build/sbom.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const limit = { timeout: 120_000 };

interface Sbom {
  readonly bomFormat: string;
  readonly specVersion: string;
  readonly metadata: { readonly component: { readonly hashes: readonly { readonly content: string }[] } };
  readonly components: readonly {
    readonly name: string;
    readonly version: string;
    readonly purl: string;
    readonly licenses: readonly {
      readonly license?: { readonly id: string };
      readonly expression?: string;
    }[];
  }[];
}

test('each bundle has a bill of materials that names each package in it, with version, licence and purl', () => {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
  const report = readFileSync(join(root, 'dist/size-report.txt'), 'utf8')
    .split(/^dist\//m)
    .slice(1);
  assert.equal(report.length, 5);
  for (const part of report) {
    const [, file = ''] = /^(postern\S*)\.mjs:/.exec(part) ?? [];
    const sbom: Sbom = JSON.parse(readFileSync(join(root, `dist/${file}.cdx.json`), 'utf8'));
    assert.deepEqual([sbom.bomFormat, sbom.specVersion], ['CycloneDX', '1.6']);
    // The report of sizes is made by another way from the same metafile.
    const weighed = [...part.matchAll(/ KB {2}(\S+)$/gm)]
      .map(([, name]) => name)
      .filter((name) => name !== 'src');
    assert.deepEqual(new Set(sbom.components.map(({ name }) => name)), new Set(weighed), file);
    assert.ok(weighed.length > 0);
    for (const { name, version, purl, licenses } of sbom.components) {
      const locked = Object.entries<{ version: string }>(lock).filter(([path]) =>
        path.endsWith(`node_modules/${name}`),
      );
      assert.ok(
        locked.some(([, entry]) => entry.version === version),
        `${name} ${version} is locked`,
      );
      assert.equal(purl, `pkg:npm/${name.replace('@', '%40')}@${version}`);
      assert.match(licenses[0]?.license?.id ?? licenses[0]?.expression ?? '', /^[A-Za-z0-9.-]+/);
    }
    const code = readFileSync(join(root, `dist/${file}.mjs`));
    const hash = createHash('sha256').update(code).digest('hex');
    assert.equal(sbom.metadata.component.hashes[0]?.content, hash, 'it is the one of this bundle');
  }
  const all = readdirSync(join(root, 'dist')).filter((name) => name.endsWith('.cdx.json'));
  assert.equal(all.length, 5);
});

test('scoped packages, licence expressions, two versions, and a package without a licence', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-sbom-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const put = (path: string, facts: object) => {
    mkdirSync(join(folder, path), { recursive: true });
    writeFileSync(join(folder, path, 'package.json'), JSON.stringify(facts));
  };
  put('node_modules/@a/b', { name: '@a/b', version: '1.0.0', license: '(MIT OR Apache-2.0)' });
  put('node_modules/c', { name: 'c', version: '1.0.0', license: 'MIT' });
  put('node_modules/@a/b/node_modules/c', { name: 'c', version: '2.0.0', license: { type: 'ISC' } });
  put('node_modules/unused', { name: 'unused', version: '1.0.0', license: 'MIT' });
  put('node_modules/nameless', { name: 'nameless', version: '1.0.0' });
  const used = { bytesInOutput: 1 };
  const packages = packagesIn(
    {
      'src/a.ts': used,
      'node_modules/@a/b/index.js': used,
      'node_modules/c/lib/x.js': used,
      'node_modules/@a/b/node_modules/c/x.js': used,
      'node_modules/unused/x.js': { bytesInOutput: 0 },
    },
    `${folder}/`,
  );
  assert.deepEqual(packages.map(purlOf), ['pkg:npm/%40a/b@1.0.0', 'pkg:npm/c@1.0.0', 'pkg:npm/c@2.0.0']);
  const { components } = sbomOf({ file: 'x', version: '1', code: '', packages });
  assert.deepEqual(
    components.map(({ licenses }) => licenses),
    [[{ expression: 'MIT OR Apache-2.0' }], [{ license: { id: 'MIT' } }], [{ license: { id: 'ISC' } }]],
  );
  assert.throws(
    () => packagesIn({ 'node_modules/nameless/x.js': used }, `${folder}/`),
    /nameless.*no name, version/,
  );
});

/** Runs the audit against a registry of this machine. */
async function audit(t: TestContext, answer: RequestListener) {
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  // npm remembers advisories.
  const cache = mkdtempSync(join(tmpdir(), 'postern-audit-'));
  t.after(() => rmSync(cache, { recursive: true }));
  const { port } = server.address() as AddressInfo;
  const env = { ...process.env, npm_config_registry: `http://127.0.0.1:${port}/`, npm_config_cache: cache };
  const run = promisify(execFile)(process.execPath, ['build/audit.mjs'], { cwd: root, env });
  return await run.then(
    ({ stdout }) => ({ code: 0, stdout }),
    ({ code, stdout }) => ({ code, stdout }),
  );
}

test(
  'the audit fails for a known weakness of high severity, and says plainly when the registry does not answer',
  limit,
  async (t) => {
    const advisories =
      (found: object): RequestListener =>
      (request, response) => {
        request.resume();
        const isAsked = request.url?.endsWith('/advisories/bulk');
        response.writeHead(isAsked ? 200 : 404, { 'content-type': 'application/json' });
        response.end(isAsked ? JSON.stringify(found) : '{}');
      };
    const weakness = (severity: string) => ({
      mqtt: [
        {
          id: 1,
          url: 'https://example/1',
          title: 'bad',
          severity,
          vulnerable_versions: '*',
          cwe: [],
          cvss: {},
        },
      ],
    });
    const high = await audit(t, advisories(weakness('high')));
    assert.equal(high.code, 1, high.stdout);
    assert.match(high.stdout, /1 high.*high: mqtt/s);
    const low = await audit(t, advisories(weakness('low')));
    assert.deepEqual([low.code, /low: mqtt/.test(low.stdout)], [0, true]);
    const none = await audit(t, advisories({}));
    assert.match(none.stdout, /audit: 0 known weaknesses/);
    const silent = await audit(t, (_, response) => response.writeHead(501).end());
    assert.equal(silent.code, 0);
    assert.match(silent.stdout, /NOT DONE/);
  },
);
