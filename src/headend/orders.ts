import { createHash } from 'node:crypto';
import { hashedName } from '../base/hashed-name.ts';
import { numbered } from '../dm/outgoing.ts';
import { commandOf, type NodeOperation, type Operation } from '../dm/server-session.ts';
import { nodeAt, renamed, type Vocabulary } from '../mo/vocabulary.ts';
import { encodeMessage, MediaType } from '../wire/syncml/codec.ts';
import type { Command } from '../wire/syncml/message.ts';

/**
 * The devices of a campaign: those of the list and of the group together, narrowed down by the conditions of `where`.
 * Without list and group, all attached End Devices that meet the conditions (docs/gwmo.md).
 */
export interface Targets {
  /** DevIds. */
  readonly devices?: readonly string[] | undefined;
  /** ID of a group in the gateway's inventory. */
  readonly group?: string | undefined;
  /** Values that leaves of the device's inventory record must have, by the leaf's name. */
  readonly where?: Readonly<Record<string, string>> | undefined;
}

/** What fan-outs and triggers have in common. */
export interface CampaignRequest {
  /** Name of the campaign's node on the gateway. */
  readonly name: string;
  readonly targets: Targets;
  /** Form of the result: a `ReturnFormat`, 0 to 3. The gateway's default is 3. */
  readonly returnFormat?: number | undefined;
  /** Seconds after which the gateway ends the campaign. The gateway's default is 3600. */
  readonly deadline?: number | undefined;
}

/** Commands that a gateway sends to many devices (Command Fan-out). */
export interface FanoutRequest extends CampaignRequest {
  /** XML: the commands as they stand in SyncBody, see `commandXml`. */
  readonly command: string;
  /** Seconds that a device may take to open a session. */
  readonly timeout?: number | undefined;
}

/** Notifications that a gateway delivers to many devices (Device Trigger). */
export interface TriggerRequest extends CampaignRequest {
  /** Package #0 by DevId. */
  readonly notifications: ReadonlyMap<string, Uint8Array>;
}

/** An image for a gateway's Image Inventory. It has either `url` or `data`. */
export interface ImageRequest {
  /** Name of the image's node on the gateway. */
  readonly name: string;
  readonly version?: string | undefined;
  /** HTTP or HTTPS URL from which the gateway downloads the image. */
  readonly url?: string | undefined;
  /** The image itself. */
  readonly data?: Uint8Array | undefined;
  /** SHA-256 in hexadecimal. Computed from `data` when absent. */
  readonly hash?: string | undefined;
  /** Base64 of a signature over the 32 octets of the SHA-256. */
  readonly signature?: string | undefined;
  /** Whether the gateway may delete the earlier version of this image when both do not fit. */
  readonly dropEarlier?: boolean | undefined;
}

/** A group of devices for a gateway's Device Inventory. */
export interface GroupRequest {
  readonly id: string;
  /** DevIds. */
  readonly devices: readonly string[];
}

/** Makes operations on nodes below a base node. Path segments are renamed by the vocabulary. */
export function nodesBelow(vocabulary: Pick<Vocabulary, 'names'>, base: string) {
  const at = (path: readonly string[]) =>
    [base, ...path.map((name) => renamed(vocabulary.names, name))].join('/');
  return {
    /** Adds a leaf. No operation when it has no value. */
    leaf: (
      path: readonly string[],
      data: string | Uint8Array | number | boolean | undefined,
      format = 'chr',
    ) =>
      data === undefined
        ? []
        : [
            {
              name: 'Add',
              uri: at(path),
              format,
              data: typeof data === 'number' || typeof data === 'boolean' ? String(data) : data,
            } satisfies NodeOperation,
          ],
    exec: (path: readonly string[], correlator: string): NodeOperation => ({
      name: 'Exec',
      uri: at(path),
      correlator,
    }),
  };
}

/** The operations that write the node `Targets` of an order. */
export const targetLeaves = (
  { leaf }: ReturnType<typeof nodesBelow>,
  { devices = [], group, where = {} }: Targets,
): Operation[] => [
  ...devices.flatMap((device, at) => leaf(['Targets', 'DeviceList', `d${at}`, 'DeviceID'], device)),
  ...leaf(['Targets', 'GroupID'], group),
  ...Object.entries(where).flatMap(([path, value], at) => [
    ...leaf(['Targets', 'Condition', `c${at}`, 'Path'], path),
    ...leaf(['Targets', 'Condition', `c${at}`, 'Value'], value),
  ]),
];

/** Writes operations as the `command` of a fan-out: a SyncBody element in XML. */
export function commandXml(operations: readonly Operation[]): string {
  const commands: Command[] = [];
  let lastId = 0;
  for (const operation of operations) {
    const { command, ids } = numbered(commandOf(operation), lastId);
    commands.push(command);
    lastId += ids;
  }
  const at = { locUri: '-' };
  const header = { verDtd: '1.2', verProto: 'DM/1.2', sessionId: '1', msgId: 1, target: at, source: at };
  const document = encodeMessage({ header, commands, final: false }, MediaType.Xml);
  return /<SyncBody>.*<\/SyncBody>/s.exec(Buffer.from(document).toString())?.[0] ?? '';
}

