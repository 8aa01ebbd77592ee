import { Dice } from './mutate.ts';
import type { Finding, Run } from './run.ts';

/** A play of an adversary beside honest parties. */
export interface Play {
  /** Answers that honest parties got. */
  readonly answers: number;
  readonly findings: readonly string[];
  run(): Promise<void>;
}

/** Inputs of one play, and findings after which a run ends. */
export const playBounds = { inputs: 500, findings: 10 } as const;

/** Runs plays, each with a seed of its own, which its findings name. */
export async function runPlays(
  target: string,
  begin: (dice: Dice) => Play,
  dice: Dice,
  inputs: number,
  until: number,
): Promise<Run> {
  const findings: Finding[] = [];
  let answered = 0;
  let done = 0;
  while (done < inputs && performance.now() < until && findings.length < playBounds.findings) {
    const seed = dice.roll(0x7fff_ffff);
    const play = begin(new Dice(seed));
    await play.run();
    done += playBounds.inputs;
    answered += play.answers;
    for (const what of play.findings) findings.push({ target, what: `play ${seed}: ${what}`, input: '' });
  }
  return { inputs: done, accepted: answered, slowest: 0, findings };
}
