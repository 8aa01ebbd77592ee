// The gateway of another revision of this repository: checked out into a temporary folder, and bundled there by its own build.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Why a revision cannot be compared, in words for whoever named it. */
export class RevisionError extends Error {}

/** No commit has this name: the argument is wrong. */
export class NoSuchRevision extends RevisionError {}

export interface Commit {
  /** 40 hexadecimal digits. */
  readonly id: string;
  /** The first digits of the ID, as texts show it. */
  readonly short: string;
  /** When it was committed, YYYY-MM-DD. */
  readonly date: string;
}

/** A gateway of another revision, in a temporary folder until it is disposed of or the process ends. */
export interface Revision extends Disposable {
  /** Path of the gateway's bundle. */
  readonly bundle: string;
}

/** Runs a program to its end. Returns what it printed, and the code it ended with; undefined if it did not start. */
function run(folder: string, program: string, args: readonly string[]) {
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd: folder, encoding: 'utf8' });
  return { status: error ? undefined : status, stdout, said: error ? error.message : `${stderr}${stdout}` };
}

/** The end of what a program printed, indented. */
export const endOf = (said: string): string =>
  said.trimEnd().split('\n').slice(-15).join('\n').replace(/^/gm, '  ');

/**
 * The commit that a branch, tag, ID or expression of git names.
 * @throws {NoSuchRevision} when there is none, or no repository
 */
export function commitOf(repository: string, ref: string): Commit {
  const named = ['rev-parse', '--verify', '--end-of-options', `${ref}^{commit}`];
  const { status, stdout, said } = run(repository, 'git', named);
  if (status !== 0) throw new NoSuchRevision(`--against ${ref}: git finds no such revision:\n${endOf(said)}`);
  const id = stdout.trim();
  const date = run(repository, 'git', ['show', '--no-patch', '--format=%cs', id]).stdout.trim();
  return { id, short: id.slice(0, 7), date };
}

type Packages = Readonly<Record<string, { readonly version?: string; readonly optional?: boolean }>>;

const packagesIn = (file: string): Packages | undefined =>
  existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')).packages : undefined;

/** Whether node_modules of the repository has the versions that the lock file of the folder pins. */
function modulesServe(repository: string, folder: string): boolean {
  const wanted = packagesIn(join(folder, 'package-lock.json')) ?? {};
  const found = packagesIn(join(repository, 'node_modules/.package-lock.json'));
  return (
    found !== undefined &&
    Object.entries(wanted).every(
      ([path, { version, optional }]) => path === '' || optional === true || found[path]?.version === version,
    )
  );
}

/**
 * Bundles the gateway of a commit. It takes the packages of this repository where the lock file of the commit allows it, and
 * else installs its own, without their scripts. It takes some seconds, half a minute with packages of its own.
 * @throws {RevisionError} when the commit has no build of a bundle, or when its build fails
 */
export function buildRevision(repository: string, { id, short }: Commit): Revision {
  const folder = mkdtempSync(join(tmpdir(), 'postern-revision-'));
  const tree = join(folder, 'tree');
  const remove = () => {
    run(repository, 'git', ['worktree', 'remove', '--force', tree]);
    rmSync(folder, { recursive: true, force: true });
  };
  process.once('exit', remove);
  const dispose = () => {
    process.off('exit', remove);
    remove();
  };
  const demand = (what: string, where: string, program: string, args: readonly string[]) => {
    const { status, said } = run(where, program, args);
    if (status !== 0) throw new RevisionError(`${short}: ${what}:\n${endOf(said)}`);
  };
  try {
    demand('git cannot check it out', repository, 'git', ['worktree', 'add', '--detach', tree, id]);
    if (!existsSync(join(tree, 'build/bundle.mjs')))
      throw new RevisionError(
        `${short}: has no build/bundle.mjs, so it has another interface than a comparison needs`,
      );
    if (modulesServe(repository, tree))
      symlinkSync(join(repository, 'node_modules'), join(tree, 'node_modules'));
    else
      demand('npm cannot install the packages of its lock file', tree, 'npm', [
        ...['install', '--no-save', '--ignore-scripts'],
        ...['--no-audit', '--no-fund', '--loglevel=error'],
      ]);
    demand('does not build', tree, process.execPath, ['build/bundle.mjs', '--quiet']);
    const bundle = join(tree, 'dist/postern.mjs');
    if (!existsSync(bundle))
      throw new RevisionError(`${short}: its build makes no dist/postern.mjs, so it has another interface`);
    return { bundle, [Symbol.dispose]: dispose };
  } catch (thrown) {
    dispose();
    throw thrown;
  }
}
