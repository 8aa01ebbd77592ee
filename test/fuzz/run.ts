import { PosternError } from '../../src/base/errors.ts';
import { Dice, mutate } from './mutate.ts';
import type { Target } from './targets.ts';

/** What one input may take at most. */
export const bounds = { milliseconds: 50, bytes: 16 * 1024 * 1024 } as const;

export interface Finding {
  readonly target: string;
  readonly what: string;
  readonly input: string;
}

export interface Run {
  readonly inputs: number;
  readonly accepted: number;
  readonly slowest: number;
  readonly findings: readonly Finding[];
}

const findingBound = 20;
const largest = 8 * 1024;

/**
 * Feeds mutated inputs to a decoder until `inputs` or the time is used up. A finding is an error that is none of the
 * codec's own, or an input that takes too long: measured again by itself, so that a pause of the collector is none.
 */
export function fuzz({ name, decode, corpus }: Target, seed: number, inputs: number, until: number): Run {
  const dice = new Dice(seed);
  const scratch = Buffer.alloc(largest);
  const findings: Finding[] = [];
  let accepted = 0;
  let slowest = 0;
  let done = 0;
  const report = (what: string, input: Uint8Array) =>
    findings.push({ target: name, what, input: Buffer.from(input).toString('hex') });
  const attempt = (input: Uint8Array): boolean => {
    try {
      decode(input);
      return true;
    } catch (error) {
      if (!(error instanceof PosternError)) report(`threw ${String(error)}`, input);
      return false;
    }
  };
  for (; done < inputs && findings.length < findingBound; done++) {
    if ((done & 1023) === 0 && performance.now() > until) break;
    const input = mutate(dice, corpus[dice.roll(corpus.length)]!, corpus[dice.roll(corpus.length)]!, scratch);
    const began = performance.now();
    if (attempt(input)) accepted++;
    let took = performance.now() - began;
    if (took > bounds.milliseconds) {
      const again = performance.now();
      attempt(input);
      took = Math.min(took, performance.now() - again);
      if (took > bounds.milliseconds) report(`took ${took.toFixed(0)} ms`, input);
    }
    if (took > slowest) slowest = took;
  }
  return { inputs: done, accepted, slowest, findings };
}

/** Bytes that decoding leaves to the collector, for the inputs that ask for most: measured one by one, with `--expose-gc`. */
export function heaviest({ decode, corpus }: Target, seed: number, inputs: number): number {
  const collect = globalThis.gc;
  if (!collect) throw new Error('run with --expose-gc');
  const dice = new Dice(seed);
  const scratch = Buffer.alloc(largest);
  let most = 0;
  for (let done = 0; done < inputs; done++) {
    const input = mutate(dice, corpus[dice.roll(corpus.length)]!, corpus[dice.roll(corpus.length)]!, scratch);
    collect();
    const before = process.memoryUsage().heapUsed + process.memoryUsage().external;
    try {
      decode(input);
    } catch {
      // What it throws is the other run's concern.
    }
    const after = process.memoryUsage();
    most = Math.max(most, after.heapUsed + after.external - before);
  }
  return most;
}
