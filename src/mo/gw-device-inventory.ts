import { PosternError } from '../base/errors.ts';
import { hashedName } from '../base/hashed-name.ts';
import type { StoredBranch } from '../dm/stored-branch.ts';
import type { NewNode, NodeView, TreeBranch } from '../dm/tree-branch.ts';
import { UndoableMap } from '../dm/undoable-map.ts';
import type { NodePath } from '../dm/uri.ts';
import { objectNamesIn } from '../wire/lwm2m/objects.ts';
import { deviceIdRule, isDeviceId } from '../wire/resources.ts';
import { isIssuedIdentity } from '../wire/secure/transport-keys.ts';
import { describe, interior, leaf, type ManagementObject, type NodeDescription } from '../wire/syncml/ddf.ts';
import type { TndsNode } from '../wire/syncml/tnds.ts';
import type { DeviceRecord, DeviceRecords, ExpectedDevice } from './device-record.ts';
import { serverCreated, serverWritten, zeroOrMore, zeroOrOne } from './occurrence-and-access.ts';
import { ownVocabulary, type Vocabulary } from './vocabulary.ts';

/** Leaves of a record. */
const record = {
  DeviceID: leaf('chr', ['Get'], 'Identifier of the End Device, its DevInfo/DevId'),
  ComponentType: leaf('int', ['Get'], '0: End Device, 1: child DM Gateway'),
  Mode: leaf('int', ['Get'], '0: transparent, 1: proxy, 2: adaptation'),
  State: leaf('chr', ['Get'], 'attached, or unreachable: attached, but it does not answer'),
  Reason: leaf('chr', ['Get'], 'Why the device is unreachable, for a person', zeroOrOne),
  Bootstrap: leaf(
    'chr',
    ['Get'],
    'How the device got its account: local (8.4.2), server (8.4.1), manual, or joined: its key was trusted at its first use',
  ),
  Protocol: leaf('chr', ['Get'], 'Protocol of the device: OMA-DM or LwM2M'),
  Address: leaf('chr', ['Get'], 'Address from which the device was last heard, as a URI', zeroOrOne),
  LastSeen: leaf(
    'chr',
    ['Get'],
    'When the device last proved itself by a message, by the gateway clock, as ISO 8601',
    zeroOrOne,
  ),
  DevTyp: leaf('chr', ['Get'], 'Device type, by its DevDetail', zeroOrOne),
  Man: leaf('chr', ['Get'], 'Manufacturer, by its DevInfo', zeroOrOne),
  Mod: leaf('chr', ['Get'], 'Model, by its DevInfo', zeroOrOne),
  FwV: leaf('chr', ['Get'], 'Firmware version, by its DevDetail', zeroOrOne),
  Objects: leaf('chr', ['Get'], 'Objects and instances of an LwM2M client, as paths', zeroOrOne),
  ObjectNames: leaf(
    'chr',
    ['Get'],
    'IDs and names of these objects, of those in the public registry, such as 3 Device, 3303 Temperature',
    zeroOrOne,
  ),
  Gateway: leaf(
    'chr',
    ['Get'],
    'Child gateways that the device is behind, the nearest first. Absent for a device attached here',
    zeroOrOne,
  ),
};

/** Leaves of an expected device that can be read. */
const expected = {
  DeviceID: leaf('chr', ['Get'], 'Identifier of the expected End Device'),
  Address: leaf('chr', ['Get'], 'URI by which this device reaches the gateway, for its account'),
};

/**
 * GwDeviceInventory: the End Devices of this gateway. GwMO defines `DeviceID` and `ComponentType`; the other nodes are
 * proposed (docs/gwmo.md).
 */
export const gwDeviceInventory: ManagementObject = {
  id: ownVocabulary.objects.GwDeviceInventory,
  root: interior(['Get'], 'End Devices behind the gateway', {
    Records: interior(['Get'], 'Attached devices', {
      '*': interior(
        ['Delete', 'Get'],
        'A device. Deleting it detaches the device. A DM server with the right to Exec here may have the gateway act on the device',
        record,
        zeroOrMore,
      ),
    }),
    Groups: interior(['Get'], 'Groups that the DM server created', {
      '*': interior(
        serverCreated,
        'A group',
        {
          GroupID: leaf('chr', serverWritten, 'Identifier, by which campaigns refer to the group'),
          Name: leaf('chr', serverWritten, 'Display name', zeroOrOne),
          Members: interior(serverCreated, 'Devices of the group', {
            '*': interior(
              serverCreated,
              'A device',
              { DeviceID: leaf('chr', serverWritten, 'DevId of the device') },
              zeroOrMore,
            ),
          }),
        },
        zeroOrMore,
      ),
    }),
    Expected: interior(
      ['Get'],
      'Devices that the server bootstraps to this gateway (8.4.1). Added as TNDS with DeviceID, ClientName, ClientSecret, ClientNonce, ServerSecret and ServerNonce, and with TransportName and TransportSecret for a device that uses DTLS or OSCORE. Secrets cannot be read',
      { '*': interior(['Add', 'Delete', 'Get'], 'A device', expected, zeroOrMore) },
    ),
  }),
};

