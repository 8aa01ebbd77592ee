import type { Compound, NodeOperation, Operation, OperationOutcome } from '../../dm/server-session.ts';
import { DmStatus, isOk } from '../../dm/status.ts';

type Perform = (operation: Operation) => Promise<OperationOutcome>;

interface Done {
  readonly operation: NodeOperation;
  /** What was there before. */
  readonly before: OperationOutcome['results'][number];
}

const isReplace = (operation: Operation): operation is NodeOperation => operation.name === 'Replace';
const came = (operation: Operation, status: number): OperationOutcome => ({ operation, status, results: [] });

/**
 * All or none (OMA DM protocol 1.2.1, section 10.2) at a device that knows nothing of the kind: what was written before
 * something failed is written back. So it takes what can be taken back, which is Replace.
 */
export async function performAtomic(atomic: Compound, perform: Perform): Promise<OperationOutcome> {
  const { operations } = atomic;
  const ended = (status: number, parts: readonly OperationOutcome[]): OperationOutcome => ({
    ...came(atomic, status),
    parts,
  });
  if (!operations.every(isReplace)) {
    const status = (each: Operation) =>
      isReplace(each) ? DmStatus.NotExecuted : DmStatus.OptionalFeatureNotSupported;
    return ended(
      DmStatus.AtomicFailed,
      operations.map((each) => came(each, status(each))),
    );
  }
  const done: Done[] = [];
  for (const [at, operation] of operations.entries()) {
    const [before] = (await perform({ name: 'Get', uri: operation.uri })).results;
    const outcome = before ? await perform(operation) : came(operation, DmStatus.NotFound);
    if (before && isOk(outcome.status)) {
      done.push({ operation, before });
      continue;
    }
    const takenBack = await takeBack(done, perform);
    const parts = operations.map((other, place) =>
      place === at ? outcome : came(other, takenBack.get(other) ?? DmStatus.NotExecuted),
    );
    const isWhole = [...takenBack.values()].every((status) => status === DmStatus.RolledBack);
    return ended(isWhole ? DmStatus.AtomicFailed : DmStatus.AtomicRollbackFailed, parts);
  }
  return ended(
    DmStatus.Ok,
    operations.map((each) => came(each, DmStatus.Ok)),
  );
}

/** The last first. Answers with what came of each. */
async function takeBack(done: readonly Done[], perform: Perform): Promise<ReadonlyMap<Operation, number>> {
  const takenBack = new Map<Operation, number>();
  for (const { operation, before } of done.toReversed()) {
    const { status } = await perform({ ...operation, format: before.format, data: before.data });
    takenBack.set(operation, isOk(status) ? DmStatus.RolledBack : DmStatus.AtomicRollbackFailed);
  }
  return takenBack;
}
