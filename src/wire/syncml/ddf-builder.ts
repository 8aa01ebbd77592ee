import { PosternError } from '../../base/errors.ts';
import { isBase64 } from './base64.ts';
import { utf8 } from './element-builder.ts';

/** An element of the DM DDF, which TNDS objects and descriptions of management objects are written in. */
export interface DdfElement {
  readonly tag: string;
  readonly children: readonly DdfElement[];
  readonly text: string;
}

/** Bounds of one document. */
export const ddfLimits = { depth: 40, elements: 8192, characters: 128 * 1024 } as const;

interface Open {
  readonly tag: string;
  readonly children: DdfElement[];
  text: string;
}

/** Builds the tree of a document from what a reader finds one after the other, whatever its coding, within the bounds of any. */
export class DdfBuilder {
  readonly #open: Open[] = [];
  #root: Open | undefined;
  #count = 0;
  #characters = 0;
  /** The node that is open holds octets, so what is opaque in it is no text. */
  #binary = false;

  get ended(): boolean {
    return this.#root !== undefined && this.#open.length === 0;
  }

  /** @throws {PosternError} `tooLarge` */
  open(tag: string): void {
    if (++this.#count > ddfLimits.elements || this.#open.length >= ddfLimits.depth)
      throw new PosternError('tooLarge', 'DDF document of too many elements');
    if (tag === 'Node') this.#binary = false;
    if (tag === 'bin' || tag === 'b64') this.#binary = true;
    const element: Open = { tag, children: [], text: '' };
    this.#open.at(-1)?.children.push(element);
    this.#open.push(element);
    this.#root ??= element;
  }

  text(value: string): void {
    const top = this.#open.at(-1);
    if (!top) return;
    this.#characters += value.length;
    if (this.#characters > ddfLimits.characters) throw new PosternError('tooLarge', 'DDF document too large');
    top.text += value;
  }

  octets(value: Uint8Array): void {
    const raw = Buffer.from(value);
    this.text(this.#binary && !isBase64(raw.toString('latin1')) ? raw.toString('base64') : utf8(raw));
  }

  close(): void {
    this.#open.pop();
  }

  finish(): DdfElement {
    if (!this.#root) throw new PosternError('malformed', 'no DDF document');
    return this.#root;
  }
}
