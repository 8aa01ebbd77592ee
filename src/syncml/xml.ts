import { SaxesParser } from 'saxes';
import { PosternError } from '../base/errors.ts';
import type { Content, Element, ElementName } from './elements.ts';
import { elements, isElementName, messageLimits, namespaces } from './elements.ts';
import { fromBase64 } from './message.ts';

const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

export function escapeXml(value: string): string {
  // Control characters cannot stand in XML 1.0 at all.
  const unfit = invalidXml(value);
  if (unfit) throw new PosternError('malformed', `text with character U+${unfit} has no XML form`);
  return value.replace(/[&<>"]/g, (character) => entities[character]!).replaceAll('\r', '&#13;');
}

function invalidXml(value: string): string | undefined {
  for (const character of value) {
    const point = character.codePointAt(0)!;
    const fits =
      point === 9 ||
      point === 10 ||
      point === 13 ||
      (point >= 32 && point < 0xd800) ||
      (point > 0xdfff && point < 0xfffe) ||
      point > 0xffff;
    if (!fits) return point.toString(16).padStart(4, '0');
  }
  return undefined;
}

/** Writes a message as XML (SyncML representation protocol 1.2). Octets become base64. */
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
          : content.map((each) => write(each, page)).join('');
  return inner === '' ? `<${tag}/>` : `<${tag}>${inner}</${name}>`;
}

interface Open {
  readonly name: ElementName;
  readonly children: Element[];
  text: string;
}

/**
 * Reads a message in XML. A document type is refused, so there is no entity to expand. XML inside `<Data>` that is no
 * SyncML is kept as its text. Elements that DM does not know are skipped with all they hold.
 * @throws {PosternError} `malformed` or `tooLarge`
 */
export function decodeXml(coded: Uint8Array): Element {
  if (coded.length > messageLimits.bytes)
    throw new PosternError('tooLarge', `message of more than ${messageLimits.bytes} bytes`);
  const parser = new SaxesParser({ xmlns: false, position: false });
  const open: Open[] = [];
  let foreign = 0;
  let skipping = 0;
  let count = 0;
  let root: Element | undefined;
  const refuse = (why: string): never => {
    throw new PosternError('malformed', why);
  };
  parser.on('error', (error) => refuse(`no well-formed XML: ${error.message}`));
  parser.on('doctype', () => refuse('a document type is not allowed'));
  parser.on('opentag', ({ name: qualified, attributes, isSelfClosing }) => {
    const name = qualified.slice(qualified.indexOf(':') + 1);
    const top = open.at(-1);
    if (skipping > 0) skipping++;
    else if (foreign > 0 || top?.name === 'Data') {
      foreign++;
      const kept = Object.entries(attributes).map(([key, value]) => ` ${key}="${escapeXml(String(value))}"`);
      if (top) top.text += `<${qualified}${kept.join('')}${isSelfClosing ? '/' : ''}>`;
    } else if (!isElementName(name)) {
      if (!top) refuse(`<${name}> is no SyncML message`);
      skipping++;
    } else {
      if (++count > messageLimits.elements || open.length >= messageLimits.depth)
        throw new PosternError('tooLarge', 'message of too many elements');
      open.push({ name, children: [], text: '' });
    }
  });
  const characters = (more: string) => {
    const top = open.at(-1);
    if (top && skipping === 0) top.text += foreign > 0 ? escapeXml(more) : more;
  };
  parser.on('text', characters);
  parser.on('cdata', characters);
  parser.on('closetag', ({ name: qualified, isSelfClosing }) => {
    const top = open.at(-1);
    if (skipping > 0) skipping--;
    else if (foreign > 0) {
      foreign--;
      if (top && !isSelfClosing) top.text += `</${qualified}>`;
    } else if (top) {
      open.pop();
      const element = { name: top.name, content: contentOf(top) };
      const parent = open.at(-1);
      if (parent) parent.children.push(element);
      else root = element;
    }
  });
  let document: string;
  try {
    document = new TextDecoder('utf-8', { fatal: true }).decode(coded);
  } catch (cause) {
    throw new PosternError('malformed', 'XML that is no UTF-8', { cause });
  }
  parser.write(document).close();
  return root ?? refuse('no message');
}

function contentOf({ name, children, text }: Open): Content {
  switch (elements[name].kind) {
    case 'container':
      return children;
    case 'flag':
      return true;
    case 'bytes':
      return fromBase64(text);
    case 'text':
      return name === 'Data' ? text : text.trim();
  }
}
