import type { BootStateCopies, SlotName } from './boot-state.ts';

/** What a bundle says of itself, when its signature is right. */
export interface BundleFacts {
  /** Kind of board that it is for. */
  readonly compatible: string;
  readonly version: string;
  /** Once it is good, no version below this one is booted. */
  readonly floor?: string | undefined;
}

/** Two slots for firmware, of which one runs. */
export interface SlotDriver {
  /** The slot that runs. */
  readonly current: SlotName;
  /** Version that it holds. */
  readonly version: string;
  /** Kind of board; a bundle for another is refused. */
  readonly compatible: string;
  readonly boot: BootStateCopies;
  /** Where a bundle is put before it is installed. */
  readonly bundleFile: string;
  /**
   * Reads what the bundle says, and checks who signed it.
   * @throws {FumoRefusal}
   */
  inspect(): Promise<BundleFacts>;
  /**
   * Writes the bundle to the slot that does not run, and checks what it writes.
   * @param onProgress called on the way, where it takes long enough to be followed
   * @throws {FumoRefusal}
   */
  install(onProgress?: (percent: number) => void): Promise<void>;
  /** Starts again, by the boot state. */
  restart(): void;
}
