import { dirname } from 'node:path';
import * as v from 'valibot';
import type { Clock } from '../base/clock.ts';
import type { DiskRoom } from '../base/disk-room.ts';
import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { makeFolder } from '../base/make-folder.ts';
import { dropCopies } from '../base/open-database.ts';
import { DmError } from '../dm/dm-error.ts';
import { DmStatus } from '../dm/status.ts';
import type { TreeBranch } from '../dm/tree-branch.ts';
import { FirmwareBranch } from '../mo/firmware-branch.ts';
import { FumoState } from '../mo/fumo.ts';
import { imageScheme } from '../mo/gw-image-inventory.ts';
import type { GatewayConfig } from './config.ts';
import type { LiveSettings } from './live-settings.ts';
import type { download } from './northbound/download.ts';
import type { Reports } from './northbound/reports.ts';
import type { Uplink } from './northbound/uplink.ts';
import type { Authorisation } from './rights/authorisation.ts';
import type { CoapNetwork } from './southbound/coap-network.ts';
import type { GatewayState } from './state.ts';
import { gatewaySchema } from './store/schema.ts';
import { BoardNetwork } from './update/board-network.ts';
import { type Diagnosis, diagnosticsBranch, readDiagnosis } from './update/diagnosis.ts';
import { DirectorySlots, slotVariable } from './update/directory-slots.ts';
import { BundleDownload } from './update/download-bundle.ts';
import { probeCoap } from './update/probe.ts';
import { RaucSlots } from './update/rauc-slots.ts';
import type { SlotDriver } from './update/slots.ts';
import { Updater, type UpdateStatus } from './update/updater.ts';
import { type Watchdog, watchdogsOf } from './update/watchdog.ts';

type Settings = NonNullable<GatewayConfig['update']>;

export interface GatewayFirmwareParts {
  readonly settings: Settings;
  readonly live: LiveSettings;
  readonly stateFile: string;
  readonly state: GatewayState;
  /** File of an image of the Image Inventory, when it is ready. */
  readonly imageFile: (name: string) => string | undefined;
  readonly authorisation: Pick<Authorisation, 'may'>;
  readonly disk: DiskRoom;
  readonly network: CoapNetwork;
  readonly uplink: Uplink;
  readonly reports: Reports;
  readonly restart?: () => void;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  readonly download: typeof download;
}

const installBody = v.strictObject({
  url: v.pipe(v.string(), v.regex(/^(file:\/|https?:\/\/|gw-image:)/), v.maxLength(2048)),
});

/** How the gateway itself is updated: its slots, `./FwUpdate`, the health gate and the watchdog. */
export class GatewayFirmware implements AsyncDisposable {
  readonly branch: FirmwareBranch;
  readonly diagnostics: TreeBranch;
  readonly #slots: SlotDriver;
  readonly #updater: Updater;
  readonly #watchdogs: readonly Watchdog[];
  readonly #boardNetwork: BoardNetwork | undefined;

