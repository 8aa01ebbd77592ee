import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { TomlError } from 'smol-toml';
import { PosternError } from '../../src/base/errors.ts';
import { DmError } from '../../src/dm/dm-error.ts';
import { type WorstInputs, worstInputs } from './worst-inputs.ts';

/**
 * CPU time of this thread in milliseconds for each 64 KB, and growth of the time when an input is eight times as large: linear
 * time grows by eight, with cold caches and the collection of garbage by some more, and quadratic time by 64.
 */
const bounds = { milliseconds: 10, growth: 32 } as const;
const larger = 8;
const unit = 64 * 1024;
/** Milliseconds below which a time says nothing of growth: the clock of the CPU ticks in milliseconds. */
const least = 4;
/**
 * Milliseconds for each 64 KB below which the largest input costs too little to ask for its growth. V8's JSON.parse takes this much
 * for nested arrays once they do not fit into the young generation, and nothing that can be measured before.
 */
const cheap = 4;
const attempts = 6;

function decodeOnce({ decode }: WorstInputs, input: Buffer): void {
  try {
    decode(input);
  } catch (thrown) {
    const isOwn = thrown instanceof PosternError || thrown instanceof DmError || thrown instanceof TomlError;
    if (!isOwn) throw thrown;
  }
}

/**
 * CPU time of this thread for one decoding, the least of some attempts. Other processes, and other threads of this one, do not
 * count: a busy machine changes nothing. Short ones are repeated until the clock can measure them.
 * @param enough milliseconds at which no further attempt is needed
 */
function cpuOf(worst: WorstInputs, input: Buffer, enough: number): number {
  let best = Number.POSITIVE_INFINITY;
  for (let attempt = 0; attempt < attempts && best > enough; attempt++) {
    let used = 0;
    let times = 0;
    for (const before = process.threadCpuUsage(); used < 3000 && times < 10; times++) {
      decodeOnce(worst, input);
      const { user, system } = process.threadCpuUsage(before);
      used = user + system;
    }
    best = Math.min(best, used / 1000 / times);
  }
  return best;
}

/** Whether the time grows no faster than `bounds.growth`, in one of three rounds: memory that is used again is faster than new. */
function isLinear(worst: WorstInputs, large: Buffer, small: Buffer): boolean {
  return [1, 2, 3].some(() => {
    const short = Math.max(cpuOf(worst, small, 0), least / bounds.growth);
    return cpuOf(worst, large, short * bounds.growth) <= short * bounds.growth;
  });
}

for (const worst of worstInputs)
  describe(worst.name, () => {
    for (const [what, make] of Object.entries(worst.inputs))
      test(what, { timeout: 120_000 }, (t) => {
        const size = worst.bound;
        const units = Math.max(1, size / unit);
        const input = make(size);
        const large = cpuOf(worst, input, (bounds.milliseconds / 4) * units);
        t.diagnostic(`${(large / units).toFixed(2)} ms for each 64 KB`);
        assert.ok(large / units <= bounds.milliseconds, `${(large / units).toFixed(1)} ms for each 64 KB`);
        if (large <= least || large / units <= cheap) return;
        assert.ok(
          isLinear(worst, input, make(size / larger)),
          `${large} ms, and much less for a shorter one`,
        );
      });
  });

test('the measurement finds a decoder that takes quadratic time', () => {
  const quadratic: WorstInputs = {
    name: 'x',
    bound: unit,
    inputs: {},
    decode: (input) => /(a+)b/.test(input.toString()),
  };
  assert.ok(cpuOf(quadratic, Buffer.alloc(unit / 2, 'a'), 0) > bounds.milliseconds);
});
