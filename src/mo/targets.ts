import type { StoredBranch } from '../dm/stored-branch.ts';
import type { DeviceRecord } from './device-record.ts';

/** Where targets are chosen from. */
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

/** What the node `Targets` of an order says. */
export interface Targets {
  /** DevIds. */
  readonly named: ReadonlySet<string>;
  readonly group?: string;
  /** Names of leaves of the inventory record, each with the value that it must have. */
  readonly conditions: readonly (readonly [leaf: string, value: string])[];
}

/** Reads the node `Targets` below `at`. */
export function readTargets(branch: StoredBranch, at: readonly string[]): Targets {
  const list = [...at, 'Targets', 'DeviceList'];
  const where = [...at, 'Targets', 'Condition'];
  const group = branch.text(...at, 'Targets', 'GroupID');
  return {
    named: new Set(branch.names(list).flatMap((item) => branch.text(...list, item, 'DeviceID') ?? [])),
    ...(group !== undefined && { group }),
    conditions: branch
      .names(where)
      .map(
        (item) =>
          [branch.text(...where, item, 'Path') ?? '', branch.text(...where, item, 'Value') ?? ''] as const,
      ),
  };
}

/** DevIds of the list and of the group, as they are now. Undefined where targets have neither: then all devices are meant. */
export function listedIn({ named, group }: Targets, choice: TargetChoice): ReadonlySet<string> | undefined {
  if (named.size === 0 && group === undefined) return undefined;
  return group === undefined ? named : new Set([...named, ...(choice.members(group) ?? [])]);
}

/**
 * Whether an attached device is a target.
 * @param listed as `listedIn` says
 */
export function isTarget(
  record: DeviceRecord,
  { conditions }: Targets,
  listed: ReadonlySet<string> | undefined,
  choice: TargetChoice,
): boolean {
  // A child gateway is not an End Device. It is a target only when it is named.
  if (listed ? !listed.has(record.deviceId) : record.isGateway) return false;
  if (conditions.length === 0) return listed !== undefined || choice.mayRead(record);
  const leaves = choice.leaves(record);
  return conditions.every(([path, value]) => leaves[path] === value) && choice.mayRead(record);
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
  const targets = readTargets(branch, at);
  const listed = listedIn(targets, choice);
  if (listed)
    return [...listed].filter((deviceId) => {
      const record = choice.record(deviceId);
      return record ? isTarget(record, targets, listed, choice) : targets.conditions.length === 0;
    });
  return [...choice.records()]
    .filter((record) => isTarget(record, targets, listed, choice))
    .map(({ deviceId }) => deviceId);
}

/** Values for a campaign whose order does not have them: the DevIds of failed devices, and an hour (in seconds). */
export const campaignDefaults = { returnFormat: 3, deadline: 3600 } as const;

/** The integer in a leaf, or `otherwise` when the leaf does not exist or is empty. */
export const integerAt = (branch: StoredBranch, path: readonly string[], otherwise: number): number =>
  Number(branch.text(...path) || otherwise);
