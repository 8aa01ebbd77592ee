import { closeSync, openSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { BootStateCopies, copyBytes, mostStarts, stateFields } from '../../src/gateway/update/boot-state.ts';
import type { Board } from '../boards/board.ts';
import { configurationName, recoveryName } from './boot-image.ts';
import { treeSource } from './device-tree.ts';
import { diskSize, mebibyte, type PartitionName, partitions, sizeOf, startOf } from './layout.ts';
import { root, run } from './tools.ts';

/** A UUID that depends on the name only, so that disks are reproducible. */
function fixedUuid(name: string): string {
  const hex = run('sha256sum', ['-'], { input: `postern ${name}` }).slice(0, 32);
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `5${hex.slice(13, 16)}`,
    `8${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ].join('-');
}

/** What a disk image is made of. */
export interface DiskParts {
  /** File for the partition boot-a. */
  readonly fit: string;
  /** File for the partition recovery. */
  readonly recovery: string;
  /** File for the partition root-a. */
  readonly root: string;
  /** Time stamp of all files, in seconds since 1970. */
  readonly date: number;
  /** Files for the partition CONFIG: path on this machine, by name on CONFIG. */
  readonly firmware: Readonly<Record<string, string>>;
  /** A boot loader in front of the partitions, and its offset on the disk in bytes. */
  readonly bootLoader: { readonly file: string; readonly at: number } | undefined;
}

/** Partition type "basic data" of GPT, by which every operating system recognizes a FAT partition. */
const basicData = 'EBD0A0A2-B9E5-4433-87C0-68B6B72699C7';

/**
 * Makes a disk image with slot A. Slot B is empty, and the board makes the partition `data` at its first boot.
 * @throws {Error} when something does not fit in its partition
 */
export function makeDisk(file: string, parts: DiskParts): void {
  const { fit, recovery, root: rootImage, date, firmware, bootLoader } = parts;
  run('rm', ['-f', file]);
  run('truncate', ['-s', `${diskSize}M`, file]);
  const table = [
    'label: gpt',
    `label-id: ${fixedUuid('disk')}`,
    ...partitions.map(
      ({ name, size }) =>
        `start=${startOf(name)}MiB, size=${size}MiB, type=${name === 'config' ? basicData : 'linux'}, name=${name}, uuid=${fixedUuid(name)}`,
    ),
  ];
  run('sfdisk', ['-q', file], { input: `${table.join('\n')}\n` });
  put(file, 'state-1', firstState(`${file}.state`));
  put(file, 'recovery', readFileSync(recovery));
  put(file, 'boot-a', readFileSync(fit));
  put(file, 'root-a', readFileSync(rootImage));
  const config = `${file}.config`;
  run('rm', ['-f', config]);
  run('truncate', ['-s', `${sizeOf('config')}M`, config]);
  run('mkfs.vfat', ['--invariant', '-F', '16', '-n', 'CONFIG', config], {
    env: { SOURCE_DATE_EPOCH: String(date) },
  });
  const example = `${config}.example`;
  writeFileSync(example, readFileSync(join(root, 'firmware-image/gateway.toml')));
  run('touch', ['-d', `@${date}`, example]);
  run('mcopy', ['-m', '-i', config, example, '::gateway.toml.example']);
  for (const [name, from] of Object.entries(firmware).toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    run('touch', ['-d', `@${date}`, from]);
    run('mcopy', ['-m', '-i', config, from, `::${name}`]);
  }
  put(file, 'config', readFileSync(config));
  run('rm', [config, example]);
  if (bootLoader) putAt(file, bootLoader.at, readFileSync(bootLoader.file), startOf('state-1') * mebibyte);
}

/** The boot state of a new disk: slot A is good, and no slot is being tried. */
function firstState(file: string): Buffer {
  run('rm', ['-f', file]);
  // Without any copy, the first one is written.
  new BootStateCopies([file, `${file}.none`]).change({});
  const bytes = readFileSync(file);
  run('rm', [file]);
  return bytes;
}

function put(file: string, name: PartitionName, bytes: Uint8Array): void {
  if (bytes.length > sizeOf(name) * mebibyte)
    throw new Error(
      `the partition ${name} has ${sizeOf(name)} MiB, its content ${(bytes.length / mebibyte).toFixed(1)}`,
    );
  putAt(file, startOf(name) * mebibyte, bytes, diskSize * mebibyte);
}

function putAt(file: string, at: number, bytes: Uint8Array, end: number): void {
  if (at + bytes.length > end)
    throw new Error(`${bytes.length} bytes at offset ${at} overwrite what begins at ${end}`);
  const disk = openSync(file, 'r+');
  writeSync(disk, bytes, 0, bytes.length, at);
  closeSync(disk);
}

/** Mebibytes in sectors of 512 bytes, in hexadecimal. */
const sectors = (mebibytes: number): string => `0x${((mebibytes * mebibyte) / 512).toString(16)}`;

const hex = (number: number): string => number.toString(16);

/**
 * The places of the boot state in memory, as placeholders of boot.cmd: the copy that is looked at, its fields, and the room
 * behind it; and `check`, which succeeds when the checksum is right and each field is in its range.
 */
function statePlaceholders(state: number): Readonly<Record<string, string>> {
  const at = (offset: number) => `0x${hex(state + offset)}`;
  const places = Object.fromEntries(Object.keys(stateFields).map((name, index) => [name, at(4 * index + 4)]));
  const length = hex(copyBytes - 4);
  const ranges = Object.entries(stateFields).map(
    ([name, [least, most]]) =>
      `itest.l *${places[name]} -ge ${hex(least)} && itest.l *${places[name]} -le ${hex(most)}`,
  );
  return {
    ...places,
    ...{ state: at(0), kept: at(copyBytes), body: at(4), 'body-length': length },
    ...{ 'magic-value': hex(stateFields.magic[0]), 'most-starts': hex(mostStarts) },
    ...{ 'most-floor': hex(stateFields.floor[1]), counter: at(4 * copyBytes) },
    check: [
      `crc32 ${at(4)} ${length} ${at(2 * copyBytes)}`,
      `cmp.l ${at(0)} ${at(2 * copyBytes)} 1`,
      ...ranges,
    ].join(' && '),
  };
}

/**
 * Source of the device tree that the boot loader trusts: the public key, and the boot script that chooses a slot.
 * @param trust file with the compiled device tree that has the public key
 * @throws {Error} when boot.cmd has an unknown placeholder
 */
export function trustSource(board: Board, trust: string): string {
  const { interface: kind, number } = board.disk;
  const select = `${kind} dev ${number}`;
  const state = statePlaceholders(Number(board.addresses.state));
  const treeOf = (configuration: string) =>
    // biome-ignore lint/suspicious/noTemplateCurlyInString: a variable of U-Boot
    board.deviceTrees.length > 0 ? `${board.addresses.fit}#${configuration}` : '${fdtcontroladdr}';
  const filled: Readonly<Record<string, string>> = {
    prepare: kind === 'virtio' ? `virtio scan; ${select}` : select,
    // The commands that read the counter may select another device.
    select: board.floorCounter ? select : 'true',
    read: `${kind} read`,
    write: `${kind} write`,
    ...state,
    'read-counter': board.floorCounter?.uBoot(state.counter!) ?? 'false',
    button: board.resetButton ?? 'false',
    fit: board.addresses.fit,
    'state-1': sectors(startOf('state-1')),
    'state-2': sectors(startOf('state-2')),
    'boot-a': sectors(startOf('boot-a')),
    'boot-b': sectors(startOf('boot-b')),
    'boot-blocks': sectors(sizeOf('boot-a')),
    recovery: sectors(startOf('recovery')),
    'recovery-blocks': sectors(sizeOf('recovery')),
    configuration: `${configurationName}-1`,
    'recovery-configuration': `${recoveryName}-1`,
    console: board.console,
    'kernel-arguments': board.kernelArguments.join(' '),
    fdt: treeOf(`${configurationName}-1`),
    'recovery-fdt': treeOf(`${recoveryName}-1`),
  };
  const script = readFileSync(join(root, 'firmware-image/u-boot/boot.cmd'), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .join('\n')
    .replace(/@([a-z0-9-]+)@/g, (_, name: string) => {
      const value = filled[name];
      if (value === undefined) throw new Error(`boot.cmd: unknown placeholder @${name}@`);
      return value;
    });
  const quoted = script.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
  const keys = treeSource(trust);
  return `${keys}\n/ {\n  config {\n    bootdelay = <(-2)>;\n    bootcmd = "${quoted}";\n  };\n};\n`;
}

/** Size of a file in bytes. */
export const bytesOf = (file: string): number => statSync(file).size;
