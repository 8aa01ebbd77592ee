import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Board } from '../../firmware-image/boards/board.ts';
import { qemu } from '../../firmware-image/boards/qemu.ts';
import { uBoot } from '../../firmware-image/qemu/hardware.ts';
import { type BuiltImage, buildImage } from '../../firmware-image/recipe/image.ts';
import { type SigningKeys, signingKeys } from '../../firmware-image/recipe/keys.ts';
import type { PartName } from '../../firmware-image/recipe/parts.ts';
import { output, parentOf, root } from '../../firmware-image/recipe/tools.ts';

/** Versions that the tests flash and to which they update. */
export const versions = { first: '1.0.0', next: '1.1.0', bad: '1.2.0' } as const;

const program = join(root, 'dist/postern-snapshot.cjs');

/** Code in front of the gateway's program that makes a build faulty. */
const faults = {
  crashes:
    "require('node:v8').startupSnapshot.addDeserializeCallback(() => { if (process.argv[2] === 'gateway') throw new Error('this version is broken'); });\n",
  // The CoAP server answers nobody, neither the health probe nor a device. The address of an unbound socket throws.
  deaf: "const dgram = require('node:dgram'); const send = dgram.Socket.prototype.send; const isServer = (socket) => { try { return socket.address().port === 5683; } catch { return false; } }; dgram.Socket.prototype.send = function (...args) { return isServer(this) ? undefined : send.apply(this, args); };\n",
  // The event loop hangs forever as soon as the gateway probes its own CoAP port.
  hangs:
    "const dgram = require('node:dgram'); const send = dgram.Socket.prototype.send; dgram.Socket.prototype.send = function (...args) { if (args.includes(5683)) for (;;); return send.apply(this, args); };\n",
} as const;
export type Fault = keyof typeof faults;

function faulty(fault: Fault): string {
  const file = parentOf(join(output, 'faulty', `${fault}.cjs`));
  writeFileSync(file, faults[fault] + readFileSync(program, 'utf8'));
  return file;
}

/** Reason to skip the tests of images, or false. The tools for them are installed by `npm test`, on Debian bookworm only. */
export const skipImages = existsSync(uBoot) ? false : 'needs Debian bookworm with its package u-boot-qemu';

/** What `buildFor` is to build. By default, a bundle for the board `qemu` without a disk image. */
export interface Wanted {
  readonly withDisk?: boolean;
  readonly fault?: Fault;
  readonly keys?: SigningKeys;
  readonly board?: Board;
  readonly bootLoader?: string;
  /** Optional parts. */
  readonly with?: readonly PartName[];
  readonly level?: number;
  /** Adds a shell on the console. */
  readonly isDeveloperImage?: boolean;
}

/** Builds an image for a test. It is compressed quickly rather than well, unless `level` says otherwise. */
export async function buildFor(name: string, version: string, wanted: Wanted = {}): Promise<BuiltImage> {
  const {
    withDisk = false,
    fault,
    bootLoader,
    keys = signingKeys(undefined),
    board = qemu,
    level = 3,
    isDeveloperImage = false,
  } = wanted;
  return await buildImage({
    board,
    name: `test-${name}`,
    version,
    keys,
    isDeveloperImage,
    level,
    withDisk,
    with: wanted.with ?? [],
    ...(bootLoader !== undefined && { bootLoader }),
    ...(fault && { program: faulty(fault) }),
  });
}

/**
 * The disk and the source of the trusted device tree in an output folder of `npm run image`.
 * @throws {Error} when there is no disk
 */
export function imageIn(folder: string): { disk: string; trust: string } {
  const disk = existsSync(folder) && readdirSync(folder).find((name) => /^postern-.*\.img$/.test(name));
  if (!disk) throw new Error(`${folder} has no disk image: npm run image`);
  return { disk: join(folder, disk), trust: join(folder, 'trust.dts') };
}
