import type { Path } from './path.ts';
import { registeredNames, registeredObject, sharedResource } from './registry.ts';
import type { ResourceType } from './resource.ts';

/** Description of a resource (LwM2M core 1.1, appendix E; the public registry of objects). */
export interface ResourceDescription {
  readonly name: string;
  readonly type: ResourceType;
  /** Whether the resource has instances. */
  readonly multiple: boolean;
}

/** IDs of the objects that code here refers to by name. */
export const ObjectId = {
  Security: 0,
  Server: 1,
  Device: 3,
  Firmware: 5,
  Oscore: 21,
} as const;

/** Resource IDs of the object LwM2M Server (LwM2M core 1.1, appendix E.2). */
export const ServerResource = { Lifetime: 1, RegistrationUpdateTrigger: 8 } as const;
/** Resource IDs of the object Device (LwM2M core 1.1, appendix E.4). */
export const DeviceResource = { SerialNumber: 2 } as const;
/** Resource IDs of the object Firmware Update (LwM2M core 1.1, appendix E.6). */
export const FirmwareResource = {
  Package: 0,
  PackageUri: 1,
  Update: 2,
  State: 3,
  Result: 5,
  Protocols: 8,
  Delivery: 9,
} as const;
/** Values of the resource State. */
export const FirmwareState = { Idle: 0, Downloading: 1, Downloaded: 2, Updating: 3 } as const;
/** Values of the resource Update Result. */
export const FirmwareResult = {
  None: 0,
  Success: 1,
  ConnectionLost: 4,
  BadUri: 7,
  Deferred: 11,
} as const;

const one = (name: string, type: ResourceType): ResourceDescription => ({ name, type, multiple: false });
/** A resource that is only executed. */
const executed = (name: string): ResourceDescription => one(name, 'none');

/**
 * What the registry's table lacks, by object and resource ID: the objects Security, OSCORE and COSE, resources that are only
 * executed, and which resources are octets (LwM2M core 1.2, appendix E; COSE: 23.xml of the registry).
 */
const own: Readonly<Record<number, Readonly<Record<number, ResourceDescription>>>> = {
  0: {
    0: one('Server URI', 'string'),
    1: one('Bootstrap-Server', 'boolean'),
    2: one('Security Mode', 'integer'),
    3: one('Public Key or Identity', 'opaque'),
    4: one('Server Public Key', 'opaque'),
    5: one('Secret Key', 'opaque'),
    6: one('SMS Security Mode', 'integer'),
    7: one('SMS Binding Key Parameters', 'opaque'),
    8: one('SMS Binding Secret Key(s)', 'opaque'),
    9: one('LwM2M Server SMS Number', 'string'),
    10: one('Short Server ID', 'integer'),
    11: one('Client Hold Off Time', 'integer'),
    12: one('Bootstrap-Server Account Timeout', 'integer'),
    13: one('Matching Type', 'unsigned'),
    14: one('SNI', 'string'),
    15: one('Certificate Usage', 'unsigned'),
    16: { name: 'DTLS/TLS Ciphersuite', type: 'unsigned', multiple: true },
    17: one('OSCORE Security Mode', 'objlnk'),
  },
  1: {
    4: executed('Disable'),
    8: executed('Registration Update Trigger'),
    9: executed('Bootstrap-Request Trigger'),
  },
  3: { 4: executed('Reboot'), 5: executed('Factory Reset'), 12: executed('Reset Error Code') },
  5: { 0: one('Package', 'opaque'), 2: executed('Update'), 10: executed('Cancel') },
  6: { 4: one('Velocity', 'opaque') },
  7: { 6: executed('Start'), 7: executed('Stop') },
  21: {
    0: one('OSCORE Master Secret', 'opaque'),
    1: one('OSCORE Sender ID', 'opaque'),
    2: one('OSCORE Recipient ID', 'opaque'),
    3: one('OSCORE AEAD Algorithm', 'integer'),
    4: one('OSCORE HMAC Algorithm', 'integer'),
    5: one('OSCORE Master Salt', 'opaque'),
  },
  23: { 0: one('KID', 'string'), 1: one('AEAD Algorithm', 'integer'), 2: one('Key', 'string') },
};
const ownNames: Readonly<Record<number, string>> = {
  0: 'LwM2M Security',
  21: 'LwM2M OSCORE',
  23: 'LwM2M COSE',
};
/** The same for IPSO's reusable resources. */
const ownReusable: Readonly<Record<number, ResourceDescription>> = {
  5505: executed('Digital Input Counter Reset'),
  5605: executed('Reset Min and Max Measured Values'),
  5701: one('Sensor Units', 'string'),
  5750: one('Application Type', 'string'),
};

