import { PosternError } from '../base/errors.ts';
import type { Content, Element, ElementName } from './elements.ts';
import {
  bytes,
  data,
  flag,
  type Infer,
  integer,
  many,
  one,
  optional,
  type Shape,
  struct,
  text,
} from './shapes.ts';

// The order of fields is the order of the DTD (SyncML representation protocol 1.2.1, section 5).

/** Meta information that DM uses. `format` is `bin` for octets, whatever the coding calls it. */
const metaFields = {
  format: optional(text('Format')),
  type: optional(text('Type')),
  mark: optional(text('Mark')),
  size: optional(integer('Size')),
  nextNonce: optional(bytes('NextNonce')),
  maxMsgSize: optional(integer('MaxMsgSize')),
  maxObjSize: optional(integer('MaxObjSize')),
};
export type Meta = Infer<typeof metaFields>;
const Meta: Shape<Meta> = struct('Meta', metaFields);

const locationFields = { locUri: one(text('LocURI')), locName: optional(text('LocName')) };
export type Location = Infer<typeof locationFields>;
const location = (name: 'Source' | 'Target'): Shape<Location> => struct(name, locationFields);

const itemFields = {
  target: optional(location('Target')),
  source: optional(location('Source')),
  meta: optional(Meta),
  data: optional(data('Data')),
  moreData: optional(flag('MoreData')),
};
export type Item = Infer<typeof itemFields>;

/** DM says base64 in XML as format `b64`; a node's format is `bin`. Here octets are octets and the format is `bin`. */
const Item: Shape<Item> = (() => {
  const plain = struct('Item', itemFields);
  return {
    name: plain.name,
    read: (content) => octetsRead(plain.read(content)),
    write: (item) => plain.write(octetsWritten(item)),
  };
})();

const binaryFormats = new Set(['b64', 'bin']);

function octetsRead(item: Item): Item {
  const { meta, data: value } = item;
  if (!meta?.format || !binaryFormats.has(meta.format)) return item;
  const octets = typeof value === 'string' ? fromBase64(value) : value;
  return { ...item, meta: { ...meta, format: 'bin' }, ...(octets !== undefined && { data: octets }) };
}

const octetsWritten = (item: Item): Item =>
  item.meta?.format === 'bin' ? { ...item, meta: { ...item.meta, format: 'b64' } } : item;

/** @throws {PosternError} `malformed` */
export function fromBase64(value: string): Uint8Array {
  const compact = value.replace(/\s+/g, '');
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(compact) || compact.length % 4 !== 0)
    throw new PosternError('malformed', 'no base64');
  return Buffer.from(compact, 'base64');
}

const credFields = { meta: optional(Meta), data: one(text('Data')) };
export type Cred = Infer<typeof credFields>;
const Cred: Shape<Cred> = struct('Cred', credFields);

const chalFields = { meta: one(Meta) };
export type Chal = Infer<typeof chalFields>;
const Chal: Shape<Chal> = struct('Chal', chalFields);

const headerFields = {
  verDtd: one(text('VerDTD')),
  verProto: one(text('VerProto')),
  sessionId: one(text('SessionID')),
  msgId: one(integer('MsgID')),
  target: one(location('Target')),
  source: one(location('Source')),
  respUri: optional(text('RespURI')),
  noResp: optional(flag('NoResp')),
  cred: optional(Cred),
  meta: optional(Meta),
};
export type SyncHdr = Infer<typeof headerFields>;
const SyncHdr: Shape<SyncHdr> = struct('SyncHdr', headerFields);

const request = {
  cmdId: one(text('CmdID')),
  noResp: optional(flag('NoResp')),
  meta: optional(Meta),
  items: many(Item),
};
const execution = { ...request, correlator: optional(text('Correlator')) };

const commandFields = {
  Status: {
    cmdId: one(text('CmdID')),
    msgRef: one(integer('MsgRef')),
    cmdRef: one(text('CmdRef')),
    cmd: one(text('Cmd')),
    targetRefs: many(text('TargetRef')),
    sourceRefs: many(text('SourceRef')),
    cred: optional(Cred),
    chal: optional(Chal),
    data: one(integer('Data')),
    items: many(Item),
  },
  Alert: {
    cmdId: one(text('CmdID')),
    noResp: optional(flag('NoResp')),
    correlator: optional(text('Correlator')),
    data: one(integer('Data')),
    items: many(Item),
  },
  Results: {
    cmdId: one(text('CmdID')),
    msgRef: optional(integer('MsgRef')),
    cmdRef: one(text('CmdRef')),
    meta: optional(Meta),
    targetRefs: many(text('TargetRef')),
    sourceRefs: many(text('SourceRef')),
    items: many(Item),
  },
  Get: request,
  Add: request,
  Replace: request,
  Delete: request,
  Exec: execution,
} as const;

export type CommandName = keyof typeof commandFields;
export type CommandOf<N extends CommandName> = { readonly name: N } & Infer<(typeof commandFields)[N]>;

/** A command that this engine does not know: kept whole, so that it can be answered. */
export interface UnknownCommand {
  readonly name: 'Unknown';
  readonly cmdId: string;
  readonly element: Element;
}

export type Status = CommandOf<'Status'>;
export type Alert = CommandOf<'Alert'>;
export type Results = CommandOf<'Results'>;
export type Command = { [N in CommandName]: CommandOf<N> }[CommandName] | UnknownCommand;

/** One DM message, whatever its coding. */
export interface SyncmlMessage {
  readonly header: SyncHdr;
  readonly commands: readonly Command[];
  readonly final: boolean;
}

const commandShapes = Object.fromEntries(
  Object.entries(commandFields).map(([name, fields]) => [name, struct(name as ElementName, fields)]),
) as unknown as Readonly<Record<CommandName, Shape<object>>>;

function readCommand(element: Element): Command {
  const { name, content } = element;
  if (Object.hasOwn(commandShapes, name)) {
    const known = name as CommandName;
    return { name: known, ...commandShapes[known].read(content) } as Command;
  }
  return { name: 'Unknown', cmdId: text('CmdID').read(child(name, content, 'CmdID').content), element };
}

function writeCommand(command: Command): Element {
  if (command.name === 'Unknown') return command.element;
  return { name: command.name, content: commandShapes[command.name].write(command) };
}

function child(parent: ElementName, content: Content, name: ElementName): Element {
  const found = Array.isArray(content)
    ? (content as readonly Element[]).find((element) => element.name === name)
    : undefined;
  if (!found) throw new PosternError('malformed', `<${parent}> lacks <${name}>`);
  return found;
}

/** @throws {PosternError} `malformed` */
export function messageOf(root: Element): SyncmlMessage {
  if (root.name !== 'SyncML') throw new PosternError('malformed', `<${root.name}> is no SyncML message`);
  const header = SyncHdr.read(child('SyncML', root.content, 'SyncHdr').content);
  const body = child('SyncML', root.content, 'SyncBody').content as readonly Element[];
  return {
    header,
    commands: body.filter(({ name }) => name !== 'Final').map(readCommand),
    final: body.some(({ name }) => name === 'Final'),
  };
}

export function elementOf({ header, commands, final }: SyncmlMessage): Element {
  const body = commands.map(writeCommand);
  if (final) body.push({ name: 'Final', content: true });
  return {
    name: 'SyncML',
    content: [
      { name: 'SyncHdr', content: SyncHdr.write(header) },
      { name: 'SyncBody', content: body },
    ],
  };
}
