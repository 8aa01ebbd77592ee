import { closeSync, fsyncSync, openSync, readSync, writeSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { PosternError } from '../../base/errors.ts';

export type SlotName = 'A' | 'B';
export const otherSlot = (slot: SlotName): SlotName => (slot === 'A' ? 'B' : 'A');

/** What the boot loader and the gateway tell each other. */
export interface BootState {
  /** The slot that was found healthy last. */
  readonly good: SlotName;
  /** A slot that is new, and has yet to prove itself. */
  readonly trying: SlotName | undefined;
  /** Starts that it still has, 0 to 9. */
  readonly left: number;
  /** Versions below it are not booted; versionNumber() of it. */
  readonly floor: number;
  /** The slot that was given up last. */
  readonly failed: SlotName | undefined;
}

/** Bytes of one copy. */
const copyBytes = 4096;
const first: BootState = { good: 'A', trying: undefined, left: 0, floor: 0, failed: undefined };

/** A version as a number: `1.2.3` is 0x010203. Undefined for what is no version. */
export function versionNumber(version: string): number | undefined {
  const [, ...parts] = /^(\d+)\.(\d+)\.(\d+)(?:[-+].*)?$/.exec(version) ?? [];
  const [major = 0, minor = 0, patch = 0] = parts.map(Number);
  if (parts.length === 0 || major > 127 || minor > 255 || patch > 255) return undefined;
  return (major << 16) | (minor << 8) | patch;
}

/**
 * The boot state, in two copies with a checksum each: the later one that is whole counts, and the other is written next, so
 * that a power cut while one is written loses nothing. In the form of U-Boot's `env import -c`: a CRC-32 of the rest, and
 * `name=value` texts, each ended by a zero.
 */
export class BootStateCopies {
  readonly #copies: readonly [string, string];

  /** Files or partitions; a file that is not there is made when it is written. */
  constructor(copies: readonly [string, string]) {
    this.#copies = copies;
  }

  /** What holds now: slot A, and nothing tried, where no copy is whole. */
  read(): BootState {
    return this.#latest()?.state ?? first;
  }

  /**
   * Changes what is given. It is on the disk when this returns.
   * @throws {PosternError} `internal` when it cannot be written
   */
  change(changes: Partial<BootState>): BootState {
    const latest = this.#latest();
    const state = { ...(latest?.state ?? first), ...changes };
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
/** O_RDWR and O_CREAT, without cutting off what is there. */
const openModes = { readWrite: 0o102 } as const;

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
      // U-Boot counts down in hexadecimal; up to 9 that is the same.
      left: Number(facts.get('left')) || 0,
      floor: Number(facts.get('floor')) || 0,
      failed: slotOf(facts.get('failed')),
    },
  };
}

const slotOf = (text: string | undefined): SlotName | undefined =>
  text === 'A' || text === 'B' ? text : undefined;
