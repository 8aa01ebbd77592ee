// npm run image: builds the flashable disk image and the signed update bundle of a board.
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { publish } from '../build/figure-pages.ts';
import { single, today } from '../build/figures.ts';
import { checkedVersion, runCommand, UsageError } from './recipe/command.ts';
import { usualStore } from './recipe/debian.ts';
import { bytesOf } from './recipe/disk.ts';
import { type BuiltImage, buildImage, describeImage, megabytes } from './recipe/image.ts';
import { signingKeys } from './recipe/keys.ts';
import { npmComponents } from './recipe/licences.ts';
import { describeLock, lockFile, movesBetween, readLock } from './recipe/lock.ts';
import { namedParts, partsOf } from './recipe/parts.ts';
import { currentLock } from './recipe/refresh.ts';
import { gatherSources } from './recipe/sources.ts';
import { nodeVersion, packageVersion, run, step } from './recipe/tools.ts';
import { boards } from './recipe/wanted.ts';

/** Most bytes of the results. The command fails above them. */
const budgets = { bundle: 58_000_000, packedDisk: 58_000_000, eachPart: 4_000_000 } as const;
const help = `npm run image -- [OPTIONS]

Builds a flashable disk image and a signed update bundle, in dist/firmware.

  --board NAME      ${Object.entries(boards)
    .map(([name, { description }]) => `${name}: ${description}`)
    .join('\n                    ')}
  --version X.Y.Z   version of the firmware; by default the version in package.json
  --floor X.Y.Z     lowest version that is still booted, once this firmware has proved healthy
  --keys DIR        keys that sign the results, and authorities that are trusted (docs/firmware.md, "Keys"); by default keys for
                    development, which say so in their names
  --boot-loader FILE  the board's own boot loader, for boards whose boot loader is not in Debian
  --with PARTS      optional parts of the image: wifi, cellular, or both with a comma between them
  --developer       adds a shell on the console
  --write           records the sizes, for docs/firmware.md
  --refresh         builds nothing: moves firmware-image/packages.lock to what Debian and npm have now, and prints what moved
  --sources         also gathers the sources of everything in the image, in the folder sources beside it
`;

/** Moves the lock. */
async function refresh(): Promise<void> {
  const before = existsSync(lockFile) ? readLock() : undefined;
  const after = await currentLock(nodeVersion(), before);
  const moved = movesBetween(before, after);
  if (moved.length === 0) {
    console.log('the lock has what Debian and npm have now; nothing moved');
    return;
  }
  writeFileSync(lockFile, describeLock(after));
  console.log(moved.join('\n'));
  for (const { source, sha256 } of after.sources)
    if (sha256 === undefined)
      console.warn(`no mirror has the source of ${source}, so its digest is not known`);
}

/** Gathers the sources of an image. @throws {Error} when one is missing; all others are there then */
async function archiveSources({ folder, inventory }: BuiltImage, version: string): Promise<void> {
  const order = { version, debian: inventory.sources, npm: npmComponents(), store: usualStore() };
  const missing = await step('sources', () => gatherSources(order, join(folder, 'sources')));
  if (missing.length === 0) return;
  const lines = missing.map(({ source, reason }) => `  ${source}: ${reason}`);
  throw new Error(`${missing.length} sources are missing in ${folder}/sources:\n${lines.join('\n')}`);
}

await runCommand({
  help,
  options: {
    board: { type: 'string', default: 'qemu' },
    version: { type: 'string', default: packageVersion() },
    floor: { type: 'string' },
    keys: { type: 'string' },
    'boot-loader': { type: 'string' },
    with: { type: 'string' },
    developer: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
    refresh: { type: 'boolean', default: false },
    sources: { type: 'boolean', default: false },
  },
  run: async ({ version, floor, keys, developer, write, 'boot-loader': bootLoader, ...values }) => {
    if (values.refresh) return await refresh();
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
    const parts = namedParts(values.with);
    partsOf(board, parts);
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
      with: parts,
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
    if (values.sources) await archiveSources(built, version);
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
    ] as const) {
      const most = budget + parts.length * budgets.eachPart;
      if (bytesOf(file) > most)
        throw new Error(`the ${what} has ${megabytes(bytesOf(file))}, its budget is ${megabytes(most)}`);
    }
  },
});
