// The order of the modules in the gateway's bundle. gzip finds what is there again within 32 KB, so modules that are alike stand near
// each other: those of a folder together, the folders from the lowest floor up (build/floors.json). In the order of imports, in which
// esbuild has them, the modules of a folder are strewn over the bundle, and it takes 3 KB gzipped more.
import { readFileSync } from 'node:fs';

/** The floors of each folder that has some, from the lowest up. `.` stands for the files of the folder itself. */
type House = Readonly<Record<string, readonly (readonly string[])[]>>;

const ownHouse: House = JSON.parse(readFileSync(new URL('floors.json', import.meta.url), 'utf8'));

/** Where a file stands in the order: the places of its folders, each in the one above it. */
function placesOf(file: string, house: House): number[] {
  const places: number[] = [];
  const parts = file.split('/');
  for (let depth = 1; depth < parts.length; depth++) {
    const floors = house[parts.slice(0, depth).join('/')];
    if (!floors) break;
    places.push(floors.flat().indexOf(depth === parts.length - 1 ? '.' : parts[depth]!));
  }
  return places;
}

/**
 * Sorts modules by floor, folder and name. A module never imports from a floor above its own, so each of them finds what it imports
 * before it, whatever the order.
 * @param files paths from the root of the repository, in `src/`
 */
export function byFloor(files: readonly string[], house = ownHouse): string[] {
  const keyed = files.map((file) => ({ file, places: placesOf(file, house) }));
  const compare = (a: readonly number[], b: readonly number[]): number => {
    const at = a.findIndex((place, index) => place !== b[index]);
    return at < 0 ? 0 : a[at]! - (b[at] ?? 0);
  };
  const sorted = keyed.sort((a, b) => compare(a.places, b.places) || (a.file < b.file ? -1 : 1));
  return sorted.map(({ file }) => file);
}
