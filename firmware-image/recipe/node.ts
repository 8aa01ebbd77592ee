import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { howToMove, readLock } from './lock.ts';
import { leaveOutNeverRun } from './never-run.ts';
import { nodePackage, npmArchive } from './npm.ts';

export { nodePackage };

import { leaveOneLanguage } from './one-language.ts';
import { startPages, startPagesFirst } from './start-pages.ts';
import { output, run } from './tools.ts';

/** The files that decide what is done to Node. The cache of the result is keyed by their digest. */
const nodeRules = [
  'node.ts',
  'elf.ts',
  'never-run.ts',
  'one-language.ts',
  'start-pages.ts',
  'start-pages.txt',
];

/** Node for arm64. */
export interface ArmNode {
  readonly version: string;
  /** File. */
  readonly program: string;
  /** File with the licences of Node and its parts. */
  readonly licence: string;
}

/**
 * Makes the `node` of the image: the program for arm64 from npm, which has the digest of the lock, stripped, reduced to
 * one language, and laid out for its start. The result is
 * cached.
 * @param version version of Node
 * @throws {Error} when the lock has another version, or npm has other bytes
 */
export function arm64Node(version: string, lock = readLock()): ArmNode {
  const folder = join(output, 'cache/node');
  const locked = lock.node;
  if (locked.version !== version)
    throw new Error(`the lock has Node ${locked.version}, and package-lock.json ${version}; ${howToMove}`);
  const digest = createHash('sha256').update(locked.integrity);
  for (const name of nodeRules) digest.update(readFileSync(join(import.meta.dirname, name)));
  const made = join(folder, `node-${version}-${digest.digest('hex').slice(0, 12)}`);
  const result = { version, program: made, licence: `${made}.licence` };
  if (existsSync(made)) return result;
  mkdirSync(folder, { recursive: true });
  const archive = npmArchive(`${nodePackage}@${version}`, locked.integrity, folder);
  run('tar', ['-xzf', archive, '-C', folder, 'package/bin/node', 'package/LICENSE']);
  run('cp', [join(folder, 'package/LICENSE'), result.licence]);
  const part = `${made}.part`;
  run('llvm-strip-14', ['-o', part, join(folder, 'package/bin/node')]);
  const program = readFileSync(part);
  leaveOneLanguage(program);
  const touched = startPages(version);
  leaveOutNeverRun(program, readFileSync(join(folder, 'package/bin/node')), touched);
  if (touched.length === 0)
    console.warn(
      `start-pages.txt was not measured for Node ${version}, so it will start slowly; run npm run image:pages`,
    );
  writeFileSync(part, startPagesFirst(program, touched));
  run('mv', [part, made]);
  return result;
}
