// npm run image: builds the flashable disk image and the signed update bundle of a board.
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { publish } from '../build/figure-pages.ts';
import { single, today } from '../build/figures.ts';
import type { Board } from './boards/board.ts';
import { imx8mMini } from './boards/imx8m-mini.ts';
import { qemu } from './boards/qemu.ts';
import { raspberryPi4 } from './boards/raspberry-pi-4.ts';
import { checkedVersion, runCommand, UsageError } from './recipe/command.ts';
import { bytesOf } from './recipe/disk.ts';
import { buildImage, describeImage, megabytes } from './recipe/image.ts';
import { signingKeys } from './recipe/keys.ts';
import { packageVersion, run, step } from './recipe/tools.ts';

/** Most bytes of the results. The command fails above them. */
const budgets = { bundle: 68_000_000, packedDisk: 72_000_000 } as const;
const boards: Readonly<Record<string, Board>> = {
  qemu,
  'raspberry-pi-4': raspberryPi4,
  'imx8m-mini': imx8mMini,
};
const help = `npm run image -- [OPTIONS]

Builds a flashable disk image and a signed update bundle, in dist/firmware.

  --board NAME      ${Object.entries(boards)
    .map(([name, { description }]) => `${name}: ${description}`)
    .join('\n                    ')}
  --version X.Y.Z   version of the firmware; by default the version in package.json
  --floor X.Y.Z     lowest version that is still booted, once this firmware has proved healthy
  --keys DIR        keys that sign the results; by default keys for development, which say so in their names
  --boot-loader FILE  the board's own boot loader, for boards whose boot loader is not in Debian
  --developer       adds a shell on the console
  --write           records the sizes, for docs/firmware.md
`;
await runCommand({
  help,
  options: {
    board: { type: 'string', default: 'qemu' },
    version: { type: 'string', default: packageVersion() },
    floor: { type: 'string' },
    keys: { type: 'string' },
    'boot-loader': { type: 'string' },
    developer: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
  },
  run: async ({ version, floor, keys, developer, write, 'boot-loader': bootLoader, ...values }) => {
    const board = boards[values.board];
    if (!board)
      throw new UsageError(
        `there is no board '${values.board}'; there are ${Object.keys(boards).join(', ')}`,
      );
    checkedVersion('--version', version);
    if (floor !== undefined && checkedVersion('--floor', floor) > checkedVersion('--version', version))
      throw new UsageError(`--floor ${floor} is above the version ${version}, which could not boot then`);
    if (bootLoader !== undefined && !existsSync(bootLoader))
      throw new UsageError(`--boot-loader: there is no ${bootLoader}`);
    const signing = signingKeys(keys);
    console.log(`Postern ${version} for ${board.description}`);
    console.log(
      signing.areForDevelopment || developer
        ? `FOR DEVELOPMENT ONLY: ${signing.areForDevelopment ? 'keys that are not secret' : 'a shell on the console'}. Boards for production refuse its bundle.`
        : 'For production. Boards for development refuse its bundle.',
    );
    const built = await buildImage({
      board,
      version,
      keys: signing,
      isDeveloperImage: developer,
      ...(floor !== undefined && { floor }),
      ...(bootLoader !== undefined && { bootLoader }),
      withDisk: true,
    });
    const packed = `${built.disk}.zst`;
    // The window is larger than the distance between the two copies of the kernel, that of slot A and that of the recovery system.
    await step('disk, packed', () =>
      run('zstd', ['-q', '-f', '-12', '--long=27', '-T0', built.disk!, '-o', packed]),
    );
    const report = `${describeImage(built)}\n${megabytes(bytesOf(packed))}  disk, packed`;
    writeFileSync(join(built.folder, 'report.txt'), `${report}\n`);
    console.log(`${report}\n\n${packed}\n${built.bundle}`);
    const size = (what: string, file: string, atMost?: number) =>
      single(what, 'MB', bytesOf(file) / 1e6, atMost === undefined ? {} : { atMost: atMost / 1e6 });
    if (write)
      publish(
        'image',
        {
          title: 'Firmware image',
          date: today(),
          how: `\`npm run image\`: version ${version} for ${board.description}.`,
          figures: {
            'update-bundle': size('Update bundle', built.bundle, budgets.bundle),
            'packed-disk': size('Disk image, packed by zstd', packed, budgets.packedDisk),
            root: size('Root with its hash tree', built.rootImage),
            boot: size('Kernel and initramfs (FIT)', built.fit),
          },
        },
        true,
      );
    for (const [what, file, budget] of [
      ['update bundle', built.bundle, budgets.bundle],
      ['packed disk', packed, budgets.packedDisk],
    ] as const)
      if (bytesOf(file) > budget)
        throw new Error(`the ${what} has ${megabytes(bytesOf(file))}, its budget is ${megabytes(budget)}`);
  },
});
