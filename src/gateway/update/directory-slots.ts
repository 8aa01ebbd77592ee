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
import { syncFile, syncFolder } from '../../base/durable.ts';
import { softwareVersion } from '../../base/version.ts';
import { FumoRefusal, FumoResult } from '../../mo/fumo.ts';
import { BootStateCopies, otherSlot, type SlotName } from './boot-state.ts';
import { checkProgram, type Manifest, readBundle } from './bundle.ts';
import type { BundleFacts, SlotDriver } from './slots.ts';

/** Kind of board that bundles for slots of this kind name. */
export const directoryCompatible = 'postern-node';
/** What a gateway ends with when it is to be started again, by the boot state. */
export const restartExitCode = 75;
/** By this variable the launcher says which slot runs. */
export const slotVariable = 'POSTERN_SLOT';

export interface DirectorySlotsParts {
  readonly directory: string;
  /** PEM. */
  readonly authority: string;
  readonly current: SlotName;
  readonly restart: () => void;
}

export const programOf = (directory: string, slot: SlotName): string =>
  join(directory, slot.toLowerCase(), 'postern.mjs');

export const bootStateOf = (directory: string): BootStateCopies =>
  new BootStateCopies([join(directory, 'state-1'), join(directory, 'state-2')]);

/** Slots that are directories with one program each, for machines without slots of their own: `postern launch` boots them. */
export class DirectorySlots implements SlotDriver {
  readonly current: SlotName;
  readonly compatible = directoryCompatible;
  readonly boot: BootStateCopies;
  readonly bundleFile: string;
  readonly #parts: DirectorySlotsParts;

  constructor(parts: DirectorySlotsParts) {
    this.#parts = parts;
    this.current = parts.current;
    mkdirSync(parts.directory, { recursive: true, mode: 0o700 });
    this.boot = bootStateOf(parts.directory);
    this.bundleFile = join(parts.directory, 'update.bundle');
  }

  get version(): string {
    return this.#manifest()?.version ?? softwareVersion;
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
    try {
      rmSync(fresh, { recursive: true, force: true });
      mkdirSync(fresh, { mode: 0o700 });
      const copy = join(fresh, 'postern.mjs');
      await pipeline(createReadStream(this.bundleFile, { start: bundle.from }), createWriteStream(copy));
      writeFileSync(join(fresh, 'manifest.json'), JSON.stringify(bundle.manifest));
      for (const name of ['postern.mjs', 'manifest.json']) syncFile(join(fresh, name));
      rmSync(folder, { recursive: true, force: true });
      renameSync(fresh, folder);
      syncFolder(this.#parts.directory);
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      const result = code === 'ENOSPC' || code === 'EDQUOT' ? FumoResult.NoRoom : FumoResult.Failed;
      throw new FumoRefusal(result, `slot ${slot} cannot be written: ${code}`, { cause });
    }
  }

  restart(): void {
    this.#parts.restart();
  }

  #manifest(): Manifest | undefined {
    try {
      const file = join(programOf(this.#parts.directory, this.current), '../manifest.json');
      return JSON.parse(readFileSync(file, 'utf8')) as Manifest;
    } catch {
      // A slot that was filled by hand has none.
      return undefined;
    }
  }
}
