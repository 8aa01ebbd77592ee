import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Entropy } from '../../src/base/entropy.ts';

/** One thing that a process did to a file, as recorder.c writes it down. */
interface Entry {
  readonly kind: 'W' | 'T' | 'B' | 'E' | 'U' | 'R';
  /** Nanoseconds of CLOCK_MONOTONIC, which is also that of `process.hrtime.bigint()`. */
  readonly time: bigint;
  readonly name: string;
  readonly offset: number;
  readonly data: Buffer;
}

/** Octets that a disk writes as one: a power cut leaves the old or the new ones. */
const sector = 512;

/** What a power cut left of the changes that were not synced. */
export type Leftovers = 'none' | 'all' | 'sectors' | 'first';
export const leftovers: readonly Leftovers[] = ['none', 'all', 'sectors', 'first'];

export class Recording {
  readonly entries: readonly Entry[];

  constructor(file: string) {
    this.entries = [...parse(readFileSync(file))];
  }

  /**
   * Rebuilds the files as a power cut behind the first `count` entries could have left them: all that was synced, and of the
   * rest what `left` says. Writes within one sector are whole.
   */
  rebuild(count: number, left: Leftovers, entropy: Entropy, folder: string): void {
    const files = new Map<string, Image>();
    const image = (name: string) => {
      const found = files.get(name) ?? new Image();
      files.set(name, found);
      return found;
    };
    for (const { kind, name, offset, data } of this.entries.slice(0, count)) {
      if (kind === 'W') image(name).write(offset, data);
      else if (kind === 'T') image(name).truncate(offset);
      else if (kind === 'B') image(name).syncBegins();
      else if (kind === 'E') image(name).syncEnds();
      else if (kind === 'U') files.delete(name);
      else {
        const moved = files.get(name);
        files.delete(name);
        if (moved) files.set(data.toString(), moved);
      }
    }
    for (const [name, file] of files) {
      const content = file.afterPowerCut(left, entropy);
      const path = join(folder, name);
      mkdirSync(dirname(path), { recursive: true });
      if (content) writeFileSync(path, content);
    }
  }
}

type Change = { readonly offset: number; readonly data: Buffer } | { readonly length: number };

/** A file as the disk has it, and the changes that only the kernel has. */
class Image {
  #disk: Buffer | undefined;
  #pending: Change[] = [];
  /** Of each sync that is under way, how many of the pending changes it covers. */
  readonly #syncs: number[] = [];

  write(offset: number, data: Buffer): void {
    this.#pending.push({ offset, data });
  }

  truncate(length: number): void {
    this.#pending.push({ length });
  }

  syncBegins(): void {
    this.#syncs.push(this.#pending.length);
  }

  syncEnds(): void {
    const covered = this.#syncs.shift() ?? 0;
    let disk = this.#disk ?? Buffer.alloc(0);
    for (const change of this.#pending.splice(0, covered)) disk = apply(disk, change);
    this.#disk = disk;
    for (const at of this.#syncs.keys()) this.#syncs[at] = Math.max(0, this.#syncs[at]! - covered);
  }

  /** Undefined for a file that the disk does not know yet. */
  afterPowerCut(left: Leftovers, entropy: Entropy): Buffer | undefined {
    if (!this.#disk && left === 'none') return undefined;
    let disk = this.#disk ?? Buffer.alloc(0);
    const count = left === 'first' ? Math.floor(entropy.uniform() * (this.#pending.length + 1)) : undefined;
    for (const change of left === 'none' ? [] : this.#pending.slice(0, count)) {
      if (left !== 'sectors') disk = apply(disk, change);
      else if ('length' in change) {
        if (entropy.uniform() < 0.5) disk = apply(disk, change);
      } else for (const part of sectorsOf(change)) if (entropy.uniform() < 0.5) disk = apply(disk, part);
    }
    return disk;
  }
}

function apply(disk: Buffer, change: Change): Buffer {
  if ('length' in change)
    return change.length <= disk.length
      ? Buffer.from(disk.subarray(0, change.length))
      : Buffer.concat([disk, Buffer.alloc(change.length - disk.length)]);
  const { offset, data } = change;
  const end = offset + data.length;
  const target = end > disk.length ? Buffer.concat([disk, Buffer.alloc(end - disk.length)]) : disk;
  data.copy(target, offset);
  return target;
}

/** A write as the disk makes it: cut where sectors end. */
function* sectorsOf({ offset, data }: { offset: number; data: Buffer }): Generator<Change> {
  for (let at = 0; at < data.length; ) {
    const end = Math.min(data.length, at + sector - ((offset + at) % sector));
    yield { offset: offset + at, data: data.subarray(at, end) };
    at = end;
  }
}

function* parse(log: Buffer): Generator<Entry> {
  for (let at = 0; at < log.length; ) {
    const kind = String.fromCharCode(log[at]!) as Entry['kind'];
    const time = log.readBigUInt64LE(at + 1);
    const nameEnd = at + 11 + log.readUInt16LE(at + 9);
    const length = log.readUInt32LE(nameEnd + 8);
    const hasData = kind === 'W' || kind === 'R';
    const end = nameEnd + 12 + (hasData ? length : 0);
    if (end > log.length) return;
    yield {
      kind,
      time,
      name: log.toString('utf8', at + 11, nameEnd),
      offset: Number(log.readBigUInt64LE(nameEnd)),
      data: log.subarray(nameEnd + 12, end),
    };
    at = end;
  }
}
