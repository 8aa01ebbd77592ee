import { isPacked } from '../wire/syncml/elements.ts';
import {
  type Command,
  commandForXml,
  elementOfCommand,
  type Item,
  isCompositeCommand,
  itemsOf,
} from '../wire/syncml/message.ts';
import type { Sizes } from '../wire/syncml/size.ts';
import { DmStatus, isOk } from './status.ts';
import { weightOf } from './weight.ts';

/** A command that waits to be sent. It gets its CmdID when it is put into a message. */
export interface Queued {
  readonly command: Command;
  /**
   * Called when the command, or a chunk of it, is put into a message: its statuses will refer to this CmdID and MsgID.
   */
  readonly sent?: (command: Command, msgId: number) => void;
  /** Set on the rest of a large object whose first chunks have been sent. */
  readonly rest?: true;
  /** Makes the commands that follow this one, each when the one before it has been put into a message. */
  readonly more?: Iterator<Command>;
}

/** Commands whose success is a change. */
const changing: ReadonlySet<string> = new Set([
  'Add',
  'Copy',
  'Delete',
  'Exec',
  'Replace',
  'Atomic',
  'Sequence',
]);

/** Status of a command when nothing was changed after all: `refusal` in place of a success that is a change. */
export const statusAfterRefusal = (command: string, status: number, refusal: number): number =>
  changing.has(command) && isOk(status) && status !== DmStatus.ChunkAccepted ? refusal : status;

/** Smallest chunk of a large object, in bytes. It holds any character, and base64 of a few octets. */
const smallestChunk = 16;

/**
 * Commands of this side's package that have not been sent yet. A message takes as many commands as the other side's
 * MaxMsgSize allows. A command that does not fit goes into the next message. A value that does not fit into any message
 * is cut into chunks (OMA DM protocol 1.2.1, sections 7.1 and 7.3).
 */
export class Outgoing {
  #waiting: Queued[] = [];
  /** Whether values may be cut: the other side takes large objects. */
  mayCut = true;
  /** MsgID and CmdID of the last chunk that was put into a message, separated by a space. */
  #lastChunk = '';
  #weight = 0;

  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  /** About how many bytes the commands take that wait. */
  get weight(): number {
    return this.#weight;
  }

  /** Queues a command. A Status goes before all other commands, because it answers the last received message. */
  push({ command, ...rest }: Queued): void {
    // Before the value is cut into chunks, because all chunks must be of one form.
    const queued = { ...rest, command: commandForXml(command) };
    const at = queued.command.name === 'Status' ? this.#waiting.findIndex(isNoStatus) : -1;
    this.#insert(at < 0 ? this.#waiting.length : at, queued);
  }

  /** Queues commands of which each is made when the one before it has been put into a message. */
  pushAll(commands: Iterator<Command>): void {
    const first = commands.next();
    if (!first.done) this.push({ command: first.value, more: commands });
  }

  /**
   * Makes what follows the waiting commands now: what it is made from is about to change.
   * @param most weight at which the rest is left to be made later
   */
  makeAll(most: number): void {
    for (let at = 0; at < this.#waiting.length; at++) {
      const { more, ...queued } = this.#waiting[at]!;
      if (!more || this.#weight >= most) continue;
      const next = more.next();
      this.#waiting[at] = queued;
      if (!next.done) this.#insert(at + 1, { command: commandForXml(next.value), more });
    }
  }

  /**
   * Takes commands back that were put into a message and have to be sent again, in smaller messages. They come before all that
   * waits. What follows them in a list waits already.
   */
  putBack(sent: readonly Queued[]): void {
    for (const { more: _, ...queued } of sent.toReversed()) this.#insert(0, queued);
  }

  /** Drops all commands. */
  clear(): void {
    this.#waiting = [];
    this.#weight = 0;
  }

  /** The commands of a received message have changed nothing after all: a Status of success becomes `status`. */
  refuse(msgRef: number, status: number): void {
    for (const [at, queued] of this.#waiting.entries()) {
      const { command } = queued;
      if (command.name !== 'Status' || command.msgRef !== msgRef) continue;
      const data = statusAfterRefusal(command.cmd, command.data, status);
      this.#waiting[at] = { ...queued, command: { ...command, data } };
    }
  }

  #insert(at: number, queued: Queued): void {
    this.#waiting.splice(at, 0, queued);
    this.#weight += weightOf(queued.command);
  }

