import { PosternError } from '../../base/errors.ts';
import { fitsXml } from '../../base/presentable.ts';
import { fromBase64 } from './base64.ts';
import { octetsOf, utf8 } from './element-builder.ts';
import type { Content, Element, ElementName } from './elements.ts';
import { isPacked, messageLimits, unreadable } from './elements.ts';
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
  size,
  struct,
  text,
} from './typed-elements.ts';

// The fields are in the order of the DTD (SyncML representation protocol 1.2.1, section 5).

/** The elements of Meta that DM uses. */
const metaFields = {
  format: optional(text('Format')),
  type: optional(text('Type')),
  mark: optional(text('Mark')),
  size: optional(size('Size')),
  nextNonce: optional(bytes('NextNonce')),
  maxMsgSize: optional(size('MaxMsgSize')),
  maxObjSize: optional(size('MaxObjSize')),
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

const Item: Shape<Item> = struct('Item', itemFields);

/** Whether values of a format are octets. */
export const isBinary = (format: string | undefined): boolean => format === 'b64' || format === 'bin';

/**
 * An item with its data in the form that the format requires: octets for `b64` and `bin`, else text. DM messages say
 * `b64` where the format of the node is `bin`; the result says `bin`. A TNDS object in WBXML is octets in every format.
 * Only for a whole value: base64 may be cut anywhere in chunks.
 * @param outer Meta of the command, which applies where the item has no Meta of its own
 * @param isOpaque octets are opaque data of WBXML: base64 from most senders, the octets themselves from some
 */
function itemWithValue(item: Item, outer: Meta | undefined, isOpaque: boolean): Item {
  const { meta, data: value } = item;
  if (value === unreadable)
    throw new PosternError('malformed', 'a value with characters that XML cannot hold');
  const format = meta?.format ?? outer?.format;
  const type = meta?.type ?? outer?.type;
  if (!isBinary(format)) {
    if (isPacked(type))
      return typeof value === 'string' && !value.startsWith('<')
        ? { ...item, data: fromBase64(value) }
        : item;
    return value instanceof Uint8Array ? { ...item, data: utf8(value) } : item;
  }
  const octets =
    typeof value === 'string'
      ? fromBase64(value)
      : value && isOpaque && format === 'b64'
        ? octetsOf(value)
        : value;
  return { ...item, meta: { ...meta, format: 'bin' }, ...(octets !== undefined && { data: octets }) };
}

/** The reverse of `itemRead`: the item as it is written in a message. */
const itemWritten = (item: Item): Item =>
  item.meta?.format === 'bin' || (item.data instanceof Uint8Array && !isPacked(item.meta?.type))
    ? { ...item, meta: { ...item.meta, format: 'b64' } }
    : item;

/** The item with a text that XML cannot hold turned into octets, which all codings write as `b64`. */
const itemForXml = (item: Item): Item =>
  typeof item.data === 'string' && !fitsXml(item.data) ? { ...item, data: Buffer.from(item.data) } : item;

/** The same for what a Get found: the type says that the octets are a text. */
const resultForXml = (item: Item): Item => {
  const fitting = itemForXml(item);
  return fitting === item ? item : { ...fitting, meta: { type: 'text/plain', ...item.meta } };
};

/**
 * A command whose values every coding can hold. The value of a node may be any text; where XML has no form for it, its
 * octets in UTF-8 go in its place, with the format `b64`.
 */
export function commandForXml<C extends Command>(command: C): C {
  if (isCompositeCommand(command)) return { ...command, commands: command.commands.map(commandForXml) };
  if (command.name === 'Results') return { ...command, items: command.items.map(resultForXml) };
  return 'items' in command ? { ...command, items: command.items.map(itemForXml) } : command;
}

/**
 * Whether XML can hold each text of a command that is no value, such as a URI. It has no other form, and every coding can be changed
 * into XML.
 */
export const isWritable = (command: Command): boolean =>
  !('items' in command) ||
  [
    'correlator' in command ? command.correlator : undefined,
    ...command.items.flatMap(({ target, source, meta }) => [
      target?.locUri,
      source?.locUri,
      meta?.format,
      meta?.type,
    ]),
  ].every((text) => text === undefined || fitsXml(text));

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
const { items, ...beforeItems } = request;
const execution = { ...beforeItems, correlator: optional(text('Correlator')), items };

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
    data: one(integer('Data')),
    correlator: optional(text('Correlator')),
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
  Copy: request,
  Exec: execution,
} as const;

export type CommandName = keyof typeof commandFields;
/** The command of this name, with its fields in the order of the DTD. */
export type CommandOf<N extends CommandName> = { readonly name: N } & Infer<(typeof commandFields)[N]>;

/**
 * A command that holds commands (SyncML representation protocol 1.2, sections 6.6.3 and 6.6.14). Those of a Sequence are
 * executed in order; of an Atomic, all are executed or none.
 */
export interface Composite {
  readonly name: 'Atomic' | 'Sequence';
  readonly cmdId: string;
  readonly noResp?: true;
  readonly meta?: Meta;
  readonly commands: readonly Command[];
}

/** A command that Postern does not know. It is kept whole, so that it can be answered by a Status. */
export interface UnknownCommand {
  readonly name: 'Unknown';
  readonly cmdId: string;
  readonly element: Element;
}

type PlainCommand = { [N in CommandName]: CommandOf<N> }[CommandName];
export type Status = CommandOf<'Status'>;
export type Alert = CommandOf<'Alert'>;
export type Results = CommandOf<'Results'>;
/** Any command of a message, discriminated by `name`. */
export type Command = PlainCommand | Composite | UnknownCommand;

