import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { sha256Of } from '../../firmware-image/recipe/archive.ts';
import { debianPackages, debianSource, type PackageStore } from '../../firmware-image/recipe/debian.ts';
import {
  describeLock,
  type Lock,
  lockedFor,
  movesBetween,
  readLock,
} from '../../firmware-image/recipe/lock.ts';
import { arm64Node } from '../../firmware-image/recipe/node.ts';
import { run } from '../../firmware-image/recipe/tools.ts';
import { lockedPackages, lockedSources } from '../../firmware-image/recipe/wanted.ts';
import { ArchiveServer } from './archive-server.ts';

const skip = existsSync('/usr/lib/apt/apt-helper') ? false : 'needs apt and dpkg';
const folder = mkdtempSync(join(tmpdir(), 'postern-lock-'));
after(() => rmSync(folder, { recursive: true }));

/** Makes a package of Debian in a mirror. Returns its path there. */
function debInto(mirror: string, name: string, version: string, text: string): string {
  const tree = mkdtempSync(join(folder, 'deb-'));
  mkdirSync(join(tree, 'DEBIAN'));
  mkdirSync(join(tree, 'usr/bin'), { recursive: true });
  writeFileSync(join(tree, 'usr/bin', name), text);
  writeFileSync(
    join(tree, 'DEBIAN/control'),
    `Package: ${name}\nVersion: ${version}\nArchitecture: arm64\nMaintainer: tests <tests@example>\nDescription: tests\n`,
  );
  const path = `pool/main/${name[0]}/${name}/${name}_${version}_arm64.deb`;
  mkdirSync(join(mirror, path, '..'), { recursive: true });
  run('dpkg-deb', ['--root-owner-group', '-b', tree, join(mirror, path)]);
  return path;
}

/** A mirror and a snapshot behind real servers, a lock of one package, and an empty cache. */
async function archive(stack: AsyncDisposableStack) {
  const own = mkdtempSync(join(folder, 'archive-'));
  const [mirror, snapshot] = [join(own, 'mirror'), join(own, 'snapshot')];
  const path = debInto(mirror, 'tool', '1.0-1', 'version 1');
  const servers = [
    stack.use(await ArchiveServer.open(mirror)),
    stack.use(await ArchiveServer.open(snapshot)),
  ] as const;
  const seen = '20261129T120000Z';
  const lock: Lock = {
    node: { version: '26.0.0', integrity: 'sha512-none' },
    packages: [
      {
        ...{ name: 'tool', version: '1.0-1', path, sha256: sha256Of(join(mirror, path)), seen },
        ...{ source: 'tool 1.0-1', for: ['tool'] },
      },
    ],
    sources: [],
  };
  const mirrors = { debian: [servers[0].url], 'debian-security': [] };
  const store: PackageStore = {
    ...{ lock, cache: join(own, 'cache') },
    places: { mirrors, snapshot: servers[1].url },
  };
  return { mirror, snapshot: join(snapshot, 'debian', seen), path, servers, store };
}

const programOf = (store: PackageStore) =>
  readFileSync(join(debianPackages(['tool'], store)[0]!.folder, 'usr/bin/tool'), 'utf8');

