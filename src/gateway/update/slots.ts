import type { BootState, SlotName } from './boot-state.ts';

/** Facts in the signed part of a bundle. */
export interface BundleFacts {
  /** Kind of board that the bundle is for. */
  readonly compatible: string;
  readonly version: string;
}

/** Two slots for firmware. One of them runs. */
export interface SlotDriver {
  /** The slot that runs. */
  readonly current: SlotName;
  /** Version in the running slot. */
  readonly version: string;
  /** Kind of this board. A bundle for another kind is refused. */
  readonly compatible: string;
  /** Path where a bundle is put before it is installed. */
  readonly bundleFile: string;
  /** Files with what is in the running slot. Their blocks of 4096 bytes may be in a bundle, too. */
  readonly sources: readonly string[];
  /** Folder with what became of the board before the last start, as `readDiagnosis`. */
  readonly diagnosis: string;
  /** The boot state as it is now. */
  state(): BootState;
  /**
   * Verifies the signature of the bundle and returns its facts.
   * @throws {FumoRefusal}
   */
  inspect(): Promise<BundleFacts>;
  /**
   * Writes the bundle to the slot that does not run, and verifies it. The boot state does not name that slot meanwhile.
   * @param onProgress called with the progress, if the installation takes long enough to report it
   * @throws {FumoRefusal}
   */
  install(onProgress?: (percent: number) => void): Promise<void>;
  /**
   * The slot that was written is started at the next restarts, as often as `attempts` at most, until it is kept.
   * @throws {FumoRefusal}
   */
  try(attempts: number): Promise<void>;
  /**
   * Notes that the running slot was found healthy: it is the good one, and the floor that it wants counts.
   * @throws {PosternError}
   */
  keep(): Promise<void>;
  /** PEM texts of the revocation lists that are in force for signers of bundles. */
  lists(): string;
  /**
   * Puts a revocation list in force, unless there is a newer one.
   * @param list PEM
   * @throws {PosternError} `conflict` when it is not in force afterwards
   */
  revoke(list: string): Promise<void>;
  /** Restarts into the slot that the boot state names. */
  restart(): void;
}
