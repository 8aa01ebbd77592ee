import { PosternError } from '../../base/errors.ts';
import { ownText } from '../../base/own-bytes.ts';
import { isBase64 } from './base64.ts';
import { utf8 } from './element-builder.ts';

/** An element of the DM DDF, the language of TNDS objects and of descriptions of management objects. */
export interface DdfElement {
  readonly tag: string;
  readonly children: readonly DdfElement[];
  readonly text: string;
}

/** Takes the elements of a document that is written, in their order. */
export interface DdfWriter {
  /** Begins an element that holds elements. */
  open(tag: string): void;
  /** An element that holds text, or nothing. */
  leaf(tag: string, text: string): void;
  /** Ends the element that began last. */
  close(): void;
}

/** Bounds of one document. */
export const ddfLimits = { depth: 40, elements: 8192, characters: 128 * 1024 } as const;

interface Open {
  readonly tag: string;
  readonly children: DdfElement[];
  text: string;
}

/** Builds a document from the parts that a reader of XML or WBXML finds, in their order, and enforces `ddfLimits`. */
export class DdfBuilder {
  readonly #open: Open[] = [];
  #root: Open | undefined;
  #count = 0;
  #characters = 0;
  /** The format of the open node is `bin` or `b64`, so its opaque data are octets and not text. */
  #binary = false;

  /** Whether the root element has been closed. */
  get ended(): boolean {
    return this.#root !== undefined && this.#open.length === 0;
  }

  /**
   * Begins an element.
   * @throws {PosternError} `tooLarge`
   */
  open(tag: string): void {
    if (++this.#count > ddfLimits.elements || this.#open.length >= ddfLimits.depth)
      throw new PosternError('tooLarge', 'DDF document too deep or of too many elements');
    if (tag === 'Node') this.#binary = false;
    if (tag === 'bin' || tag === 'b64') this.#binary = true;
    const element: Open = { tag, children: [], text: '' };
    this.#open.at(-1)?.children.push(element);
    this.#open.push(element);
    this.#root ??= element;
  }

  /**
   * Adds text to the open element. Text outside the root is ignored.
   * @throws {PosternError} `tooLarge`
   */
  text(value: string): void {
    const top = this.#open.at(-1);
    if (!top) return;
    this.#characters += value.length;
    if (this.#characters > ddfLimits.characters) throw new PosternError('tooLarge', 'DDF document too large');
    top.text += value;
  }

  /**
   * Adds opaque data to the open element. In a node of format `bin` or `b64` it is kept as base64, and data that is
   * base64 already is left as it is. In any other node it is UTF-8 text.
   * @throws {PosternError} `tooLarge`, `malformed`
   */
  octets(value: Uint8Array): void {
    const raw = Buffer.from(value);
    this.text(this.#binary && !isBase64(raw.toString('latin1')) ? raw.toString('base64') : utf8(raw));
  }

  /** Ends the open element. */
  close(): void {
    const ended = this.#open.pop();
    if (ended) ended.text = ownText(ended.text);
  }

  /**
   * Returns the root element.
   * @throws {PosternError} `malformed` when there is none
   */
  finish(): DdfElement {
    if (!this.#root) throw new PosternError('malformed', 'the DDF document is empty');
    return this.#root;
  }
}
