import type { Clock } from '../base/clock.ts';
import type { DiskRoom } from '../base/disk-room.ts';
import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { DmError } from '../dm/dm-error.ts';
import type { Operation } from '../dm/server-session.ts';
import { DmStatus } from '../dm/status.ts';
import { StoredBranch } from '../dm/stored-branch.ts';
import type { TreeBranch } from '../dm/tree-branch.ts';
import type { CampaignOrder } from '../mo/campaign.ts';
import { CampaignBranch } from '../mo/campaign-branch.ts';
import { type FanoutOrder, readFanout } from '../mo/fanout-order.ts';
import { isAlertOf } from '../mo/gateway-alerts.ts';
import { statusOfOtherAlert } from '../mo/generic-alerts.ts';
import {
  type ExpectedDevices,
  gwDeviceInventory,
  InventoryBranch,
  membersOf,
  recordLeaves,
} from '../mo/gw-device-inventory.ts';
import { gwEdTrigger } from '../mo/gw-ed-trigger.ts';
import { gwFanout } from '../mo/gw-fanout.ts';
import { gwImageInventory, imageScheme } from '../mo/gw-image-inventory.ts';
import { FumoAlert } from '../mo/identifiers.ts';
import { ImageBranch, imageOrder } from '../mo/image-branch.ts';
import { imageResultXml } from '../mo/image-result.ts';
import type { TargetChoice } from '../mo/targets.ts';
import { readTrigger, type TriggerOrder } from '../mo/trigger-order.ts';
import { type GatewayObject, nodeAt, type Vocabulary } from '../mo/vocabulary.ts';
import type { ManagementObject } from '../wire/syncml/ddf.ts';
import type { Alert } from '../wire/syncml/message.ts';
import type { DeviceListener } from './device-signals.ts';
import type { LiveSettings } from './live-settings.ts';
import { Campaign } from './modes/campaign.ts';
import type { CampaignParts } from './modes/campaign-parts.ts';
import type { Delegation } from './modes/delegation.ts';
import type { DeviceManagement } from './modes/device-management.ts';
import { fanOutTo, isRepeatable } from './modes/fan-out.ts';
import { ImageCache, type ImageCacheParts } from './modes/image-cache.ts';
import { triggerOne } from './modes/trigger.ts';
import type { download } from './northbound/download.ts';
import type { Reports, ResultKind } from './northbound/reports.ts';
import type { Authorisation } from './rights/authorisation.ts';
import { childIn } from './rights/child-scope.ts';
import type { Associations } from './southbound/associations.ts';
import type { DeviceLocator } from './southbound/device-locator.ts';
import { imagePath } from './southbound/image-resource.ts';
import type { ImageTickets } from './southbound/image-tickets.ts';
import { shownRecords } from './southbound/presence.ts';
import type { GatewayState } from './state.ts';
import { type CampaignKind, Campaigns } from './store/campaigns.ts';
import { ImageFiles } from './store/image-files.ts';
import { Images } from './store/images.ts';

export interface GatewayObjectsParts {
  readonly vocabulary: Vocabulary;
  readonly state: GatewayState;
  readonly expected: ExpectedDevices;
  readonly associations: Associations;
  readonly authorisation: Pick<Authorisation, 'may'>;
  readonly locator: DeviceLocator;
  readonly tickets: ImageTickets;
  readonly management: DeviceManagement;
  readonly delegation: Delegation;
  readonly reports: Reports;
  readonly images: Pick<ImageCacheParts, 'quota' | 'count'> & { readonly directory: string | undefined };
  readonly live: LiveSettings;
  readonly disk: DiskRoom;
  readonly download: typeof download;
  /** As in `ImageCacheParts`. */
  readonly brokeOff: (name: string, reason: string | undefined) => void;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Nodes of each object that names devices: three for each of 10,000, and room. */
export const nodeLimit = 65_536;

/** The management objects of GwMO except GwConfig, each with the part of the gateway that does what it orders. */
export class GatewayObjects implements AsyncDisposable, DeviceListener {
  readonly branches: Readonly<Record<Exclude<GatewayObject, 'GwConfig'>, TreeBranch>>;
  readonly images: ImageCache;
  /** Where the targets of the orders of a server are chosen from. */
  readonly choice: (server: string) => TargetChoice;
  readonly #parts: GatewayObjectsParts;
  readonly #files: ImageFiles;
  readonly #fanOut: Campaign<FanoutOrder>;
  readonly #trigger: Campaign<TriggerOrder>;

