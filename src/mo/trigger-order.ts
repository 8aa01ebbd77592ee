import type { StoredBranch } from '../dm/stored-branch.ts';
import type { CampaignOrder } from './campaign.ts';
import { campaignDefaults, integerAt, type TargetChoice, targetsOf } from './targets.ts';

/** A trigger as the DM server ordered it. */
export interface TriggerOrder extends CampaignOrder {
  /** Package #0 for each device, by DevId. */
  readonly notifications: ReadonlyMap<string, Uint8Array>;
}

/** Reads a trigger from its nodes. Without `Targets`, its targets are the devices that have a notification. */
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
    returnFormat: integerAt(branch, [...at, 'ReturnFormat'], campaignDefaults.returnFormat),
    deadline: integerAt(branch, [...at, 'Deadline'], campaignDefaults.deadline) * 1000,
  };
}
