import { type Operation, type OperationOutcome, textOfResult } from '../../dm/server-session.ts';
import { DmStatus } from '../../dm/status.ts';
import type { FanoutOrder } from '../../mo/fanout-order.ts';
import { type Attempt, type AttemptOptions, type Outcome, statusOfAll } from './campaign.ts';
import type { Manage } from './waiting-work.ts';

export interface FanOutParts {
  readonly manage: Manage;
  /** Operations as they are for one device: what an image is called becomes where this device gets it. */
  readonly adapt: (device: string, operations: readonly Operation[]) => readonly Operation[];
}

/** Whether a fan-out may be done again on a device that may have done it: all but Exec may. */
export const isRepeatable = ({ operations }: Pick<FanoutOrder, 'operations'>): boolean =>
  !hasExec(operations);

/** One device of a fan-out (GwMO): a session with it, in proxy mode. */
export async function fanOutTo(
  { manage, adapt }: FanOutParts,
  device: string,
  { name, operations, timeout }: FanoutOrder,
  { begun, signal }: Pick<AttemptOptions, 'begun' | 'signal'>,
): Promise<Attempt> {
  const adapted = withCorrelator(adapt(device, operations), name);
  const outcome = outcomeOf(await manage(device, adapted, { timeout, begun, signal }));
  // What a device accepted for later (FUMO, section 8) it reports by an alert with the correlator of the Exec.
  const isAccepted = outcome.parts.some(({ status }) => status === DmStatus.AcceptedForProcessing);
  return { kind: isAccepted && outcome.status === DmStatus.Ok ? 'accepted' : 'ended', outcome };
}

const hasExec = (operations: readonly Operation[]): boolean =>
  operations.some((operation) =>
    'operations' in operation ? hasExec(operation.operations) : operation.name === 'Exec',
  );

/** An Exec that has no correlator of its own gets the fan-out's name. */
const withCorrelator = (operations: readonly Operation[], correlator: string): readonly Operation[] =>
  operations.map((operation) => {
    if ('operations' in operation)
      return { ...operation, operations: withCorrelator(operation.operations, correlator) };
    return operation.name === 'Exec' ? { correlator, ...operation } : operation;
  });

/** The first status that is no success stands for the whole. */
function outcomeOf(outcomes: readonly OperationOutcome[]): Outcome {
  const all = outcomes.flatMap((outcome) => [outcome, ...(outcome.parts ?? [])]);
  return {
    status: statusOfAll(all.map(({ status }) => status)),
    parts: all.map(({ status, results }) => ({
      status,
      results: results.map(({ uri, data }) => ({
        uri,
        data: textOfResult(data),
      })),
    })),
  };
}
