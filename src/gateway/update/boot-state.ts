import { closeSync, fsyncSync, openSync, readSync, writeSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { PosternError } from '../../base/errors.ts';

/** Name of a firmware slot. */
export type SlotName = 'A' | 'B';
export const otherSlot = (slot: SlotName): SlotName => (slot === 'A' ? 'B' : 'A');

/** The state that boot loader and gateway share. The boot loader and whoever owns the copies read and write it. */
export interface BootState {
  /** The slot that was last found healthy. */
  readonly good: SlotName;
  /** A newly written slot that has not been found healthy yet. */
  readonly trying: SlotName | undefined;
  /** Remaining starts of the slot `trying`, 0 to 9. */
  readonly left: number;
  /** Lowest version that may boot, as `versionNumber` returns it. */
  readonly floor: number;
  /** The slot that was last given up. */
  readonly failed: SlotName | undefined;
  /** Starts of the good slot since it was last found healthy, 0 to 9. */
  readonly starts: number;
  /** The other slot, if it was good before. It is started when the good slot is not found healthy any more. */
  readonly spare: SlotName | undefined;
  /** Whether the recovery system wrote a slot, because none could be started any more, and nobody has been told of it yet. */
  readonly recovered: boolean;
}

/**
 * The fields of a copy in their order, and the range of each. Each is a number of 32 bits, little-endian, behind the
 * checksum. Slots are 1 for A, 2 for B and 0 for none. A copy with a value out of range is not valid. Nothing in a copy is
 * text, because the boot loader would run it as commands (firmware-image/u-boot/boot.cmd).
 */
export const stateFields = {
  magic: [0x32534250, 0x32534250],
  serial: [1, 0xffff_fffe],
  good: [1, 2],
  try: [0, 2],
  left: [0, 9],
  floor: [0, 0x7f_ffff],
  failed: [0, 2],
  starts: [0, 9],
  spare: [0, 2],
  recovered: [0, 1],
} as const;
/** Size of one copy in bytes: one sector, which a disk writes as a whole. */
export const copyBytes = 512;
/** The slot that was good, and in whose place the running one was started, because it did not start or get healthy. */
export const lostSlot = (
  { good, trying, failed, spare }: BootState,
  current: SlotName,
): SlotName | undefined =>
  good === current ? (failed === spare ? failed : undefined) : trying === current ? undefined : good;

/** The boot state after the running slot was found healthy, and the one that was lost was told. */
export const keptState = (before: BootState, current: SlotName): BootState => ({
  ...before,
  good: current,
  starts: 0,
  recovered: false,
  ...(before.trying === current && { trying: undefined, left: 0 }),
  ...(before.good !== current && { spare: before.good }),
  ...(lostSlot(before, current) && { failed: undefined }),
});
/** Starts of a good slot that is not found healthy, after which the spare slot is good, or a board starts its recovery system. */
export const mostStarts = 8;
/** The boot state when no copy is valid. */
const initialState: BootState = {
  good: 'A',
  trying: undefined,
  left: 0,
  floor: 0,
  failed: undefined,
  starts: 0,
  spare: undefined,
  recovered: false,
};

/**
 * A version as a number: `1.2.3` is 0x010203. A suffix behind `-` or `+` is ignored. Undefined for other texts, a major
 * above 127, and a minor or patch above 255.
 */
export function versionNumber(version: string): number | undefined {
  const [, ...parts] = /^(\d+)\.(\d+)\.(\d+)(?:[-+].*)?$/.exec(version) ?? [];
  const [major = 0, minor = 0, patch = 0] = parts.map(Number);
  if (parts.length === 0 || major > 127 || minor > 255 || patch > 255) return undefined;
  return (major << 16) | (minor << 8) | patch;
}

/**
 * The boot state in two copies, each with a checksum and a serial number. The valid copy with the higher serial number
 * counts. Each change overwrites the other copy, so a power cut during a write loses nothing. A copy is the CRC-32 of the
 * rest, big-endian as U-Boot's `crc32` writes it, `stateFields`, and zeros.
 */
export class BootStateCopies {
  readonly #copies: readonly [string, string];

  /** @param copies paths of two files or partitions; a missing file is created by the first write */
  constructor(copies: readonly [string, string]) {
    this.#copies = copies;
  }

  /** The current boot state. When no copy is valid: slot A is good, and no slot is tried. */
  read(): BootState {
    return this.#latest()?.state ?? initialState;
  }

  /**
   * Changes the given fields. The new state is on the disk when this returns.
   * @throws {PosternError} `internal` when it cannot be written
   */
  change(changes: Partial<BootState>): BootState {
    const latest = this.#latest();
    const state = { ...(latest?.state ?? initialState), ...changes };
    const { good, trying, left, floor, failed, starts, spare, recovered } = state;
    const slots = [numberOf(good), numberOf(trying), left, floor, numberOf(failed), starts, numberOf(spare)];
    const facts = [stateFields.magic[0], (latest?.serial ?? 0) + 1, ...slots, Number(recovered)];
    const bytes = Buffer.alloc(copyBytes);
    for (const [index, fact] of facts.entries()) bytes.writeUInt32LE(fact, 4 * index + 4);
    bytes.writeUInt32BE(crc32(bytes.subarray(4)));
    this.#write(this.#copies[latest?.copy === 0 ? 1 : 0], bytes);
    return state;
  }

  #write(path: string, bytes: Buffer): void {
    try {
      const file = openSync(path, openModes.readWrite, 0o600);
      try {
        writeSync(file, bytes, 0, bytes.length, 0);
        fsyncSync(file);
      } finally {
        closeSync(file);
      }
    } catch (cause) {
      throw new PosternError('internal', `the boot state ${path} cannot be written`, { cause });
    }
  }

  /** The valid copy with the highest serial number. */
  #latest() {
    return this.#copies
      .flatMap((path, copy) => {
        const found = readCopy(path);
        return found ? [{ ...found, copy }] : [];
      })
      .toSorted((a, b) => b.serial - a.serial)
      .at(0);
  }
}

/** O_RDWR and O_CREAT: opens for writing without truncating the file. */
const openModes = { readWrite: 0o102 } as const;

/** Reads one copy; undefined when it is missing, too short, fails the checksum or has a value out of range. */
function readCopy(path: string): { serial: number; state: BootState } | undefined {
  const bytes = Buffer.alloc(copyBytes);
  try {
    const file = openSync(path, 'r');
    try {
      if (readSync(file, bytes, 0, copyBytes, 0) < copyBytes) return undefined;
    } finally {
      closeSync(file);
    }
  } catch {
    return undefined;
  }
  if (bytes.readUInt32BE() !== crc32(bytes.subarray(4))) return undefined;
  const facts = Object.values(stateFields).map(([least, most], index) => {
    const value = bytes.readUInt32LE(4 * index + 4);
    return value >= least && value <= most ? value : undefined;
  });
  if (facts.includes(undefined)) return undefined;
  const [, serial, good, trying, left, floor, failed, starts, spare, recovered] = facts as number[];
  return {
    serial: serial!,
    state: {
      good: slotOf(good) ?? 'A',
      trying: slotOf(trying),
      left: left!,
      floor: floor!,
      failed: slotOf(failed),
      starts: starts!,
      spare: slotOf(spare),
      recovered: recovered === 1,
    },
  };
}

const numberOf = (slot: SlotName | undefined): number => (slot ? (slot === 'A' ? 1 : 2) : 0);
const slotOf = (number: number | undefined): SlotName | undefined =>
  number === 1 ? 'A' : number === 2 ? 'B' : undefined;
