import type { Compound, NodeOperation, Operation, OperationOutcome } from '../../dm/server-session.ts';
import { DmStatus, isOk } from '../../dm/status.ts';

type Perform = (operation: Operation) => Promise<OperationOutcome>;

/** A Replace that succeeded. */
interface Done {
  readonly operation: NodeOperation;
  /** The value before. */
  readonly before: OperationOutcome['results'][number];
}

const isReplace = (operation: Operation): operation is NodeOperation => operation.name === 'Replace';
const outcomeWith = (operation: Operation, status: number): OperationOutcome => ({
  operation,
  status,
  results: [],
});

/**
 * Performs an Atomic (OMA DM protocol 1.2.1, section 10.2) on a device that has no such command. Each value is read
 * before it is replaced. When a Replace fails, the earlier values are written back. Therefore only Replace is supported
 * in an Atomic: any other operation in it gets 406, and nothing is performed.
 *
 * A value that cannot be read is not replaced: its Replace gets the status of the Get, such as 408 from a silent client.
 *
 * Returns 200; 507 when an operation failed and everything was written back; 516 when writing back failed.
 */
export async function performAtomic(atomic: Compound, perform: Perform): Promise<OperationOutcome> {
  const { operations } = atomic;
  const ended = (status: number, parts: readonly OperationOutcome[]): OperationOutcome => ({
    ...outcomeWith(atomic, status),
    parts,
  });
  if (!operations.every(isReplace)) {
    const status = (each: Operation) =>
      isReplace(each) ? DmStatus.NotExecuted : DmStatus.OptionalFeatureNotSupported;
    return ended(
      DmStatus.AtomicFailed,
      operations.map((each) => outcomeWith(each, status(each))),
    );
  }
  const done: Done[] = [];
  for (const [at, operation] of operations.entries()) {
    const read = await perform({ name: 'Get', uri: operation.uri });
    const [before] = read.results;
    const outcome = before ? await perform(operation) : outcomeWith(operation, read.status);
    if (before && isOk(outcome.status)) {
      done.push({ operation, before });
      continue;
    }
    const takenBack = await takeBack(done, perform);
    const parts = operations.map((other, place) =>
      place === at ? outcome : outcomeWith(other, takenBack.get(other) ?? DmStatus.NotExecuted),
    );
    const isWhole = [...takenBack.values()].every((status) => status === DmStatus.RolledBack);
    return ended(isWhole ? DmStatus.AtomicFailed : DmStatus.AtomicRollbackFailed, parts);
  }
  return ended(
    DmStatus.Ok,
    operations.map((each) => outcomeWith(each, DmStatus.Ok)),
  );
}

/**
 * Writes back the earlier values, the last operation first. Returns the DM status of each: 216, or 516 when that
 * failed.
 */
async function takeBack(done: readonly Done[], perform: Perform): Promise<ReadonlyMap<Operation, number>> {
  const takenBack = new Map<Operation, number>();
  for (const { operation, before } of done.toReversed()) {
    const { status } = await perform({ ...operation, format: before.format, data: before.data });
    takenBack.set(operation, isOk(status) ? DmStatus.RolledBack : DmStatus.AtomicRollbackFailed);
  }
  return takenBack;
}
