import type { Compound, NodeOperation, Operation, OperationOutcome } from '../../dm/server-session.ts';
import { DmStatus, isOk } from '../../dm/status.ts';

type Perform = (operation: Operation) => Promise<OperationOutcome>;

/** What became of one step of an Atomic. */
export interface StepOutcome {
  /** Outcomes of the operations of the step, in their order. */
  readonly outcomes: readonly OperationOutcome[];
  /** Undoes what the client has, or may have, done. Returns whether it is undone. Absent when nothing was done. */
  readonly undo?: () => Promise<boolean>;
}

/** Creates what several Adds make together. */
export interface Creation {
  /** What an Add creates: a name that all Adds below the same instance have. `undefined` for an Add of anything else. */
  readonly instanceOf: (add: NodeOperation) => string | undefined;
  /** Creates one instance by all its Adds. Never throws. */
  readonly create: (adds: readonly NodeOperation[]) => Promise<StepOutcome>;
}

export interface AtomicParts {
  readonly perform: Perform;
  /** Absent where nothing can be created. */
  readonly creation?: Creation | undefined;
}

export const outcomeWith = (operation: Operation, status: number): OperationOutcome => ({
  operation,
  status,
  results: [],
});

/** What the client does at once. */
type Step = () => Promise<StepOutcome>;

/**
 * Performs an Atomic (OMA DM protocol 1.2.1, section 10.2) on a device that has no such command. All Adds below one instance are one
 * Create, at the place of the first of them. A value is read before it is replaced. When a step fails, the earlier values are
 * written back, and the instances that were created are deleted. Any other operation gets 406, and nothing is performed.
 *
 * A value that cannot be read is not replaced: its Replace gets the status of the Get, such as 408 from a silent client.
 *
 * Returns 200; 507 when an operation failed and everything was undone; 516 when undoing failed.
 */
export async function performAtomic(atomic: Compound, parts: AtomicParts): Promise<OperationOutcome> {
  const { operations } = atomic;
  const steps = stepsOf(operations, parts);
  if (!steps) return ended(atomic, DmStatus.AtomicFailed, unsupported(operations, parts));
  const known = new Map<Operation, OperationOutcome>();
  const done: (StepOutcome & { isFailed: boolean })[] = [];
  for (const run of steps) {
    const step = await run();
    const isFailed = !step.outcomes.every(({ status }) => isOk(status));
    for (const outcome of step.outcomes) known.set(outcome.operation, outcome);
    done.push({ ...step, isFailed });
    if (isFailed) break;
  }
  const status = done.at(-1)?.isFailed ? await undoAll(done, known) : DmStatus.Ok;
  const outcomes = operations.map((each) => known.get(each) ?? outcomeWith(each, DmStatus.NotExecuted));
  return ended(atomic, status, outcomes);
}

const ended = (atomic: Compound, status: number, parts: readonly OperationOutcome[]): OperationOutcome => ({
  ...outcomeWith(atomic, status),
  parts,
});

const instanceIn = (operation: Operation, creation: Creation | undefined): string | undefined =>
  operation.name === 'Add' ? creation?.instanceOf(operation) : undefined;

/** The steps of an Atomic. `undefined` when it has an operation that is not supported. */
function stepsOf(
  operations: readonly Operation[],
  { perform, creation }: AtomicParts,
): readonly Step[] | undefined {
  const steps: Step[] = [];
  const created = new Map<string, NodeOperation[]>();
  for (const operation of operations) {
    if (operation.name === 'Replace') {
      steps.push(() => replace(operation, perform));
      continue;
    }
    const instance = instanceIn(operation, creation);
    if (!creation || operation.name !== 'Add' || instance === undefined) return undefined;
    const others = created.get(instance);
    if (others) {
      others.push(operation);
      continue;
    }
    const adds = [operation];
    created.set(instance, adds);
    steps.push(() => creation.create(adds));
  }
  return steps;
}

const unsupported = (operations: readonly Operation[], parts: AtomicParts): readonly OperationOutcome[] =>
  operations.map((each) =>
    each.name === 'Replace' || instanceIn(each, parts.creation) !== undefined
      ? outcomeWith(each, DmStatus.NotExecuted)
      : outcomeWith(each, DmStatus.OptionalFeatureNotSupported),
  );

async function replace(operation: NodeOperation, perform: Perform): Promise<StepOutcome> {
  const read = await perform({ name: 'Get', uri: operation.uri });
  const [before] = read.results;
  if (!before) return { outcomes: [outcomeWith(operation, read.status)] };
  const outcome = await perform(operation);
  const undo = async () => {
    const { format, data } = before;
    return isOk((await perform({ ...operation, format, data })).status);
  };
  // Without an answer the value may have been written.
  const mayBeDone = isOk(outcome.status) || outcome.status === DmStatus.RequestTimeout;
  return { outcomes: [outcome], ...(mayBeDone && { undo }) };
}

/**
 * Undoes all steps, the last one first, and gives the operations that had succeeded their statuses: 216, or 516 when undoing failed.
 * Returns the status of the Atomic.
 */
async function undoAll(
  done: readonly (StepOutcome & { readonly isFailed: boolean })[],
  known: Map<Operation, OperationOutcome>,
): Promise<number> {
  let isWhole = true;
  for (const { outcomes, undo, isFailed } of done.toReversed()) {
    const isUndone = (await undo?.()) ?? true;
    isWhole &&= isUndone;
    if (isFailed) continue;
    const status = isUndone ? DmStatus.RolledBack : DmStatus.AtomicRollbackFailed;
    for (const { operation } of outcomes) known.set(operation, outcomeWith(operation, status));
  }
  return isWhole ? DmStatus.AtomicFailed : DmStatus.AtomicRollbackFailed;
}
