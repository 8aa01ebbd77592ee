import { PosternError } from '../../base/errors.ts';
import { fromBase64, isBase64 } from './base64.ts';
import type { Content, Element, ElementName } from './elements.ts';
import { elements, messageLimits } from './elements.ts';

interface Open {
  readonly name: ElementName;
  readonly children: Element[];
  text: string;
  octets: Uint8Array[];
  size: number;
}

/**
 * Builds a message from what a decoder finds one after the other, whatever its coding, within the bounds of any message.
 * Elements that DM does not know are skipped with all they hold.
 */
export class ElementBuilder {
  readonly #open: Open[] = [];
  #skipping = 0;
  #count = 0;
  #root: Element | undefined;

  /** The element that is open now, if it is one that DM knows. */
  get current(): ElementName | undefined {
    return this.#skipping > 0 ? undefined : this.#open.at(-1)?.name;
  }

  /**
   * An element begins; without a name it is none of DM's.
   * @throws {PosternError} `malformed`, `tooLarge`
   */
  open(name: ElementName | undefined): void {
    if (this.#root) throw new PosternError('malformed', 'a message has one root');
    if (this.#skipping > 0 || name === undefined) {
      if (this.#open.length === 0) throw new PosternError('malformed', 'no SyncML message');
      if (++this.#skipping > messageLimits.depth)
        throw new PosternError('tooLarge', 'message of too many elements');
      return;
    }
    if (++this.#count > messageLimits.elements || this.#open.length >= messageLimits.depth)
      throw new PosternError('tooLarge', 'message of too many elements');
    this.#open.push({ name, children: [], text: '', octets: [], size: 0 });
  }

  text(characters: string): void {
    const top = this.#grow(characters.length);
    if (!top) return;
    if (top.octets.length > 0) top.octets.push(Buffer.from(characters));
    else top.text += characters;
  }

  octets(octets: Uint8Array): void {
    const top = this.#grow(octets.length);
    if (!top) return;
    if (top.text !== '') top.octets.push(Buffer.from(top.text));
    top.text = '';
    top.octets.push(octets);
  }

  close(): void {
    if (this.#skipping > 0) {
      this.#skipping--;
      return;
    }
    const top = this.#open.pop();
    if (!top) throw new PosternError('malformed', 'an element ends that did not begin');
    const element = { name: top.name, content: contentOf(top) };
    const parent = this.#open.at(-1);
    if (parent) parent.children.push(element);
    else this.#root = element;
  }

  /** @throws {PosternError} `malformed` when the message is not whole */
  finish(): Element {
    if (!this.#root || this.#open.length > 0) throw new PosternError('malformed', 'no whole message');
    return this.#root;
  }

  #grow(by: number): Open | undefined {
    const top = this.#skipping > 0 ? undefined : this.#open.at(-1);
    if (!top) return undefined;
    top.size += by;
    if (top.size > messageLimits.value) throw new PosternError('tooLarge', `<${top.name}> holds too much`);
    return top;
  }
}

function contentOf({ name, children, text, octets }: Open): Content {
  const joined = octets.length === 0 ? undefined : octets.length === 1 ? octets[0]! : Buffer.concat(octets);
  switch (elements[name].kind) {
    case 'container':
      return children;
    case 'flag':
      return true;
    case 'bytes':
      if (joined) return octetsOf(joined);
      return fromBase64(text);
    case 'text':
      if (name === 'Data') return joined ?? text;
      return (joined ? utf8(joined) : text).trim();
  }
}

/** Opaque data where the format says base64: most senders put the base64 text there, some the octets themselves. */
export function octetsOf(opaque: Uint8Array): Uint8Array {
  const text = Buffer.from(opaque).toString('latin1');
  return isBase64(text) ? fromBase64(text) : opaque;
}

const strict = new TextDecoder('utf-8', { fatal: true });

/** @throws {PosternError} `malformed` */
export function utf8(octets: Uint8Array): string {
  try {
    return strict.decode(octets);
  } catch (cause) {
    throw new PosternError('malformed', 'text that is no UTF-8', { cause });
  }
}
