import type { StoredBranch } from '../dm/stored-branch.ts';
import type { DeviceRecord } from './device-record.ts';

/** Where the targets of a campaign are chosen from. */
export interface TargetChoice {
  /** Records of the attached devices. */
  readonly records: () => Iterable<DeviceRecord>;
  readonly record: (deviceId: string) => DeviceRecord | undefined;
  /** Whether the server that orders may read a record. Others are not chosen, and conditions do not hold for them. */
  readonly mayRead: (record: DeviceRecord) => boolean;
  /** DevIds of the members of a group. Undefined when there is no such group. */
  readonly members: (groupId: string) => readonly string[] | undefined;
  /** Values of the leaves of a record, by name. */
  readonly leaves: (record: DeviceRecord) => Readonly<Record<string, string>>;
}

/**
 * DevIds of the targets of a campaign at this moment, chosen by the node `Targets` below `at`. A device that is named
 * but not attached is a target as well: the result then says that it could not be reached. The result names the targets, so a server
 * gets no names of devices that it may not read: it can only name them itself.
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
    if (conditions.length === 0) return true;
    const leaves = choice.leaves(record);
    return conditions.every(([path, value]) => leaves[path] === value) && choice.mayRead(record);
  };
  if (named.length > 0 || group !== undefined)
    return [...chosen].filter((deviceId) => {
      const record = choice.record(deviceId);
      return record ? holds(record) : conditions.length === 0;
    });
  // A child gateway is not an End Device. It is a target only when it is named.
  return [...choice.records()]
    .filter(
      (record) => !record.isGateway && holds(record) && (conditions.length > 0 || choice.mayRead(record)),
    )
    .map(({ deviceId }) => deviceId);
}

/** Values for a campaign whose order does not have them: the DevIds of failed devices, and an hour (in seconds). */
export const campaignDefaults = { returnFormat: 3, deadline: 3600 } as const;

/** The integer in a leaf, or `otherwise` when the leaf does not exist or is empty. */
export const integerAt = (branch: StoredBranch, path: readonly string[], otherwise: number): number =>
  Number(branch.text(...path) || otherwise);
