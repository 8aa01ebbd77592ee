import type { CoapOption } from './codec.ts';
import { Option } from './options.ts';

interface Branch<T> {
  /** What is at this path. */
  own?: T;
  /** What is at all paths below, if nothing else is there. */
  below?: T;
  /** By the octets of the next segment. There are few, so that a search through all of them takes less time than a hash. */
  readonly children: { readonly segment: Buffer; readonly branch: Branch<T> }[];
}

/** Finds what belongs to the Uri-Path of a request. It compares octets, so that no text is made of the path. */
export class PathTree<T> {
  readonly #root: Branch<T> = { children: [] };

  /**
   * Puts something at a path such as `/dm/bs`, or at all paths below it. Returns false, and changes nothing, when something is
   * there.
   */
  add(path: string, value: T, place: 'own' | 'below'): boolean {
    let branch = this.#root;
    for (const text of path.split('/').slice(1)) {
      const segment = Buffer.from(text);
      let next = childOf(branch, segment);
      if (!next) {
        next = { children: [] };
        branch.children.push({ segment, branch: next });
      }
      branch = next;
    }
    if (branch[place] !== undefined) return false;
    branch[place] = value;
    return true;
  }

  /** What is at the path of a request; else what is below the longest part of it. */
  find(options: readonly CoapOption[]): T | undefined {
    let branch: Branch<T> | undefined = this.#root;
    let below: T | undefined;
    for (const { number, value } of options) {
      if (number !== Option.UriPath.number) continue;
      below = branch.below ?? below;
      branch = childOf(branch, value);
      if (!branch) return below;
    }
    return branch.own ?? below;
  }
}

function childOf<T>({ children }: Branch<T>, wanted: Uint8Array): Branch<T> | undefined {
  for (const { segment, branch } of children) if (isSame(segment, wanted)) return branch;
  return undefined;
}

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  if (one.length !== other.length) return false;
  for (let at = 0; at < one.length; at++) if (one[at] !== other[at]) return false;
  return true;
}
