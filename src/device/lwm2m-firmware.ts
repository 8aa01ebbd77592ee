import { createHash } from 'node:crypto';
import { background } from '../base/background.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { FirmwareResource, FirmwareResult, FirmwareState, ObjectId } from '../wire/lwm2m/objects.ts';
import { type Path, pathText } from '../wire/lwm2m/path.ts';
import type { LwM2mObjects } from './lwm2m-objects.ts';

export interface LwM2mFirmwareParts {
  readonly device: string;
  readonly objects: LwM2mObjects;
  /** Downloads a package. */
  readonly download: (uri: string) => Promise<Uint8Array>;
  /** Called when new firmware was installed. */
  readonly installed: () => void;
  readonly events: Events;
}

const instance: Path = [ObjectId.Firmware, 0];

/** The object Firmware Update of the reference LwM2M client (LwM2M core 1.1, appendix E.6): it pulls packages over CoAP. */
export class LwM2mFirmware {
  readonly #parts: LwM2mFirmwareParts;
  /** The package that was downloaded. */
  #package: Uint8Array | undefined;
  #downloading: Promise<void> = Promise.resolve();

  constructor(parts: LwM2mFirmwareParts) {
    this.#parts = parts;
  }

  /** Resolves when no download is under way. */
  get settled(): Promise<void> {
    return this.#downloading;
  }

  /** Sets the initial object. */
  furnish(): void {
    const { objects } = this.#parts;
    objects.put(instance, {
      [FirmwareResource.PackageUri]: '',
      [FirmwareResource.State]: FirmwareState.Idle,
      [FirmwareResource.Result]: FirmwareResult.None,
      9: 0,
    });
    objects.onExecute([...instance, FirmwareResource.Update], () => this.#install());
  }

  /** To be called when a server has written a resource: a URI of a package is downloaded. */
  written(path: Path, value: unknown): void {
    const { events } = this.#parts;
    if (pathText(path) === pathText([...instance, FirmwareResource.PackageUri]))
      this.#downloading = background(events, 'device-firmware', () => this.#download(String(value ?? '')));
  }

  async #download(uri: string): Promise<void> {
    const { device, objects, download, events } = this.#parts;
    const state = (now: number, result: number) =>
      objects.put(instance, { [FirmwareResource.State]: now, [FirmwareResource.Result]: result });
    this.#package = undefined;
    // An empty URI cancels the update.
    if (uri === '') return state(FirmwareState.Idle, FirmwareResult.None);
    state(FirmwareState.Downloading, FirmwareResult.None);
    try {
      this.#package = await download(uri);
      state(FirmwareState.Downloaded, FirmwareResult.None);
      events.emit('device.downloaded', { device, bytes: this.#package.length });
    } catch (thrown) {
      const { code, message } = asPosternError(thrown);
      const isWrong = code === 'malformed' || code === 'notFound';
      state(FirmwareState.Idle, isWrong ? FirmwareResult.BadUri : FirmwareResult.ConnectionLost);
      events.emit('device.download-failed', { device, reason: message });
    }
  }

  /**
   * Pretends to install the package, and restarts.
   * @throws {PosternError} `notAllowed` without a package
   */
  #install(): void {
    const { device, objects, installed, events } = this.#parts;
    if (!this.#package) throw new PosternError('notAllowed', 'no package was downloaded');
    // A package does not tell its version, so the version is the beginning of its digest.
    const version = createHash('sha256').update(this.#package).digest('hex').slice(0, 12);
    this.#package = undefined;
    objects.put([ObjectId.Device, 0], { 3: version });
    objects.put(instance, {
      [FirmwareResource.PackageUri]: '',
      [FirmwareResource.State]: FirmwareState.Idle,
      [FirmwareResource.Result]: FirmwareResult.Success,
    });
    events.emit('device.updated', { device, version });
    installed();
  }
}
