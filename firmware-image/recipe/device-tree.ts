import { readFileSync } from 'node:fs';
import { run } from './tools.ts';

/** The source of a compiled device tree. */
export const treeSource = (tree: string): string => run('dtc', ['-q', '-I', 'dtb', '-O', 'dts', tree]);

/**
 * The source of a compiled device tree to which the public key and the boot script are added.
 * @param trust file with the source of both, from `trustSource` in disk.ts
 */
export const trustedTreeSource = (tree: string, trust: string): string =>
  `${treeSource(tree)}\n${readFileSync(trust, 'utf8').replace('/dts-v1/;', '')}`;
