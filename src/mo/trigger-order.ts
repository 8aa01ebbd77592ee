import type { StoredBranch } from '../dm/stored-branch.ts';
import type { CampaignOrder } from './campaign.ts';
import { campaignStandard, integerAt, type TargetChoice, targetsOf } from './targets.ts';

/** What the DM server put into a trigger. */
export interface TriggerOrder extends CampaignOrder {
  /** Package #0 by DevId. */
  readonly notifications: ReadonlyMap<string, Uint8Array>;
}

/** Reads a trigger from its nodes. Without targets it is for the devices that there are notifications for. */
export function readTrigger(
  branch: StoredBranch,
  name: string,
  server: string,
  choice: TargetChoice,
): TriggerOrder {
  const at = ['Trigger', name] as const;
  const list = [...at, 'Notifications'];
  const notifications = new Map(
    branch.names(list).map((item) => {
      const value = branch.view([...list, item, 'Pkg0'])?.value ?? '';
      const package0 = typeof value === 'string' ? Buffer.from(value, 'base64') : value;
      return [branch.text(...list, item, 'DeviceID') ?? '', package0] as const;
    }),
  );
  return {
    name,
    server,
    notifications,
    devices: branch.view([...at, 'Targets']) ? targetsOf(branch, at, choice) : [...notifications.keys()],
    returnFormat: integerAt(branch, [...at, 'ReturnFormat'], campaignStandard.returnFormat),
    deadline: integerAt(branch, [...at, 'Deadline'], campaignStandard.deadline) * 1000,
  };
}
