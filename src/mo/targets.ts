import type { StoredBranch } from '../dm/stored-branch.ts';
import type { DeviceRecord } from './device-record.ts';

/** What targets are chosen from. */
export interface TargetChoice {
  readonly records: () => Iterable<DeviceRecord>;
  readonly record: (deviceId: string) => DeviceRecord | undefined;
  /** Devices of a group; none for a group that is not there. */
  readonly members: (groupId: string) => readonly string[] | undefined;
  /** What the inventory says of a device, by the names of the leaves. */
  readonly leaves: (record: DeviceRecord) => Readonly<Record<string, string>>;
}

/**
 * Devices of a campaign, those of now: `Targets` below the node at `at`. A device that is named and not attached stays
 * among them: that it could not be reached is part of the result.
 */
export function targetsOf(
  branch: StoredBranch,
  at: readonly string[],
  choice: TargetChoice,
): readonly string[] {
  const list = [...at, 'Targets', 'DeviceList'];
  const named = branch.names(list).flatMap((item) => branch.text(...list, item, 'DeviceID') ?? []);
  const group = branch.text(...at, 'Targets', 'GroupID');
  const chosen = new Set([...named, ...(group === undefined ? [] : (choice.members(group) ?? []))]);
  const where = [...at, 'Targets', 'Condition'];
  const conditions = branch
    .names(where)
    .map(
      (item) => [branch.text(...where, item, 'Path') ?? '', branch.text(...where, item, 'Value')] as const,
    );
  const holds = (record: DeviceRecord) => {
    const leaves = conditions.length > 0 ? choice.leaves(record) : {};
    return conditions.every(([path, value]) => leaves[path] === value);
  };
  if (named.length > 0 || group !== undefined)
    return [...chosen].filter((deviceId) => {
      const record = choice.record(deviceId);
      return record ? holds(record) : conditions.length === 0;
    });
  // A child gateway is no End Device; who means it names it.
  return [...choice.records()]
    .filter((record) => !record.isGateway && holds(record))
    .map(({ deviceId }) => deviceId);
}

/** What stands for a campaign that does not say: failures are named, and an hour is given. */
export const campaignStandard = { returnFormat: 3, deadline: 3600 } as const;

export const integerAt = (branch: StoredBranch, path: readonly string[], otherwise: number): number =>
  Number(branch.text(...path) || otherwise);
