import { Buffer } from 'node:buffer';
import { type Element, type ElementName, elements, namespaces } from '../../../src/wire/syncml/elements.ts';
import { decodeWbxml } from '../../../src/wire/syncml/wbxml.ts';
import { decodeXml } from '../../../src/wire/syncml/xml.ts';
import type { Dice } from './dice.ts';

/** An element of a message: its text, its octets, or the elements inside it. */
export interface Part {
  readonly name: ElementName;
  readonly content: string | Buffer | readonly Part[];
}

export const part = (name: ElementName, content: Part['content'] = []): Part => ({ name, content });
/** The same, or nothing where there is no content. */
export const maybe = (name: ElementName, content: Part['content'] | undefined): readonly Part[] =>
  content === undefined ? [] : [part(name, content)];

/** How a peer writes its messages. */
export interface Writing {
  readonly coding: 'xml' | 'wbxml';
  readonly namespaces: 'default' | 'prefix' | 'none';
  readonly declaration: boolean;
  readonly documentType: string;
  readonly indents: boolean;
  readonly sections: boolean;
  /** The elements within Status, Item, Meta and the header are in any order. */
  readonly shuffles: boolean;
  /** First octet of WBXML. */
  readonly version: number;
  readonly publicId: 'number' | 'unknown' | 'text';
  /** Texts in WBXML. */
  readonly strings: 'inline' | 'opaque' | 'table';
}

const publicText = '-//SYNCML//DTD SyncML 1.2//EN';

export const writingBy = (dice: Dice): Writing => ({
  coding: dice.pick(['xml', 'wbxml']),
  namespaces: dice.pick(['default', 'prefix', 'none']),
  declaration: dice.chance(0.5),
  documentType: dice.pick([
    '',
    `<!DOCTYPE SyncML PUBLIC "${publicText}" "http://www.openmobilealliance.org/tech/DTD/OMA-TS-SyncML_RepPro_DTD-V1_2.dtd">`,
    "<!DOCTYPE SyncML SYSTEM 'syncml.dtd'>",
  ]),
  indents: dice.chance(0.3),
  sections: dice.chance(0.3),
  shuffles: dice.chance(0.3),
  version: dice.pick([3, 2, 1, 0]),
  publicId: dice.pick(['number', 'unknown', 'text']),
  strings: dice.pick(['inline', 'opaque', 'table']),
});

export const mediaTypeOf = ({ coding }: Writing): string => `application/vnd.syncml.dm+${coding}`;

const unordered: ReadonlySet<string> = new Set([
  'Status',
  'Results',
  'Item',
  'Meta',
  'SyncHdr',
  'Cred',
  'Chal',
]);

/** Writes a message. */
export function write(root: Part, writing: Writing, dice: Dice): Buffer {
  const written = writing.shuffles ? shuffled(root, dice) : root;
  if (writing.coding === 'wbxml') return writeWbxml(written, writing);
  const head = writing.declaration ? '<?xml version="1.0" encoding="UTF-8"?>\n' : '';
  return Buffer.from(`${head}${writing.documentType}${writeXml(written, writing, -1)}`);
}

/** Reads a message that the other side wrote. */
export function read(body: Uint8Array, { coding }: Writing): Part {
  const partOf = ({ name, content }: Element): Part => ({
    name,
    content:
      content === true
        ? []
        : typeof content === 'string'
          ? content
          : content instanceof Uint8Array
            ? Buffer.from(content)
            : content.map(partOf),
  });
  return partOf(coding === 'xml' ? decodeXml(body) : decodeWbxml(body));
}

/** The elements of this name in an element. */
export const allIn = ({ content }: Part, name: ElementName): readonly Part[] =>
  partsOf(content).filter((each) => each.name === name);
export const partsOf = (content: Part['content']): readonly Part[] =>
  Array.isArray(content) ? (content as readonly Part[]) : [];
