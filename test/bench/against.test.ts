import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { demandInterface } from './gateway-against.ts';
import { buildRevision, commitOf, NoSuchRevision, RevisionError } from './revision.ts';

// In a hook of git, these variables point to the repository that the hook is of.
for (const name of Object.keys(process.env)) if (name.startsWith('GIT_')) delete process.env[name];

const program = fileURLToPath(new URL('gateway.ts', import.meta.url));
const bench = (...args: string[]) => spawnSync(process.execPath, [program, ...args], { encoding: 'utf8' });

/** A build that writes where the packages are that it found. */
const goodBuild = `import { mkdirSync, realpathSync, writeFileSync } from 'node:fs';
mkdirSync('dist');
writeFileSync('dist/postern.mjs', realpathSync('node_modules'));
`;
const lockOf = (packages: object) =>
  JSON.stringify({ name: 'x', version: '1.0.0', lockfileVersion: 3, packages });

/** A folder of temporary files for one test. `revision` removes what it checks out there too, which the tests look at. */
function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-against-'));
  const before = process.env.TMPDIR;
  process.env.TMPDIR = folder;
  t.after(() => {
    if (before === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = before;
    rmSync(folder, { recursive: true });
  });
  return folder;
}

/**
 * A repository with one commit of these files, by path. Returns its folder.
 * @param installed packages that its node_modules has, as npm notes them
 */
function repositoryOf(
  folder: string,
  files: Readonly<Record<string, string>>,
  installed: object = {},
): string {
  const repository = join(folder, 'repository');
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(join(repository, path, '..'), { recursive: true });
    writeFileSync(join(repository, path), text);
  }
  const git = (...args: string[]) => execFileSync('git', args, { cwd: repository, stdio: 'pipe' });
  git('init', '--quiet');
  git('add', '--all');
  const author = ['-c', 'user.name=Test', '-c', 'user.email=test@postern.example'];
  git(...author, '-c', 'commit.gpgsign=false', 'commit', '--quiet', '--message', 'One revision');
  mkdirSync(join(repository, 'node_modules'));
  writeFileSync(join(repository, 'node_modules/.package-lock.json'), lockOf(installed));
  return repository;
}

/** Asserts that nothing is left of what was checked out. */
function assertNothingIsLeft(folder: string, repository: string): void {
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith('postern-')),
    [],
  );
  const trees = execFileSync('git', ['worktree', 'list'], { cwd: repository, encoding: 'utf8' });
  assert.equal(trees.trimEnd().split('\n').length, 1, trees);
}

function assertRefused(folder: string, files: Readonly<Record<string, string>>, why: RegExp): void {
  const repository = repositoryOf(folder, files);
  const commit = commitOf(repository, 'HEAD');
  assert.throws(
    () => buildRevision(repository, commit),
    (thrown: unknown) => {
      assert.ok(thrown instanceof RevisionError);
      assert.ok(thrown.message.startsWith(`${commit.short}: `), thrown.message);
      assert.match(thrown.message, why);
      return true;
    },
  );
  assertNothingIsLeft(folder, repository);
}

test('--against without a revision is refused, and --help names the option', () => {
  const { status, stderr, stdout } = bench('--against');
  assert.deepEqual([status, stdout], [2, '']);
  assert.match(stderr, /^Option '--against <value>' argument missing/);
  assert.match(bench('--help').stdout, /--against REF {2}\S/);
});

test('a revision that git does not know ends bench:gateway with code 2 before anything is measured', () => {
  for (const ref of ['no-such-revision', '', 'HEAD:package.json', '--all']) {
    const { status, stderr, stdout } = bench(`--against=${ref}`);
    assert.deepEqual([status, stdout], [2, ''], ref);
    assert.ok(stderr.startsWith(`--against ${ref}: git finds no such revision:\n  fatal: `), stderr);
    assert.doesNotMatch(stderr, /\n\s+at /);
  }
});

test('a folder without a repository has no revision', (t) =>
  assert.throws(() => commitOf(folderOf(t), 'HEAD'), NoSuchRevision));

