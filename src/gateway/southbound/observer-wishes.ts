import { asPosternError } from '../../base/errors.ts';
import { type Path, parsePath, pathText } from '../../wire/lwm2m/path.ts';
import { type ObservationAttributes, type ObservationWish, observationBounds } from './observer.ts';

/** A wish as it stands with its client. */
export interface Wish {
  readonly wish: ObservationWish;
  readonly paths: readonly Path[];
  /** Why the client does not observe it, by path. It is asked again when its registration changes. */
  readonly refused: Map<string, string>;
  /** Why the gateway does not even ask. */
  readonly fault: string | undefined;
}

export const attributesText = (attributes: ObservationAttributes): string =>
  JSON.stringify(Object.entries(attributes).toSorted());

/**
 * Reads a wish, and judges what the gateway itself can judge.
 * @param paths number of paths of this wish and those before it
 * @param held conditions of the wishes before this one, by path. A client has one set of conditions for each path
 */
export function wishOf(wish: ObservationWish, paths: number, held: Map<string, string>): Wish {
  const made = (fault: string | undefined, parsed: readonly Path[] = []): Wish => ({
    wish,
    paths: parsed,
    refused: new Map(),
    fault,
  });
  try {
    const all = [...new Set(wish.paths.map((path) => pathText(parsePath(path))))];
    const parsed = all.map(parsePath);
    if (parsed.length === 0 || parsed.some((path) => path.length === 0))
      return made('a path names no object');
    if (paths > observationBounds.paths)
      return made(`more than ${observationBounds.paths} paths of one client are wished`);
    const own = attributesText(wish.attributes);
    const taken = all.find((path) => (held.get(path) ?? own) !== own);
    if (taken !== undefined) return made(`${taken} is observed under other conditions already`);
    for (const path of all) held.set(path, own);
    return made(undefined, parsed);
  } catch (thrown) {
    return made(asPosternError(thrown).message);
  }
}
