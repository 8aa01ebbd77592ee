import * as v from 'valibot';
import { described } from '../base/config.ts';
import type { TndsNode } from '../wire/syncml/tnds.ts';

/**
 * What is not known of GwMO and therefore defined here: identifiers of management objects and alert types, names of
 * nodes, and codings of integers. No other file defines any of it. The table `gwmo` of each configuration file can
 * change it (docs/gwmo.md).
 */
export interface Vocabulary {
  /** Management object identifiers. They follow the pattern of OMA's registry. */
  readonly objects: Readonly<Record<GatewayObject, string>>;
  /** Types of the generic alerts (code 1226). They follow the same pattern. */
  readonly alerts: Readonly<Record<GatewayAlert, string>>;
  /** Names of nodes on the wire that differ from those in this program, by the names in this program. */
  readonly names: Readonly<Record<string, string>>;
  /** Codes of transparent, proxy and adaptation mode, in this order. */
  readonly modes: readonly number[];
  /** Codes of an End Device and a child DM Gateway, in this order. */
  readonly componentTypes: readonly number[];
}

export const gatewayObjects = [
  'GwConfig',
  'GwDeviceInventory',
  'GwEdTrigger',
  'GwFanout',
  'GwImageInventory',
] as const;
export type GatewayObject = (typeof gatewayObjects)[number];

export const gatewayAlerts = [
  'DeviceAttach',
  'DeviceDetach',
  'DevicePresence',
  'LocationUpdate',
  'CommandFanout',
  'DeviceTrigger',
  'ImageOperation',
  'GatewayFault',
  'TelemetryReport',
] as const;
export type GatewayAlert = (typeof gatewayAlerts)[number];

const object = (name: GatewayObject): string => `urn:oma:mo:oma-${name.toLowerCase()}:1.0`;
const alert = (name: GatewayAlert): string => `urn:oma:at:gwmo:1.0:${name}`;

/** The vocabulary without changes by configuration. */
export const ownVocabulary: Vocabulary = {
  objects: {
    GwConfig: object('GwConfig'),
    GwDeviceInventory: object('GwDeviceInventory'),
    GwEdTrigger: object('GwEdTrigger'),
    GwFanout: object('GwFanout'),
    GwImageInventory: object('GwImageInventory'),
  },
  alerts: {
    DeviceAttach: alert('DeviceAttach'),
    DeviceDetach: alert('DeviceDetach'),
    DevicePresence: alert('DevicePresence'),
    LocationUpdate: alert('LocationUpdate'),
    CommandFanout: alert('CommandFanout'),
    DeviceTrigger: alert('DeviceTrigger'),
    ImageOperation: alert('ImageOperation'),
    GatewayFault: alert('GatewayFault'),
    TelemetryReport: alert('TelemetryReport'),
  },
  names: {},
  modes: [0, 1, 2],
  componentTypes: [0, 1],
};

const identifierRule = 'an identifier of 1 to 255 characters such as urn:oma:mo:oma-gwmo-fanout:1.0';
const identifier = v.pipe(v.string(), v.minLength(1, identifierRule), v.maxLength(255, identifierRule));
const nodeName = v.pipe(
  v.string(),
  v.regex(/^[\w.-]{1,64}$/, 'a node name of 1 to 64 letters, digits, _ . -'),
);
const codes = (count: number) =>
  v.pipe(
    v.array(v.pipe(v.number(), v.integer('a whole number'))),
    v.length(
      count,
      `a list of ${count} codes such as [${Array.from({ length: count }, (_, at) => at).join(', ')}]`,
    ),
    v.check(
      (given) => new Set(given).size === given.length,
      `two codes are the same; each of the ${count} must differ from the others`,
    ),
  );

/** The table `gwmo` of a configuration file. */
export const gwmoSection = described(
  v.optional(
    v.strictObject({
      objects: described(
        v.optional(v.partial(v.strictObject(v.entriesFromList(gatewayObjects, identifier))), {}),
        'Identifiers of management objects',
      ),
      alerts: described(
        v.optional(v.partial(v.strictObject(v.entriesFromList(gatewayAlerts, identifier))), {}),
        'Types of alerts',
      ),
      names: described(
        v.optional(v.record(v.string(), nodeName), {}),
        'Names of nodes. Keys are the names in docs/gwmo.md',
      ),
      modes: described(
        v.optional(codes(3), [0, 1, 2]),
        'Codes of transparent, proxy and adaptation mode, in this order',
      ),
      'component-types': described(
        v.optional(codes(2), [0, 1]),
        'Codes of End Device and child DM Gateway, in this order',
      ),
    }),
    {},
  ),
  "Names and codes of GwMO that are Postern's own. They must be the same in gateway, head-end and devices",
);

/** The vocabulary with the changes of a configuration. */
export function vocabularyOf(section: v.InferOutput<typeof gwmoSection>): Vocabulary {
  const { objects, alerts } = ownVocabulary;
  return {
    objects: { ...objects, ...section.objects } as Vocabulary['objects'],
    alerts: { ...alerts, ...section.alerts } as Vocabulary['alerts'],
    names: section.names,
    modes: section.modes,
    componentTypes: section['component-types'],
  };
}

/**
 * URI of a node on the wire. `path` has the names in this program; names that are chosen at run time stay as they are.
 */
export const nodeAt = ({ names }: Vocabulary, ...path: readonly string[]): string =>
  ['.', ...path.map((name) => renamed(names, name))].join('/');

/** A subtree with the names of the wire, for an object whose names are all defined by this program. */
export const renamedTree = (vocabulary: Vocabulary, { children, ...node }: TndsNode): TndsNode => ({
  ...node,
  name: renamed(vocabulary.names, node.name),
  ...(children && { children: children.map((child) => renamedTree(vocabulary, child)) }),
});

/** The name of a node on the wire. */
export const renamed = (names: Vocabulary['names'], name: string): string =>
  Object.hasOwn(names, name) ? (names[name] ?? name) : name;
