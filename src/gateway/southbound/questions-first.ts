import {
  type Operation,
  type OperationOutcome,
  operationsPerPackage,
  type Work,
} from '../../dm/server-session.ts';
import { DmStatus } from '../../dm/status.ts';

export interface QuestionsFirstParts {
  readonly questions: readonly Operation[];
  /** Takes the answers, one for each question. Returns whether the session goes on. */
  readonly answered: (answers: readonly OperationOutcome[]) => boolean;
  /** The work that follows; undefined when there is none. Asked again when it has ended, for what has come meanwhile. */
  readonly work: () => Work | undefined;
  /** Work whose first operations go in the package of the questions. */
  readonly early: Work | undefined;
}

/** Work that begins with questions to the device. Ends when the device does not execute the first one. */
export async function* questionsFirst({ questions, answered, work, early }: QuestionsFirstParts): Work {
  try {
    let round = await early?.next([]);
    const first = round?.value ?? [];
    const fits = questions.length + first.length <= operationsPerPackage;
    const outcomes = yield fits ? [...questions, ...first] : questions;
    const answers = outcomes.slice(0, questions.length);
    if (answers[0]?.status === DmStatus.NotExecuted) return;
    // What the device has done counts, whether the answers can be stored or not.
    if (early && round?.done === false && fits) round = await early.next(outcomes.slice(questions.length));
    if (!answered(answers)) return;
    while (early && round?.done === false) round = await early.next(yield round.value);
    const later = work();
    if (later) yield* later;
  } finally {
    // The session broke, or the device is not attached any more.
    await early?.return();
  }
}
