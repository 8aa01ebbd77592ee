import { DmError } from '../../dm/dm-error.ts';
import type { Operation } from '../../dm/server-session.ts';
import { DmStatus } from '../../dm/status.ts';
import { type NodePath, nodeUri, unescapeName } from '../../dm/uri.ts';
import {
  describeResource,
  ObjectId,
  objectName,
  objectsNamed,
  resourceNamed,
} from '../../wire/lwm2m/objects.ts';
import type { Path } from '../../wire/lwm2m/path.ts';
import { idsBelow } from '../../wire/lwm2m/registration.ts';
import type { Registration } from '../store/registrations.ts';

/** What a node of an adapted client's tree stands for. */
export type AdaptedNode =
  /** A leaf whose value the gateway knows. */
  | { readonly kind: 'text'; readonly value: string }
  /** An interior node that exists in the tree only, with the names of its children. */
  | { readonly kind: 'interior'; readonly children: readonly string[] }
  /** A node of `./FwUpdate`, by the path below it. */
  | { readonly kind: 'firmware'; readonly below: NodePath }
  /** An object, instance, resource or resource instance of the client. */
  | { readonly kind: 'object'; readonly path: Path }
  /** An instance that is to be created, whose ID the client chooses, or a resource of it. `path` has 0 in place of the ID. */
  | { readonly kind: 'new'; readonly path: Path };

/** Resources that hold what the leaves of OMA DM's own objects hold, so that one order can ask a mixed fleet for them. */
const aliases: Readonly<Record<string, Readonly<Record<string, Path>>>> = {
  DevInfo: { Man: [3, 0, 0], Mod: [3, 0, 1] },
  DevDetail: { DevTyp: [3, 0, 17], FwV: [3, 0, 3], SwV: [3, 0, 19], HwV: [3, 0, 18] },
};

/** Names in place of the ID of an instance that is to be created: the client chooses the ID. */
const chosenByClient = /^x\d{0,4}$/;

/** Whether an operation creates an instance whose ID the client chooses. Done again, it creates another one. */
export const createsUnnamed = (operation: Operation): boolean =>
  'operations' in operation
    ? operation.operations.some(createsUnnamed)
    : operation.name === 'Add' && chosenByClient.test(operation.uri.replace(/^\.\//, '').split('/')[1] ?? '');

export const nodeNotFound = (uri: string) => new DmError(DmStatus.NotFound, `${uri} is not there`);
export const commandNotAllowed = (uri: string, command: string) =>
  new DmError(DmStatus.CommandNotAllowed, `no ${command} at ${uri}`);
export const notSupported = (what: string) => new DmError(DmStatus.OptionalFeatureNotSupported, what);

/**
 * Finds what a path of the client's tree stands for. Whether the client has such a resource is not asked.
 * @throws {DmError} 404 for a path that is neither a DM leaf of the client nor an LwM2M path
 */
export function findNode(client: Registration, path: NodePath): AdaptedNode {
  const [first, second, ...more] = path;
  if (first === undefined) {
    const ids = idsBelow(client, []).map(String);
    const firmware = isFirmware(client, ['FwUpdate']) ? ['FwUpdate'] : [];
    return { kind: 'interior', children: [...Object.keys(aliases), ...firmware, ...ids] };
  }
  if (isFirmware(client, path)) return { kind: 'firmware', below: path.slice(1) };
  const leaves = aliases[first];
  if (leaves) {
    const isInfo = first === 'DevInfo';
    if (second === undefined)
      return { kind: 'interior', children: [...(isInfo ? ['DevId'] : []), ...Object.keys(leaves)] };
    const alias = leaves[second];
    if (more.length > 0 || (!alias && !(isInfo && second === 'DevId'))) throw nodeNotFound(nodeUri(path));
    return alias ? { kind: 'object', path: alias } : { kind: 'text', value: client.deviceId };
  }
  const isNew = second !== undefined && chosenByClient.test(second);
  const ids = idsOf(client, isNew ? path.with(1, '0') : path);
  if (ids.length > 4 || !ids.every((id) => id < 0xffff)) throw nodeNotFound(nodeUri(path));
  return { kind: isNew ? 'new' : 'object', path: ids };
}

/**
 * IDs of a path whose object and resource may be named by the registry of LwM2M objects, as in `./Temperature/0/SensorValue`. A name
 * that several objects have means the only one of them that the client has registered. NaN for other names.
 */
function idsOf(client: Registration, path: NodePath): number[] {
  const ids: number[] = [];
  for (const [at, segment] of path.entries()) {
    const name = unescapeName(segment);
    const named = () =>
      at === 0 ? objectIdOf(client, name) : at === 2 ? resourceNamed(ids[0]!, name) : undefined;
    ids.push(/^\d{1,5}$/.test(name) ? Number(name) : (named() ?? Number.NaN));
  }
  return ids;
}

function objectIdOf(client: Registration, name: string): number | undefined {
  const all = objectsNamed(name);
  const here = all.length === 1 ? all : all.filter((id) => client.paths.some(([object]) => object === id));
  return here.length === 1 ? here[0] : undefined;
}

/** Whether this DM path stands for a resource by an alias, such as `./DevInfo/Man`. */
export const isAlias = ([first = '']: NodePath): boolean => aliases[first] !== undefined;

/** `./FwUpdate` exists where the client has the object Firmware Update. */
const isFirmware = (client: Registration, [first]: NodePath): boolean =>
  first === 'FwUpdate' && client.paths.some(([object]) => object === ObjectId.Firmware);

/** Name of an object or a resource in the registry of LwM2M objects; empty where it is not known. */
export function titleOf(path: Path): string {
  const [object = -1] = path;
  if (path.length <= 2) return objectName(object) ?? '';
  return describeResource(path)?.name ?? '';
}