/**
 * The operations that create and start a fan-out at a gateway. The first one deletes an earlier fan-out of this name.
 */
export function fanoutOperations(
  vocabulary: Vocabulary,
  { name, command, targets, returnFormat, timeout, deadline }: FanoutRequest,
  correlator: string,
): Operation[] {
  const uri = `${nodeAt(vocabulary, 'GwFanout', 'Fanout')}/${name}`;
  const nodes = nodesBelow(vocabulary, uri);
  return [
    { name: 'Delete', uri },
    ...nodes.leaf(['Command'], command, 'xml'),
    ...targetLeaves(nodes, targets),
    ...nodes.leaf(['ReturnFormat'], returnFormat, 'int'),
    ...nodes.leaf(['Timeout'], timeout, 'int'),
    ...nodes.leaf(['Deadline'], deadline, 'int'),
    nodes.exec(['Start'], correlator),
  ];
}

/**
 * The operations that create and start a trigger at a gateway. The first one deletes an earlier trigger of this name.
 */
export function triggerOperations(
  vocabulary: Vocabulary,
  { name, targets, notifications, returnFormat, deadline }: TriggerRequest,
  correlator: string,
): Operation[] {
  const uri = `${nodeAt(vocabulary, 'GwEdTrigger', 'Trigger')}/${name}`;
  const nodes = nodesBelow(vocabulary, uri);
  return [
    { name: 'Delete', uri },
    ...targetLeaves(nodes, targets),
    ...[...notifications].flatMap(([device, package0], at) => [
      ...nodes.leaf(['Notifications', `n${at}`, 'DeviceID'], device),
      ...nodes.leaf(['Notifications', `n${at}`, 'Pkg0'], package0, 'bin'),
    ]),
    ...nodes.leaf(['ReturnFormat'], returnFormat, 'int'),
    ...nodes.leaf(['Deadline'], deadline, 'int'),
    nodes.exec(['Start'], correlator),
  ];
}

/**
 * The operations that put an image into a gateway's Image Inventory. The first one deletes an earlier image of this
 * name. An image with a URL is also downloaded by the gateway.
 */
export function imageOperations(
  vocabulary: Vocabulary,
  { name, version, url, data, hash, signature, dropEarlier }: ImageRequest,
  correlator: string,
): Operation[] {
  const uri = `${nodeAt(vocabulary, 'GwImageInventory', 'Images')}/${name}`;
  const nodes = nodesBelow(vocabulary, uri);
  const digest = hash ?? (data && createHash('sha256').update(data).digest('hex'));
  return [
    { name: 'Delete', uri },
    ...nodes.leaf(['Version'], version),
    ...nodes.leaf(['Hash'], digest),
    ...nodes.leaf(['Signature'], signature),
    ...nodes.leaf(['DropEarlier'], dropEarlier, 'bool'),
    ...nodes.leaf(['PkgURL'], url),
    ...nodes.leaf(['PkgData'], data, 'bin'),
    ...(url === undefined ? [] : [nodes.exec(['Operations', 'Download'], correlator)]),
  ];
}

/** The operations that read what came of an image that was pushed: its state, result and reason. */
export function imageQuestions(vocabulary: Vocabulary, name: string): Operation[] {
  const uri = `${nodeAt(vocabulary, 'GwImageInventory', 'Images')}/${name}`;
  return ['State', 'Result', 'Reason'].map((leaf) => ({
    name: 'Get',
    uri: `${uri}/${renamed(vocabulary.names, leaf)}`,
  }));
}

/** The node of a fan-out, trigger or image on its gateway. */
export function orderNode(
  vocabulary: Vocabulary,
  kind: 'CommandFanout' | 'DeviceTrigger' | 'ImageOperation',
  name: string,
): string {
  const lists = {
    CommandFanout: nodeAt(vocabulary, 'GwFanout', 'Fanout'),
    DeviceTrigger: nodeAt(vocabulary, 'GwEdTrigger', 'Trigger'),
    ImageOperation: nodeAt(vocabulary, 'GwImageInventory', 'Images'),
  };
  return `${lists[kind]}/${name}`;
}

/**
 * The operations that put a group into a gateway's Device Inventory. The first one deletes an earlier group of its
 * ID.
 */
export function groupOperations(vocabulary: Vocabulary, { id, devices }: GroupRequest): Operation[] {
  const uri = `${nodeAt(vocabulary, 'GwDeviceInventory', 'Groups')}/${hashedName(id)}`;
  const nodes = nodesBelow(vocabulary, uri);
  return [
    { name: 'Delete', uri },
    ...nodes.leaf(['GroupID'], id),
    ...devices.flatMap((device, at) => nodes.leaf(['Members', `m${at}`, 'DeviceID'], device)),
  ];
}
