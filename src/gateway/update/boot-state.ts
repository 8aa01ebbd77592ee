import { closeSync, fsyncSync, openSync, readSync, writeSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { PosternError } from '../../base/errors.ts';

/** Name of a firmware slot. */
export type SlotName = 'A' | 'B';
export const otherSlot = (slot: SlotName): SlotName => (slot === 'A' ? 'B' : 'A');

/** The state that boot loader and gateway share. Both read and write it. */
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
}

/** Size of one copy in bytes. */
const copyBytes = 4096;
/** The boot state when no copy is valid. */
const initialState: BootState = { good: 'A', trying: undefined, left: 0, floor: 0, failed: undefined };

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
 * counts. Each change overwrites the other copy, so a power cut during a write loses nothing. The format is that of
 * U-Boot's `env import -c`: a CRC-32 of the rest, then `name=value` texts, each terminated by a zero byte.
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
    const { good, trying = 'none', left, floor, failed = 'none' } = state;
    const serial = (latest?.serial ?? 0) + 1;
    const facts = { serial: hex(serial), good, try: trying, left, floor: hex(floor), failed };
    const text = Object.entries(facts).map(([name, value]) => `${name}=${value}\0`);
    const bytes = Buffer.alloc(copyBytes);
    bytes.write(`${text.join('')}\0`, 4, 'latin1');
    bytes.writeUInt32LE(crc32(bytes.subarray(4)));
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

const hex = (value: number): string => `0x${value.toString(16)}`;
/** O_RDWR and O_CREAT: opens for writing without truncating the file. */
const openModes = { readWrite: 0o102 } as const;

/** Reads one copy; undefined when it is missing, too short, or fails the checksum. */
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
  if (bytes.readUInt32LE() !== crc32(bytes.subarray(4))) return undefined;
  const end = bytes.indexOf('\0\0', 4);
  const facts = new Map(
    bytes
      .subarray(4, end)
      .toString('latin1')
      .split('\0')
      .map((fact) => [fact.slice(0, fact.indexOf('=')), fact.slice(fact.indexOf('=') + 1)]),
  );
  const serial = Number(facts.get('serial'));
  const good = slotOf(facts.get('good'));
  if (!Number.isInteger(serial) || !good) return undefined;
  return {
    serial,
    state: {
      good,
      trying: slotOf(facts.get('try')),
      // U-Boot counts down in hexadecimal. Up to 9 there is no difference.
      left: Number(facts.get('left')) || 0,
      floor: Number(facts.get('floor')) || 0,
      failed: slotOf(facts.get('failed')),
    },
  };
}

const slotOf = (text: string | undefined): SlotName | undefined =>
  text === 'A' || text === 'B' ? text : undefined;
