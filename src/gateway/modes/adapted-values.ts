import type { OperationOutcome } from '../../dm/server-session.ts';
import { nodeUri } from '../../dm/uri.ts';
import { isCommon, typeOf } from '../../wire/lwm2m/objects.ts';
import { isBelow, type Path } from '../../wire/lwm2m/path.ts';
import {
  type Entry,
  isWhole,
  type ResourceType,
  textOf,
  typeIn as typeOfValue,
  type Value,
  valueFrom,
} from '../../wire/lwm2m/resource.ts';

/** A node as DM's Results has it: URI, format and value. */
export type Result = OperationOutcome['results'][number];

/** DM format of each LwM2M type. */
const formats: Readonly<Record<ResourceType, string>> = {
  string: 'chr',
  text: 'chr',
  integer: 'int',
  unsigned: 'int',
  float: 'float',
  boolean: 'bool',
  opaque: 'bin',
  // DM's format `time` is a time of day; an LwM2M time is seconds since 1970.
  time: 'int',
  objlnk: 'chr',
  none: 'null',
};

/** LwM2M type of a value by its DM format, for resources that no description is known of. */
const typeOfFormat: Readonly<Record<string, ResourceType>> = {
  int: 'integer',
  float: 'float',
  bool: 'boolean',
  bin: 'opaque',
  b64: 'opaque',
};

/**
 * The LwM2M type of a text that a command gives: by the description of the resource, else by the Format of the command. A description
 * that the text does not fit does not count: the client may have another resource than the registry, if it is none of all clients.
 */
export function typeGiven(path: Path, format: string, text: string): ResourceType | undefined {
  const described = typeOf(path);
  if (described === 'text') return format === '' ? described : 'string';
  return described && (isCommon(path) || fits(described, text)) ? described : typeOfFormat[format];
}

function fits(type: ResourceType, text: string): boolean {
  try {
    valueFrom(type, text);
    return true;
  } catch {
    return false;
  }
}

export const textIn = (data: string | Uint8Array): string =>
  typeof data === 'string' ? data : Buffer.from(data).toString();

export const interior = (uri: string, children: readonly string[]): Result => ({
  uri,
  format: 'node',
  data: children.join('/'),
});

export function resultOf(uri: string, entry: Entry): Result {
  return {
    uri,
    format: formats[typeIn(entry.value, typeOf(entry.path), entry.type)],
    data: textOf(entry.value),
  };
}

/** Type of a value: by the description of its resource, unless the value contradicts it; else by what the content says. */
function typeIn(value: Value, described: ResourceType | undefined, said: ResourceType | undefined) {
  const plain = typeOfValue(value);
  const type = described ?? said ?? plain;
  // An integer of more than 53 bits is a string of its digits. A whole number may be of type float.
  const isInteger = plain === 'integer' || (plain === 'string' && /^-?\d{16,}$/.test(String(value)));
  if (isInteger && isWhole(type)) return type;
  if (plain === 'string') return type === 'objlnk' || type === 'text' ? type : plain;
  return plain === 'integer' && type === 'float' ? type : plain;
}

/** The nodes that one Read found at `base` and below it. Each node comes before its children. */
export function nodesOf(base: Path, entries: readonly Entry[]): Result[] {
  const found: Result[] = [];
  const add = (path: Path) => {
    const uri = nodeUri(path.map(String));
    const exact = entries.find((entry) => entry.path.length === path.length && isBelow(entry.path, path));
    if (exact) {
      found.push(resultOf(uri, exact));
      return;
    }
    const below = entries.filter((entry) => isBelow(entry.path, path));
    const children = [...new Set(below.map((entry) => entry.path[path.length] ?? 0))];
    found.push(interior(uri, children.map(String)));
    for (const child of children) add([...path, child]);
  };
  add(base);
  return found;
}
