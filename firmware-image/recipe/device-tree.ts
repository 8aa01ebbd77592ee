import { readFileSync } from 'node:fs';
import { run } from './tools.ts';

/** The source of a compiled device tree. */
export const treeSource = (tree: string): string => run('dtc', ['-q', '-I', 'dtb', '-O', 'dts', tree]);

/**
 * The source of a compiled device tree, with what the boot loader trusts put into it.
 * @param trust file with the source of that, as `trustSource` in disk.ts makes it
 */
export const trustedTreeSource = (tree: string, trust: string): string =>
  `${treeSource(tree)}\n${readFileSync(trust, 'utf8').replace('/dts-v1/;', '')}`;
