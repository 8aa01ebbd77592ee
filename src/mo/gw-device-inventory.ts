import { createHash } from 'node:crypto';
import { PosternError } from '../base/errors.ts';
import type { NodeView, TreeBranch } from '../dm/tree.ts';
import type { ExpectedDevice } from '../store/credentials.ts';
import type { DeviceRecord, Inventory } from '../store/inventory.ts';
import { describe, interior, leaf, type ManagementObject, type NodeDescription } from '../syncml/ddf.ts';
import type { TndsNode } from '../syncml/tnds.ts';
import { MoId } from './identifiers.ts';

const many = { occurs: 'ZeroOrMore' } as const;
const maybe = { occurs: 'ZeroOrOne' } as const;

const record = {
  DeviceID: leaf('chr', ['Get'], 'Identifier of the End Device, its DevInfo/DevId'),
  ComponentType: leaf('int', ['Get'], '0: End Device, 1: child DM Gateway'),
  Mode: leaf('int', ['Get'], '0: transparent, 1: proxy, 2: adaptation'),
  State: leaf('chr', ['Get'], 'attached'),
  Bootstrap: leaf('chr', ['Get'], 'How its account came: local (8.4.2) or server (8.4.1)'),
  Address: leaf('chr', ['Get'], 'Where the device was heard last, as a URI', maybe),
  LastSeen: leaf('chr', ['Get'], 'When, by the gateway clock, as ISO 8601', maybe),
  Man: leaf('chr', ['Get'], 'Manufacturer, by its DevInfo', maybe),
  Mod: leaf('chr', ['Get'], 'Model, by its DevInfo', maybe),
  FwV: leaf('chr', ['Get'], 'Firmware version, by its DevDetail', maybe),
};

const expected = {
  DeviceID: leaf('chr', ['Get'], 'Identifier of the End Device that will come'),
  Address: leaf('chr', ['Get'], 'URI by which this device reaches the gateway, for its account'),
};

/** GwDeviceInventory: the End Devices of this gateway. `DeviceID` and `ComponentType` are GwMO's; the rest is proposed. */
export const gwDeviceInventory: ManagementObject = {
  id: MoId.GwDeviceInventory,
  root: interior(['Get'], 'End Devices behind the gateway', {
    Records: interior(['Get'], 'Devices that attached', {
      '*': interior(['Delete', 'Get'], 'A device; to delete it is to detach the device', record, many),
    }),
    Expected: interior(
      ['Get'],
      'Devices that the server bootstraps to this gateway (8.4.1). Added as TNDS with DeviceID, ClientName, ClientSecret, ClientNonce, ServerSecret and ServerNonce; secrets are never read back',
      { '*': interior(['Add', 'Delete', 'Get'], 'A device', expected, many) },
    ),
  }),
};

/** Name of a device's node: any identifier fits, and the server can compute it. */
export const recordName = (deviceId: string): string =>
  createHash('sha256').update(deviceId).digest('hex').slice(0, 16);

export interface ExpectedDevices {
  list(): readonly ExpectedDevice[];
  /** @throws {PosternError} `full`, `exists` */
  add(device: ExpectedDevice): void;
  remove(deviceId: string): void;
  /** URI of the gateway as this device sees it. */
  addressFor(deviceId: string): string;
}

/** What an Expected node's TNDS holds, for the server that writes it. */
export const expectedNodes = (device: ExpectedDevice): TndsNode => ({
  name: recordName(device.deviceId),
  format: 'node',
  children: [
    { name: 'DeviceID', format: 'chr', value: device.deviceId },
    { name: 'ClientName', format: 'chr', value: device.clientName },
    { name: 'ClientSecret', format: 'chr', value: device.clientSecret },
    { name: 'ClientNonce', format: 'bin', value: device.clientNonce },
    { name: 'ServerSecret', format: 'chr', value: device.serverSecret },
    { name: 'ServerNonce', format: 'bin', value: device.serverNonce },
  ],
});

/** The inventory as a branch of the gateway's tree: a view of the store, not a copy of it. */
export class InventoryBranch implements TreeBranch {
  readonly #inventory: Pick<Inventory, 'list'>;
  readonly #expected: ExpectedDevices;
  readonly #remove: (deviceId: string) => () => void;
  /** How to take back what each open level of changes did. */
  readonly #undo: (() => void)[][] = [];

  /** `remove` detaches a device, and answers with how to take that back. */
  constructor(
    inventory: Pick<Inventory, 'list'>,
    expectedDevices: ExpectedDevices,
    remove: (deviceId: string) => () => void,
  ) {
    this.#inventory = inventory;
    this.#remove = remove;
    this.#expected = expectedDevices;
  }