/** The enabler's objects that common clients have. */
const enabler: ReadonlySet<number> = new Set([0, 1, 3, 4, 5, 6, 7, 21, 23]);

/** Objects of IPSO, and their reusable resources, which mean the same in every object from `objects` on. */
const ipso = { objects: 3200, first: 5500, last: 5999 } as const;

const isReusable = ([object = -1, , resource = -1]: Path): boolean =>
  object >= ipso.objects && resource >= ipso.first && resource <= ipso.last;

/** Description of the resource at a path: from its object, or from IPSO's reusable resources. */
export function describeResource(path: Path): ResourceDescription | undefined {
  const [object = -1, , resource = -1] = path;
  const reusable = isReusable(path);
  const found =
    own[object]?.[resource] ??
    (reusable ? ownReusable[resource] : undefined) ??
    registeredObject(object)?.resources.get(resource) ??
    (reusable ? sharedResource(resource) : undefined);
  // The octets of the enabler's objects are in `own`.
  return found?.type === 'text' && enabler.has(object) ? { ...found, type: 'string' } : found;
}

/** Type of the resource at a path. `undefined` when it has no description. */
export const typeOf = (path: Path): ResourceType | undefined => describeResource(path)?.type;

/** Name of an object in the registry. */
export const objectName = (object: number): string | undefined =>
  ownNames[object] ?? registeredObject(object)?.name;

/**
 * Names of objects by their IDs, of those that have one.
 * @param paths paths of objects and instances, separated by spaces, such as `/3/0 /3303/0`
 */
export function objectNamesIn(paths: string): Readonly<Record<string, string>> {
  const ids = [...paths.matchAll(/\/(\d+)\S*/g)].map(([, id]) => Number(id));
  return Object.fromEntries(
    ids.flatMap((id) => {
      const name = objectName(id);
      return name === undefined ? [] : [[id, name]];
    }),
  );
}

/**
 * Whether the types of the values at a path are the same in all clients: those of the enabler's own objects, and of IPSO's reusable
 * resources. The types of other objects are better read from a format that says them, if the client has one: objects of vendors
 * change between versions.
 */
export function isCommon(path: Path): boolean {
  const [object = -1] = path;
  if (path.length < 3) return enabler.has(object);
  return (enabler.has(object) || isReusable(path)) && describeResource(path) !== undefined;
}

/** Names are compared by their letters and digits. `LwM2M` before a name does not count. */
const keyOf = (name: string): string =>
  name
    .toLowerCase()
    .replace(/[^a-z0-9]/g, '')
    .replace(/^lwm2m/, '');

/** IDs of the objects with a name, such as `Temperature` or `temperature`. */
export function objectsNamed(name: string): readonly number[] {
  const wanted = keyOf(name);
  const all = [...registeredNames(), ...Object.entries(ownNames)];
  return wanted === '' ? [] : all.filter(([, each]) => keyOf(each) === wanted).map(([id]) => Number(id));
}

/** ID of the only resource of an object with a name, such as `Sensor Value` or `SensorValue`. */
export function resourceNamed(object: number, name: string): number | undefined {
  const wanted = keyOf(name);
  const names = new Map<number, string>();
  for (const [id, { name: each }] of registeredObject(object)?.resources ?? []) names.set(id, each);
  for (const [id, { name: each }] of Object.entries(own[object] ?? {})) names.set(Number(id), each);
  if (object >= ipso.objects)
    for (const [id, { name: each }] of Object.entries(ownReusable)) names.set(Number(id), each);
  const [found, ...others] = [...names].filter(([, each]) => keyOf(each) === wanted);
  return wanted === '' || others.length > 0 ? undefined : found?.[0];
}
