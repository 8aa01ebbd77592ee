import type { DatabaseSync } from 'node:sqlite';
import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { hashedName } from '../base/hashed-name.ts';
import type { Operation } from '../dm/server-session.ts';
import { AlertCode, DmStatus } from '../dm/status.ts';
import { StoredBranch } from '../dm/stored-branch.ts';
import type { Nodes } from '../dm/stored-nodes.ts';
import type { TreeBranch } from '../dm/tree-branch.ts';
import type { CampaignOrder } from '../mo/campaign.ts';
import { CampaignBranch } from '../mo/campaign-branch.ts';
import type { DeviceOutcome } from '../mo/campaign-result.ts';
import { type FanoutOrder, readFanout } from '../mo/fanout-order.ts';
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
import type { TargetChoice } from '../mo/targets.ts';
import { readTrigger, type TriggerOrder } from '../mo/trigger-order.ts';
import { type GatewayObject, nodeAt, type Vocabulary } from '../mo/vocabulary.ts';
import type { ManagementObject } from '../wire/syncml/ddf.ts';
import type { Alert } from '../wire/syncml/message.ts';
import { type AttemptOptions, Campaign, type CampaignParts } from './modes/campaign.ts';
import { fanOutTo, isRepeatable } from './modes/fan-out.ts';
import { ImageCache, type ImageCacheParts } from './modes/image-cache.ts';
import type { TransparentMode } from './modes/transparent.ts';
import { triggerOne } from './modes/trigger.ts';
import type { Manage } from './modes/waiting-work.ts';
import type { resultAlerts } from './northbound/dm-client.ts';
import { download } from './northbound/download.ts';
import { imagePath, versionPath } from './southbound/image-resource.ts';
import { Campaigns } from './store/campaigns.ts';
import { ImageFiles } from './store/image-files.ts';
import { Images } from './store/images.ts';
import type { Inventory } from './store/inventory.ts';

/** An Exec of a DM server that ended later than it was answered. */
export interface EndedOperation {
  readonly name: string;
  readonly server: string;
  readonly correlator: string | undefined;
}

export interface GatewayObjectsParts {
  readonly vocabulary: Vocabulary;
  readonly database: DatabaseSync;
  readonly nodes: Nodes;
  readonly inventory: Inventory;
  readonly expected: ExpectedDevices;
  readonly remove: (deviceId: string) => () => void;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  readonly images: Pick<ImageCacheParts, 'quota' | 'count' | 'ca' | 'signingKeys'> & {
    readonly directory: string | undefined;
  };
  /** Whether a DM server may execute the node at a path. */
  readonly permits: (path: readonly string[], server: string) => boolean;
  readonly manage: Manage;
  readonly deliver: TransparentMode['deliver'];
  /** URI of a path of this gateway, as a device sees it. */
  readonly uriFor: (deviceId: string, path: string) => string;
  /** Has a child gateway do a fan-out on devices of its own. */
  readonly delegate: (
    child: string,
    devices: readonly string[],
    order: FanoutOrder,
    options: AttemptOptions,
  ) => Promise<readonly DeviceOutcome[]>;
  readonly ended: (
    kind: keyof typeof resultAlerts,
    uri: string,
    operation: EndedOperation,
    result: string,
  ) => void;
}

/** Nodes of each object that names devices: three for each of 10,000, and room. */
const nodeLimit = 65_536;

/** The management objects of GwMO but for GwConfig, with what makes them do something. */
export class GatewayObjects implements AsyncDisposable {
  readonly branches: Readonly<Record<Exclude<GatewayObject, 'GwConfig'>, TreeBranch>>;
  readonly images: ImageCache;
  readonly #parts: GatewayObjectsParts;
  readonly #files: ImageFiles;
  readonly #fanOut: Campaign<FanoutOrder>;
  readonly #trigger: Campaign<TriggerOrder>;

