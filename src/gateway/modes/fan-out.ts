import { hasExec, type Operation, type OperationOutcome } from '../../dm/server-session.ts';
import { shownResult } from '../../dm/shown-result.ts';
import { DmStatus, isOk } from '../../dm/status.ts';
import { campaignValue } from '../../mo/campaign-result.ts';
import type { FanoutOrder } from '../../mo/fanout-order.ts';
import { createsUnnamed } from './adapted-nodes.ts';
import type { Attempt, AttemptOptions, Outcome } from './campaign-parts.ts';
import type { Manage } from './waiting-work.ts';

export interface FanOutParts {
  readonly manage: Manage;
  /** Adapts operations to one device: the name of an image becomes the URI at which this device gets it. */
  readonly adapt: (device: string, operations: readonly Operation[]) => readonly Operation[];
}

/**
 * Whether a fan-out may be repeated on a device that may have performed it already: true unless it contains an Exec, or creates an
 * instance whose ID an LwM2M client chooses.
 */
export const isRepeatable = ({ operations }: Pick<FanoutOrder, 'operations'>): boolean =>
  !hasExec(operations) && !operations.some(createsUnnamed);

/**
 * Performs a fan-out (GwMO) on one device.
 * @throws {PosternError} as `manage` and `adapt`
 */
export async function fanOutTo(
  { manage, adapt }: FanOutParts,
  device: string,
  { name, operations, timeout, patience }: FanoutOrder,
  { begun, signal, until, away }: Pick<AttemptOptions, 'begun' | 'signal' | 'until' | 'away'>,
): Promise<Attempt> {
  const adapted = withCorrelator(adapt(device, operations), name);
  const outcome = outcomeOf(await manage(device, adapted, { timeout, patience, begun, signal, until, away }));
  // A device that answers 202 reports the result later by an alert with the correlator of the Exec (FUMO, section 8).
  const isAccepted = outcome.parts.some(({ status }) => status === DmStatus.AcceptedForProcessing);
  return { kind: isAccepted && outcome.status === DmStatus.Ok ? 'accepted' : 'ended', outcome };
}

/** Gives each Exec without a correlator the name of the fan-out as correlator. */
const withCorrelator = (operations: readonly Operation[], correlator: string): readonly Operation[] =>
  operations.map((operation) => {
    if ('operations' in operation)
      return { ...operation, operations: withCorrelator(operation.operations, correlator) };
    return operation.name === 'Exec' ? { correlator, ...operation } : operation;
  });

/** Combines the outcomes of all operations. The status is the first one that is not a success, else 200. */
function outcomeOf(outcomes: readonly OperationOutcome[]): Outcome {
  const all = outcomes.flatMap((outcome) => [outcome, ...(outcome.parts ?? [])]);
  return {
    status: all.find(({ status }) => !isOk(status))?.status ?? DmStatus.Ok,
    parts: all.map(({ status, results }) => ({
      status,
      results: results.map((result) => campaignValue(shownResult(result))),
    })),
  };
}
