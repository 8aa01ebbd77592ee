import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { sha256Of } from './archive.ts';
import { filesOf } from './deb822.ts';
import { debianSource, type PackageStore } from './debian.ts';
import type { NpmComponent } from './licences.ts';
import { npmArchive } from './npm.ts';
import { fresh, root, run } from './tools.ts';

/** Whose sources are gathered. */
export interface SourceOrder {
  readonly version: string;
  /** Source packages of Debian, each with name and version. */
  readonly debian: readonly string[];
  readonly npm: readonly Pick<NpmComponent, 'name' | 'version'>[];
  readonly store: PackageStore;
}

/** A source that could not be had, and why. */
export interface MissingSource {
  readonly source: string;
  readonly reason: string;
}

/**
 * Gathers the sources of everything in an image: of Debian's packages, Node, the packages of npm, and this repository. Each is checked
 * against its digest in a lock. `SHA256SUMS` lists what is there, and `MISSING` what is not; it is absent when nothing is missing.
 * @param folder folder for the sources; it is emptied first
 */
export async function gatherSources(order: SourceOrder, folder: string): Promise<MissingSource[]> {
  const { version, debian, npm, store } = order;
  fresh(folder);
  const missing: MissingSource[] = [];
  const attempt = async (source: string, work: () => unknown) => {
    try {
      await work();
    } catch (thrown) {
      missing.push({ source, reason: (thrown as Error).message });
    }
  };
  for (const source of debian)
    await attempt(source, () => {
      const description = debianSource(source, store);
      const names = filesOf(readFileSync(description, 'utf8')).map(({ name }) => name);
      const from = [description, ...names.map((name) => join(dirname(description), name))];
      run('mkdir', ['-p', join(folder, 'debian')]);
      // Links, because a kernel's source has 140 MB.
      run('cp', ['-lf', ...from, join(folder, 'debian')]);
    });
  await attempt(`node ${store.lock.node.version}`, async () => await nodeSource(store, folder));
  const locked = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
  for (const one of npm)
    await attempt(`${one.name}@${one.version} of npm`, () =>
      npmArchive(
        `${one.name}@${one.version}`,
        locked[`node_modules/${one.name}`].integrity,
        join(folder, 'npm'),
      ),
    );
  await attempt('postern', () => {
    const name = `postern-${version}`;
    const file = join(folder, `${name}.tar.gz`);
    run('git', ['archive', '--format=tar.gz', `--prefix=${name}/`, '-o', file, 'HEAD'], { cwd: root });
  });
  const files = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((one) => one.isFile())
    .map((one) => join(one.parentPath, one.name))
    .toSorted();
  const lines = files.map((file) => `${sha256Of(file)}  ${file.slice(folder.length + 1)}\n`);
  writeFileSync(join(folder, 'SHA256SUMS'), lines.join(''));
  if (missing.length > 0)
    writeFileSync(
      join(folder, 'MISSING'),
      missing.map(({ source, reason }) => `${source}: ${reason}\n`).join(''),
    );
  return missing;
}

/** Where the source of a version of Node is, and the list of the digests of its files. */
const nodeUrls = (version: string) => {
  const base = `https://nodejs.org/dist/v${version}`;
  return { source: `${base}/node-v${version}.tar.xz`, sums: `${base}/SHASUMS256.txt` };
};
/** Milliseconds for a download of Node's source, which has 50 MB, and of the list. */
const [patience, shortPatience] = [600_000, 20_000];

/** The SHA-256 of the source of Node, from its list. Undefined when the list cannot be had. */
export async function nodeSourceDigest(version: string): Promise<string | undefined> {
  const { source, sums } = nodeUrls(version);
  try {
    const answer = await fetch(sums, { signal: AbortSignal.timeout(shortPatience) });
    const name = source.slice(source.lastIndexOf('/') + 1);
    return new RegExp(`^([0-9a-f]{64})  ${RegExp.escape(name)}$`, 'm').exec(await answer.text())?.[1];
  } catch {
    return undefined;
  }
}

async function nodeSource({ lock }: PackageStore, folder: string): Promise<void> {
  const { version, source: digest } = lock.node;
  const { source } = nodeUrls(version);
  if (digest === undefined)
    throw new Error(
      `nodejs.org was not reached when the lock was moved, so the digest of ${source} is not known`,
    );
  const answer = await fetch(source, { signal: AbortSignal.timeout(patience) });
  if (!answer.ok) throw new Error(`${source}: status ${answer.status}`);
  const file = join(folder, `node-v${version}.tar.xz`);
  writeFileSync(file, Buffer.from(await answer.arrayBuffer()));
  if (sha256Of(file) === digest) return;
  run('rm', [file]);
  throw new Error(`${source} has other bytes than the lock`);
}
