import type { DatabaseSync } from 'node:sqlite';
import type { Durability } from './durability.ts';
import type { Recovery } from './recover-state.ts';
import type { StateCopies } from './state-copies.ts';
import type { StateLock } from './state-lock.ts';

/** What belongs to a database that is a file. */
export interface StateFile {
  /** Absent on a read-only disk. */
  readonly durability?: Durability;
  /** Whether the disk has room again, after it was full. */
  readonly hasRoom: () => boolean;
  readonly lock: StateLock;
  /** Copies of the file; undefined when the file cannot be copied. */
  readonly copies?: StateCopies | undefined;
  /** What was done at the opening because the file was damaged or lost. */
  readonly recovery?: Recovery | undefined;
  /** Present when a copy in memory is open, because the disk takes no writes. */
  readonly waiting?: WaitingFile;
}

/** A state file that can be read and not written for now. */
export interface WaitingFile {
  /** Why the file itself is not open. */
  readonly reason: string;
  /**
   * Opens the file itself. Returns undefined as long as the disk takes no writes. Throws when the file cannot be used
   * otherwise.
   */
  readonly reopen: () => Opened | undefined;
}

/** A state file that was opened to be written. */
export interface Opened {
  readonly sqlite: DatabaseSync;
  readonly state: StateFile;
}
