import type { Clock } from '../base/clock.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { parseCoapUri } from '../coap/uri.ts';
import type { OutgoingAlert } from '../dm/client-session.ts';
import { DmError } from '../dm/dm-error.ts';
import { AlertCode, DmStatus } from '../dm/status.ts';
import { StoredBranch } from '../dm/stored-branch.ts';
import type { NewNode, NodeView, TreeBranch } from '../dm/tree.ts';
import { FumoResult, FumoState, fumo } from '../mo/fumo.ts';
import { FumoAlert } from '../mo/identifiers.ts';
import type { Nodes } from '../store/nodes.ts';
import type { TndsNode } from '../syncml/tnds.ts';

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

type Path = readonly string[];
type Operation = keyof typeof FumoAlert;

const initial: TndsNode = {
  name: 'FwUpdate',
  format: 'node',
  children: [
    { name: 'Download', format: 'node', children: [{ name: 'PkgURL', format: 'chr', value: '' }] },
    { name: 'Update', format: 'node' },
    { name: 'DownloadAndUpdate', format: 'node', children: [{ name: 'PkgURL', format: 'chr', value: '' }] },
    { name: 'State', format: 'int', value: String(FumoState.Idle) },
  ],
};

/** `./FwUpdate` (OMA FUMO 1.0): downloads over CoAP, pretends to flash, and reports by generic alert. */
export class Firmware implements TreeBranch {
  readonly #parts: FirmwareParts;
  readonly #stored: StoredBranch;
  #package: Uint8Array | undefined;
  #running: Promise<void> | undefined;

  constructor(parts: FirmwareParts) {
    this.#parts = parts;
    this.#stored = new StoredBranch('FwUpdate', fumo.root, parts.nodes, {
      type: fumo.id,
      clock: parts.clock,
    });
    for (const node of initial.children ?? [])
      if (!this.#stored.view([node.name])) this.#stored.plant([node.name], node);
    const isDone = this.#stored.text('State') === String(FumoState.DoneWithoutData);
    if (isDone) this.#runs(this.#stored.text('PkgVersion') ?? '');
  }

  /** Resolves when what was begun has ended. */
  get settled(): Promise<void> {
    return this.#running ?? Promise.resolve();
  }

  view(path: Path): NodeView | undefined {
    return this.#stored.view(path);
  }

  potential(path: Path) {
    return this.#stored.potential(path);
  }

  add(path: Path, node: NewNode): void {
    this.#stored.add(path, node);
  }

  replace(path: Path, node: NewNode): void {
    this.#stored.replace(path, node);
  }

  begin(): void {
    this.#stored.begin();
  }

  commit(): void {
    this.#stored.commit();
  }

  rollback(): void {
    this.#stored.rollback();
  }

  /** @throws {PosternError} `conflict` while another runs, `malformed` without a URL */
  exec([operation = '']: Path, _argument: NewNode, correlator: string | undefined, serverId: string): number {
    if (!isOperation(operation)) throw new DmError(DmStatus.CommandNotAllowed, `${operation} takes no Exec`);
    if (this.#running) throw new PosternError('conflict', 'an update is under way');
    const url = this.#stored.text(operation, 'PkgURL') ?? '';
    if (operation === 'Update' ? !this.#package : url === '')
      throw new PosternError('malformed', operation === 'Update' ? 'no package is there' : 'no PkgURL');
    this.#running = this.#run(operation, url, correlator, serverId).finally(() => {
      this.#running = undefined;
    });
    return DmStatus.AcceptedForProcessing;
  }

  async #run(
    operation: Operation,
    url: string,
    correlator: string | undefined,
    serverId: string,
  ): Promise<void> {
    const { events, deviceId, report } = this.#parts;
    let result: number = FumoResult.Ok;
    try {
      if (operation !== 'Update') await this.#download(url);
      if (operation !== 'Download') this.#install();
    } catch (thrown) {
      const { message, code } = asPosternError(thrown);
      result = code === 'malformed' ? FumoResult.BadUrl : FumoResult.ServerError;
      events.emit('warn', 'device.update-failed', { device: deviceId, result, reason: message });
    }
    const alert: OutgoingAlert = {
      code: AlertCode.Generic,
      ...(correlator !== undefined && { correlator }),
      items: [
        {
          source: { locUri: `./FwUpdate/${operation}` },
          meta: { type: FumoAlert[operation], format: 'int' },
          data: String(result),
        },
      ],
    };
    await report(serverId, alert).catch((thrown) =>
      events.emit('warn', 'device.report-failed', {
        device: deviceId,
        reason: asPosternError(thrown).message,
      }),
    );
  }

  async #download(url: string): Promise<void> {
    this.#setState(FumoState.Downloading);
    try {
      parseCoapUri(url);
      this.#package = await this.#parts.fetch(url);
    } catch (thrown) {
      this.#setState(FumoState.DownloadFailed);
      throw thrown;
    }
    this.#setState(FumoState.Downloaded);
    const { events, deviceId } = this.#parts;
    events.emit('info', 'device.downloaded', { device: deviceId, bytes: this.#package.length });
  }

  #install(): void {
    const { events, deviceId } = this.#parts;
    this.#setState(FumoState.Updating);
    const version = this.#stored.text('PkgVersion') ?? 'unknown';
    const bytes = this.#package?.length ?? 0;
    this.#package = undefined;
    this.#setState(FumoState.DoneWithoutData);
    this.#runs(version);
    events.emit('info', 'device.updated', { device: deviceId, version, bytes });
  }

  #runs(version: string): void {
    this.#parts.detail.plant(['FwV'], { name: 'FwV', format: 'chr', value: version });
  }

  #setState(state: number): void {
    this.#stored.plant(['State'], { name: 'State', format: 'int', value: String(state) });
  }
}

const isOperation = (name: string): name is Operation => Object.hasOwn(FumoAlert, name);
