import { background } from '../base/background.ts';
import type { Clock } from '../base/clock.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import type { OutgoingAlert } from '../dm/client-session.ts';
import type { StoredBranch } from '../dm/stored-branch.ts';
import type { Nodes } from '../dm/stored-nodes.ts';
import { FirmwareBranch, type FirmwareOrder, firmwareAlert } from '../mo/firmware-branch.ts';
import { FumoResult, FumoState } from '../mo/fumo.ts';
import { parseCoapUri } from '../wire/coap/uri.ts';

/** What `Firmware` needs from the device. */
export interface FirmwareParts {
  readonly deviceId: string;
  readonly nodes: Nodes;
  /** Branch DevDetail, whose FwV is the version of the running firmware. */
  readonly detail: StoredBranch;
  readonly clock: Clock;
  readonly events: Events;
  /** Downloads from a coap URI. */
  readonly fetch: (uri: string) => Promise<Uint8Array>;
  /** Reports the result of an operation to the server that executed it. */
  readonly report: (serverId: string, alert: OutgoingAlert) => Promise<void>;
}

/** Node of the version of the running firmware. It is stored when a version is installed. */
const versionNode = 'DevDetail/FwV';

/**
 * Firmware update of the reference device (FUMO). It downloads over CoAP, only pretends to install, and reports the
 * result by a generic alert.
 */
export class Firmware {
  readonly branch: FirmwareBranch;
  readonly #parts: FirmwareParts;
  #package: Uint8Array | undefined;
  #running: Promise<void> | undefined;

  constructor(parts: FirmwareParts) {
    this.#parts = parts;
    const { nodes, clock } = parts;
    this.branch = new FirmwareBranch({
      nodes,
      clock,
      runner: {
        admit: (order) => this.#admit(order),
        // A package that is downloaded does not outlive the program, and so no operation does.
        record: () => {},
        launch: (order) => this.#launch(order),
      },
    });
    const installed = [...nodes.load('DevDetail')].find(({ path }) => path === versionNode)?.value;
    if (installed !== undefined) this.#showVersion(String(installed));
    // Version 0.1.0 did not store it.
    else if (this.branch.state === FumoState.DoneWithoutData) this.#showVersion(this.#packageVersion);
  }

  /** Resolves when no operation is running, its report included. */
  get settled(): Promise<void> {
    return this.#running ?? Promise.resolve();
  }

  #admit({ operation }: FirmwareOrder): void {
    if (this.#running) throw new PosternError('conflict', 'another operation is running');
    if (operation === 'Update' && !this.#package)
      throw new PosternError('malformed', 'no package was downloaded');
  }

  #launch(order: FirmwareOrder): void {
    const { events } = this.#parts;
    this.#running = background(events, 'device-firmware', () => this.#run(order)).then(() => {
      this.#running = undefined;
    });
  }

  async #run({ operation, url, correlator, server }: FirmwareOrder): Promise<void> {
    const { events, deviceId, report } = this.#parts;
    let result: number = FumoResult.Ok;
    try {
      if (operation !== 'Update') await this.#download(url);
      if (operation !== 'Download') this.#install();
    } catch (thrown) {
      const { message, code } = asPosternError(thrown);
      result = code === 'malformed' ? FumoResult.BadUrl : FumoResult.ServerError;
      events.emit('device.update-failed', { device: deviceId, result, reason: message });
    }
    await report(server, firmwareAlert(operation, correlator, result)).catch((thrown) =>
      events.emit('device.report-failed', {
        device: deviceId,
        reason: asPosternError(thrown).message,
      }),
    );
  }

  async #download(url: string): Promise<void> {
    this.branch.state = FumoState.Downloading;
    try {
      parseCoapUri(url);
      this.#package = await this.#parts.fetch(url);
    } catch (thrown) {
      this.branch.state = FumoState.DownloadFailed;
      throw thrown;
    }
    this.branch.state = FumoState.Downloaded;
    const { events, deviceId } = this.#parts;
    events.emit('device.downloaded', { device: deviceId, bytes: this.#package.length });
  }

  #install(): void {
    const { events, deviceId } = this.#parts;
    this.branch.state = FumoState.Updating;
    const version = this.#packageVersion;
    const bytes = this.#package?.length ?? 0;
    this.#parts.nodes.apply({ put: [{ path: versionNode, format: 'chr', value: version }] }, () => {});
    this.#showVersion(version);
    this.branch.state = FumoState.DoneWithoutData;
    this.#package = undefined;
    events.emit('device.updated', { device: deviceId, version, bytes });
  }

  /** Servers need not say the version of a package. */
  get #packageVersion(): string {
    return this.branch.packageVersion ?? 'unknown';
  }

  #showVersion(version: string): void {
    this.#parts.detail.plant(['FwV'], { name: 'FwV', format: 'chr', value: version });
  }
}
