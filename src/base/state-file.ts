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
  /**
   * On a read-only disk: opens the file itself. Returns undefined as long as the disk is read-only. Throws when the file cannot be
   * used otherwise.
   */
  readonly reopen?: () => Opened | undefined;
}

/** A state file that was opened to be written. */
export interface Opened {
  readonly sqlite: DatabaseSync;
  readonly state: StateFile;
}
