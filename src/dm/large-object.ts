import type { Item } from '../wire/syncml/message.ts';
import { DmStatus } from './status.ts';

/**
 * What a received item is: complete, or part of an object whose rest will follow, or wrong, with the status to answer.
 */
export type Received =
  | { readonly kind: 'complete'; readonly item: Item }
  | { readonly kind: 'part' }
  | { readonly kind: 'wrong'; readonly status: number };

/** An object of which some chunks have arrived. */
interface Begun {
  readonly key: string;
  readonly size: number;
  readonly first: Item;
  readonly chunks: Uint8Array[];
  readonly isText: boolean;
  bytes: number;
}

/**
 * Assembles large objects (OMA DM protocol 1.2.1, section 7.3). The chunks of an object are items with the same
 * command, target and source, one directly after the other. The first chunk gives the size of the object. Nothing may
 * come between the chunks, so at most one object is open.
 */
export class LargeObjectReceiver {
  readonly #limit: number;
  #begun: Begun | undefined;

  /** @param limit largest object in bytes, as MaxObjSize announces it to the other side */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** First chunk of the open object. */
  get open(): Item | undefined {
    return this.#begun?.first;
  }

  /** Whether this item is the next chunk of the open object. */
  continues(command: string, item: Item): boolean {
    return this.#begun?.key === keyOf(command, item);
  }

  /** Discards the open object. */
  drop(): void {
    this.#begun = undefined;
  }

  /** Takes a received item of a command. */
  take(command: string, item: Item): Received {
    const { meta, data = '', moreData } = item;
    if (!this.#begun) {
      if (!moreData) return { kind: 'complete', item };
      if (meta?.size === undefined) return { kind: 'wrong', status: DmStatus.SizeRequired };
      if (meta.size > this.#limit) return { kind: 'wrong', status: DmStatus.RequestEntityTooLarge };
      const isText = typeof data === 'string';
      this.#begun = { key: keyOf(command, item), size: meta.size, first: item, chunks: [], isText, bytes: 0 };
    }
    const begun = this.#begun;
    const chunk = Buffer.from(data as string);
    begun.bytes += chunk.length;
    begun.chunks.push(chunk);
    if (begun.bytes > begun.size) return this.#wrong(DmStatus.SizeMismatch);
    if (moreData) return { kind: 'part' };
    this.#begun = undefined;
    if (begun.bytes !== begun.size) return { kind: 'wrong', status: DmStatus.SizeMismatch };
    const all = Buffer.concat(begun.chunks);
    const { moreData: _, ...first } = begun.first;
    return { kind: 'complete', item: { ...first, data: begun.isText ? all.toString() : all } };
  }

  #wrong(status: number): Received {
    this.#begun = undefined;
    return { kind: 'wrong', status };
  }
}

const keyOf = (command: string, { target, source }: Item): string =>
  `${command} ${target?.locUri ?? ''} ${source?.locUri ?? ''}`;
