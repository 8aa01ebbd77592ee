import {
  createReadStream,
  createWriteStream,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { type DiskRoom, isDiskFull } from '../../base/disk-room.ts';
import { syncFile, syncFolder } from '../../base/durable.ts';
import { makeFolder } from '../../base/make-folder.ts';
import { softwareVersion } from '../../base/version.ts';
import { FumoRefusal, FumoResult } from '../../mo/fumo.ts';
import {
  type BootState,
  BootStateCopies,
  keptState,
  otherSlot,
  type SlotName,
  versionNumber,
} from './boot-state.ts';
import { checkProgram, type Manifest, readBundle } from './bundle.ts';
import type { BundleFacts, SlotDriver } from './slots.ts';

/** Value of `compatible` in bundles for directory slots. */
export const directoryCompatible = 'postern-node';
/** Exit code by which a gateway asks the launcher to start the slot that the boot state names. */
export const restartExitCode = 75;
/** Exit code of a gateway that cannot start with its configuration, when the launcher has started it (EX_CONFIG). */
export const configurationExitCode = 78;
/** Environment variable in which the launcher names the file descriptor by which it is fed, as a watchdog is. */
export const feedVariable = 'POSTERN_FEED';
/** Environment variable in which the launcher names the running slot. */
export const slotVariable = 'POSTERN_SLOT';

export interface DirectorySlotsParts {
  /** Folder that holds the slots, the boot state and the bundle. */
  readonly directory: string;
  /** PEM certificate of the authority for signers of bundles. */
  readonly authority: string;
  /** The slot that runs. */
  readonly current: SlotName;
  readonly disk: DiskRoom;
  /** Ends the process with `restartExitCode`. */
  readonly restart: () => void;
}

/** Path of the program of a slot. */
export const programOf = (directory: string, slot: SlotName): string =>
  join(directory, slot.toLowerCase(), 'postern.mjs');

/** The manifest of the program of a slot; undefined when it cannot be read. */
export function manifestOf(directory: string, slot: SlotName): Manifest | undefined {
  try {
    return JSON.parse(readFileSync(join(programOf(directory, slot), '../manifest.json'), 'utf8')) as Manifest;
  } catch {
    return undefined;
  }
}

/** Where the launcher writes why the program ended last. */
export const diagnosisOf = (directory: string): string => join(directory, 'diagnosis');

/** The boot state in a folder of slots. */
export const bootStateOf = (directory: string): BootStateCopies =>
  new BootStateCopies([join(directory, 'state-1'), join(directory, 'state-2')]);

/**
 * Slots that are directories with one program each, for machines without firmware slots. `postern launch` starts them.
 */
export class DirectorySlots implements SlotDriver {
  readonly current: SlotName;
  readonly compatible = directoryCompatible;
  readonly bundleFile: string;
  readonly sources: readonly string[];
  readonly diagnosis: string;
  readonly #boot: BootStateCopies;
  readonly #parts: DirectorySlotsParts;

  constructor(parts: DirectorySlotsParts) {
    this.#parts = parts;
    this.current = parts.current;
    makeFolder(parts.directory, { mode: 0o700 });
    this.#boot = bootStateOf(parts.directory);
    this.bundleFile = join(parts.directory, 'update.bundle');
    this.diagnosis = diagnosisOf(parts.directory);
    this.sources = [programOf(parts.directory, this.current)];
  }

  get version(): string {
    return manifestOf(this.#parts.directory, this.current)?.version ?? softwareVersion;
  }

  state(): BootState {
    return this.#boot.read();
  }

  async inspect(): Promise<BundleFacts> {
    const { manifest } = readBundle(this.bundleFile, this.#parts.authority);
    return manifest;
  }

  async install(): Promise<void> {
    const bundle = readBundle(this.bundleFile, this.#parts.authority);
    await checkProgram(this.bundleFile, bundle);
    const slot = otherSlot(this.current);
    const program = programOf(this.#parts.directory, slot);
    const folder = join(program, '..');
    const fresh = `${folder}.new`;
    const { disk, directory } = this.#parts;
    this.#boot.change({ good: this.current, trying: undefined, left: 0, spare: undefined });
    try {
      rmSync(fresh, { recursive: true, force: true });
      disk.reserve('update slot', directory, bundle.manifest.size);
      mkdirSync(fresh, { mode: 0o700 });
      const copy = join(fresh, 'postern.mjs');
      await pipeline(createReadStream(this.bundleFile, { start: bundle.from }), createWriteStream(copy));
      writeFileSync(join(fresh, 'manifest.json'), JSON.stringify(bundle.manifest));
      for (const name of ['postern.mjs', 'manifest.json']) syncFile(join(fresh, name));
      rmSync(folder, { recursive: true, force: true });
      renameSync(fresh, folder);
      syncFolder(this.#parts.directory);
    } catch (cause) {
      rmSync(fresh, { recursive: true, force: true });
      const { code, message } = cause as NodeJS.ErrnoException;
      const result = code === 'full' || isDiskFull(cause) ? FumoResult.NoRoom : FumoResult.Failed;
      throw new FumoRefusal(result, `slot ${slot} cannot be written: ${message}`, { cause });
    } finally {
      disk.release('update slot');
    }
  }

  async try(attempts: number): Promise<void> {
    this.#boot.change({ trying: otherSlot(this.current), left: attempts, failed: undefined });
  }

  async keep(): Promise<void> {
    const before = this.#boot.read();
    const { floor = '', version = softwareVersion } = manifestOf(this.#parts.directory, this.current) ?? {};
    const wanted = Math.min(versionNumber(floor) ?? 0, versionNumber(version) ?? 0);
    this.#boot.change({ ...keptState(before, this.current), floor: Math.max(before.floor, wanted) });
  }

  restart(): void {
    this.#parts.restart();
  }
}
