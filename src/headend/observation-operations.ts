import type { Operation } from '../dm/server-session.ts';
import type { NotifyAttributes } from '../mo/observation-order.ts';
import { nodesBelow, type Targets, targetLeaves } from './orders.ts';

/** An observation for a gateway. Times are in seconds. */
export interface ObservationRequest {
  /** Name of its node on the gateway. */
  readonly name: string;
  readonly targets: Targets;
  /** Paths on the devices, such as `3303/0/5700` or `./Sensor/Temp`. */
  readonly paths: readonly string[];
  readonly attributes: { readonly [Name in keyof NotifyAttributes]?: number | undefined };
  /** Seconds that a value waits for others at most. The gateway's default is 60. */
  readonly reportPeriod?: number | undefined;
  /** Values after which they are reported before that. */
  readonly reportCount?: number | undefined;
  /** Seconds until it ends. Without end if absent. */
  readonly lifetime?: number | undefined;
}

/** The node of an observation on its gateway. The names of this object are not in the vocabulary: it is Postern's own. */
export const observationNode = (name: string): string => `./GwTelemetry/Observation/${name}`;

/** The operations that create and start an observation at a gateway. The first one deletes an earlier one of this name. */
export function observationOperations(
  { name, targets, paths, attributes, reportPeriod, reportCount, lifetime }: ObservationRequest,
  correlator: string,
): Operation[] {
  const uri = observationNode(name);
  const nodes = nodesBelow({ names: {} }, uri);
  const { pmin, pmax, gt, lt, st } = attributes;
  return [
    { name: 'Delete', uri },
    ...targetLeaves(nodes, targets),
    ...paths.flatMap((path, at) => nodes.leaf(['Paths', `p${at}`, 'Path'], path)),
    ...nodes.leaf(['Pmin'], pmin, 'int'),
    ...nodes.leaf(['Pmax'], pmax, 'int'),
    ...nodes.leaf(['Gt'], gt, 'float'),
    ...nodes.leaf(['Lt'], lt, 'float'),
    ...nodes.leaf(['St'], st, 'float'),
    ...nodes.leaf(['ReportPeriod'], reportPeriod, 'int'),
    ...nodes.leaf(['ReportCount'], reportCount, 'int'),
    ...nodes.leaf(['Lifetime'], lifetime, 'int'),
    nodes.exec(['Start'], correlator),
  ];
}

/** The operations that read how an observation stands: state, numbers of devices, refusals. */
export const observationQuestions = (name: string): Operation[] =>
  ['State', 'Devices/Observed', 'Devices/Waiting', 'Devices/Refused', 'Refusals'].map((leaf) => ({
    name: 'Get',
    uri: `${observationNode(name)}/${leaf}`,
  }));
