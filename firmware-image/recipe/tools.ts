import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Folder of the checkout, with a slash at its end. */
export const root = fileURLToPath(new URL('../..', import.meta.url));
/** Folder for images, bundles, and caches for making them. */
export const output = join(root, 'dist/firmware');

/** How a program is run. */
export interface RunOptions {
  readonly cwd?: string;
  /** Added to the environment of this process. */
  readonly env?: Readonly<Record<string, string>>;
  /** Standard input. */
  readonly input?: string | Uint8Array;
}

/**
 * Runs a program to its end. Returns its standard output.
 * @throws {Error} with the last 20 lines of its output and the command, when it fails
 */
export function run(program: string, args: readonly string[], { cwd, env, input }: RunOptions = {}): string {
  try {
    return execFileSync(program, args, {
      encoding: 'utf8',
      maxBuffer: 64 * 1024 * 1024,
      stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`, LC_ALL: 'C', TZ: 'UTC', ...env },
      ...(cwd !== undefined && { cwd }),
      ...(input !== undefined && { input }),
    });
  } catch (cause) {
    const {
      stderr = '',
      stdout = '',
      message,
    } = cause as { stderr?: string; stdout?: string; message: string };
    const said = `${stdout}${stderr}`.trim().split('\n').slice(-20).join('\n');
    // The cause is left out, since its message repeats the same output.
    throw new Error(`${program} failed: ${said || message}\n  $ ${program} ${args.join(' ')}`);
  }
}

/**
 * Time stamp for all files that are built, in seconds since 1970: SOURCE_DATE_EPOCH if it is set, else the time of the last
 * commit, else a fixed day.
 */
export function sourceDate(): number {
  const given = Number(process.env.SOURCE_DATE_EPOCH);
  if (given > 0) return given;
  try {
    return Number(run('git', ['log', '-1', '--format=%ct'], { cwd: root }));
  } catch {
    return Date.UTC(2026, 0, 1) / 1000;
  }
}

/** Runs a step of a command and prints its name and how long it took. */
export async function step<T>(what: string, work: () => T | Promise<T>): Promise<T> {
  process.stdout.write(`  ${what} ... `);
  const begun = performance.now();
  const result = await Promise.try(work).catch((thrown) => {
    process.stdout.write('failed\n');
    throw thrown;
  });
  process.stdout.write(`${((performance.now() - begun) / 1000).toFixed(1)} s\n`);
  return result;
}

/** Makes a folder empty, or makes it if there is none. Returns its path. */
export function fresh(folder: string): string {
  run('rm', ['-rf', folder]);
  mkdirSync(folder, { recursive: true });
  return folder;
}

/** Makes the parent folder of a path. Returns the path. */
export const parentOf = (path: string): string => {
  mkdirSync(dirname(path), { recursive: true });
  return path;
};

/** Version in package.json. */
export const packageVersion = (): string =>
  JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version as string;

/** Version of the Node that runs this, which is the one that the lock file pins. */
export const nodeVersion = (): string => process.versions.node;
