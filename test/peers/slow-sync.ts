import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** What a process with slow syncs did so far. */
export interface SyncCounts {
  readonly syncs: number;
  /** Octets written to files. */
  readonly octets: number;
}

/**
 * The environment that makes syncs of a process slow, and how they are counted.
 * @param folder where the shim is built and the counters are
 */
export function slowSync(folder: string, milliseconds: number) {
  const shim = join(folder, 'slow-sync.so');
  const counters = join(folder, 'slow-sync.counts');
  if (!existsSync(shim))
    execFileSync('gcc', [
      ...['-shared', '-fPIC', '-O2', '-o', shim],
      fileURLToPath(new URL('slow-sync.c', import.meta.url)),
      '-ldl',
    ]);
  return {
    env: { LD_PRELOAD: shim, SLOW_SYNC_MS: String(milliseconds), SLOW_SYNC_COUNTS: counters },
    counts: (): SyncCounts => {
      const values = readFileSync(counters);
      return { syncs: Number(values.readBigUInt64LE(0)), octets: Number(values.readBigUInt64LE(8)) };
    },
  };
}
