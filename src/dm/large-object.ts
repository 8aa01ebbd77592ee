import { fitsXml } from '../base/presentable.ts';
import { type Command, type Item, isBinary, itemsOf, type Meta, metaOf } from '../wire/syncml/message.ts';
import { nameOf } from './replies.ts';
import { DmStatus } from './status.ts';

/**
 * What a received item is: complete, or part of an object whose rest will follow, or wrong, with the status to answer.
 */
type Received =
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
  /** The first chunk, with the Meta of its command where it has none of its own. */
  readonly first: Item;
  readonly chunks: Uint8Array[];
  readonly isText: boolean;
  bytes: number;
}

/**
 * Assembles large objects (OMA DM protocol 1.2.1, section 7.3). The chunks of an object are items with the same
 * command, target and source, one directly after the other. The first chunk gives the size of the object, in its own Meta
 * or in that of its command. Nothing may come between the chunks, so at most one object is open.
 *
 * Chunks are as they were coded. The size of octets in base64 is that of the base64 (tree and description 1.2.1, section
 * 7.7.4, which tells Meta's Size from the property Size). The size of the octets is accepted as well.
 */
export class LargeObjectReceiver {
  readonly #limit: number;
  #begun: Begun | undefined;
  /** An object that was refused at its first chunks, until its last chunk has come. */
  #refused: { readonly key: string; readonly status: number } | undefined;

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

  /** The other side's package is over, and with it an object that was refused. What comes now is not its rest. */
  packageEnded(): void {
    this.#refused = undefined;
  }

  /**
   * The value of an item cannot be read. If it is a chunk, its object is wrong, and what may still come of it is refused.
   * @param status of the chunk, and of those after it
   */
  unreadable(command: Command, item: Item, status: number): void {
    const key = keyOf(nameOf(command), item);
    if (this.#begun?.key === key) this.drop();
    if (item.moreData) this.#refused = { key, status };
  }

  /** Takes a received command. */
  assemble(command: Command): Assembled {
    const items = itemsOf(command);
    const name = nameOf(command);
    const isNext = items.some((item) => this.#begun?.key === keyOf(name, item));
    const interrupted = isNext ? undefined : this.#begun?.first;
    if (interrupted) this.drop();
    if (!this.#begun && !this.#refused && !isChunk(command)) return { command, statuses: [], interrupted };
    const complete: Item[] = [];
    const statuses: { status: number; uri: string | undefined }[] = [];
    for (const item of items) {
      const received = this.#take(keyOf(name, item), item, metaOf(command));
      if (received.kind === 'complete') complete.push(received.item);
      else {
        const status = received.kind === 'part' ? DmStatus.ChunkAccepted : received.status;
        statuses.push({ status, uri: item.target?.locUri });
      }
    }
    const isWhole = complete.length > 0 || statuses.length === 0;
    return {
      command: isWhole
        ? ({ ...command, ...(items.length > 0 && { items: complete }) } as Command)
        : undefined,
      statuses,
      interrupted,
    };
  }

  #take(key: string, item: Item, outer: Meta | undefined): Received {
    const { data = '', moreData } = item;
    if (!this.#begun) {
      const size = item.meta?.size ?? outer?.size;
      const refused = this.#refused?.key === key ? this.#refused : undefined;
      this.#refused = undefined;
      // A chunk with a size begins the object anew.
      if (refused && !(moreData && size !== undefined)) return this.#refuse(key, refused.status, moreData);
      if (!moreData) return { kind: 'complete', item };
      if (size === undefined) return this.#refuse(key, DmStatus.SizeRequired, moreData);
      if (size > this.#limit) return this.#refuse(key, DmStatus.RequestEntityTooLarge, moreData);
      const first = { ...item, meta: { ...outer, ...item.meta } };
      this.#begun = { key, size, first, chunks: [], isText: typeof data === 'string', bytes: 0 };
    }
    const begun = this.#begun;
    const chunk = Buffer.from(data as string);
    begun.bytes += chunk.length;
    begun.chunks.push(chunk);
    if (begun.bytes > mostOnWay(begun.size)) {
      this.drop();
      return this.#refuse(key, DmStatus.SizeMismatch, moreData);
    }
    if (moreData) return { kind: 'part' };
    this.drop();
    const all = Buffer.concat(begun.chunks);
    const { moreData: _, ...first } = begun.first;
    const whole = { ...first, data: begun.isText ? all.toString() : all };
    return isOfSize(whole, begun.size)
      ? { kind: 'complete', item: whole }
      : { kind: 'wrong', status: DmStatus.SizeMismatch };
  }

  /** The object is wrong. The chunks that may still come of it are no value of their own. */
  #refuse(key: string, status: number, moreData: true | undefined): Received {
    if (moreData) this.#refused = { key, status };
    return { kind: 'wrong', status };
  }
}

/** Whether the command has a chunk of a large object that is not its last one. */
export const isChunk = (command: Command): boolean => itemsOf(command).some(({ moreData }) => moreData);

/** Bytes of the base64 of so many octets. */
const codedSize = (octets: number): number => Math.ceil(octets / 3) * 4;

/** Bytes of a value as an object on its way: octets go as base64. */
export const objectSize = (data: string | Uint8Array): number => {
  // A text that XML cannot hold goes as its octets.
  const isPlain = typeof data === 'string' && fitsXml(data);
  const bytes = Buffer.byteLength(data);
  return isPlain ? bytes : codedSize(bytes);
};

/** Bytes that an object of a size may take on its way: octets as base64, with a line break after each 64 characters. */
const mostOnWay = (size: number): number => codedSize(size) + 2 * Math.ceil(codedSize(size) / 64);

/** Whether an object is as large as was said: as it was coded, or, in base64, its octets. */
function isOfSize({ data = '', meta }: Item, size: number): boolean {
  if (Buffer.byteLength(data) === size) return true;
  if (!isBinary(meta?.format)) return false;
  // Line breaks are no part of base64.
  const coded = Buffer.from(data).toString().replace(/\s+/g, '');
  return coded.length === size || Buffer.byteLength(coded, 'base64') === size;
}

const keyOf = (command: string, { target, source }: Item): string =>
  `${command} ${target?.locUri ?? ''} ${source?.locUri ?? ''}`;
