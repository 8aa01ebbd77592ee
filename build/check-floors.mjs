// Checks the rule of the house (docs/architecture.md). floors.json lists the floors of a folder from the lowest up. Several
// folders may share a floor, and "." stands for the files of the folder itself. A file may import from its own folder and from
// the floors below it, but not from a floor above and not from another folder on the same floor. Imports must not form a circle;
// imports of types count as well. Nothing in src/ may import from outside of src/. The folders of test/ must be those of src/, and
// a test stands in one of them.
// Usage: node build/check-floors.mjs [DIRECTORY with src/ and test/]
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = process.argv[2] ?? fileURLToPath(new URL('..', import.meta.url));
const house = JSON.parse(readFileSync(new URL('floors.json', import.meta.url), 'utf8'));
/** Folders of test/ without a counterpart in src/: shared helpers, and tests that do not belong to a single folder. */
const testOnly = [
  'bench',
  'build',
  'conformance',
  'docs',
  'firmware',
  'fuzz',
  'journeys',
  'peers',
  'faults',
  'powercut',
  'attack',
  'sessions',
  'soak',
  'vectors',
];

const offences = [];

/** The room of a file in a folder with floors: the next part of its path, or "." for a file of the folder itself. */
function roomIn(folder, file) {
  const [first, ...rest] = file.slice(folder.length + 1).split('/');
  return rest.length === 0 ? '.' : first;
}

const floorOf = (folder, room) => house[folder].findIndex((rooms) => rooms.includes(room));

/** Paths of the project's files that a file imports. */
const importsOf = (file) =>
  [...readFileSync(join(root, file), 'utf8').matchAll(/(?:from|import)\s*\(?\s*['"`](\.[^'"`]+)['"`]/g)].map(
    ([, target]) => posix.join(dirname(file), target),
  );

const files = readdirSync(join(root, 'src'), { recursive: true })
  .map((file) => `src/${file}`)
  .filter((file) => file.endsWith('.ts'))
  .sort();
const imports = new Map(files.map((file) => [file, importsOf(file)]));

for (const [file, targets] of imports)
  for (const target of targets)
    if (!target.startsWith('src/')) offences.push(`${file} imports ${target}, which is not in src/`);

for (const [folder, floors] of Object.entries(house)) {
  for (const room of floors.flat())
    if (room !== '.' && !existsSync(join(root, folder, room)))
      offences.push(`build/floors.json names ${folder}/${room}, which does not exist`);
  for (const file of files.filter((one) => one.startsWith(`${folder}/`))) {
    const room = roomIn(folder, file);
    const floor = floorOf(folder, room);
    if (floor === -1) {
      offences.push(`${file}: build/floors.json has no place for '${room}' in ${folder}`);
      continue;
    }
    for (const target of imports.get(file)) {
      if (!target.startsWith(`${folder}/`)) continue;
      const other = roomIn(folder, target);
      const otherFloor = floorOf(folder, other);
      if (otherFloor > floor)
        offences.push(`${file} imports ${target}: ${folder}/${other} is on a higher floor`);
      else if (otherFloor === floor && other !== room)
        offences.push(`${file} imports ${target}: ${folder}/${other} is another folder on the same floor`);
    }
  }
}

/** Groups of files that import each other in a circle (Tarjan's strongly connected components). */
function circles() {
  const found = [];
  const stack = [];
  const order = new Map();
  const lowest = new Map();
  const visit = (file) => {
    order.set(file, order.size);
    lowest.set(file, order.get(file));
    stack.push(file);
    for (const next of imports.get(file) ?? []) {
      if (!order.has(next)) visit(next);
      if (stack.includes(next)) lowest.set(file, Math.min(lowest.get(file), lowest.get(next) ?? Infinity));
    }
    if (lowest.get(file) !== order.get(file)) return;
    const circle = stack.splice(stack.indexOf(file));
    if (circle.length > 1 || imports.get(file)?.includes(file)) found.push(circle);
  };
  for (const file of files) if (!order.has(file)) visit(file);
  return found;
}
for (const circle of circles()) offences.push(`import each other in a circle: ${circle.sort().join(', ')}`);

// The tests of a file are in the folder of the same name. Only helpers stand directly in test/.
for (const entry of readdirSync(join(root, 'test'), { recursive: true, withFileTypes: true })) {
  const path = relative(join(root, 'test'), join(entry.parentPath, entry.name));
  if (path === entry.name && path.endsWith('.test.ts')) offences.push(`test/${path} is in no folder`);
  if (!entry.isDirectory()) continue;
  if (testOnly.includes(path.split('/')[0])) continue;
  if (!existsSync(join(root, 'src', path))) offences.push(`test/${path} has no counterpart in src/`);
}

if (offences.length > 0) {
  console.error(`${offences.length} violation(s) of the rule of the house:\n  ${offences.join('\n  ')}`);
  process.exit(1);
}
console.log(`floors: ${files.length} files, no import of a higher floor, no circle of imports`);
