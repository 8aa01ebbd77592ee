import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

/**
 * Reports on file descriptor 3, after each full collection of garbage, the mebibytes of objects and of octets outside the heap
 * that are left. It begins no collections: those would change the memory that is measured.
 */
const program = `
import { writeSync } from 'node:fs';
import { constants, PerformanceObserver } from 'node:perf_hooks';
new PerformanceObserver((list) => {
  if (!list.getEntries().some(({ detail }) => detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR)) return;
  const { heapUsed, external } = process.memoryUsage();
  writeSync(3, (heapUsed + external) / 1048576 + '\\n');
}).observe({ entryTypes: ['gc'] });`;

/** Arguments of Node for a process that reports its collections. Its `stdio` needs a pipe at 3. */
export const reportCollections = ['--import', `data:text/javascript,${encodeURIComponent(program)}`] as const;

/** Calls `live` with what each collection of a process leaves, in mebibytes. */
export function onCollection(child: ChildProcess, live: (megabytes: number) => void): void {
  createInterface(child.stdio[3] as Readable).on('line', (line) => live(Number(line)));
}
