import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));
/** Where images, bundles and what they are made of go. */
export const output = join(root, 'dist/firmware');

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string | Uint8Array;
}

/**
 * Runs a program and answers with what it said on standard output.
 * @throws {Error} with what it said on standard error
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
    // Without the cause, which would say all of it again.
    throw new Error(`${program} failed: ${said || message}\n  $ ${program} ${args.join(' ')}`);
  }
}

/** Seconds since 1970 that stand for all times in what is built: of the commit, or of a fixed day without one. */
export function sourceDate(): number {
  const given = Number(process.env.SOURCE_DATE_EPOCH);
  if (given > 0) return given;
  try {
    return Number(run('git', ['log', '-1', '--format=%ct'], { cwd: root }));
  } catch {
    return Date.UTC(2026, 0, 1) / 1000;
  }
}

/** Does a step, and says how long it took. */
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

export function fresh(folder: string): string {
  run('rm', ['-rf', folder]);
  mkdirSync(folder, { recursive: true });
  return folder;
}

export const parentOf = (path: string): string => {
  mkdirSync(dirname(path), { recursive: true });
  return path;
};

export const packageVersion = (): string =>
  JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version as string;

/** Version of the Node that this checkout runs on: the one that the lock file pins. */
export const nodeVersion = (): string => process.versions.node;