/** The devices that DM servers bootstrap to this gateway. */
export interface ExpectedDevices {
  /** Names of the devices' nodes. */
  names(): readonly string[];
  /** The device whose node has this name. */
  named(name: string): ExpectedDevice | undefined;
  /** @throws {PosternError} `full` when no more can be expected */
  demandRoom(): void;
  /** Adds a device, as part of the transaction under way. */
  add(device: ExpectedDevice): void;
  /** Removes a device, as part of the transaction under way. */
  remove(deviceId: string): void;
  /** URI by which this device reaches the gateway. */
  addressFor(device: ExpectedDevice): string;
}

/** The object that a server adds below `Expected` for a device. */
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
    ...(device.transport
      ? [
          { name: 'TransportName', format: 'chr' as const, value: device.transport.identity },
          { name: 'TransportSecret', format: 'chr' as const, value: device.transport.key },
        ]
      : []),
  ],
});

/** What the inventory branch is made of. */
export interface InventoryParts {
  readonly inventory: DeviceRecords;
  readonly expected: ExpectedDevices;
  /** Detaches a device, as part of the transaction under way. */
  readonly remove: (deviceId: string) => void;
  /** Groups, below the node `Groups` of the management object. */
  readonly groups: StoredBranch;
  readonly vocabulary: Vocabulary;
}

const isGroup = ([list]: NodePath): boolean => list === 'Groups';

/**
 * The inventory as a branch of the gateway's tree: a live view of the records, not a copy, with the stored groups
 * beside it.
 */
export class InventoryBranch implements TreeBranch {
  readonly #parts: InventoryParts;
  /**
   * Changes to the lists that are not stored yet, by list and name of the node: the device that is expected there, or that
   * the node is deleted.
   */
  readonly #changes = new UndoableMap<ExpectedDevice | 'deleted'>();

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
    if (name === undefined)
      return node(this.#namesNow(list, list === 'Records' ? inventory.names() : expected.names()));
    const leaves = list === 'Records' ? this.#recordLeaves(name) : this.#expectedLeaves(name);
    if (!leaves) return undefined;
    if (leafName === undefined) return node(Object.keys(leaves));
    const value = leaves[leafName];
    return value === undefined
      ? undefined
      : { format: description.format, type: 'text/plain', value, access };
  }

  /** Names of a list's nodes, with the changes that are not stored yet. */
  #namesNow(list: string, stored: readonly string[]): string[] {
    const names = new Set(stored);
    for (const key of this.#changes.keys()) {
      if (!key.startsWith(`${list}/`)) continue;
      const name = key.slice(list.length + 1);
      if (this.#changes.get(key) === 'deleted') names.delete(name);
      else names.add(name);
    }
    return [...names];
  }

  potential(path: NodePath): NodeDescription | undefined {
    return path.length === 2 || isGroup(path) ? describe(gwDeviceInventory.root, path) : undefined;
  }

  begin(): void {
    this.#parts.groups.begin();
    this.#changes.begin();
  }

  commit(): void {
    try {
      this.#parts.groups.commit();
    } catch (thrown) {
      this.#changes.rollback();
      throw thrown;
    }
    this.#closeLevel();
  }

  rollback(): void {
    this.#parts.groups.rollback();
    this.#changes.rollback();
  }

  /**
   * @throws {PosternError} `unsupportedFormat` for an expected device: it is added in one step, with all its
   * credentials
   */
  add(path: NodePath, node: NewNode): void {
    if (!isGroup(path))
      throw new PosternError('unsupportedFormat', 'an expected device is added as a TNDS object');
    this.#parts.groups.add(path, node);
  }

  /**
   * Adds a group or an expected device.
   * @throws {PosternError} `malformed`, `full`, `exists`
   */
  addSubtree(path: NodePath, root: TndsNode): void {
    if (isGroup(path)) {
      this.#parts.groups.plant(path, root);
      return;
    }
    const device = readExpected(root);
    if (path[1] !== hashedName(device.deviceId))
      throw new PosternError(
        'malformed',
        `the node of this device must be named ${hashedName(device.deviceId)}`,
      );
    this.#parts.expected.demandRoom();
    this.#change(path, device);
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
    else if (path.length === 2) this.#change(path, 'deleted');
  }