  constructor(parts: GatewayObjectsParts) {
    this.#parts = parts;
    this.#files = new ImageFiles(parts.images.directory);
    const { vocabulary, expected, associations, management, delegation, authorisation } = parts;
    const inventory = shownRecords(parts.state.inventory);
    const groups = this.#stored('GwDeviceInventory', gwDeviceInventory);
    const choice = (server: string): TargetChoice => ({
      records: () => inventory.values(),
      record: (deviceId) => inventory.get(deviceId),
      mayRead: ({ deviceId }) => authorisation.may(server, 'choose-device', deviceId),
      members: (groupId) =>
        membersOf(groups, groupId, (node) => authorisation.may(server, 'use-group', node)),
      leaves: (record) => recordLeaves(vocabulary, record),
    });
    this.choice = choice;
    const imageNodes = this.#stored('GwImageInventory', gwImageInventory);
    this.images = this.#imageCache((name) => imageOrder(imageNodes, name));

    const fanoutNodes = this.#stored('GwFanout', gwFanout);
    const fanoutOrder = (name: string, server: string) =>
      readFanout(fanoutNodes, name, server, choice(server));
    this.#fanOut = this.#campaign<FanoutOrder>('fanout', 'command-fanout', {
      order: fanoutOrder,
      isRepeatable,
      attempt: (device, order, options) =>
        fanOutTo(
          {
            manage: management.manage,
            adapt: (id, operations) => this.#withImages(id, operations, order.server),
          },
          device,
          order,
          options,
        ),
      delegate: (...args) => delegation.run(...args),
    });
    const triggerNodes = this.#stored('GwEdTrigger', gwEdTrigger);
    const triggerOrder = (name: string, server: string) =>
      readTrigger(triggerNodes, name, server, choice(server));
    this.#trigger = this.#campaign<TriggerOrder>('trigger', 'device-trigger', {
      order: triggerOrder,
      // The same Package #0 twice is one session (OMA DM notification 1.2.1, section 6.2.2.10).
      isRepeatable: () => true,
      attempt: (device, order, options) =>
        triggerOne((...args) => management.deliver(...args), device, order, options),
    });
    this.branches = {
      GwDeviceInventory: new InventoryBranch({
        inventory,
        expected,
        remove: (deviceId) => associations.remove(deviceId),
        groups,
        vocabulary,
      }),
      GwEdTrigger: new CampaignBranch(
        { stored: triggerNodes, description: gwEdTrigger.root, list: 'Trigger' },
        this.#trigger,
        triggerOrder,
      ),
      GwFanout: new CampaignBranch(
        { stored: fanoutNodes, description: gwFanout.root, list: 'Fanout' },
        this.#fanOut,
        fanoutOrder,
      ),
      GwImageInventory: new ImageBranch(imageNodes, this.images),
    };
  }

  /** Ends what servers started that have no account any more. */
  endOf(isGone: (server: string) => boolean): void {
    this.#fanOut.endOf(isGone);
    this.#trigger.endOf(isGone);
    this.images.endOf(isGone);
  }

  /** Devices that have accepted an order and have not reported what came of it. */
  get awaited(): readonly string[] {
    return this.#fanOut.awaited;
  }

  /** Continues what was under way when the gateway stopped. */
  resume(): void {
    this.#fanOut.resume();
    this.#trigger.resume();
    this.images.resume();
  }

  /** Stops campaigns and downloads. They continue after the next start. Images are still served. */
  async stop(): Promise<void> {
    await using stack = new AsyncDisposableStack();
    stack.use(this.images);
    stack.use(this.#trigger);
    stack.use(this.#fanOut);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    this.#files[Symbol.dispose]();
  }

  /** Package #0 goes at once to a device that was asleep. */
  heard(deviceId: string): void {
    this.#trigger.heard(deviceId);
  }

  /** Takes an alert of a device that proved itself. Alerts of FUMO end what the device had accepted. Returns the alert's status. */
  alerted(deviceId: string, alert: Alert): number {
    if (!Object.values(FumoAlert).some((type) => isAlertOf(alert, type))) return statusOfOtherAlert(alert);
    const result = Number(alert.items[0]?.data) || DmStatus.CommandFailed;
    this.updateEnded(deviceId, alert.correlator, result);
    return DmStatus.Ok;
  }

  /** As `Campaign.reported`. */
  updateEnded(deviceId: string, correlator: string | undefined, result: number): void {
    this.#fanOut.reported(deviceId, correlator, result);
  }

  #stored(name: GatewayObject, { root }: ManagementObject): StoredBranch {
    const { state, vocabulary, clock } = this.#parts;
    return new StoredBranch(name, root, state.nodes, {
      type: vocabulary.objects[name],
      clock,
      nodes: nodeLimit,
    });
  }

  #campaign<O extends CampaignOrder>(
    kind: CampaignKind,
    alert: ResultKind,
    own: Pick<CampaignParts<O>, 'order' | 'isRepeatable' | 'attempt'> &
      Partial<Pick<CampaignParts<O>, 'delegate'>>,
  ): Campaign<O> {
    const { state, vocabulary, authorisation, reports, clock, events } = this.#parts;
    const { database, inventory } = state;
    const list = kind === 'fanout' ? ['GwFanout', 'Fanout'] : ['GwEdTrigger', 'Trigger'];
    const { delegate, ...rest } = own;
    return new Campaign<O>({
      kind,
      campaigns: new Campaigns(database, kind),
      clock,
      events,
      // The device sees the gateway alone, so the gateway asks whether this server may.
      mayActOn: (server, device) => authorisation.may(server, 'manage-device', device),
      childOf: (device) => (delegate ? childIn(inventory.get(device)) : undefined),
      delegate: delegate ?? (async () => []),
      ended: (run, result) =>
        reports.result(alert, `${nodeAt(vocabulary, ...list)}/${run.name}`, run, result),
      ...rest,
    });
  }

  #imageCache(order: ImageCacheParts['order']): ImageCache {
    const { state, images, live, disk, download, brokeOff, vocabulary, reports, clock, entropy, events } =
      this.#parts;
    const { quota, count } = images;
    return new ImageCache({
      quota,
      count,
      get ca() {
        return live.current.imageCa;
      },
      get signingKeys() {
        return live.current.signingKeys;
      },
      images: new Images(state.database),
      files: this.#files,
      disk,
      download,
      brokeOff,
      order,
      pathOf: imagePath,
      clock,
      entropy,
      events,
      ended: (operation, { result, reason }) =>
        reports.result(
          'image-operation',
          `${nodeAt(vocabulary, 'GwImageInventory', 'Images')}/${operation.name}`,
          operation,
          imageResultXml(result, reason),
        ),
    });
  }

  /**
   * `gw-image:NAME` as a value becomes the URI from which this device gets that image.
   * @throws {PosternError} `notFound` when it is not ready
   * @throws {DmError} 425 when the server may not use it
   */
  #withImages(deviceId: string, operations: readonly Operation[], server: string): readonly Operation[] {
    return operations.map((operation): Operation => {
      if ('operations' in operation)
        return { ...operation, operations: this.#withImages(deviceId, operation.operations, server) };
      if (operation.name === 'Alert' || typeof operation.data !== 'string') return operation;
      if (!operation.data.startsWith(imageScheme)) return operation;
      const name = operation.data.slice(imageScheme.length);
      if (!this.#parts.authorisation.may(server, 'use-image', name))
        throw new DmError(DmStatus.PermissionDenied, `${server} may not use image ${name}`);
      const image = this.images.ready(name);
      if (!image) throw new PosternError('notFound', `image ${name} is not ready`);
      const { locator, tickets } = this.#parts;
      return {
        ...operation,
        data: locator.imageUriFor(deviceId, tickets.pathFor(deviceId, name, image.hash)),
      };
    });
  }
}
