import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import type { BuiltImage } from '../../firmware-image/recipe/image.ts';

/** What it takes until each of many devices has an answer of an emulated board. */
export interface BoardStorm {
  readonly seconds: number;
  /** Of the gateway's process, as the board's kernel counts it. */
  readonly cpuSeconds: number;
  /** Of the emulation, all that the board does included. */
  readonly emulationSeconds: number;
  /** Resident memory of the gateway: before the first device, at the last answer, and at its highest. */
  readonly before: number;
  readonly megabytes: number;
  readonly peak: number;
  /** Memory of the board that was available to other programs at the last answer. */
  readonly free: number;
  /** Handshakes that devices completed. */
  readonly handshakes: number;
  /** Handshakes that ended without success and were begun again. */
  readonly failures: number;
  /** Requests that were sent again. */
  readonly repetitions: number;
}

/** Storms that follow each other. */
export interface BoardStorms {
  /** No device has been here before. */
  readonly first: BoardStorm;
  /** The board alone lost its power. */
  readonly kept: BoardStorm;
  /** The board and the devices lost their power. */
  readonly anew: BoardStorm;
}

/** An image with a shell on the console, and the number of devices. */
export interface StormOrder extends Pick<BuiltImage, 'trust'> {
  readonly disk: string;
  readonly devices: number;
}

/**
 * Devices have addresses of their own, since a gateway bounds what it gives to one address. They are only reachable in a network
 * namespace, and QEMU has to be in the same one. A user namespace lets everyone make one.
 */
const namespace = ['--user', '--map-root-user', '--net'] as const;

/** Reason why storms cannot run on this machine, or false. */
export const skipStorms =
  spawnSync('unshare', [...namespace, 'true']).status !== 0 && 'needs user and network namespaces';

/**
 * Lets devices come at once to an emulated board, three times. Progress goes to standard error.
 * @throws {Error} when a storm fails
 */
export async function boardStorms(order: StormOrder): Promise<BoardStorms> {
  const script = fileURLToPath(new URL('board-storms-inside.ts', import.meta.url));
  const child = spawn('unshare', [...namespace, process.execPath, script, JSON.stringify(order)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [said, [code]] = await Promise.all([text(child.stdout), once(child, 'exit')]);
  if (code !== 0) throw new Error('the storms failed');
  return JSON.parse(said) as BoardStorms;
}