describe('an image is built from the lock', { skip, timeout: 120_000 }, () => {
  test('a mirror that has a later version as well changes nothing', async () => {
    await using stack = new AsyncDisposableStack();
    const { mirror, store } = await archive(stack);
    debInto(mirror, 'tool', '1.0-2', 'version 2');
    assert.equal(programOf(store), 'version 1');
  });

  test('a mirror that has a later version alone: the snapshot of the day of the lock has the package', async () => {
    await using stack = new AsyncDisposableStack();
    const { mirror, snapshot, path, store, servers } = await archive(stack);
    cpSync(mirror, snapshot, { recursive: true });
    rmSync(join(mirror, path));
    debInto(mirror, 'tool', '1.0-2', 'version 2');
    assert.equal(programOf(store), 'version 1');
    assert.deepEqual(servers[1].asked, [`/debian/20261129T120000Z/${path}`]);
  });

  test('nobody has the version of the lock: it fails, and says where it looked and what to do', async () => {
    await using stack = new AsyncDisposableStack();
    const { mirror, path, store } = await archive(stack);
    rmSync(join(mirror, path));
    debInto(mirror, 'tool', '1.0-2', 'version 2');
    assert.throws(
      () => programOf(store),
      ({ message }: Error) =>
        /^nobody has tool 1\.0-1 as the lock has it:/.test(message) &&
        message.match(/tool_1\.0-1_arm64\.deb: 404/g)?.length === 2 &&
        /npm run image -- --refresh moves the lock/.test(message),
    );
    assert.deepEqual(readdirSync(join(store.cache, 'archives')), [], 'nothing is left of the attempt');
  });

  test('a mirror that has other bytes under the same name is passed over, and nobody takes them', async () => {
    await using stack = new AsyncDisposableStack();
    const { mirror, snapshot, path, store } = await archive(stack);
    cpSync(mirror, snapshot, { recursive: true });
    debInto(mirror, 'tool', '1.0-1', 'hostile');
    assert.equal(programOf(store), 'version 1');
    rmSync(store.cache, { recursive: true });
    rmSync(snapshot, { recursive: true });
    assert.throws(() => programOf(store), new RegExp(`${basename(path)}: Hash Sum mismatch`));
    assert.ok(!existsSync(join(store.cache, 'packages')), 'nothing of it was unpacked');
  });

  test('a mirror that breaks off is passed over', async () => {
    await using stack = new AsyncDisposableStack();
    const { mirror, snapshot, servers, store } = await archive(stack);
    cpSync(mirror, snapshot, { recursive: true });
    servers[0].breakOff();
    assert.equal(programOf(store), 'version 1');
  });

  test('an archive that was damaged in the cache is fetched again', async () => {
    await using stack = new AsyncDisposableStack();
    const { path, store } = await archive(stack);
    mkdirSync(join(store.cache, 'archives'), { recursive: true });
    writeFileSync(join(store.cache, 'archives', basename(path)), 'half');
    assert.equal(programOf(store), 'version 1');
  });

  test('other bytes of one version, after the lock was moved, are not taken for the ones before', async () => {
    await using stack = new AsyncDisposableStack();
    const { mirror, path, store } = await archive(stack);
    assert.equal(programOf(store), 'version 1');
    debInto(mirror, 'tool', '1.0-1', 'built anew');
    const [old] = store.lock.packages;
    const packages = [{ ...old!, sha256: sha256Of(join(mirror, path)) }];
    assert.equal(programOf({ ...store, lock: { ...store.lock, packages } }), 'built anew');
  });

  test('a package that the lock does not know: it fails, and says what to do', async () => {
    await using stack = new AsyncDisposableStack();
    const { store } = await archive(stack);
    assert.throws(
      () => debianPackages(['tool', 'other'], store),
      /the lock has no other; npm run image -- --refresh/,
    );
  });

  test('a version of Node that is not that of the lock: it fails before anything is downloaded', async () => {
    await using stack = new AsyncDisposableStack();
    const { store } = await archive(stack);
    assert.throws(
      () => arm64Node('26.1.0', store.lock),
      /the lock has Node 26\.0\.0, and package-lock\.json 26\.1\.0; npm run image/,
    );
  });

  test('a source comes with all its files, each checked; one that no mirror had is told', async () => {
    await using stack = new AsyncDisposableStack();
    const { mirror, store } = await archive(stack);
    const pool = 'pool/main/t/tool';
    writeFileSync(join(mirror, pool, 'tool_1.0.orig.tar.gz'), 'the source');
    const digest = sha256Of(join(mirror, pool, 'tool_1.0.orig.tar.gz'));
    const description = join(mirror, pool, 'tool_1.0-1.dsc');
    writeFileSync(
      description,
      `-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nFormat: 3.0 (quilt)\nSource: tool\nVersion: 1.0-1\nChecksums-Sha256:\n ${digest} 10 tool_1.0.orig.tar.gz\nFiles:\n 0 10 tool_1.0.orig.tar.gz\n\n-----BEGIN PGP SIGNATURE-----\n`,
    );
    const locked = {
      path: `${pool}/tool_1.0-1.dsc`,
      sha256: sha256Of(description),
      seen: '20261129T120000Z',
    };
    const sources = [{ source: 'tool 1.0-1', ...locked }, { source: 'gone 2.0-1' }];
    const withSources = { ...store, lock: { ...store.lock, sources } };
    const to = join(folder, 'sources');
    assert.equal(debianSource('tool', withSources, to), join(to, 'tool_1.0-1.dsc'));
    assert.equal(readFileSync(join(to, 'tool_1.0.orig.tar.gz'), 'utf8'), 'the source');
    assert.throws(
      () => debianSource('gone 2.0-1', withSources, to),
      /snapshot\.debian\.org\/package\/gone\/2\.0-1/,
    );
    writeFileSync(join(mirror, pool, 'tool_1.0.orig.tar.gz'), 'hostile  !');
    assert.throws(
      () => debianSource('tool', withSources, join(folder, 'again')),
      /tool_1\.0\.orig\.tar\.gz: Hash Sum mismatch/,
    );
  });
});

