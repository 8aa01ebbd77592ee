import { createHash } from 'node:crypto';
import { hashedName } from '../base/hashed-name.ts';
import { numbered } from '../dm/outgoing.ts';
import { commandOf, type NodeOperation, type Operation } from '../dm/server-session.ts';
import { nodeAt, renamed, type Vocabulary } from '../mo/vocabulary.ts';
import { encodeMessage, MediaType } from '../wire/syncml/codec.ts';
import type { Command } from '../wire/syncml/message.ts';

/** For whom a campaign is: devices, a group, what the inventory says of them, or all. */
export interface TargetsOrder {
  readonly devices?: readonly string[] | undefined;
  readonly group?: string | undefined;
  /** Leaves of an inventory record, and what they must be. */
  readonly where?: Readonly<Record<string, string>> | undefined;
}

export interface CampaignRequest {
  readonly name: string;
  readonly targets: TargetsOrder;
  readonly returnFormat?: number | undefined;
  /** Seconds for the whole. */
  readonly deadline?: number | undefined;
}

export interface FanoutRequest extends CampaignRequest {
  /** Commands as SyncBody has them. */
  readonly command: string;
  /** Seconds for a device to open a session. */
  readonly timeout?: number | undefined;
}

export interface TriggerRequest extends CampaignRequest {
  readonly notifications: ReadonlyMap<string, Uint8Array>;
}

export interface ImageRequest {
  readonly name: string;
  readonly version?: string | undefined;
  readonly url?: string | undefined;
  readonly data?: Uint8Array | undefined;
  readonly hash?: string | undefined;
  readonly signature?: string | undefined;
}

export interface GroupRequest {
  readonly id: string;
  readonly devices: readonly string[];
}

/** Writes nodes below one node, by the names that the wire has for them. */
function below(vocabulary: Vocabulary, base: string) {
  const at = (path: readonly string[]) =>
    [base, ...path.map((name) => renamed(vocabulary.names, name))].join('/');
  return {
    leaf: (path: readonly string[], data: string | Uint8Array | number | undefined, format = 'chr') =>
      data === undefined
        ? []
        : [
            {
              name: 'Add',
              uri: at(path),
              format,
              data: typeof data === 'number' ? String(data) : data,
            } satisfies NodeOperation,
          ],
    exec: (path: readonly string[], correlator: string): NodeOperation => ({
      name: 'Exec',
      uri: at(path),
      correlator,
    }),
  };
}

const targetLeaves = (
  { leaf }: ReturnType<typeof below>,
  { devices = [], group, where = {} }: TargetsOrder,
): Operation[] => [
  ...devices.flatMap((device, at) => leaf(['Targets', 'DeviceList', `d${at}`, 'DeviceID'], device)),
  ...leaf(['Targets', 'GroupID'], group),
  ...Object.entries(where).flatMap(([path, value], at) => [
    ...leaf(['Targets', 'Condition', `c${at}`, 'Path'], path),
    ...leaf(['Targets', 'Condition', `c${at}`, 'Value'], value),
  ]),
];

/** Operations as the commands of a fan-out. */
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

/** What has a gateway do a fan-out. The first operation takes away what an earlier one of this name left. */
export function fanoutOperations(
  vocabulary: Vocabulary,
  { name, command, targets, returnFormat, timeout, deadline }: FanoutRequest,
  correlator: string,
): Operation[] {
  const uri = `${nodeAt(vocabulary, 'GwFanout', 'Fanout')}/${name}`;
  const nodes = below(vocabulary, uri);
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

/** What has a gateway deliver notifications. */
export function triggerOperations(
  vocabulary: Vocabulary,
  { name, targets, notifications, returnFormat, deadline }: TriggerRequest,
  correlator: string,
): Operation[] {
  const uri = `${nodeAt(vocabulary, 'GwEdTrigger', 'Trigger')}/${name}`;
  const nodes = below(vocabulary, uri);
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

/** What makes an image known to a gateway, and has it fetched where it comes by URL. */
export function imageOperations(
  vocabulary: Vocabulary,
  { name, version, url, data, hash, signature }: ImageRequest,
  correlator: string,
): Operation[] {
  const uri = `${nodeAt(vocabulary, 'GwImageInventory', 'Images')}/${name}`;
  const nodes = below(vocabulary, uri);
  const digest = hash ?? (data && createHash('sha256').update(data).digest('hex'));
  return [
    { name: 'Delete', uri },
    ...nodes.leaf(['Version'], version),
    ...nodes.leaf(['Hash'], digest),
    ...nodes.leaf(['Signature'], signature),
    ...nodes.leaf(['PkgURL'], url),
    ...nodes.leaf(['PkgData'], data, 'bin'),
    ...(url === undefined ? [] : [nodes.exec(['Operations', 'Download'], correlator)]),
  ];
}

/** What puts a group into a gateway's inventory, in place of an earlier one of this ID. */
export function groupOperations(vocabulary: Vocabulary, { id, devices }: GroupRequest): Operation[] {
  const uri = `${nodeAt(vocabulary, 'GwDeviceInventory', 'Groups')}/${hashedName(id)}`;
  const nodes = below(vocabulary, uri);
  return [
    { name: 'Delete', uri },
    ...nodes.leaf(['GroupID'], id),
    ...devices.flatMap((device, at) => nodes.leaf(['Members', `m${at}`, 'DeviceID'], device)),
  ];
}