  /** @throws {PosternError} `configuration` */
  constructor(parts: GatewayFirmwareParts) {
    const { settings, live, state, network, uplink, reports, clock, entropy, events } = parts;
    this.#slots = slotsOf(parts);
    makeFolder(dirname(this.#slots.bundleFile));
    this.diagnostics = diagnosticsBranch(() => this.diagnosis);
    this.branch = new FirmwareBranch({
      nodes: state.nodes,
      clock,
      runner: {
        admit: (order) => {
          const { url, server } = order;
          const image = url.startsWith(imageScheme) ? url.slice(imageScheme.length) : undefined;
          if (image !== undefined && !parts.authorisation.may(server, 'use-image', image))
            throw new DmError(DmStatus.PermissionDenied, `${server} may not use image ${image}`);
          this.#updater.admit(order);
        },
        record: (order) => this.#updater.record(order),
        launch: (order) => this.#updater.launch(order),
        cancel: () => this.#updater.cancel(),
        lists: () => this.#slots.lists(),
        revoke: async (list) => {
          if (this.branch.state === FumoState.Updating)
            throw new PosternError('conflict', 'an update is being installed');
          await this.#slots.revoke(list);
          events.emit('update.revocation-list', { lists: this.#slots.lists().split('BEGIN').length - 1 });
        },
      },
    });
    const bound = () => network.addresses.map(({ address }) => address);
    const probe = () => probeCoap(bound(), network.port, clock);
    // A cable that is pulled out is no reason to restart the board.
    const check = () => (network.isOffline ? undefined : probe());
    this.#updater = new Updater({
      slots: this.#slots,
      records: state.updates,
      branch: this.branch,
      bundle: new BundleDownload({
        file: this.#slots.bundleFile,
        disk: parts.disk,
        download: parts.download,
        get ca() {
          return live.current.updateCa;
        },
        imageFile: parts.imageFile,
        sources: this.#slots.sources,
        retryFor: settings['retry-for'] * 1000,
        clock,
        entropy,
        events,
      }),
      allowOlder: settings['allow-older'],
      window: settings.window,
      attempts: settings.attempts,
      healthDeadline: settings['health-deadline'] * 1000,
      probe,
      lost: (slot) =>
        reports.fault('slot', {
          kind: 'slot',
          reason: `${slot ? `slot ${slot}` : 'no slot'} is ${slot ? 'not ' : ''}healthy any more; ${this.version} runs`,
        }),
      isConnected: () => uplink.connected,
      isServed: () => bound().length > 0,
      devices: () => state.inventory.names(),
      ended: ({ server, operation, correlator }, result) => {
        if (server === undefined) return;
        reports.firmwareUpdate(server, {
          operation,
          ...(correlator !== undefined && { correlator }),
          result,
        });
      },
      settledWell: () => dropCopies(parts.stateFile, gatewaySchema),
      clock,
      entropy,
      events,
    });
    this.#boardNetwork =
      settings.slots === 'rauc' ? new BoardNetwork('/run/network-turn', reports, events) : undefined;
    this.#watchdogs = watchdogsOf(settings.watchdog, { check, clock, events });
  }

  get version(): string {
    return this.#slots.version;
  }

  get diagnosis(): Diagnosis {
    return readDiagnosis(this.#slots.diagnosis, JSON.stringify(this.status()));
  }

  start(): void {
    for (const watchdog of this.#watchdogs) watchdog.start();
    this.#updater.start();
  }

  /** The uplink is there. */
  connected(): void {
    this.#boardNetwork?.tell();
  }

  status(): UpdateStatus {
    return this.#updater.status();
  }

  /**
   * Somebody at the gateway wants a bundle installed.
   * @throws {PosternError} `malformed`, `conflict`
   */
  install(body: unknown): UpdateStatus {
    const checked = v.safeParse(installBody, body);
    if (!checked.success)
      throw new PosternError('malformed', 'a body such as {"url": "file:/path/of/the.bundle"} is wanted');
    const { url } = checked.output;
    this.#updater.begin({ operation: 'DownloadAndUpdate', url, correlator: undefined });
    return this.status();
  }

  /**
   * Somebody at the gateway cancels the update under way.
   * @throws {PosternError} `conflict`
   */
  cancel(): UpdateStatus {
    this.#updater.cancel()();
    return this.status();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await using stack = new AsyncDisposableStack();
    for (const watchdog of this.#watchdogs) stack.use(watchdog);
    stack.use(this.#updater);
  }
}

function slotsOf({ settings, live, disk, restart, clock }: GatewayFirmwareParts): SlotDriver {
  if (settings.slots === 'rauc')
    return new RaucSlots({
      agent: '/run/agent',
      partitions: '/dev/postern',
      diagnosis: '/run/diagnosis',
      bundleFile: '/data/update/bundle.raucb',
      lists: '/run/revoked.pem',
      release: '/etc/postern-release',
      kernelArguments: '/proc/cmdline',
      clock,
    });
  const current = process.env[slotVariable];
  if (current !== 'A' && current !== 'B')
    throw new PosternError(
      'configuration',
      'update.slots: "directory" needs `postern launch`, which starts the gateway from a slot',
    );
  return new DirectorySlots({
    directory: settings.directory,
    get authority() {
      return live.current.updateAuthority;
    },
    get secondAuthority() {
      return live.current.updateSecondAuthority;
    },
    clock,
    current,
    disk,
    restart: restart ?? (() => {}),
  });
}
