import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { forXml } from '../../base/presentable.ts';
import { forgetfulNodes } from '../../dm/node-store.ts';
import { StoredBranch } from '../../dm/stored-branch.ts';
import { gwDiagnostics } from '../../mo/gw-diagnostics.ts';

/** Bytes of a file that are told at most: its end. */
const mostBytes = 16_384;

/** A text for each node of `./GwDiagnostics`, by its name. */
export type Diagnosis = Readonly<Record<string, string>>;

/**
 * What became of the gateway and its board before the last start. The board, or the launcher, has written a file for each node
 * before the start. A file that is not there is told as an empty text.
 * @param slots the slots, as JSON
 */
export function readDiagnosis(folder: string, slots: string): Diagnosis {
  const names = Object.keys(gwDiagnostics.root.children ?? {});
  return Object.fromEntries(
    names.map((name) => [name, name === 'Slots' ? slots : endOf(join(folder, name))]),
  );
}

/** `./GwDiagnostics` (docs/gwmo.md). */
export function diagnosticsBranch(read: () => Diagnosis): StoredBranch {
  const { root, id } = gwDiagnostics;
  const branch = new StoredBranch('GwDiagnostics', root, forgetfulNodes, { type: id });
  for (const name in root.children) {
    branch.plant([name], { name, format: 'chr' });
    branch.derive([name], () => read()[name] ?? '');
  }
  return branch;
}

function endOf(file: string): string {
  try {
    return forXml(readFileSync(file).subarray(-mostBytes).toString().trim());
  } catch {
    return '';
  }
}