/** One DM message, independent of its coding. */
export interface SyncmlMessage {
  readonly header: SyncHdr;
  readonly commands: readonly Command[];
  /** Whether this is the last message of its package. */
  readonly final: boolean;
  /** Octets in its items came as opaque data of WBXML, which may be base64. */
  readonly opaque?: true;
}

const commandShapes = Object.fromEntries(
  Object.entries(commandFields).map(([name, fields]) => [name, struct(name as ElementName, fields)]),
) as unknown as Readonly<Record<CommandName, Shape<object>>>;

const isComposite = (name: string): name is Composite['name'] => name === 'Atomic' || name === 'Sequence';
const compositeFields = {
  cmdId: one(text('CmdID')),
  noResp: optional(flag('NoResp')),
  meta: optional(Meta),
};
const composites = {
  Atomic: struct('Atomic', compositeFields),
  Sequence: struct('Sequence', compositeFields),
} as const;

/** Whether an element inside a composite is a command, and not a part of the composite such as CmdID. */
const isCommandElement = ({ name }: Element): boolean =>
  isComposite(name) || Object.hasOwn(commandShapes, name) || otherCommands.has(name);
/** Commands of SyncML that DM does not use. They are answered but not executed. */
const otherCommands: ReadonlySet<string> = new Set(['Map', 'Move', 'Put', 'Search', 'Sync']);

function readCommand(element: Element, budget: { commands: number }): Command {
  if (--budget.commands < 0) throw new PosternError('tooLarge', 'too many commands in a message');
  const { name, content } = element;
  if (isComposite(name))
    return {
      name,
      ...composites[name].read(content),
      commands: (content as readonly Element[])
        .filter(isCommandElement)
        .map((each) => readCommand(each, budget)),
    };
  if (!Object.hasOwn(commandShapes, name))
    return { name: 'Unknown', cmdId: text('CmdID').read(child(name, content, 'CmdID').content), element };
  const known = name as CommandName;
  return { name: known, ...commandShapes[known].read(content) } as PlainCommand;
}

/**
 * A command as it was read, with the data of its items in the form that their formats require: octets for `b64` and `bin`,
 * else text. Its values must be whole: those in chunks are put together before.
 * @param isOpaque as `SyncmlMessage.opaque`
 * @throws {PosternError} `malformed` for what is not base64
 */
export function commandWithValues(command: Command, isOpaque = false): Command {
  if (command.name === 'Unknown') return command;
  if (isCompositeCommand(command))
    return { ...command, commands: command.commands.map((each) => commandWithValues(each, isOpaque)) };
  const outer = metaOf(command);
  return { ...command, items: command.items.map((item) => itemWithValue(item, outer, isOpaque)) } as Command;
}

/** Whether an item of a command has octets, before its values are decoded. */
export const hasOctets = (command: Command): boolean =>
  isCompositeCommand(command)
    ? command.commands.some(hasOctets)
    : itemsOf(command).some(({ data: value }) => value instanceof Uint8Array);

/** Meta of a command, which applies to items that have none of their own. */
export const metaOf = (command: Command): Meta | undefined => ('meta' in command ? command.meta : undefined);

/** Whether the command is an Atomic or a Sequence. */
export const isCompositeCommand = (command: Command): command is Composite => 'commands' in command;

/** Items of a command. Empty for a command of a kind that has none. */
export const itemsOf = (command: Command): readonly Item[] => ('items' in command ? command.items : []);

/** The element that codecs write for a command. */
export function elementOfCommand(command: Command): Element {
  if (command.name === 'Unknown') return command.element;
  if (isCompositeCommand(command))
    return {
      name: command.name,
      content: [
        ...(composites[command.name].write(command) as readonly Element[]),
        ...command.commands.map(elementOfCommand),
      ],
    };
  return {
    name: command.name,
    content: commandShapes[command.name].write({
      ...command,
      items: command.items.map((item) => itemWritten(itemForXml(item))),
    }),
  };
}

function child(parent: ElementName, content: Content, name: ElementName): Element {
  const found = Array.isArray(content)
    ? (content as readonly Element[]).find((element) => element.name === name)
    : undefined;
  if (!found) throw new PosternError('malformed', `<${parent}> lacks <${name}>`);
  return found;
}

/**
 * Reads a message from its root element. Values stay as they are coded: see `commandWithValues`.
 * @throws {PosternError} `malformed`; `tooLarge` for too many commands
 */
export function messageOf(root: Element): SyncmlMessage {
  if (root.name !== 'SyncML') throw new PosternError('malformed', `<${root.name}> is not a SyncML message`);
  const header = SyncHdr.read(child('SyncML', root.content, 'SyncHdr').content);
  const { sessionId, respUri = '' } = header;
  if (sessionId.length > messageLimits.sessionId || respUri.length > messageLimits.respUri)
    throw new PosternError('tooLarge', 'the SessionID or the RespURI is too long');
  const body = child('SyncML', root.content, 'SyncBody').content as readonly Element[];
  const budget = { commands: messageLimits.commands };
  return {
    header,
    commands: body.filter(({ name }) => name !== 'Final').map((element) => readCommand(element, budget)),
    final: body.some(({ name }) => name === 'Final'),
  };
}

/** The root element that codecs write for a message. */
export function elementOf({ header, commands, final }: SyncmlMessage): Element {
  const body = commands.map(elementOfCommand);
  if (final) body.push({ name: 'Final', content: true });
  return {
    name: 'SyncML',
    content: [
      { name: 'SyncHdr', content: SyncHdr.write(header) },
      { name: 'SyncBody', content: body },
    ],
  };
}
