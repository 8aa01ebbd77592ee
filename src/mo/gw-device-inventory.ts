import { PosternError } from '../base/errors.ts';
import { hashedName } from '../base/hashed-name.ts';
import type { StoredBranch } from '../dm/stored-branch.ts';
import type { NewNode, NodeView, TreeBranch } from '../dm/tree-branch.ts';
import type { NodePath } from '../dm/uri.ts';
import { describe, interior, leaf, type ManagementObject, type NodeDescription } from '../wire/syncml/ddf.ts';
import type { TndsNode } from '../wire/syncml/tnds.ts';
import type { DeviceRecord, DeviceRecords, ExpectedDevice } from './device-record.ts';
import { serverCreated, serverWritten, zeroOrMore, zeroOrOne } from './occurrence-and-access.ts';
import { ownVocabulary, type Vocabulary } from './vocabulary.ts';

const record = {
  DeviceID: leaf('chr', ['Get'], 'Identifier of the End Device, its DevInfo/DevId'),
  ComponentType: leaf('int', ['Get'], '0: End Device, 1: child DM Gateway'),
  Mode: leaf('int', ['Get'], '0: transparent, 1: proxy, 2: adaptation'),
  State: leaf('chr', ['Get'], 'attached, or unreachable: attached, but it does not answer'),
  Reason: leaf('chr', ['Get'], 'Why it is unreachable, for a person', zeroOrOne),
  Bootstrap: leaf('chr', ['Get'], 'How its account came: local (8.4.2), server (8.4.1) or manual'),
  Protocol: leaf('chr', ['Get'], 'What it speaks: OMA-DM or LwM2M'),
  Address: leaf('chr', ['Get'], 'Where the device was heard last, as a URI', zeroOrOne),
  LastSeen: leaf('chr', ['Get'], 'When it last proved itself, by the gateway clock, as ISO 8601', zeroOrOne),
  DevTyp: leaf('chr', ['Get'], 'Device type, by its DevDetail', zeroOrOne),
  Man: leaf('chr', ['Get'], 'Manufacturer, by its DevInfo', zeroOrOne),
  Mod: leaf('chr', ['Get'], 'Model, by its DevInfo', zeroOrOne),
  FwV: leaf('chr', ['Get'], 'Firmware version, by its DevDetail', zeroOrOne),
  Objects: leaf('chr', ['Get'], 'Of an LwM2M client: its objects and instances, as paths', zeroOrOne),
  Gateway: leaf(
    'chr',
    ['Get'],
    'The child gateway that it is behind; none for what is attached here',
    zeroOrOne,
  ),
};

const expected = {
  DeviceID: leaf('chr', ['Get'], 'Identifier of the End Device that will come'),
  Address: leaf('chr', ['Get'], 'URI by which this device reaches the gateway, for its account'),
};

/** GwDeviceInventory: the End Devices of this gateway. `DeviceID` and `ComponentType` are GwMO's; the rest is proposed (docs/gwmo.md). */
export const gwDeviceInventory: ManagementObject = {
  id: ownVocabulary.objects.GwDeviceInventory,
  root: interior(['Get'], 'End Devices behind the gateway', {
    Records: interior(['Get'], 'Devices that attached', {
      '*': interior(
        ['Delete', 'Get'],
        'A device; to delete it is to detach the device. A DM server that may Exec here may have the gateway act on it',
        record,
        zeroOrMore,
      ),
    }),
    Groups: interior(['Get'], 'Groups that the server made', {
      '*': interior(
        serverCreated,
        'A group',
        {
          GroupID: leaf('chr', serverWritten, 'What campaigns call it by'),
          Name: leaf('chr', serverWritten, 'What people call it by', zeroOrOne),
          Members: interior(serverCreated, 'Its devices', {
            '*': interior(
              serverCreated,
              'A device',
              { DeviceID: leaf('chr', serverWritten, 'Its DevId') },
              zeroOrMore,
            ),
          }),
        },
        zeroOrMore,
      ),
    }),
    Expected: interior(
      ['Get'],
      'Devices that the server bootstraps to this gateway (8.4.1). Added as TNDS with DeviceID, ClientName, ClientSecret, ClientNonce, ServerSecret and ServerNonce; secrets are never read back',
      { '*': interior(['Add', 'Delete', 'Get'], 'A device', expected, zeroOrMore) },
    ),
  }),
};

export interface ExpectedDevices {
  /** Names of their nodes. */
  names(): readonly string[];
  named(name: string): ExpectedDevice | undefined;
  /** @throws {PosternError} `full`, `exists` */
  add(device: ExpectedDevice): void;
  remove(deviceId: string): void;
  /** URI of the gateway as this device sees it. */
  addressFor(deviceId: string): string;
}

