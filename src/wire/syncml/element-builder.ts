import { PosternError } from '../../base/errors.ts';
import { ownText } from '../../base/own-bytes.ts';
import { fromBase64, isBase64 } from './base64.ts';
import type { Content, Element, ElementName } from './elements.ts';
import { elements, messageLimits } from './elements.ts';

interface Open {
  name: ElementName;
  /** None before the first. */
  children: Element[] | undefined;
  text: string;
  /** None before the first. */
  octets: Uint8Array[] | undefined;
  size: number;
}

/**
 * Builds a message from the parts that a reader of XML or WBXML finds, in their order, and enforces `messageLimits`.
 * Elements that DM does not know are skipped with their content.
 */
export class ElementBuilder {
  /** The open elements, the outermost first; those after the first `#depth` are used again for the next ones. */
  readonly #open: Open[] = [];
  #depth = 0;
  #skipping = 0;
  #count = 0;
  #root: Element | undefined;
  readonly #own: (text: string) => string;

  /** @param own makes a text that is added independent of the document, where it is cut out of it */
  constructor(own: (text: string) => string = (text) => text) {
    this.#own = own;
  }

  /** The open element. `undefined` while an element that DM does not know is skipped. */
  get current(): ElementName | undefined {
    return this.#skipping > 0 ? undefined : this.#top?.name;
  }

  /**
   * Begins an element.
   * @param name `undefined` for an element that DM does not know
   * @throws {PosternError} `malformed`, `tooLarge`
   */
  open(name: ElementName | undefined): void {
    if (this.#root) throw new PosternError('malformed', 'a message must have one root element');
    if (this.#skipping > 0 || name === undefined) {
      if (this.#depth === 0) throw new PosternError('malformed', 'the root is not a SyncML element');
      if (++this.#skipping > messageLimits.depth) throw new PosternError('tooLarge', 'message too deep');
      return;
    }
    if (++this.#count > messageLimits.elements || this.#depth >= messageLimits.depth)
      throw new PosternError('tooLarge', 'message too deep or of too many elements');
    const used = this.#open[this.#depth++];
    if (used) {
      used.name = name;
      used.children = undefined;
      used.text = '';
      used.octets = undefined;
      used.size = 0;
    } else this.#open.push({ name, children: undefined, text: '', octets: undefined, size: 0 });
  }

  /**
   * Adds text to the open element.
   * @throws {PosternError} `tooLarge`
   */
  text(characters: string): void {
    const top = this.#grow(characters.length);
    if (!top) return;
    if (top.octets) top.octets.push(Buffer.from(characters));
    else top.text += characters;
  }

  /**
   * Adds opaque data to the open element. Text that it already has becomes octets.
   * @throws {PosternError} `tooLarge`
   */
  octets(octets: Uint8Array): void {
    const top = this.#grow(octets.length);
    if (!top) return;
    top.octets ??= [];
    if (top.text !== '') top.octets.push(Buffer.from(top.text));
    top.text = '';
    top.octets.push(octets);
  }

  /**
   * Ends the open element.
   * @throws {PosternError} `malformed` when none is open, or when its content does not fit its kind
   */
  close(): void {
    if (this.#skipping > 0) {
      this.#skipping--;
      return;
    }
    const top = this.#top;
    if (!top) throw new PosternError('malformed', 'the end of an element without an open element');
    const element = { name: top.name, content: contentOf(top, this.#own) };
    this.#depth--;
    const parent = this.#top;
    if (parent) {
      parent.children ??= [];
      parent.children.push(element);
    } else this.#root = element;
  }

  /**
   * Returns the root element.
   * @throws {PosternError} `malformed` when the message is incomplete
   */
  finish(): Element {
    if (!this.#root || this.#depth > 0) throw new PosternError('malformed', 'incomplete message');
    return this.#root;
  }

  get #top(): Open | undefined {
    return this.#depth === 0 ? undefined : this.#open[this.#depth - 1];
  }

  #grow(by: number): Open | undefined {
    const top = this.#skipping > 0 ? undefined : this.#top;
    if (!top) return undefined;
    top.size += by;
    if (top.size > messageLimits.value)
      throw new PosternError('tooLarge', `the content of <${top.name}> is too large`);
    return top;
  }
}

function contentOf({ name, children, text, octets }: Open, own: (text: string) => string): Content {
  const joined = octets && (octets.length === 1 ? octets[0]! : Buffer.concat(octets));
  switch (elements[name].kind) {
    case 'container':
      return children ?? [];
    case 'flag':
      return true;
    case 'bytes':
      if (joined) return octetsOf(joined);
      return fromBase64(text);
    case 'text':
      if (name === 'Data') return joined ?? own(text);
      return trimmed(joined ? utf8(joined) : text, own);
  }
}

function trimmed(text: string, own: (text: string) => string): string {
  const inner = text.trim();
  return inner.length === text.length ? own(text) : ownText(inner);
}

/**
 * The octets of opaque data whose format is `b64`. Most senders write base64 text there, some the octets themselves, so
 * data that is not base64 is returned unchanged.
 */
export function octetsOf(opaque: Uint8Array): Uint8Array {
  const text = Buffer.from(opaque).toString('latin1');
  return isBase64(text) ? fromBase64(text) : opaque;
}

const strict = new TextDecoder('utf-8', { fatal: true });

/**
 * Reads UTF-8.
 * @throws {PosternError} `malformed`
 */
export function utf8(octets: Uint8Array): string {
  try {
    return strict.decode(octets);
  } catch (cause) {
    throw new PosternError('malformed', 'text is not UTF-8', { cause });
  }
}