  #shift(): Queued | undefined {
    const first = this.#waiting.shift();
    if (first) this.#weight -= weightOf(first.command);
    return first;
  }

  /**
   * Drops the rest of a large object that the other side does not want.
   * @param chunk MsgID and CmdID of the object's last chunk, separated by a space; the last chunk of all when absent
   */
  dropRest(chunk = this.#lastChunk): void {
    if (chunk !== this.#lastChunk || !this.#waiting[0]?.rest) return;
    this.#follow(this.#shift());
  }

  /** Makes and queues the command that follows a finished one. */
  #follow(done: Queued | undefined): void {
    const next = done?.more?.next();
    if (done?.more && next && !next.done)
      this.#insert(0, { command: commandForXml(next.value), more: done.more });
  }

  /**
   * Takes the commands that fit into a message, and gives them their CmdIDs. Takes none when not even a part of the first one
   * fits.
   * @param space free bytes of the message
   * @param sizes what commands take in the coding of the message
   * @param before number of commands that the message has already
   */
  take(space: number, sizes: Sizes, msgId: number, before: number): Queued[] {
    const taken: Queued[] = [];
    let left = space;
    let lastId = before;
    for (let next = this.#waiting[0]; next; next = this.#waiting[0]) {
      const { command, ids } = numbered(next.command, lastId);
      const size = sizes.of(elementOfCommand(command));
      // The command would fit into an empty message: it is sent complete in the next one rather than in two chunks.
      if (size > left && size <= space && taken.some(isNoStatus)) break;
      const parts = size > left && this.mayCut ? cut(command, left, sizes, next.rest) : undefined;
      if (size > left && !parts) break;
      this.#shift();
      const sending = parts?.chunk ?? command;
      taken.push({ ...next, command: sending });
      next.sent?.(sending, msgId);
      if (parts) {
        this.#lastChunk = `${msgId} ${sending.cmdId}`;
        this.#insert(0, { ...next, command: parts.rest, rest: true });
        break;
      }
      this.#follow(next);
      lastId += ids;
      left -= size;
    }
    return taken;
  }
}

/** Bytes of commands, before they get their CmdIDs. */
export const sizeOf = (queued: readonly Queued[], sizes: Sizes): number =>
  queued.reduce((sum, { command }) => sum + sizes.of(elementOfCommand(command)), 0);

const isNoStatus = ({ command }: Queued): boolean => command.name !== 'Status';

/** Gives a command, and the commands within it, the CmdIDs after `lastId`. `ids` is the number of CmdIDs given. */
export function numbered(command: Command, lastId: number): { command: Command; ids: number } {
  let ids = 1;
  const cmdId = String(lastId + 1);
  if (!isCompositeCommand(command)) return { command: { ...command, cmdId }, ids };
  const commands = command.commands.map((each) => {
    const inner = numbered(each, lastId + ids);
    ids += inner.ids;
    return inner.command;
  });
  return { command: { ...command, cmdId, commands }, ids };
}

/** The item whose value can be cut into chunks. None for a Status and for a command of several items. */
function onlyItem(command: Command): Item | undefined {
  const items = itemsOf(command);
  return items.length === 1 && command.name !== 'Status' ? items[0] : undefined;
}

/**
 * Cuts a command in two so that the first one, with a chunk of the value, takes at most `space` bytes. Octets are cut as
 * base64: the size in Meta is that of the base64 (tree and description 1.2.1, section 7.7.4).
 */
function cut(
  command: Command,
  space: number,
  sizes: Sizes,
  isRest = false,
): { chunk: Command; rest: Command } | undefined {
  const whole = onlyItem(command);
  if (whole?.data === undefined) return undefined;
  const item = typeof whole.data === 'string' ? whole : inBase64(whole, whole.data);
  const data = String(item.data);
  const { size: _, ...unsized } = item.meta ?? {};
  const withItem = (changed: Item): Command => ({ ...command, items: [changed] }) as Command;
  const chunkOf = (head: string): Command =>
    withItem({
      ...item,
      meta: isRest ? unsized : { ...unsized, size: Buffer.byteLength(data) },
      data: head,
      moreData: true,
    });
  const room = space - sizes.of(elementOfCommand(chunkOf('.'))) + sizes.text('.');
  if (room < smallestChunk) return undefined;
  const [head, tail] = cutText(data, room, sizes);
  return { chunk: chunkOf(head), rest: withItem({ ...item, meta: unsized, data: tail }) };
}

/** The item with its octets as base64. A TNDS object in WBXML keeps its format; its type says what the octets are. */
const inBase64 = (item: Item, octets: Uint8Array): Item => ({
  ...item,
  ...(!isPacked(item.meta?.type) && { meta: { ...item.meta, format: 'b64' } }),
  data: Buffer.from(octets).toString('base64'),
});

function cutText(text: string, room: number, sizes: Sizes): [string, string] {
  let length = Math.min(text.length, room);
  for (let size = sizes.text(text.slice(0, length)); size > room; size = sizes.text(text.slice(0, length)))
    length = Math.max(1, Math.min(length - 1, Math.floor((length * room) / size)));
  // Never cut between the two halves of a surrogate pair.
  const last = text.charCodeAt(length - 1);
  if (last >= 0xd800 && last <= 0xdbff) length = Math.max(2, length - 1);
  return [text.slice(0, length), text.slice(length)];
}