test('a revision is built from its commit with the packages of the repository, and is removed when it is disposed of', (t) => {
  const folder = folderOf(t);
  const lock = lockOf({
    '': {},
    'node_modules/a': { version: '1.0.0' },
    'node_modules/b': { version: '1.0.0', optional: true },
  });
  const repository = repositoryOf(
    folder,
    { 'build/bundle.mjs': goodBuild, 'package-lock.json': lock },
    { 'node_modules/a': { version: '1.0.0' } },
  );
  writeFileSync(join(repository, 'build/bundle.mjs'), "throw new Error('not committed')");
  const commit = commitOf(repository, 'HEAD');
  assert.match(commit.id, /^[0-9a-f]{40}$/);
  assert.match(commit.date, /^\d{4}-\d\d-\d\d$/);
  {
    using revision = buildRevision(repository, commit);
    assert.equal(readFileSync(revision.bundle, 'utf8'), join(repository, 'node_modules'));
  }
  assertNothingIsLeft(folder, repository);
  assert.ok(existsSync(join(repository, 'node_modules/.package-lock.json')), 'only the link was removed');
});

test('a revision whose lock file pins other packages gets its own', (t) => {
  const folder = folderOf(t);
  const repository = repositoryOf(
    folder,
    {
      'build/bundle.mjs': goodBuild,
      'package.json': JSON.stringify({ name: 'x', version: '1.0.0', dependencies: { local: 'file:local' } }),
      'package-lock.json': lockOf({
        '': { name: 'x', version: '1.0.0', dependencies: { local: 'file:local' } },
        local: { version: '2.0.0' },
        'node_modules/local': { resolved: 'local', link: true },
      }),
      'local/package.json': JSON.stringify({ name: 'local', version: '2.0.0' }),
    },
    { local: { version: '1.0.0' } },
  );
  using revision = buildRevision(repository, commitOf(repository, 'HEAD'));
  const modules = readFileSync(revision.bundle, 'utf8');
  assert.notEqual(modules, join(repository, 'node_modules'));
  assert.ok(existsSync(join(modules, 'local/package.json')));
});

test('a revision whose packages cannot be installed is refused', (t) =>
  assertRefused(
    folderOf(t),
    {
      'build/bundle.mjs': goodBuild,
      'package.json': JSON.stringify({
        name: 'x',
        version: '1.0.0',
        dependencies: { local: 'file:absent.tgz' },
      }),
      'package-lock.json': lockOf({
        'node_modules/local': { version: '1.0.0', resolved: 'file:absent.tgz' },
      }),
    },
    /npm cannot install the packages of its lock file:\n {2}npm error/,
  ));

test('a revision that does not build is refused with what its build printed', (t) =>
  assertRefused(
    folderOf(t),
    { 'build/bundle.mjs': "console.error('no such module'); process.exit(1);", 'package.json': '{}' },
    /does not build:\n {2}no such module$/,
  ));

test('a revision with another build is refused', (t) => {
  const folder = folderOf(t);
  assertRefused(folder, { 'package.json': '{}' }, /has no build\/bundle\.mjs/);
  rmSync(join(folder, 'repository'), { recursive: true });
  assertRefused(folder, { 'build/bundle.mjs': '', 'package.json': '{}' }, /makes no dist\/postern\.mjs/);
});

test('a process that exits early leaves no revision behind', (t) => {
  const folder = folderOf(t);
  const repository = repositoryOf(folder, { 'build/bundle.mjs': goodBuild, 'package.json': '{}' });
  const revision = JSON.stringify(new URL('revision.ts', import.meta.url));
  const code = `import { buildRevision, commitOf } from ${revision};
import { readFileSync } from 'node:fs';
const { bundle } = buildRevision('${repository}', commitOf('${repository}', 'HEAD'));
readFileSync(bundle);
process.exit(7);`;
  const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', code], {
    encoding: 'utf8',
  });
  assert.equal(status, 7, stderr);
  assertNothingIsLeft(folder, repository);
});

test('a gateway that refuses the configuration of the benchmark is told, and one that does not serve', async (t) => {
  const bundle = join(folderOf(t), 'gateway.mjs');
  writeFileSync(bundle, "console.error('unknown key'); process.exit(1);");
  await assert.rejects(demandInterface('v0', bundle), {
    message: 'v0: refuses the configuration of the benchmark:\n  unknown key',
  });
  writeFileSync(bundle, "process.exit(process.argv.includes('--check') ? 0 : 1);");
  await assert.rejects(demandInterface('v0', bundle), {
    message:
      'v0: does not serve the devices and the head-end of this tree: the gateway ended before it served',
  });
});
