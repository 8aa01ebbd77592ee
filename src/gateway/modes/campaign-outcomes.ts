import { PosternError } from '../../base/errors.ts';
import { DmStatus } from '../../dm/status.ts';
import { type CampaignSummary, type DeviceOutcome, summaryXml } from '../../mo/campaign-result.ts';
import type { CampaignTarget } from '../store/campaigns.ts';
import type { Outcome } from './campaign-parts.ts';

/** Outcome of a device that was not reached before its campaign was ended. */
export const cancelled: Outcome = { status: DmStatus.OperationCancelled, parts: [] };
/** Outcome of a device for which it is unknown whether it performed the order. */
export const unknownOutcome: Outcome = { status: DmStatus.CommandFailed, parts: [] };

/** Outcome of a device on which the DM server has no right. */
export const permissionDenied: Outcome = { status: DmStatus.PermissionDenied, parts: [] };

/**
 * Outcomes of the devices that have none yet, of a campaign whose order cannot be read any more. A device that accepted the order
 * keeps what it said.
 */
export const outcomesOfUnread = (targets: readonly CampaignTarget[]): [device: string, outcome: Outcome][] =>
  targets
    .filter(({ state }) => state !== 'ended')
    .map(({ device, state, outcome }) => {
      if (state === 'pending') return [device, { status: DmStatus.NotExecuted, parts: [] }];
      return [device, state === 'begun' ? unknownOutcome : (JSON.parse(outcome ?? '{}') as Outcome)];
    });

/** Why work on a device ends: its server has no account any more. */
export const noAccount = new PosternError('forbidden', 'the server has no account any more');

/** Maximum number of characters in a result with details. */
export const resultCharacters = 256 * 1024;

/**
 * XML of the result. When it is too long for an alert, it has only counts; a DM server can read the details in the
 * tree.
 */
export function boundedResult(summary: CampaignSummary, returnFormat: number): string {
  const result = summaryXml(summary, returnFormat);
  return result.length <= resultCharacters ? result : summaryXml(summary, 1);
}

/** Outcome of a device; none while it has not ended. */
export const toOutcome = ({ device, state, outcome }: CampaignTarget): DeviceOutcome[] =>
  state === 'ended' && outcome !== undefined ? [{ ...(JSON.parse(outcome) as Outcome), device }] : [];