  #change([list, name]: NodePath, change: ExpectedDevice | 'deleted'): void {
    this.#changes.begin();
    this.#changes.set(`${list}/${name}`, change);
    this.#closeLevel();
  }

  /** Stores the changes of the outermost level. Those of another are added to the level around it. */
  #closeLevel(): void {
    const { keys } = this.#changes.commit();
    const changes = keys.map((key) => [key, this.#changes.get(key)] as const);
    // What is stored is seen in the store. If it cannot be stored, it did not happen.
    for (const key of keys) this.#changes.set(key, undefined);
    for (const [key, change] of changes) {
      const [list, name = ''] = key.split('/');
      this.#store(list, name, change);
    }
  }

  #store(list: string | undefined, name: string, change: ExpectedDevice | 'deleted' | undefined): void {
    const { inventory, expected, remove } = this.#parts;
    if (list === 'Records') {
      const device = inventory.named(name);
      if (device) remove(device.deviceId);
      return;
    }
    const before = expected.named(name);
    if (before) expected.remove(before.deviceId);
    if (change !== undefined && change !== 'deleted') expected.add(change);
  }

  #recordLeaves(name: string): Record<string, string> | undefined {
    const { inventory, vocabulary } = this.#parts;
    const device = this.#changes.get(`Records/${name}`) ? undefined : inventory.named(name);
    return device && recordLeaves(vocabulary, device);
  }

  #expectedLeaves(name: string): Record<string, string> | undefined {
    const { expected } = this.#parts;
    const change = this.#changes.get(`Expected/${name}`);
    const device = change === 'deleted' ? undefined : (change ?? expected.named(name));
    return device && { DeviceID: device.deviceId, Address: expected.addressFor(device) };
  }
}

/**
 * DevIds of the members of the group with this GroupID. Undefined when there is no such group.
 * @param mayUse whether a group counts, by the name of its node
 */
export function membersOf(
  groups: StoredBranch,
  groupId: string,
  mayUse: (node: string) => boolean,
): readonly string[] | undefined {
  const node = groups
    .names(['Groups'])
    .find((name) => groups.text('Groups', name, 'GroupID') === groupId && mayUse(name));
  if (node === undefined) return undefined;
  const at = ['Groups', node, 'Members'];
  return groups.names(at).flatMap((name) => groups.text(...at, name, 'DeviceID') ?? []);
}

const namesOf = (objects: string): string =>
  Object.entries(objectNamesIn(objects))
    .map((entry) => entry.join(' '))
    .join(', ');

/** Values of the leaves of a device's record, by name. */
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
    ...(objects !== undefined && { Objects: objects, ObjectNames: namesOf(objects) }),
    ...(via !== undefined && { Gateway: via }),
  };
}

/** @throws {PosternError} `malformed` when a leaf is missing or empty */
function readExpected(root: TndsNode): ExpectedDevice {
  const value = (name: string): string | Uint8Array => {
    const found = root.children?.find((child) => child.name === name)?.value;
    if (found === undefined || found.length === 0)
      throw new PosternError('malformed', `an expected device must have a ${name}`);
    return found;
  };
  const deviceId = String(value('DeviceID'));
  if (!isDeviceId(deviceId)) throw new PosternError('malformed', deviceIdRule);
  return {
    deviceId,
    clientName: String(value('ClientName')),
    clientSecret: String(value('ClientSecret')),
    clientNonce: Buffer.from(value('ClientNonce')),
    serverSecret: String(value('ServerSecret')),
    serverNonce: Buffer.from(value('ServerNonce')),
    ...readTransport(root),
  };
}

/** @throws {PosternError} `malformed` when there is one of the two leaves only, or the identity is not allowed */
function readTransport(root: TndsNode): Pick<ExpectedDevice, 'transport'> {
  const textAt = (name: string) => root.children?.find((child) => child.name === name)?.value;
  const [identity, key] = [textAt('TransportName'), textAt('TransportSecret')].map((value) =>
    value === undefined ? '' : String(value),
  );
  if (!identity && !key) return {};
  if (!identity || !key || !isIssuedIdentity(identity))
    throw new PosternError(
      'malformed',
      'TransportName is printable ASCII of at most 128 characters, does not begin with factory:, and has a TransportSecret',
    );
  return { transport: { identity, key } };
}