  constructor(parts: GatewayObjectsParts) {
    this.#parts = parts;
    this.#files = new ImageFiles(parts.images.directory);
    const { vocabulary, inventory, expected, remove } = parts;
    const groups = this.#stored('GwDeviceInventory', gwDeviceInventory);
    const choice: TargetChoice = {
      records: () => inventory.values(),
      record: (deviceId) => inventory.get(deviceId),
      members: (groupId) => membersOf(groups, groupId),
      leaves: (record) => recordLeaves(vocabulary, record),
    };
    const imageNodes = this.#stored('GwImageInventory', gwImageInventory);
    this.images = this.#imageCache((name) => imageOrder(imageNodes, name));

    const fanoutNodes = this.#stored('GwFanout', gwFanout);
    const fanoutOrder = (name: string, server: string) => readFanout(fanoutNodes, name, server, choice);
    this.#fanOut = this.#campaign<FanoutOrder>('fanout', 'command-fanout', {
      order: fanoutOrder,
      isRepeatable,
      attempt: (device, order, options) =>
        fanOutTo(
          { manage: parts.manage, adapt: (id, operations) => this.#withImages(id, operations) },
          device,
          order,
          options,
        ),
      delegate: parts.delegate,
    });
    const triggerNodes = this.#stored('GwEdTrigger', gwEdTrigger);
    const triggerOrder = (name: string, server: string) => readTrigger(triggerNodes, name, server, choice);
    this.#trigger = this.#campaign<TriggerOrder>('trigger', 'device-trigger', {
      order: triggerOrder,
      // The same Package #0 twice is one session (OMA DM notification 1.2.1, section 6.2.2.10).
      isRepeatable: () => true,
      attempt: (device, order, options) => triggerOne(parts.deliver, device, order, options),
    });
    this.branches = {
      GwDeviceInventory: new InventoryBranch({ inventory, expected, remove, groups, vocabulary }),
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

  /** Goes on with what the end of the gateway broke off. */
  resume(): void {
    this.#fanOut.resume();
    this.#trigger.resume();
    this.images.resume();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await using stack = new AsyncDisposableStack();
    stack.use(this.#files);
    stack.use(this.images);
    stack.use(this.#trigger);
    stack.use(this.#fanOut);
  }

  /** A device proved itself just now. */
  heard(deviceId: string): void {
    this.#trigger.heard(deviceId);
  }

  /** An alert of a device that proved itself: that it ended what it accepted, as far as this is known here. Answers with its status. */
  alerted(deviceId: string, { data, items: [item], correlator }: Alert): number {
    const type = item?.meta?.type ?? '';
    if (data === AlertCode.Generic && firmwareAlerts.has(type))
      this.updated(deviceId, correlator, Number(item?.data) || DmStatus.CommandFailed);
    return DmStatus.Ok;
  }

  /** A device has ended what it accepted, with a result code of FUMO. */
  updated(deviceId: string, correlator: string | undefined, result: number): void {
    this.#fanOut.reported(deviceId, correlator, result);
  }

  #stored(name: GatewayObject, { root }: ManagementObject): StoredBranch {
    const { nodes, vocabulary, clock } = this.#parts;
    return new StoredBranch(name, root, nodes, {
      type: vocabulary.objects[name],
      clock,
      nodes: nodeLimit,
    });
  }

  #campaign<O extends CampaignOrder>(
    kind: 'fanout' | 'trigger',
    alert: keyof typeof resultAlerts,
    own: Pick<CampaignParts<O>, 'order' | 'isRepeatable' | 'attempt'> &
      Partial<Pick<CampaignParts<O>, 'delegate'>>,
  ): Campaign<O> {
    const { database, vocabulary, inventory, clock, events, permits, ended } = this.#parts;
    const records = nodeAt(vocabulary, 'GwDeviceInventory', 'Records').split('/').slice(1);
    const list = kind === 'fanout' ? ['GwFanout', 'Fanout'] : ['GwEdTrigger', 'Trigger'];
    const { delegate, ...rest } = own;
    return new Campaign<O>({
      kind,
      campaigns: new Campaigns(database, kind),
      clock,
      events,
      // The device sees the gateway alone, so the gateway asks whether this server may: a right at the device's record.
      mayReach: (server, device) => permits([...records, hashedName(device)], server),
      childOf: (device) => (delegate ? inventory.get(device)?.via?.split('/')[0] : undefined),
      delegate: delegate ?? (async () => []),
      ended: (run, result) => ended(alert, `${nodeAt(vocabulary, ...list)}/${run.name}`, run, result),
      ...rest,
    });
  }

  #imageCache(order: ImageCacheParts['order']): ImageCache {
    const { database, images, vocabulary, clock, entropy, events, ended } = this.#parts;
    const { directory: _, ...settings } = images;
    return new ImageCache({
      ...settings,
      images: new Images(database),
      files: this.#files,
      download,
      order,
      pathOf: imagePath,
      clock,
      entropy,
      events,
      ended: (operation, result) =>
        ended(
          'image-operation',
          `${nodeAt(vocabulary, 'GwImageInventory', 'Images')}/${operation.name}`,
          operation,
          `<ImageResult Code="${result}"/>`,
        ),
    });
  }

  /**
   * `gw-image:NAME` as a value becomes the URI from which this device gets that image.
   * @throws {PosternError} `notFound` when it is not ready
   */
  #withImages(deviceId: string, operations: readonly Operation[]): readonly Operation[] {
    return operations.map((operation): Operation => {
      if ('operations' in operation)
        return { ...operation, operations: this.#withImages(deviceId, operation.operations) };
      if (operation.name === 'Alert' || typeof operation.data !== 'string') return operation;
      if (!operation.data.startsWith(imageScheme)) return operation;
      const name = operation.data.slice(imageScheme.length);
      const image = this.images.ready(name);
      if (!image) throw new PosternError('notFound', `image ${name} is not ready`);
      return { ...operation, data: this.#parts.uriFor(deviceId, versionPath(name, image.hash)) };
    });
  }
}

const firmwareAlerts: ReadonlySet<string> = new Set(Object.values(FumoAlert));
