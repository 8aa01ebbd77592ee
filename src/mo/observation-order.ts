import * as v from 'valibot';
import { PosternError } from '../base/errors.ts';
import type { StoredBranch } from '../dm/stored-branch.ts';
import { integerAt, readTargets, type Targets } from './targets.ts';

/** Bounds of one observation. Times are in seconds. */
export const observationLimits = { paths: 64, pathBytes: 255, period: 86_400, count: 16_384 } as const;
/** Seconds. */
export const observationDefaults = { period: 60, poll: 300 } as const;

/** Conditions of notifications (LwM2M core 1.2, section 5.1.2). `pmin` and `pmax` are in seconds. */
export interface NotifyAttributes {
  readonly pmin?: number;
  readonly pmax?: number;
  readonly gt?: number;
  readonly lt?: number;
  readonly st?: number;
}

/** An observation as the DM server ordered it. */
export interface ObservationOrder {
  /** Name of its node. */
  readonly name: string;
  /** ServerID of the DM server that started it, which is told the values. */
  readonly server: string;
  readonly targets: Targets;
  /** Paths on the device, from the root of what it has: `/3303/0/5700`, `/Sensor/Temp`. */
  readonly paths: readonly string[];
  readonly attributes: NotifyAttributes;
  /** Seconds that a value waits for others at most. */
  readonly period: number;
  /** Number of values after which they are reported before that. 0: no number. */
  readonly count: number;
  /** Seconds; 0: without end. */
  readonly lifetime: number;
}

/** A path as an order may write it: with `.` and `/` before it, or without. */
const pathOf = (text: string): string => `/${text.trim().replace(/^\.?\/+/, '')}`;

const whole = (most: number = Number.MAX_SAFE_INTEGER) =>
  v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(most));
const fields = {
  paths: v.pipe(
    v.array(v.pipe(v.string(), v.minLength(2), v.maxBytes(observationLimits.pathBytes))),
    v.minLength(1),
    v.maxLength(observationLimits.paths),
  ),
  attributes: v.pipe(
    v.strictObject({
      pmin: v.exactOptional(whole()),
      pmax: v.exactOptional(whole()),
      gt: v.exactOptional(v.pipe(v.number(), v.finite())),
      lt: v.exactOptional(v.pipe(v.number(), v.finite())),
      st: v.exactOptional(v.pipe(v.number(), v.finite(), v.gtValue(0))),
    }),
    v.check(({ pmin = 0, pmax }) => pmax === undefined || pmax === 0 || pmax >= pmin),
    // LwM2M core 1.2, section 5.1.2: else the client refuses them.
    v.check(
      ({ gt, lt, st = 0 }) => gt === undefined || lt === undefined || lt + (st === 0 ? 0 : 2 * st) < gt,
    ),
  ),
  period: v.pipe(whole(observationLimits.period), v.minValue(1)),
  count: whole(observationLimits.count),
  lifetime: whole(),
};

/** The form in which an order is stored: JSON. */
export const storedOrder: v.GenericSchema<unknown, ObservationOrder> = v.strictObject({
  ...fields,
  name: v.string(),
  server: v.string(),
  targets: v.strictObject({
    named: v.pipe(
      v.array(v.string()),
      v.transform((list) => new Set(list)),
    ),
    group: v.exactOptional(v.string()),
    conditions: v.array(v.tuple([v.string(), v.string()])),
  }),
});

/** Writes an order in the form that `storedOrder` reads. */
export const orderJson = ({ targets, ...rest }: ObservationOrder): string =>
  JSON.stringify({ ...rest, targets: { ...targets, named: [...targets.named] } });

/** Leaves of an observation that hold an attribute. */
const attributeLeaves = { Pmin: 'pmin', Pmax: 'pmax', Gt: 'gt', Lt: 'lt', St: 'st' } as const;

/**
 * Reads an observation from its nodes.
 * @throws {PosternError} `malformed`
 */
export function readObservation(branch: StoredBranch, name: string, server: string): ObservationOrder {
  const at = ['Observation', name] as const;
  const list = [...at, 'Paths'];
  const attributes = Object.entries(attributeLeaves).flatMap(([leaf, attribute]) => {
    const text = branch.text(...at, leaf);
    return text === undefined || text === '' ? [] : [[attribute, Number(text)]];
  });
  const read = {
    paths: branch.names(list).map((item) => pathOf(branch.text(...list, item, 'Path') ?? '')),
    attributes: Object.fromEntries(attributes) as unknown,
    period: integerAt(branch, [...at, 'ReportPeriod'], observationDefaults.period),
    count: integerAt(branch, [...at, 'ReportCount'], 0),
    lifetime: integerAt(branch, [...at, 'Lifetime'], 0),
  };
  const { success, output, issues } = v.safeParse(v.strictObject(fields), read);
  if (!success)
    throw new PosternError(
      'malformed',
      `the observation ${name} cannot be made: ${v.getDotPath(issues[0]) ?? 'its attributes'}`,
    );
  return { name, server, targets: readTargets(branch, at), ...output };
}
