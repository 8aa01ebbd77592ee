import { PosternError } from '../../src/base/errors.ts';
import { type Dice, mutate } from './mutate.ts';
import type { Target } from './targets.ts';

/** Limits of one input: time, and memory. */
export const bounds = { milliseconds: 50, bytes: 16 * 1024 * 1024 } as const;

export interface Finding {
  readonly target: string;
  readonly what: string;
  /** Hexadecimal. */
  readonly input: string;
}

export interface Run {
  readonly inputs: number;
  /** Inputs that the decoder read without an error. */
  readonly accepted: number;
  /** Milliseconds of the slowest input. */
  readonly slowest: number;
  readonly findings: readonly Finding[];
}

/** Findings after which a run ends. */
const findingBound = 20;
/** Bytes of an input. */
const largest = 8 * 1024;

/**
 * Feeds `inputs` mutated inputs to a decoder, fewer when the clock reaches `until` (ms, as `performance.now` counts). A finding
 * is an error other than PosternError, or an input that takes too long. A slow input is decoded twice more, and the shortest
 * CPU time counts: the first time may hold a pause of the garbage collector, or the work of other processes.
 */
export function fuzz({ name, decode, corpus }: Target, dice: Dice, inputs: number, until: number): Run {
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
    if (took <= slowest) continue;
    for (let again = 0; again < 2; again++) {
      const before = process.threadCpuUsage();
      attempt(input);
      const { user, system } = process.threadCpuUsage(before);
      took = Math.min(took, (user + system) / 1000);
    }
    if (took > bounds.milliseconds) report(`took ${took.toFixed(0)} ms`, input);
    slowest = Math.max(slowest, took);
  }
  return { inputs: done, accepted, slowest, findings };
}

/**
 * The most bytes that decoding one input allocates, of `inputs` mutated inputs. Each input is measured by itself.
 * @throws {Error} when Node runs without `--expose-gc`
 */
export function heaviest({ decode, corpus }: Target, dice: Dice, inputs: number): number {
  const collect = globalThis.gc;
  if (!collect) throw new Error('run with --expose-gc');
  const scratch = Buffer.alloc(largest);
  let most = 0;
  for (let done = 0; done < inputs; done++) {
    const input = mutate(dice, corpus[dice.roll(corpus.length)]!, corpus[dice.roll(corpus.length)]!, scratch);
    collect();
    const before = process.memoryUsage().heapUsed + process.memoryUsage().external;
    try {
      decode(input);
    } catch {
      // `fuzz` judges what is thrown.
    }
    const after = process.memoryUsage();
    most = Math.max(most, after.heapUsed + after.external - before);
  }
  return most;
}