describe('the lock of the recipe', () => {
  const lock = readLock();

  test('knows every package and source that an image of any board needs, with digests', () => {
    assert.ok(lockedFor(lockedPackages, lock).length > lockedPackages.length);
    for (const { name, sha256, path, source } of lock.packages) {
      assert.match(sha256, /^[0-9a-f]{64}$/, name);
      assert.match(path, /^pool\/.*\.deb$/, name);
      assert.ok(
        lock.sources.some((one) => one.source === source),
        `source of ${name}`,
      );
    }
    for (const name of lockedSources)
      assert.ok(
        lock.sources.some(({ source }) => source.startsWith(`${name} `)),
        name,
      );
    const kernel = lock.packages.find(({ name }) => /^linux-image-\d/.test(name));
    assert.match(kernel?.builtUsing?.[0] ?? '', /^linux \d/);
    assert.equal(lock.node.version, process.versions.node);
  });

  test('is written as it is read, one line for each package', () => {
    const file = join(folder, 'lock');
    writeFileSync(file, describeLock(lock));
    assert.deepEqual(readLock(file), lock);
    renameSync(file, `${file}.away`);
    assert.throws(() => readLock(file), /there is no .*lock; npm run image -- --refresh/);
    writeFileSync(file, '{');
    assert.throws(() => readLock(file), /is not JSON/);
  });

  test('what moved is told: versions, new and absent packages, other bytes, Node', () => {
    const [first, second, ...others] = lock.packages;
    const moved: Lock = {
      ...lock,
      node: { ...lock.node, version: '27.0.0' },
      packages: [
        { ...first!, version: '99' },
        { ...second!, sha256: '0'.repeat(64) },
        { ...second!, name: 'a-new-one' },
        ...others.slice(1),
      ],
    };
    assert.deepEqual(movesBetween(lock, { ...lock }), []);
    assert.deepEqual(
      movesBetween(lock, moved).toSorted(),
      [
        `  ${first!.name} ${first!.version} -> 99`,
        `  node ${lock.node.version} -> 27.0.0`,
        `! ${second!.name}: other bytes of version ${second!.version}`,
        `+ a-new-one ${second!.version}`,
        `- ${others[0]!.name} ${others[0]!.version}`,
      ].toSorted(),
    );
  });
});

test('the recipe asks no mirror when all is in the cache', { skip }, async () => {
  await using stack = new AsyncDisposableStack();
  const { store, servers } = await archive(stack);
  programOf(store);
  const before = servers[0].asked.length;
  programOf(store);
  assert.equal(servers[0].asked.length, before);
  assert.equal(spawnSync('find', [store.cache, '-name', '*.part*']).stdout.toString(), '');
});
