import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Board } from '../../firmware-image/boards/board.ts';
import { qemu } from '../../firmware-image/boards/qemu.ts';
import { uBoot } from '../../firmware-image/qemu/hardware.ts';
import { type BuiltImage, buildImage } from '../../firmware-image/recipe/image.ts';
import { type SigningKeys, signingKeys } from '../../firmware-image/recipe/keys.ts';
import { output, parentOf, root } from '../../firmware-image/recipe/tools.ts';

/** Versions that the tests flash, and update to. */
export const versions = { first: '1.0.0', next: '1.1.0', bad: '1.2.0' } as const;

const program = join(root, 'dist/postern-snapshot.cjs');

/** What the program of a build does besides, or in place of, what it should. */
const faults = {
  crashes:
    "require('node:v8').startupSnapshot.addDeserializeCallback(() => { if (process.argv[2] === 'gateway') throw new Error('this version is broken'); });\n",
  // The probe, and every device, speaks into the void. A socket that was not bound yet has no address, and throws.
  deaf: "const dgram = require('node:dgram'); const send = dgram.Socket.prototype.send; const isServer = (socket) => { try { return socket.address().port === 5683; } catch { return false; } }; dgram.Socket.prototype.send = function (...args) { return isServer(this) ? undefined : send.apply(this, args); };\n",
  // The event loop stands still for good as soon as the gateway asks itself whether it serves.
  hangs:
    "const dgram = require('node:dgram'); const send = dgram.Socket.prototype.send; dgram.Socket.prototype.send = function (...args) { if (args.includes(5683)) for (;;); return send.apply(this, args); };\n",
} as const;
export type Fault = keyof typeof faults;

function faulty(fault: Fault): string {
  const file = parentOf(join(output, 'faulty', `${fault}.cjs`));
  writeFileSync(file, faults[fault] + readFileSync(program, 'utf8'));
  return file;
}

/** `npm test` installs what builds and boots an image, on Debian bookworm; elsewhere there is nothing to test. */
export const skipImages = existsSync(uBoot) ? false : 'needs Debian bookworm, and u-boot-qemu of it';

export interface Wanted {
  readonly withDisk?: boolean;
  readonly fault?: Fault;
  readonly keys?: SigningKeys;
  readonly board?: Board;
  readonly bootLoader?: string;
  readonly level?: number;
}

/** Builds an image for a test. How small it is matters to one test alone. */
export async function buildFor(name: string, version: string, wanted: Wanted = {}): Promise<BuiltImage> {
  const {
    withDisk = false,
    fault,
    bootLoader,
    keys = signingKeys(undefined),
    board = qemu,
    level = 3,
  } = wanted;
  return await buildImage({
    board,
    name: `test-${name}`,
    version,
    keys,
    isDeveloperImage: false,
    level,
    withDisk,
    ...(bootLoader !== undefined && { bootLoader }),
    ...(fault && { program: faulty(fault) }),
  });
}
