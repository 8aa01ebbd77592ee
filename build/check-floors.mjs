// The house rule: a file imports only from its own floor or from floors above it in floors.json.
// Two more rules keep the parties apart: head-end and device never import the gateway's floors that run it.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = process.argv[2] ?? fileURLToPath(new URL('../src/', import.meta.url));
const floors = JSON.parse(readFileSync(new URL('floors.json', import.meta.url), 'utf8'));
const closedTo = {
  headend: ['southbound', 'modes', 'update', 'console', 'gateway'],
  device: ['southbound', 'northbound', 'modes', 'update', 'console', 'gateway', 'headend'],
};

/** The floor of a path below src/: its folder, or for a file at the top its name up to the first dash. */
const floorOf = (path) => path.split('/')[0].replace(/\.ts$/, '').replace(/-.*$/, '');

const offences = [];
const files = readdirSync(root, { recursive: true })
  .map(String)
  .filter((f) => f.endsWith('.ts'))
  .sort();
for (const file of files) {
  const floor = floorOf(file);
  if (!floors.includes(floor)) offences.push(`${file}: no floor '${floor}' in build/floors.json`);
  for (const [, target] of readFileSync(join(root, file), 'utf8').matchAll(
    /(?:from|import)\s*\(?\s*'(\.[^']+)'/g,
  )) {
    const other = relative(root, join(root, dirname(file), target));
    const otherFloor = floorOf(other);
    if (floors.indexOf(otherFloor) > floors.indexOf(floor))
      offences.push(`${file} (${floor}) imports ${other} (${otherFloor}), a floor below it`);
    if (closedTo[floor]?.includes(otherFloor))
      offences.push(`${file} (${floor}) imports ${other} (${otherFloor}), another party's floor`);
  }
}
if (offences.length > 0) {
  console.error(`${offences.length} import(s) against the floors of the house:\n  ${offences.join('\n  ')}`);
  process.exit(1);
}
console.log(`floors: ${files.length} files, every import goes up`);
