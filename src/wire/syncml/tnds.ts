import { PosternError } from '../../base/errors.ts';
import { fitsXml, forXml } from '../../base/presentable.ts';
import { fromBase64 } from './base64.ts';
import { type DdfElement, type DdfWriter, ddfLimits } from './ddf-builder.ts';
import { DdfWbxmlWriter, decodeDdfWbxml } from './ddf-wbxml.ts';
import { childOf, DdfXmlWriter, parseDdf, textOf } from './ddf-xml.ts';
import { utf8 } from './element-builder.ts';

const formats = ['node', 'chr', 'int', 'bool', 'bin', 'xml', 'null', 'float', 'date', 'time'] as const;

/** Formats of a node (OMA DM tree and description 1.2.1, section 7.7.2). */
export type NodeFormat = (typeof formats)[number];

/** The names of all formats. */
export const nodeFormats: readonly NodeFormat[] = formats;

/** Whether the text is the name of a format. */
export const isNodeFormat = (format: string): format is NodeFormat =>
  (formats as readonly string[]).includes(format);

/** A node of a TNDS object, with the nodes below it (OMA DM tree and description 1.2.1, section 9). */
export interface TndsNode {
  readonly name: string;
  readonly format: NodeFormat;
  /** MIME type of a leaf; management object identifier of the root of a management object. */
  readonly type?: string;
  readonly acl?: string;
  readonly title?: string;
  /** Value of a leaf: octets for the format `bin`, else text. */
  readonly value?: string | Uint8Array;
  readonly children?: readonly TndsNode[];
}

/** A TNDS object with one root node. */
export interface Tnds {
  /** URI of the place for the root node. With `./Inbox` the device chooses the place. */
  readonly path?: string;
  readonly root: TndsNode;
}

/** Most levels of nested nodes. */
const depthBound = 16;

/** Media types of the codings of a TNDS object. */
export const TndsMediaType = {
  Xml: 'application/vnd.syncml.dmtnds+xml',
  Wbxml: 'application/vnd.syncml.dmtnds+wbxml',
} as const;

/** Whether the media type is that of a TNDS object. */
export const isTndsType = (type: string | undefined): boolean =>
  type === TndsMediaType.Xml || type === TndsMediaType.Wbxml;

/**
 * Writes a TNDS object as XML.
 * @throws {PosternError} `tooLarge`
 */
export function encodeTnds(object: Tnds): string {
  const writer = new DdfXmlWriter();
  writeTree(writer, object);
  const { text } = writer;
  if (text.length > ddfLimits.characters) throw new PosternError('tooLarge', 'TNDS object too large');
  return text;
}

/** Writes a TNDS object as WBXML. */
export function encodeTndsWbxml(object: Tnds): Uint8Array {
  const writer = new DdfWbxmlWriter();
  writeTree(writer, object);
  return writer.finish();
}

// Each bootstrap writes an account. A tree of its elements would be a tenth of the memory that an attach takes.

function writeTree(writer: DdfWriter, { path, root }: Tnds): void {
  writer.open('MgmtTree');
  writer.leaf('VerDTD', '1.2');
  writeNode(writer, root, path);
  writer.close();
}

function writeNode(writer: DdfWriter, node: TndsNode, path: string | undefined): void {
  const { name, type, acl, title, children } = node;
  const isUnfit = typeof node.value === 'string' && !fitsXml(node.value);
  const value = isUnfit ? Buffer.from(node.value) : node.value;
  // A leaf whose text XML cannot hold is shown as its octets.
  const format = isUnfit ? 'bin' : node.format;
  writer.open('Node');
  writer.leaf('NodeName', name);
  if (path !== undefined) writer.leaf('Path', path);
  writer.open('RTProperties');
  if (acl !== undefined) writer.leaf('ACL', forXml(acl));
  writer.open('Format');
  writer.leaf(format, '');
  writer.close();
  if (title !== undefined) writer.leaf('Title', forXml(title));
  if (type !== undefined) {
    writer.open('Type');
    writer.leaf(format === 'node' ? 'DDFName' : 'MIME', type);
    writer.close();
  }
  writer.close();
  if (value !== undefined)
    writer.leaf('Value', typeof value === 'string' ? value : Buffer.from(value).toString('base64'));
  if (children) for (const child of children) writeNode(writer, child, undefined);
  writer.close();
}

/**
 * Reads a TNDS object in XML or WBXML. A string is XML; the first octet of octets distinguishes the two.
 * @throws {PosternError} `malformed`, also for several root nodes; `tooLarge`, `unsupportedFormat`, `unsupportedVersion`
 */
export function decodeTnds(coded: string | Uint8Array): Tnds {
  const [object, ...more] = decodeTndsRoots(coded);
  if (!object || more.length > 0) throw new PosternError('malformed', 'a TNDS object of several root nodes');
  return object;
}

/**
 * Reads a TNDS object with one or several root nodes (serialization 1.2, section 6.3). The name of a root may be empty: the
 * receiver names it then.
 * @throws {PosternError} `malformed`, `tooLarge`, `unsupportedFormat`, `unsupportedVersion`
 */
export function decodeTndsRoots(coded: string | Uint8Array): readonly Tnds[] {
  const root =
    typeof coded === 'string'
      ? parseDdf(coded)
      : coded[0] !== undefined && coded[0] <= 3
        ? decodeDdfWbxml(coded)
        : parseDdf(utf8(coded));
  if (root.tag !== 'MgmtTree') throw new PosternError('malformed', `<${root.tag}> is not a TNDS object`);
  const nodes = root.children.filter(({ tag }) => tag === 'Node');
  if (nodes.length === 0) throw new PosternError('malformed', 'a TNDS object without a root node');
  return nodes.map((node) => {
    const path = textOf(node, 'Path');
    return { ...(path !== undefined && { path }), root: readNode(node, 1) };
  });
}

function readNode(element: DdfElement, depth: number): TndsNode {
  if (depth > depthBound) throw new PosternError('tooLarge', 'TNDS object too deep');
  const name = textOf(element, 'NodeName') ?? (depth === 1 ? '' : undefined);
  if (name === undefined || (name === '' && depth > 1) || name.includes('/') || !fitsXml(name))
    throw new PosternError(
      'malformed',
      'the NodeName of a TNDS node is missing, empty, has a slash or a character that XML cannot hold',
    );
  const properties = childOf(element, 'RTProperties');
  const children = element.children.filter(({ tag }) => tag === 'Node');
  // RTProperties are optional. Without a format, a node with a value and without children is a leaf of text.
  const format =
    childOf(properties, 'Format')?.children[0]?.tag ??
    (children.length === 0 && childOf(element, 'Value') ? 'chr' : 'node');
  // In the DDF the format b64 stands for nodes of format bin.
  const known = format === 'b64' ? 'bin' : format;
  if (!isNodeFormat(known)) throw new PosternError('malformed', `unknown format ${format} of a TNDS node`);
  const type = childOf(properties, 'Type')?.children[0]?.text.trim();
  const acl = textOf(properties, 'ACL');
  const title = textOf(properties, 'Title');
  const base = {
    name,
    format: known,
    ...(type && { type }),
    ...(acl && { acl }),
    ...(title && { title }),
  };
  if (known === 'node') return { ...base, children: children.map((child) => readNode(child, depth + 1)) };
  const value = childOf(element, 'Value')?.text ?? '';
  return { ...base, value: known === 'bin' ? fromBase64(value) : value };
}
