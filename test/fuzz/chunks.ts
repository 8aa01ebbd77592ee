import { Dice } from './mutate.ts';
import type { Finding, Run } from './run.ts';

/** Inputs of one chunk. A run begins at a multiple of it. */
export const chunk = 100_000;

/** Something to fuzz. Takes its numbers from `dice`, and ends when the clock reaches `until` (ms, as `performance.now` counts). */
export interface Play {
  readonly name: string;
  readonly play: (dice: Dice, inputs: number, until: number) => Run | Promise<Run>;
}

/** Which inputs to play: `inputs` of them, from input number `from` on, both rounded up to whole chunks. */
export interface Part {
  readonly seed: number;
  readonly from: number;
  readonly inputs: number;
  readonly until: number;
}

/**
 * Plays a part of the endless row of inputs that a seed stands for. The row consists of chunks, and each chunk has its own
 * stream of numbers. So a run goes on where an earlier one ended, and several runs share a row without doing anything twice.
 * `told` hears of each chunk: the inputs of the row that are done, and the time that the chunk took in ms.
 */
export async function playChunks(
  { play }: Play,
  { seed, from, inputs, until }: Part,
  told: (done: number, took: number) => void,
): Promise<Run> {
  const first = Math.ceil(from / chunk);
  const last = first + Math.ceil(inputs / chunk);
  const findings: Finding[] = [];
  let done = 0;
  let accepted = 0;
  let slowest = 0;
  for (let at = first; at < last && findings.length === 0 && performance.now() < until; at++) {
    const began = performance.now();
    const run = await play(new Dice(seed, at), Math.min(chunk, inputs - done), until);
    done += run.inputs;
    accepted += run.accepted;
    slowest = Math.max(slowest, run.slowest);
    findings.push(...run.findings.map((each) => ({ ...each, what: `chunk at ${at * chunk}: ${each.what}` })));
    told(first * chunk + done, performance.now() - began);
  }
  return { inputs: done, accepted, slowest, findings };
}