/** What an Expected node's TNDS holds, for the server that writes it. */
export const expectedNodes = (device: ExpectedDevice): TndsNode => ({
  name: hashedName(device.deviceId),
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

export interface InventoryParts {
  readonly inventory: DeviceRecords;
  readonly expected: ExpectedDevices;
  /** Detaches a device, and answers with how to take that back. */
  readonly remove: (deviceId: string) => () => void;
  /** Groups, below the node `Groups` of the management object. */
  readonly groups: StoredBranch;
  readonly vocabulary: Vocabulary;
}

const isGroup = ([list]: NodePath): boolean => list === 'Groups';

/** The inventory as a branch of the gateway's tree: a view of the store, not a copy of it, and the groups beside it. */
export class InventoryBranch implements TreeBranch {
  readonly #parts: InventoryParts;
  /** How to take back what each open level of changes did. */
  readonly #undo: (() => void)[][] = [];

  constructor(parts: InventoryParts) {
    this.#parts = parts;
    if (!parts.groups.view(['Groups'])) parts.groups.plant(['Groups'], { name: 'Groups', format: 'node' });
  }

  view(path: NodePath): NodeView | undefined {
    if (isGroup(path)) return this.#parts.groups.view(path);
    const description = describe(gwDeviceInventory.root, path);
    if (!description) return undefined;
    const { access } = description;
    const [list, name, leafName] = path;
    const node = (children: readonly string[]): NodeView => ({ format: 'node', children, access });
    const { inventory, expected, vocabulary } = this.#parts;
    if (list === undefined)
      return { ...node(['Records', 'Groups', 'Expected']), type: vocabulary.objects.GwDeviceInventory };
    if (name === undefined) return node(list === 'Records' ? inventory.names() : expected.names());
    const leaves = list === 'Records' ? this.#recordLeaves(name) : this.#expectedLeaves(name);
    if (!leaves) return undefined;
    if (leafName === undefined) return node(Object.keys(leaves));
    const value = leaves[leafName];
    return value === undefined
      ? undefined
      : { format: description.format, type: 'text/plain', value, access };
  }

  potential(path: NodePath): NodeDescription | undefined {
    return path.length === 2 || isGroup(path) ? describe(gwDeviceInventory.root, path) : undefined;
  }

  begin(): void {
    this.#parts.groups.begin();
    this.#undo.push([]);
  }

  commit(): void {
    this.#parts.groups.commit();
    const level = this.#undo.pop() ?? [];
    this.#undo.at(-1)?.push(...level);
  }

  rollback(): void {
    this.#parts.groups.rollback();
    for (const takeBack of (this.#undo.pop() ?? []).toReversed()) takeBack();
  }

  /** @throws {PosternError} `unsupportedFormat`: half a credential is none, so all of it comes at once */
  add(path: NodePath, node: NewNode): void {
    if (!isGroup(path))
      throw new PosternError('unsupportedFormat', 'an expected device is added as a TNDS object');
    this.#parts.groups.add(path, node);
  }

  /** @throws {PosternError} `malformed`, `full`, `exists` */
  addSubtree(path: NodePath, root: TndsNode): void {
    if (isGroup(path)) {
      this.#parts.groups.plant(path, root);
      return;
    }
    const device = readExpected(root);
    if (path[1] !== hashedName(device.deviceId))
      throw new PosternError('malformed', `the node of this device is named ${hashedName(device.deviceId)}`);
    this.#parts.expected.add(device);
    this.#undo.at(-1)?.push(() => this.#parts.expected.remove(device.deviceId));
  }

  replace(path: NodePath, node: NewNode): void {
    this.#parts.groups.replace(path, node);
  }

  rename(path: NodePath, name: string): void {
    this.#parts.groups.rename(path, name);
  }

  retitle(path: NodePath, title: string): void {
    this.#parts.groups.retitle(path, title);
  }

  delete(path: NodePath): void {
    if (isGroup(path)) this.#parts.groups.delete(path);
    else if (path.length === 2 && path[0] === 'Records') this.#detach(path[1] ?? '');
    else if (path.length === 2) this.#unexpect(path[1] ?? '');
  }

  #detach(name: string): void {
    const device = this.#parts.inventory.named(name);
    if (!device) return;
    const takeBack = this.#parts.remove(device.deviceId);
    this.#undo.at(-1)?.push(takeBack);
  }

  #unexpect(name: string): void {
    const { expected } = this.#parts;
    const device = expected.named(name);
    if (!device) return;
    expected.remove(device.deviceId);
    this.#undo.at(-1)?.push(() => expected.add(device));
  }

  #recordLeaves(name: string): Record<string, string> | undefined {
    const { inventory, vocabulary } = this.#parts;
    const device = inventory.named(name);
    return device && recordLeaves(vocabulary, device);
  }

  #expectedLeaves(name: string): Record<string, string> | undefined {
    const { expected } = this.#parts;
    const device = expected.named(name);
    return device && { DeviceID: device.deviceId, Address: expected.addressFor(device.deviceId) };
  }
}

/** Devices of the group that is called by this ID; none when there is no such group. */
export function membersOf(groups: StoredBranch, groupId: string): readonly string[] | undefined {
  const node = groups.names(['Groups']).find((name) => groups.text('Groups', name, 'GroupID') === groupId);
  if (node === undefined) return undefined;
  const at = ['Groups', node, 'Members'];
  return groups.names(at).flatMap((name) => groups.text(...at, name, 'DeviceID') ?? []);
}

/** What the inventory says of a device, by the names of the leaves. */
export function recordLeaves(
  { modes, componentTypes }: Vocabulary,
  device: DeviceRecord,
): Record<string, string> {
  const { deviceId, mode, state, origin, address, lastSeen, manufacturer, model, firmware, via, objects } =
    device;
  return {
    DeviceID: deviceId,
    ComponentType: String(componentTypes[device.isGateway ? 1 : 0]),
    Mode: String(modes[mode]),
    State: state,
    ...(device.reason !== undefined && { Reason: device.reason }),
    Bootstrap: origin,
    Protocol: device.protocol,
    Address: address,
    LastSeen: new Date(lastSeen).toISOString(),
    ...(device.deviceType !== undefined && { DevTyp: device.deviceType }),
    ...(manufacturer !== undefined && { Man: manufacturer }),
    ...(model !== undefined && { Mod: model }),
    ...(firmware !== undefined && { FwV: firmware }),
    ...(objects !== undefined && { Objects: objects }),
    ...(via !== undefined && { Gateway: via }),
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
