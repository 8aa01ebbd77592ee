import type { Item } from '../wire/syncml/message.ts';
import { DmStatus } from './status.ts';

/** What became of an item that came in: all of it is there, or a part of it, or it is wrong. */
export type Received =
  | { readonly kind: 'complete'; readonly item: Item }
  | { readonly kind: 'part' }
  | { readonly kind: 'wrong'; readonly status: number };

interface Begun {
  readonly key: string;
  readonly size: number;
  readonly first: Item;
  readonly chunks: Uint8Array[];
  readonly isText: boolean;
  bytes: number;
}

/**
 * Puts large objects together (OMA DM protocol 1.2.1, section 7.3): chunks of one item, one after the other, with the
 * size of all in the first. One at a time, since nothing may come between the chunks.
 */
export class LargeObjectReceiver {
  readonly #limit: number;
  #begun: Begun | undefined;

  /** `limit`: bytes of an object, as MaxObjSize tells the other side. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** An object is begun and not complete. */
  get open(): Item | undefined {
    return this.#begun?.first;
  }

  /** Whether this item goes on with what is begun. */
  continues(command: string, item: Item): boolean {
    return this.#begun?.key === keyOf(command, item);
  }

  /** The object that is begun will not be completed. */
  drop(): void {
    this.#begun = undefined;
  }

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
