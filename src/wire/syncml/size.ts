import { type Element, elements, keyOf, namespaces } from './elements.ts';
import { hasOpaqueData } from './meta-text.ts';

/**
 * What a message takes in one coding, found without writing it. A sender fills its messages by it up to the other side's
 * MaxMsgSize. A test compares it with what the codecs write.
 */
export interface Sizes {
  /** Bytes of an element that stands in SyncBody. Never too few. */
  of(element: Element): number;
  /** Bytes of a document with this root, however many commands are added to its SyncBody. Never too few. */
  document(root: Element): number;
  /** Bytes of a text as the content of an element. */
  text(text: string): number;
}

/** Bytes of the base64 of so many octets. */
const base64Size = (octets: number): number => Math.ceil(octets / 3) * 4;

const declaration = '<?xml version="1.0" encoding="UTF-8"?>'.length;

export const xmlSizes: Sizes = {
  of: (element) => inXml(element, 0),
  document: (root) => declaration + inXml(root, -1),
  text: textInXml,
};

/** @param outerPage code page of the parent element */
function inXml({ name, content }: Element, outerPage: number): number {
  const { page } = elements[name];
  const namespace = page === outerPage ? 0 : ` xmlns="${namespaces[page]}"`.length;
  const inner =
    content === true
      ? 0
      : typeof content === 'string'
        ? textInXml(content)
        : content instanceof Uint8Array
          ? base64Size(content.length)
          : sumOf(content, (each) => inXml(each, page));
  return namespace + (inner === 0 ? name.length + '</>'.length : 2 * name.length + '<></>'.length + inner);
}

/** Bytes that escaping in XML adds to a character, by its code: & < > " and the carriage return. */
const addedTo = (code: number): number =>
  code === 0x26 || code === 0x0d ? 4 : code === 0x3c || code === 0x3e ? 3 : code === 0x22 ? 5 : 0;

/** Bytes of a text in XML, after escaping. */
function textInXml(text: string): number {
  let bytes = Buffer.byteLength(text);
  if (!/[&<>"\r]/.test(text)) return bytes;
  for (let at = 0; at < text.length; at++) bytes += addedTo(text.charCodeAt(at));
  return bytes;
}

/** Version, public identifier, character set and string table. */
const wbxmlHead = 5;
const pageSwitch = 2;
/** STR_I or OPAQUE, and the end of a string. */
const textFrame = 2;

export const wbxmlSizes: Sizes = {
  of: (element) => {
    const at = { page: 0 };
    const bytes = inWbxml(element, at, false);
    // The next element of SyncBody is of page 0 again.
    return at.page === 0 ? bytes : bytes + pageSwitch;
  },
  document: (root) => wbxmlHead + inWbxml(root, { page: 0 }, false),
  text: textInWbxml,
};

function textInWbxml(text: string): number {
  return textFrame + Buffer.byteLength(text);
}

/** @param at the code page that the writer is in */
function inWbxml({ name, content }: Element, at: { page: number }, isOpaque: boolean): number {
  const { page } = elements[name];
  const tag = page === at.page ? 1 : 1 + pageSwitch;
  at.page = page;
  if (content === true || content.length === 0) return tag;
  const end = 1;
  if (typeof content === 'string') return tag + textInWbxml(content) + end;
  if (content instanceof Uint8Array)
    return tag + end + (isOpaque ? opaqueSize(content.length) : textFrame + base64Size(content.length));
  const packed = name === 'Item' && hasOpaqueData(content);
  return tag + end + sumOf(content, (each) => inWbxml(each, at, packed && each.name === 'Data'));
}

/** Bytes of opaque data: OPAQUE, the length in groups of seven bits, and the data. */
function opaqueSize(octets: number): number {
  let bytes = 2 + octets;
  for (let rest = octets >>> 7; rest > 0; rest >>>= 7) bytes++;
  return bytes;
}

/** Bytes by which the head of the array SyncBody may grow when commands are added to it. */
const arrayGrowth = 4;

export const cborSizes: Sizes = {
  of: inCbor,
  document: (root) => headInCbor(2) + inCbor(root) + arrayGrowth,
  text: textInCbor,
};

function inCbor({ name, content }: Element): number {
  const key = headInCbor(keyOf(name));
  if (content === true) return key + 1;
  if (typeof content === 'string') return key + textInCbor(content);
  if (content instanceof Uint8Array) return key + headInCbor(content.length) + content.length;
  return key + headInCbor(2 * content.length) + sumOf(content, inCbor);
}

function textInCbor(text: string): number {
  const bytes = Buffer.byteLength(text);
  return headInCbor(bytes) + bytes;
}

/** Bytes of the head of a CBOR item of this length or value (RFC 8949, section 3). */
const headInCbor = (value: number): number => (value < 24 ? 1 : value < 0x100 ? 2 : value < 0x10000 ? 3 : 5);

function sumOf(elements: readonly Element[], size: (element: Element) => number): number {
  let sum = 0;
  for (const each of elements) sum += size(each);
  return sum;
}
