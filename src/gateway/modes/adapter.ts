import type { Monotonic } from '../../base/clock.ts';
import { asPosternError } from '../../base/errors.ts';
import type { Compound, NodeOperation, Operation, OperationOutcome } from '../../dm/server-session.ts';
import { DmStatus } from '../../dm/status.ts';
import { type Creation, performAtomic } from './adapted-atomic.ts';
import type { AdaptedPatience } from './adapted-patience.ts';

/**
 * What adaptation mode (GwMO) needs of a protocol, so that devices which speak it are managed by DM commands. All of it is about
 * devices that are attached to this gateway itself. docs/adapters.md says how to add one.
 */
export interface Adapter {
  /** Whether a device listens only after it was heard. Undefined for a device that this adapter does not have. */
  readonly sleeps: (deviceId: string) => boolean | undefined;
  /** When a device was heard last. */
  readonly lastHeard: (deviceId: string) => Monotonic;
  /** Whether a device has been heard at its address since a time, or answers there now. Never rejects. */
  readonly isThere: (deviceId: string, since: Monotonic, signal: AbortSignal) => Promise<boolean>;
  /** Does an operation. Never rejects: a failure is a status of the outcome. `performOn` does what is common. */
  readonly perform: (
    deviceId: string,
    operation: Operation,
    patience: AdaptedPatience,
  ) => Promise<OperationOutcome>;
  /** As `AtOnce.reads`. */
  readonly reads?: (
    deviceId: string,
    gets: readonly NodeOperation[],
    patience: AdaptedPatience,
  ) => Promise<readonly OperationOutcome[] | undefined>;
}

/** What a protocol can do at once, where DM has several commands. */
export interface AtOnce {
  /** Creates something by several Adds. */
  readonly creation?: Creation;
  /** Does several Gets at once. Resolves with nothing where the device cannot: they are done one by one then. Never rejects. */
  readonly reads?: (gets: readonly NodeOperation[]) => Promise<readonly OperationOutcome[] | undefined>;
  /** Does an Atomic in one request. Resolves with nothing where the device cannot: the commands are done one by one then. */
  readonly atomic?: (atomic: Compound) => Promise<OperationOutcome | undefined>;
}

/** A command on one node, or a question to the user. */
export type SingleOperation = Exclude<Operation, Compound>;

/**
 * Does an operation on a device that knows neither Atomic nor Sequence. Never rejects.
 * @param command does a single one; what it throws becomes the status
 */
export async function performOn(
  operation: Operation,
  patience: AdaptedPatience,
  command: (operation: SingleOperation) => Promise<Partial<OperationOutcome>>,
  atOnce: AtOnce = {},
): Promise<OperationOutcome> {
  const perform = (each: Operation) => performOn(each, patience, command, atOnce);
  if ('operations' in operation) {
    if (operation.name === 'Atomic')
      return (
        (await atOnce.atomic?.(operation)) ??
        (await performAtomic(operation, { perform, creation: atOnce.creation }))
      );
    const parts = await performInTurn(operation.operations, perform, atOnce.reads);
    return { operation, status: DmStatus.Ok, results: [], parts };
  }
  const done = { operation, status: DmStatus.Ok, results: [] };
  try {
    return { ...done, ...(await patience.try(() => command(operation))) };
  } catch (thrown) {
    return { ...done, status: asPosternError(thrown).dmStatus };
  }
}

/** Does operations in their order; Gets that follow each other at once, where that is possible. */
export async function performInTurn(
  operations: readonly Operation[],
  perform: (operation: Operation) => Promise<OperationOutcome>,
  reads?: AtOnce['reads'],
): Promise<OperationOutcome[]> {
  const outcomes: OperationOutcome[] = [];
  while (outcomes.length < operations.length) {
    const left = operations.slice(outcomes.length);
    const other = left.findIndex(({ name }) => name !== 'Get');
    const gets = left.slice(0, other === -1 ? left.length : other) as NodeOperation[];
    const read = gets.length > 1 ? await reads?.(gets) : undefined;
    if (read) outcomes.push(...read);
    else for (const each of left.slice(0, Math.max(1, gets.length))) outcomes.push(await perform(each));
  }
  return outcomes;
}
