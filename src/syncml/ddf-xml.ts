import { SaxesParser } from 'saxes';
import { PosternError } from '../base/errors.ts';
import { escapeXml } from './escape-xml.ts';

/** An element of the DM DDF's XML, which TNDS objects and descriptions of management objects are written in. */
export interface DdfElement {
  readonly tag: string;
  readonly children: readonly DdfElement[];
  readonly text: string;
}

/** Bounds of one document. */
export const ddfLimits = { depth: 40, elements: 8192, characters: 128 * 1024 } as const;

export const ddfNamespace = 'syncml:dmddf1.2';

export const branch = (tag: string, ...children: readonly (DdfElement | undefined)[]): DdfElement => ({
  tag,
  children: children.filter((child) => child !== undefined),
  text: '',
});
export const leafText = (tag: string, text: string): DdfElement => ({ tag, children: [], text });

/** Writes a document: one form for one tree, without white space. */
export const writeDdf = (root: DdfElement): string => write(root, ` xmlns="${ddfNamespace}"`);

function write({ tag, children, text }: DdfElement, attributes = ''): string {
  const inner = children.length > 0 ? children.map((child) => write(child)).join('') : escapeXml(text);
  return inner === '' ? `<${tag}${attributes}/>` : `<${tag}${attributes}>${inner}</${tag}>`;
}

interface Open {
  readonly tag: string;
  readonly children: DdfElement[];
  text: string;
}

/**
 * Reads a document. Prefixes are dropped; text beside elements is.
 * @throws {PosternError} `malformed` or `tooLarge`
 */
export function parseDdf(document: string): DdfElement {
  if (document.length > ddfLimits.characters) throw new PosternError('tooLarge', 'DDF document too large');
  const parser = new SaxesParser({ xmlns: false, position: false });
  const open: Open[] = [];
  let root: DdfElement | undefined;
  let count = 0;
  parser.on('error', (error) => {
    throw new PosternError('malformed', `no well-formed XML: ${error.message}`);
  });
  parser.on('doctype', () => {
    throw new PosternError('malformed', 'a document type is not allowed');
  });
  parser.on('opentag', ({ name }) => {
    if (++count > ddfLimits.elements || open.length >= ddfLimits.depth)
      throw new PosternError('tooLarge', 'DDF document of too many elements');
    const element: Open = { tag: name.slice(name.indexOf(':') + 1), children: [], text: '' };
    open.at(-1)?.children.push(element);
    open.push(element);
    root ??= element;
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
  parser.write(document).close();
  if (!root) throw new PosternError('malformed', 'no DDF document');
  return root;
}

export const childOf = (element: DdfElement | undefined, tag: string): DdfElement | undefined =>
  element?.children.find((child) => child.tag === tag);
export const textOf = (element: DdfElement | undefined, tag: string): string | undefined =>
  childOf(element, tag)?.text.trim();