/** The text at a path of elements. */
export function textAt(from: Part | undefined, ...names: readonly ElementName[]): string | undefined {
  const found = at(from, ...names);
  if (!found || partsOf(found.content).length > 0) return undefined;
  return String(found.content);
}
export const at = (from: Part | undefined, ...names: readonly ElementName[]): Part | undefined =>
  names.reduce<Part | undefined>((inner, name) => (inner ? allIn(inner, name)[0] : undefined), from);

function shuffled({ name, content }: Part, dice: Dice): Part {
  const inner = partsOf(content);
  if (inner.length === 0) return { name, content };
  const changed = inner.map((each) => shuffled(each, dice));
  return { name, content: unordered.has(name) ? dice.shuffled(changed) : changed };
}

/** A NUL is a character reference, which XML 1.0 forbids, or the character itself in a section. */
const escaped = (text: string): string =>
  text.replace(/[&<>\r\0]/g, (character) => `&#${character.codePointAt(0)};`);

function writeXml({ name, content }: Part, writing: Writing, outer: number): string {
  const { page } = elements[name];
  const prefix = writing.namespaces === 'prefix' ? (page === 0 ? 's:' : 'm:') : '';
  const declared =
    writing.namespaces === 'none' || page === outer
      ? ''
      : ` xmlns${prefix === '' ? '' : `:${prefix.slice(0, -1)}`}="${namespaces[page]}"`;
  const gap = writing.indents && name !== 'Data' ? '\n  ' : '';
  const inner = partsOf(content);
  const text =
    inner.length > 0
      ? gap + inner.map((each) => writeXml(each, writing, page) + gap).join('')
      : Buffer.isBuffer(content)
        ? content.toString('base64')
        : typeof content === 'string' && writing.sections && name === 'Data' && content !== ''
          ? `<![CDATA[${content.replaceAll(']]>', ']]]]><![CDATA[>')}]]>`
          : escaped(String(content));
  return text === ''
    ? `<${prefix}${name}${declared}/>`
    : `<${prefix}${name}${declared}>${text}</${prefix}${name}>`;
}

const number = (value: number): number[] => {
  const digits = [value & 0x7f];
  for (let rest = value >>> 7; rest > 0; rest >>>= 7) digits.unshift((rest & 0x7f) | 0x80);
  return digits;
};

function writeWbxml(root: Part, { version, publicId, strings }: Writing): Buffer {
  const table: Buffer[] = [];
  let tableSize = 0;
  const inTable = (text: string): number => {
    const begins = tableSize;
    const octets = Buffer.from(`${text}\0`);
    table.push(octets);
    tableSize += octets.length;
    return begins;
  };
  const idAt = publicId === 'text' ? inTable(publicText) : 0;
  const pieces: Buffer[] = [];
  let page = 0;
  const put = (...octets: readonly number[]) => pieces.push(Buffer.from(octets));
  const putOctets = (octets: Buffer) => {
    put(0xc3, ...number(octets.length));
    pieces.push(octets);
  };
  const putText = (text: string, name: string) => {
    // A string of WBXML ends with a NUL.
    if ((strings === 'opaque' && name === 'Data') || text.includes('\0')) putOctets(Buffer.from(text));
    else if (strings === 'table' && text.length < 40) put(0x83, ...number(inTable(text)));
    else {
      put(0x03);
      pieces.push(Buffer.from(`${text}\0`));
    }
  };
  const walk = ({ name, content }: Part) => {
    const { page: own, token } = elements[name];
    if (own !== page) put(0x00, own);
    page = own;
    const inner = partsOf(content);
    const isEmpty = Array.isArray(content) ? inner.length === 0 : content.length === 0;
    put(isEmpty ? token : token | 0x40);
    if (isEmpty) return;
    if (Buffer.isBuffer(content)) putOctets(content);
    else if (typeof content === 'string') putText(content, name);
    else for (const each of inner) walk(each);
    put(0x01);
  };
  walk(root);
  const id = publicId === 'number' ? number(0x1201) : publicId === 'unknown' ? [1] : [0, ...number(idAt)];
  const head = [version, ...id, ...(version === 0 ? [] : [0x6a]), ...number(tableSize)];
  return Buffer.concat([Buffer.from(head), ...table, ...pieces]);
}
