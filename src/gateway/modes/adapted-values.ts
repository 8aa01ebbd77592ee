import type { OperationOutcome } from '../../dm/server-session.ts';
import { nodeUri } from '../../dm/uri.ts';
import { typeOf } from '../../wire/lwm2m/objects.ts';
import { isBelow, type Path } from '../../wire/lwm2m/path.ts';
import { type Entry, type ResourceType, textOf, typeIn } from '../../wire/lwm2m/resource.ts';

/** A node as DM's Results has it: URI, format and value. */
export type Result = OperationOutcome['results'][number];

/** DM format of each LwM2M type. */
const formats: Readonly<Record<ResourceType, string>> = {
  string: 'chr',
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
export const typeOfFormat: Readonly<Record<string, ResourceType>> = {
  int: 'integer',
  float: 'float',
  bool: 'boolean',
  bin: 'opaque',
  b64: 'opaque',
};

export const textIn = (data: string | Uint8Array): string =>
  typeof data === 'string' ? data : Buffer.from(data).toString();

export const interior = (uri: string, children: readonly string[]): Result => ({
  uri,
  format: 'node',
  data: children.join('/'),
});

export function resultOf(uri: string, { path, value, type: said }: Entry): Result {
  const type = value instanceof Uint8Array ? 'opaque' : (typeOf(path) ?? said ?? typeIn(value));
  return { uri, format: formats[type], data: textOf(value) };
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
