import { SaxesParser } from 'saxes';
import { PosternError } from '../base/errors.ts';
import { fromBase64 } from './message.ts';
import { escapeXml } from './xml.ts';

/** Formats of a node (OMA DM tree and description 1.2.1, section 7.7.2). */
export type NodeFormat = 'node' | 'chr' | 'int' | 'bool' | 'bin' | 'xml' | 'null' | 'float' | 'date' | 'time';

const formats = new Set<string>([
  'node',
  'chr',
  'int',
  'bool',
  'bin',
  'xml',
  'null',
  'float',
  'date',
  'time',
]);

export const isNodeFormat = (format: string): format is NodeFormat => formats.has(format);

/** A subtree as TNDS carries it (OMA DM tree and description 1.2.1, section 9). */
export interface TndsNode {
  readonly name: string;
  readonly format: NodeFormat;
  /** MIME type of a leaf; management object identifier of an MO's root. */
  readonly type?: string;
  readonly acl?: string;
  readonly value?: string | Uint8Array;
  readonly children?: readonly TndsNode[];
}

export interface Tnds {
  /** Where the root node goes; `./Inbox` leaves it to the device. */
  readonly path?: string;
  readonly root: TndsNode;
}

const limits = { depth: 16, nodes: 1024, characters: 64 * 1024 } as const;

export const TndsMediaType = {
  Xml: 'application/vnd.syncml.dmtnds+xml',
  Wbxml: 'application/vnd.syncml.dmtnds+wbxml',
} as const;

export function encodeTnds({ path, root }: Tnds): string {
  return `<MgmtTree xmlns="syncml:dmddf1.2"><VerDTD>1.2</VerDTD>${writeNode(root, path)}</MgmtTree>`;
}

function writeNode(node: TndsNode, path?: string): string {
  const { name, format, type, acl, value, children = [] } = node;
  const properties = [
    acl === undefined ? '' : `<ACL>${escapeXml(acl)}</ACL>`,
    `<Format><${format}/></Format>`,
    type === undefined
      ? ''
      : `<Type>${format === 'node' ? `<DDFName>${escapeXml(type)}</DDFName>` : `<MIME>${escapeXml(type)}</MIME>`}</Type>`,
  ].join('');
  const text =
    value === undefined
      ? ''
      : typeof value === 'string'
        ? escapeXml(value)
        : Buffer.from(value).toString('base64');
  return [
    `<Node><NodeName>${escapeXml(name)}</NodeName>`,
    path === undefined ? '' : `<Path>${escapeXml(path)}</Path>`,
    `<RTProperties>${properties}</RTProperties>`,
    value === undefined ? '' : `<Value>${text}</Value>`,
    ...children.map((child) => writeNode(child)),
    '</Node>',
  ].join('');
}

interface Raw {
  readonly tag: string;
  readonly children: Raw[];
  text: string;
}

/** @throws {PosternError} `malformed` or `tooLarge` */
export function decodeTnds(text: string): Tnds {
  const root = parseRaw(text);
  if (root.tag !== 'MgmtTree') throw new PosternError('malformed', `<${root.tag}> is no TNDS object`);
  const nodes = root.children.filter(({ tag }) => tag === 'Node');
  const [node] = nodes;
  if (!node || nodes.length > 1) throw new PosternError('malformed', 'a TNDS object here has one root node');
  const path = textOf(node, 'Path');
  return { ...(path !== undefined && { path }), root: readNode(node) };
}

function parseRaw(text: string): Raw {
  if (text.length > limits.characters) throw new PosternError('tooLarge', 'TNDS object too large');
  const parser = new SaxesParser({ xmlns: false, position: false });
  const open: Raw[] = [];
  let root: Raw | undefined;
  let count = 0;
  parser.on('error', (error) => {
    throw new PosternError('malformed', `TNDS is no well-formed XML: ${error.message}`);
  });
  parser.on('doctype', () => {
    throw new PosternError('malformed', 'a document type is not allowed');
  });
  parser.on('opentag', ({ name }) => {
    if (++count > limits.nodes * 8 || open.length > limits.depth + 4)
      throw new PosternError('tooLarge', 'TNDS object of too many nodes');
    const raw: Raw = { tag: name.slice(name.indexOf(':') + 1), children: [], text: '' };
    open.at(-1)?.children.push(raw);
    open.push(raw);
    root ??= raw;
  });
  const characters = (more: string) => {
    const top = open.at(-1);
    if (top) top.text += more;
  };
  parser.on('text', characters);
  parser.on('cdata', characters);
  parser.on('closetag', () => {
    open.pop();
  });
  parser.write(text).close();
  if (!root) throw new PosternError('malformed', 'no TNDS object');
  return root;
}

const find = (raw: Raw, tag: string): Raw | undefined => raw.children.find((child) => child.tag === tag);
const textOf = (raw: Raw, tag: string): string | undefined => find(raw, tag)?.text.trim();

function readNode(raw: Raw): TndsNode {
  const name = textOf(raw, 'NodeName');
  if (!name || name.includes('/')) throw new PosternError('malformed', 'TNDS node without a proper NodeName');
  const properties = find(raw, 'RTProperties');
  const format = (properties && find(properties, 'Format')?.children[0]?.tag) ?? 'node';
  // DDF writes b64 where a node's format is bin.
  const known = format === 'b64' ? 'bin' : format;
  if (!isNodeFormat(known)) throw new PosternError('malformed', `TNDS node of unknown format ${format}`);
  const type = properties && find(properties, 'Type')?.children[0]?.text.trim();
  const acl = properties && textOf(properties, 'ACL');
  const value = find(raw, 'Value')?.text;
  const base = { name, format: known, ...(type && { type }), ...(acl && { acl }) };
  if (known === 'node')
    return { ...base, children: raw.children.filter(({ tag }) => tag === 'Node').map(readNode) };
  return { ...base, value: known === 'bin' ? fromBase64(value ?? '') : (value ?? '') };
}
