import { SaxesParser } from 'saxes';
import { PosternError } from '../../base/errors.ts';
import { ownText } from '../../base/own-bytes.ts';
import { fitsXml } from '../../base/presentable.ts';
import { skipDocumentType } from './document-type.ts';
import { ElementBuilder, utf8 } from './element-builder.ts';
import type { Element } from './elements.ts';
import { elements, isElementName, messageLimits, namespaces, unreadable } from './elements.ts';
import { escapeXml } from './escape-xml.ts';

/**
 * Writes a message as XML (SyncML representation protocol 1.2). Octets become base64.
 * @throws {PosternError} `malformed` for text that has no form in XML
 */
export function encodeXml(root: Element): Uint8Array {
  return Buffer.from(`<?xml version="1.0" encoding="UTF-8"?>${write(root, -1)}`);
}

function write({ name, content }: Element, outerPage: number): string {
  const { page } = elements[name];
  const tag = page === outerPage ? name : `${name} xmlns="${namespaces[page]}"`;
  const inner =
    content === true
      ? ''
      : typeof content === 'string'
        ? escapeXml(content)
        : content instanceof Uint8Array
          ? Buffer.from(content).toString('base64')
          : writeAll(content, page);
  return inner === '' ? `<${tag}/>` : `<${tag}>${inner}</${name}>`;
}

function writeAll(elements: readonly Element[], page: number): string {
  let all = '';
  for (const each of elements) all += write(each, page);
  return all;
}

/**
 * Reads a message in XML. A document type is skipped (`skipDocumentType`). XML elements inside
 * `<Data>` are kept as text. Elements that DM does not know are skipped with their content. A Data with characters that XML 1.0
 * cannot hold, such as a NUL, is `unreadable`.
 * @throws {PosternError} `malformed` or `tooLarge`
 */
export function decodeXml(coded: Uint8Array): Element {
  if (coded.length > messageLimits.bytes)
    throw new PosternError('tooLarge', `message of more than ${messageLimits.bytes} bytes`);
  const document = utf8(coded);
  try {
    return read(document);
  } catch (thrown) {
    // Most messages have no such character, so they are not searched for any.
    const marked = document
      .replace(unfit, mark)
      .replace(reference, (whole, hex: string | undefined, decimal: string | undefined) =>
        fitsXml(characterOf(hex === undefined ? Number(decimal) : Number.parseInt(hex, 16))) ? whole : mark,
      );
    if (marked === document) throw thrown;
    return withoutMarks(read(marked));
  }
}

/** A non-character that XML 1.0 can hold. It stands for what XML 1.0 cannot hold. */
const mark = '\ufdd0';
const unfit = /[^\t\n\r\u0020-\ufffd\u{10000}-\u{10ffff}]/gu;
const reference = /&#(?:x([0-9a-f]{1,8})|(\d{1,10}));/gi;

/** The character of a code point. A text that XML cannot hold for what is no code point. */
const characterOf = (point: number): string => (point > 0x10ffff ? '\0' : String.fromCodePoint(point));

/** @throws {PosternError} `malformed` for a mark in a text that is no value */
function withoutMarks(element: Element): Element {
  const { name, content } = element;
  if (typeof content === 'string' && content.includes(mark)) {
    if (name === 'Data') return { name, content: unreadable };
    throw new PosternError('malformed', `<${name}> has a character that XML cannot hold`);
  }
  return Array.isArray(content) ? { name, content: content.map(withoutMarks) } : element;
}

function read(document: string): Element {
  const parser = new SaxesParser({ xmlns: false, position: false });
  const builder = new ElementBuilder(ownText);
  let foreign = 0;
  const refuse = (why: string): never => {
    throw new PosternError('malformed', why);
  };
  parser.on('error', (error) => refuse(`XML is not well-formed: ${error.message}`));
  parser.on('doctype', skipDocumentType);
  parser.on('opentag', ({ name: qualified, attributes, isSelfClosing }) => {
    const name = qualified.slice(qualified.indexOf(':') + 1);
    if (foreign > 0 || builder.current === 'Data') {
      if (++foreign > foreignDepth) throw new PosternError('tooLarge', 'XML in Data is too deep');
      const kept = Object.entries(attributes).map(([key, value]) => ` ${key}="${escapeXml(String(value))}"`);
      builder.text(`<${qualified}${kept.join('')}${isSelfClosing ? '/' : ''}>`);
    } else builder.open(isElementName(name) ? name : undefined);
  });
  const characters = (more: string) => {
    if (builder.current) builder.text(foreign > 0 ? escapeXml(more) : more);
  };
  parser.on('text', characters);
  parser.on('cdata', characters);
  parser.on('closetag', ({ name: qualified, isSelfClosing }) => {
    if (foreign === 0) return builder.close();
    foreign--;
    if (!isSelfClosing) builder.text(`</${qualified}>`);
  });
  parser.write(document).close();
  return builder.finish();
}

/** Most levels of nested elements inside Data. */
const foreignDepth = 64;
