import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { forXml } from '../../base/presentable.ts';
import { forgetfulNodes } from '../../dm/node-store.ts';
import { StoredBranch } from '../../dm/stored-branch.ts';
import { gwDiagnostics } from '../../mo/gw-diagnostics.ts';

/** Bytes of a file that are told at most: its end. */
const mostBytes = 16_384;
/** What the board, or the launcher, has written before the start. Each is a file of this name. */
const told = ['ResetCause', 'Starts', 'LastCrash', 'KernelLog'] as const;
export type Diagnosis = Readonly<Record<(typeof told)[number], string>>;

/** What became of the gateway and its board before the last start. A file that is not there is told as an empty text. */
export const readDiagnosis = (folder: string): Diagnosis =>
  Object.fromEntries(told.map((name) => [name, endOf(join(folder, name))])) as Diagnosis;

/**
 * `./GwDiagnostics` (docs/gwmo.md).
 * @param slots the slots, as JSON
 */
export function diagnosticsBranch(folder: string, slots: () => string): StoredBranch {
  const { root, id } = gwDiagnostics;
  const branch = new StoredBranch('GwDiagnostics', root, forgetfulNodes, { type: id });
  for (const name of [...told, 'Slots']) {
    branch.plant([name], { name, format: 'chr' });
    branch.derive([name], () => (name === 'Slots' ? slots() : endOf(join(folder, name))));
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
