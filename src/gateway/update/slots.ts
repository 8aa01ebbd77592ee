import type { BootStateCopies, SlotName } from './boot-state.ts';

/** Facts in the signed part of a bundle. */
export interface BundleFacts {
  /** Kind of board that the bundle is for. */
  readonly compatible: string;
  readonly version: string;
  /** Lowest version that may boot once this bundle was found good. */
  readonly floor?: string | undefined;
}

/** Two slots for firmware. One of them runs. */
export interface SlotDriver {
  /** The slot that runs. */
  readonly current: SlotName;
  /** Version in the running slot. */
  readonly version: string;
  /** Kind of this board. A bundle for another kind is refused. */
  readonly compatible: string;
  readonly boot: BootStateCopies;
  /** Path where a bundle is put before it is installed. */
  readonly bundleFile: string;
  /**
   * Verifies the signature of the bundle and returns its facts.
   * @throws {FumoRefusal}
   */
  inspect(): Promise<BundleFacts>;
  /**
   * Writes the bundle to the slot that does not run, and verifies it.
   * @param onProgress called with the progress, if the installation takes long enough to report it
   * @throws {FumoRefusal}
   */
  install(onProgress?: (percent: number) => void): Promise<void>;
  /** Restarts into the slot that the boot state names. */
  restart(): void;
}
