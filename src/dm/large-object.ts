import { type Command, type Item, itemsOf } from '../wire/syncml/message.ts';
import { nameOf } from './replies.ts';
import { DmStatus } from './status.ts';

/**
 * What a received item is: complete, or part of an object whose rest will follow, or wrong, with the status to answer.
 */
export type Received =
  | { readonly kind: 'complete'; readonly item: Item }
  | { readonly kind: 'part' }
  | { readonly kind: 'wrong'; readonly status: number };

/** What came of a command whose items may be chunks of a large object. */
export interface Assembled {
  /** The command with its complete items. Undefined while chunks are missing, and when the object is wrong. */
  readonly command: Command | undefined;
  /** Statuses of chunks and of wrong objects. */
  readonly statuses: readonly { readonly status: number; readonly uri: string | undefined }[];
  /** The first chunk of an object that another item has interrupted (section 7.3). */
  readonly interrupted: Item | undefined;
}

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

  /** Bytes of the open object that have arrived. */
  get bytes(): number {
    return this.#begun?.bytes ?? 0;
  }

  /** Discards the open object. */
  drop(): void {
    this.#begun = undefined;
  }

  /** Takes a received command. */
  assemble(command: Command): Assembled {
    const items = itemsOf(command);
    const name = nameOf(command);
    const isNext = items.some((item) => this.#begun?.key === keyOf(name, item));
    const interrupted = isNext ? undefined : this.#begun?.first;
    if (interrupted) this.drop();
    if (!this.#begun && !items.some(({ moreData }) => moreData))
      return { command, statuses: [], interrupted };
    const complete: Item[] = [];
    const statuses: { status: number; uri: string | undefined }[] = [];
    for (const item of items) {
      const received = this.take(name, item);
      if (received.kind === 'complete') complete.push(received.item);
      else {
        const status = received.kind === 'part' ? DmStatus.ChunkAccepted : received.status;
        statuses.push({ status, uri: item.target?.locUri });
      }
    }
    const assembled = complete.length > 0 ? ({ ...command, items: complete } as Command) : undefined;
    return { command: assembled, statuses, interrupted };
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
