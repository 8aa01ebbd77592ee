// npm run image: the flashable disk image and the signed update bundle of a board.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Board } from './boards/board.ts';
import { qemu } from './boards/qemu.ts';
import { buildImage, describeImage } from './recipe/image.ts';
import { signingKeys } from './recipe/keys.ts';
import { packageVersion } from './recipe/tools.ts';

const boards: Readonly<Record<string, Board>> = { qemu };
const help = `npm run image -- [OPTIONS]

Builds a flashable disk image and a signed update bundle, in dist/firmware.

  --board NAME      ${Object.entries(boards)
    .map(([name, { description }]) => `${name}: ${description}`)
    .join('\n                    ')}
  --version X.Y.Z   version of the firmware; that of package.json by default
  --keys DIR        keys that sign it; made for development, and named so, by default
  --developer       with a shell on the console
`;
const { values } = parseArgs({
  options: {
    board: { type: 'string', default: 'qemu' },
    version: { type: 'string', default: packageVersion() },
    keys: { type: 'string' },
    developer: { type: 'boolean', default: false },
    help: { type: 'boolean' },
  },
});
if (values.help) {
  console.log(help);
  process.exit();
}
const board = boards[values.board];
if (!board) {
  console.error(`there is no board '${values.board}'; there are ${Object.keys(boards).join(', ')}`);
  process.exit(2);
}
console.log(`Postern ${values.version} for ${board.description}`);
const built = await buildImage({
  board,
  version: values.version,
  keys: signingKeys(values.keys),
  isDeveloperImage: values.developer,
  withDisk: true,
});
const report = describeImage(built);
writeFileSync(join(built.folder, 'report.txt'), `${report}\n`);
console.log(`${report}\n\n${built.disk}\n${built.bundle}`);