  view(path: readonly string[]): NodeView | undefined {
    const description = describe(gwDeviceInventory.root, path);
    if (!description) return undefined;
    const { access } = description;
    const [list, name, leafName] = path;
    const node = (children: readonly string[]): NodeView => ({ format: 'node', children, access });
    if (list === undefined) return { ...node(['Records', 'Expected']), type: MoId.GwDeviceInventory };
    if (name === undefined)
      return node(
        (list === 'Records' ? this.#inventory.list() : this.#expected.list()).map(({ deviceId }) =>
          recordName(deviceId),
        ),
      );
    const leaves = list === 'Records' ? this.#recordLeaves(name) : this.#expectedLeaves(name);
    if (!leaves) return undefined;
    if (leafName === undefined) return node(Object.keys(leaves));
    const value = leaves[leafName];
    return value === undefined
      ? undefined
      : { format: description.format, type: 'text/plain', value, access };
  }

  potential(path: readonly string[]): NodeDescription | undefined {
    return path.length === 2 ? describe(gwDeviceInventory.root, path) : undefined;
  }

  begin(): void {
    this.#undo.push([]);
  }

  commit(): void {
    const level = this.#undo.pop() ?? [];
    this.#undo.at(-1)?.push(...level);
  }

  rollback(): void {
    for (const takeBack of (this.#undo.pop() ?? []).toReversed()) takeBack();
  }

  /** @throws {PosternError} `unsupportedFormat`: half a credential is none, so all of it comes at once */
  add(): void {
    throw new PosternError('unsupportedFormat', 'an expected device is added as a TNDS object');
  }

  /** @throws {PosternError} `malformed`, `full`, `exists` */
  addSubtree(path: readonly string[], root: TndsNode): void {
    const device = readExpected(root);
    if (path[1] !== recordName(device.deviceId))
      throw new PosternError('malformed', `the node of this device is named ${recordName(device.deviceId)}`);
    this.#expected.add(device);
    this.#undo.at(-1)?.push(() => this.#expected.remove(device.deviceId));
  }

  delete(path: readonly string[]): void {
    if (path.length !== 2) return;
    if (path[0] === 'Records') this.#detach(path[1] ?? '');
    else this.#unexpect(path[1] ?? '');
  }

  #detach(name: string): void {
    const device = this.#inventory.list().find(({ deviceId }) => recordName(deviceId) === name);
    if (!device) return;
    const takeBack = this.#remove(device.deviceId);
    this.#undo.at(-1)?.push(takeBack);
  }

  #unexpect(name: string): void {
    const device = this.#expected.list().find(({ deviceId }) => recordName(deviceId) === name);
    if (!device) return;
    this.#expected.remove(device.deviceId);
    this.#undo.at(-1)?.push(() => this.#expected.add(device));
  }

  #recordLeaves(name: string): Record<string, string> | undefined {
    const device = this.#inventory.list().find(({ deviceId }) => recordName(deviceId) === name);
    return device && recordLeaves(device);
  }

  #expectedLeaves(name: string): Record<string, string> | undefined {
    const device = this.#expected.list().find(({ deviceId }) => recordName(deviceId) === name);
    return device && { DeviceID: device.deviceId, Address: this.#expected.addressFor(device.deviceId) };
  }
}

/** What the inventory says of a device, by the names of the leaves. */
export function recordLeaves(device: DeviceRecord): Record<string, string> {
  const { deviceId, mode, state, origin, address, lastSeen, manufacturer, model, firmware } = device;
  return {
    DeviceID: deviceId,
    ComponentType: '0',
    Mode: String(mode),
    State: state,
    Bootstrap: origin,
    Address: address,
    LastSeen: new Date(lastSeen).toISOString(),
    ...(manufacturer !== undefined && { Man: manufacturer }),
    ...(model !== undefined && { Mod: model }),
    ...(firmware !== undefined && { FwV: firmware }),
  };
}

function readExpected(root: TndsNode): ExpectedDevice {
  const value = (name: string): string | Uint8Array => {
    const found = root.children?.find((child) => child.name === name)?.value;
    if (found === undefined || found.length === 0)
      throw new PosternError('malformed', `an expected device has a ${name}`);
    return found;
  };
  return {
    deviceId: String(value('DeviceID')),
    clientName: String(value('ClientName')),
    clientSecret: String(value('ClientSecret')),
    clientNonce: Buffer.from(value('ClientNonce')),
    serverSecret: String(value('ServerSecret')),
    serverNonce: Buffer.from(value('ServerNonce')),
  };
}
