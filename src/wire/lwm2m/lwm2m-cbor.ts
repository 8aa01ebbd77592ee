import { fromCbor, toCbor } from '../../base/cbor.ts';
import { cborLimits, lwm2mProfile } from '../../base/cbor-profile.ts';
import { PosternError } from '../../base/errors.ts';
import { type Path, parsePath } from './path.ts';
import { type Entry, isWhole, type TypeOf } from './resource.ts';
import { readValue } from './senml.ts';

const bad = (why: string) => new PosternError('malformed', `LwM2M CBOR: ${why}`);

/**
 * Reads LwM2M CBOR (LwM2M core 1.2, section 7.4.6): maps in maps from the ID of the object to the values. A key may be an array of
 * IDs, for several levels at once. A null is no value.
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export function decodeLwm2mCbor(body: Uint8Array): Entry[] {
  const found: Entry[] = [];
  const walk = (node: unknown, path: Path) => {
    if (node instanceof Map)
      for (const [key, inside] of node) walk(inside, parsePath([...path, ...[key].flat()].join('/')));
    else if (path.length < 3) throw bad('a value that is in no resource');
    else if (node !== null) {
      if (found.length >= cborLimits.items) throw new PosternError('tooLarge', 'LwM2M CBOR: too many values');
      found.push({ path, ...readValue(node) });
    }
  };
  const root = fromCbor(body, lwm2mProfile, 'LwM2M CBOR');
  if (!(root instanceof Map)) throw bad('not a map');
  walk(root, []);
  return found;
}

type Tree = Map<number, unknown>;

/** Writes LwM2M CBOR, with one map for each level of the paths. */
export function encodeLwm2mCbor(entries: readonly Entry[], typeOf: TypeOf): Uint8Array {
  const root: Tree = new Map();
  for (const { path, value } of entries) {
    let tree = root;
    for (const id of path.slice(0, -1)) {
      const inside = (tree.get(id) ?? new Map()) as Tree;
      tree.set(id, inside);
      tree = inside;
    }
    const isNumber = typeof value === 'string' && isWhole(typeOf(path));
    tree.set(path.at(-1) ?? 0, isNumber ? BigInt(value) : value);
  }
  return toCbor(root);
}
