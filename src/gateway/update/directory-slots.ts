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
import type { Clock } from '../../base/clock.ts';
import { type DiskRoom, isDiskFull } from '../../base/disk-room.ts';
import { syncFile, syncFolder, writeDurably } from '../../base/durable.ts';
import { makeFolder } from '../../base/make-folder.ts';
import { softwareVersion } from '../../base/version.ts';
import { FumoRefusal, FumoResult } from '../../mo/fumo.ts';
import { certificatesIn } from '../../wire/secure/dtls/certificates.ts';
import {
  type BootState,
  BootStateCopies,
  keptState,
  otherSlot,
  type SlotName,
  versionNumber,
} from './boot-state.ts';
import { checkProgram, digestOf, type Manifest, type ReadBundle, readBundle } from './bundle.ts';
import type { BundleTrust } from './bundle-trust.ts';
import { withList } from './revocation-list.ts';
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
  /** PEM certificates of the authorities for signers of bundles. */
  readonly authority: string;
  /** Those for second signers; empty when one signature is enough. */
  readonly secondAuthority: string;
  readonly clock: Clock;
  /** The slot that runs. */
  readonly current: SlotName;
  readonly disk: DiskRoom;
  /** Ends the process with `restartExitCode`. */
  readonly restart: () => void;
}

/** File with the revocation lists that are in force. */
const listsFile = 'revoked.pem';

/** Path of the program of a slot. */
export const programOf = (directory: string, slot: SlotName): string =>
  join(directory, slot.toLowerCase(), 'postern.mjs');

/** The description of the program in a slot. */
interface SlotManifest extends Manifest {
  /** Milliseconds since 1970 at which it was installed. */
  readonly installed?: number;
  /**
   * The authorities that count in place of those of the configuration, since a bundle brought another one. `of` is the digest of
   * the configured ones then: when the operator configures others, those count. `old` is trusted until `until`, in seconds since
   * 1970.
   */
  readonly trust?: {
    readonly of: string;
    readonly certificate: string;
    readonly old: string;
    readonly until: number;
  };
}

/** The manifest of the program of a slot; undefined when it cannot be read. */
export function manifestOf(directory: string, slot: SlotName): SlotManifest | undefined {
  try {
    const file = join(programOf(directory, slot), '../manifest.json');
    return JSON.parse(readFileSync(file, 'utf8')) as SlotManifest;
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
    return readBundle(this.bundleFile, this.#trust()).manifest;
  }

  lists(): string {
    try {
      return readFileSync(join(this.#parts.directory, listsFile), 'utf8');
    } catch {
      return '';
    }
  }

  async revoke(list: string): Promise<void> {
    const { authorities, secondAuthorities } = this.#trust();
    this.#keepLists(withList(list, this.lists(), certificatesIn(authorities + secondAuthorities)));
  }

  #keepLists(pem: string): void {
    if (pem !== this.lists()) writeDurably(join(this.#parts.directory, listsFile), pem);
  }

  /**
   * Whom bundles are believed now. It cannot be before the running program was installed. A last healthy start is no such time: a
   * clock that was ahead once would refuse all signers for good.
   */
  #trust(): BundleTrust & { readonly authorities: string } {
    const { directory, authority, secondAuthority, clock } = this.#parts;
    const now = clock.wall();
    const { trust, installed: floor = 0 } = manifestOf(directory, this.current) ?? {};
    const authorities =
      trust?.of !== digestOf(Buffer.from(authority))
        ? authority
        : trust.certificate + (Math.max(now, floor) < trust.until * 1000 ? trust.old : '');
    return { authorities, secondAuthorities: secondAuthority, lists: this.lists(), now, floor };
  }

  /** What the manifest of a slot says after the installation of a bundle. */
  #manifestOf({ manifest, authority }: ReadBundle): SlotManifest {
    const { directory, authority: configured, clock } = this.#parts;
    const { trust, installed = 0 } = manifestOf(directory, this.current) ?? {};
    const { authority: next, ...facts } = manifest;
    return {
      ...facts,
      installed: Math.max(clock.wall(), installed),
      ...(next
        ? { trust: { of: digestOf(Buffer.from(configured)), old: authority.toString(), ...next } }
        : trust && { trust }),
    };
  }

  async install(): Promise<void> {
    const bundle = readBundle(this.bundleFile, this.#trust());
    const { authority } = bundle.manifest;
    if (authority && !certificatesIn(authority.certificate)[0]?.ca)
      throw new FumoRefusal(FumoResult.NotAcceptable, 'the new authority cannot certify signers');
    await checkProgram(this.bundleFile, bundle);
    this.#keepLists(bundle.lists.map(({ pem }) => pem).join('\n'));
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
      writeFileSync(join(fresh, 'manifest.json'), JSON.stringify(this.#manifestOf(bundle)));
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
