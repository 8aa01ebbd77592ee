import type { Clock } from '../base/clock.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import type { OutgoingAlert } from '../dm/client-session.ts';
import type { StoredBranch } from '../dm/stored-branch.ts';
import type { Nodes } from '../dm/stored-nodes.ts';
import { FirmwareBranch, type FirmwareOrder, firmwareAlert } from '../mo/firmware-branch.ts';
import { FumoResult, FumoState } from '../mo/fumo.ts';
import { parseCoapUri } from '../wire/coap/uri.ts';

export interface FirmwareParts {
  readonly deviceId: string;
  readonly nodes: Nodes;
  /** Of the device, which says what it runs. */
  readonly detail: StoredBranch;
  readonly clock: Clock;
  readonly events: Events;
  /** Gets what is at a CoAP URI. */
  readonly fetch: (uri: string) => Promise<Uint8Array>;
  /** Tells the server that executed something what it came to. */
  readonly report: (serverId: string, alert: OutgoingAlert) => Promise<void>;
}

/** FUMO of the reference device: downloads over CoAP, pretends to flash, and reports by generic alert. */
export class Firmware {
  readonly branch: FirmwareBranch;
  readonly #parts: FirmwareParts;
  #package: Uint8Array | undefined;
  #running: Promise<void> | undefined;

  constructor(parts: FirmwareParts) {
    this.#parts = parts;
    const { nodes, clock } = parts;
    this.branch = new FirmwareBranch({ nodes, clock, begin: (order) => this.#begin(order) });
    if (this.branch.state === FumoState.DoneWithoutData) this.#runs(this.branch.packageVersion ?? '');
  }

  /** Resolves when what was begun has ended. */
  get settled(): Promise<void> {
    return this.#running ?? Promise.resolve();
  }

  #begin(order: FirmwareOrder): void {
    if (this.#running) throw new PosternError('conflict', 'an update is under way');
    if (order.operation === 'Update' && !this.#package)
      throw new PosternError('malformed', 'no package is there');
    this.#running = this.#run(order).finally(() => {
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
    const version = this.branch.packageVersion ?? 'unknown';
    const bytes = this.#package?.length ?? 0;
    this.#package = undefined;
    this.branch.state = FumoState.DoneWithoutData;
    this.#runs(version);
    events.emit('device.updated', { device: deviceId, version, bytes });
  }

  #runs(version: string): void {
    this.#parts.detail.plant(['FwV'], { name: 'FwV', format: 'chr', value: version });
  }
}
