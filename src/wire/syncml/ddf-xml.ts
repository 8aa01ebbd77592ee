import { SaxesParser } from 'saxes';
import { PosternError } from '../../base/errors.ts';
import { ownText } from '../../base/own-bytes.ts';
import { DdfBuilder, type DdfElement, type DdfWriter, ddfLimits } from './ddf-builder.ts';
import { skipDocumentType } from './document-type.ts';
import { escapeXml } from './escape-xml.ts';

const ddfNamespace = 'syncml:dmddf1.2';

/** Makes an element that holds elements. Children that are `undefined` are left out. */
export const branch = (tag: string, ...children: readonly (DdfElement | undefined)[]): DdfElement => ({
  tag,
  children: children.includes(undefined)
    ? children.filter((child) => child !== undefined)
    : (children as readonly DdfElement[]),
  text: '',
});
/** Makes an element that holds text. */
export const leafText = (tag: string, text: string): DdfElement => ({ tag, children: [], text });

/**
 * Writes a document as XML, without white space. The same tree always gives the same text.
 * @throws {PosternError} `malformed` for text that has no form in XML
 */
export const writeDdf = (root: DdfElement): string => write(root, ` xmlns="${ddfNamespace}"`);

function write({ tag, children, text }: DdfElement, attributes = ''): string {
  const inner = children.length > 0 ? children.map((child) => write(child)).join('') : escapeXml(text);
  return inner === '' ? `<${tag}${attributes}/>` : `<${tag}${attributes}>${inner}</${tag}>`;
}

/** Writes a document as `writeDdf`, without a tree of elements. `leaf` throws `malformed` for text that has no form in XML. */
export class DdfXmlWriter implements DdfWriter {
  readonly #open: string[] = [];
  /** The document so far. */
  text = '';

  open(tag: string): void {
    this.text += this.#open.length === 0 ? `<${tag} xmlns="${ddfNamespace}">` : `<${tag}>`;
    this.#open.push(tag);
  }

  leaf(tag: string, text: string): void {
    this.text += text === '' ? `<${tag}/>` : `<${tag}>${escapeXml(text)}</${tag}>`;
  }

  close(): void {
    this.text += `</${this.#open.pop()}>`;
  }
}

/**
 * Reads a document in XML. Namespace prefixes are dropped. A document type is skipped (`skipDocumentType`).
 * @throws {PosternError} `malformed` or `tooLarge`
 */
export function parseDdf(document: string): DdfElement {
  if (document.length > ddfLimits.characters) throw new PosternError('tooLarge', 'DDF document too large');
  const parser = new SaxesParser({ xmlns: false, position: false });
  const builder = new DdfBuilder();
  parser.on('error', (error) => {
    throw new PosternError('malformed', `XML is not well-formed: ${error.message}`);
  });
  parser.on('doctype', skipDocumentType);
  parser.on('opentag', ({ name }) => builder.open(name.slice(name.indexOf(':') + 1)));
  parser.on('text', (text) => builder.text(text));
  parser.on('cdata', (text) => builder.text(text));
  parser.on('closetag', () => builder.close());
  parser.write(document).close();
  return builder.finish();
}

/** The first child with this tag. */
export const childOf = (element: DdfElement | undefined, tag: string): DdfElement | undefined =>
  element?.children.find((child) => child.tag === tag);
/** The text of the first child with this tag, without white space at its ends. */
export function textOf(element: DdfElement | undefined, tag: string): string | undefined {
  const text = childOf(element, tag)?.text;
  return text === undefined ? undefined : ownText(text.trim());
}
