import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** What a process with slow syncs did so far. */
export interface SyncCounts {
  readonly syncs: number;
  /** Octets written to files. */
  readonly octets: number;
  /** Syncs in the thread of the event loop, which stands still meanwhile. */
  readonly standstills: number;
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
      const [syncs, octets, standstills] = [0, 8, 16].map((at) => Number(values.readBigUInt64LE(at)));
      return { syncs: syncs!, octets: octets!, standstills: standstills! };
    },
  };
}
