import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';

export function median(values: readonly number[]): number {
  const ordered = values.toSorted((a, b) => a - b);
  const middle = ordered.length >> 1;
  return ordered.length % 2 === 1 ? ordered[middle]! : (ordered[middle - 1]! + ordered[middle]!) / 2;
}

export const spread = (values: readonly number[], digits: number): string =>
  `${Math.min(...values).toFixed(digits)} to ${Math.max(...values).toFixed(digits)}`;

/** Cores and clock, and nothing else of the machine. */
export function machine(): string {
  const megahertz = /cpu MHz\s*:\s*([\d.]+)/.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1];
  const clock = megahertz === undefined ? '' : `, ${(Number(megahertz) / 1000).toFixed(1)} GHz`;
  return `${cpus().length} cores${clock}`;
}

/** Clock ticks per second of /proc/PID/stat. */
const ticks = 100;

/** Seconds of CPU that a process has taken, for itself and in the kernel. */
export function cpuSeconds({ pid }: { readonly pid?: number | undefined }): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticks;
}

/** Puts a benchmark's result between its markers in a page of docs/. */
export function writeSection(name: string, text: string, page = 'performance.md'): void {
  const file = fileURLToPath(new URL(`../../docs/${page}`, import.meta.url));
  const before = readFileSync(file, 'utf8');
  const [from, to] = [`<!-- ${name} -->`, `<!-- /${name} -->`];
  const start = before.indexOf(from);
  const end = before.indexOf(to);
  if (start < 0 || end < start) throw new Error(`docs/${page} has no section ${from}`);
  writeFileSync(file, `${before.slice(0, start + from.length)}\n${text}\n${before.slice(end)}`);
}
