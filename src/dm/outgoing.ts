import {
  type Command,
  commandForXml,
  elementOfCommand,
  type Item,
  isCompositeCommand,
  itemsOf,
} from '../wire/syncml/message.ts';
import { sizeInXml, textInXml } from '../wire/syncml/size.ts';

/** A command that waits to be sent. Its command IDs are given when it goes out. */
export interface Queued {
  readonly command: Command;
  /** Hears under which IDs the command, or a part of it, went out: for what its statuses say. */
  readonly sent?: (command: Command, msgId: number) => void;
  /** What is left of a large object that is on its way. */
  readonly rest?: true;
  /** Commands that come after it, made when it is their turn. */
  readonly more?: Iterator<Command>;
}

/** A chunk of a large object is not made smaller than this many bytes. */
const smallestChunk = 64;

/**
 * Commands of this side's package that were not sent yet. Each message takes as many as the other side's MaxMsgSize
 * allows; what does not fit goes into the next, and a value that fits in none is cut into chunks (OMA DM protocol 1.2.1,
 * sections 7.1 and 7.3).
 */
export class Outgoing {
  #waiting: Queued[] = [];
  /** Message and command of the chunk that went out last. */
  #lastChunk = '';

  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  /** Statuses go before all other commands: they answer the message that was received last. */
  push({ command, ...rest }: Queued): void {
    // Before it is cut into chunks, which must all be text or all be octets.
    const queued = { ...rest, command: commandForXml(command) };
    const at = queued.command.name === 'Status' ? this.#waiting.findIndex(isNoStatus) : -1;
    if (at < 0) this.#waiting.push(queued);
    else this.#waiting.splice(at, 0, queued);
  }

  /** Commands of which each is made when the one before it is on its way. */
  pushAll(commands: Iterator<Command>): void {
    const first = commands.next();
    if (!first.done) this.push({ command: first.value, more: commands });
  }

  clear(): void {
    this.#waiting = [];
  }

  /** The other side does not want the rest of the object whose last chunk went out as this command; any, when none is named. */
  dropRest(chunk = this.#lastChunk): void {
    if (chunk !== this.#lastChunk || !this.#waiting[0]?.rest) return;
    this.#follow(this.#waiting.shift());
  }

  /** Makes the command that comes after one which is done with. */
  #follow(done: Queued | undefined): void {
    const next = done?.more?.next();
    if (done?.more && next && !next.done)
      this.#waiting.unshift({ command: commandForXml(next.value), more: done.more });
  }

  /** Takes what fits into `space` bytes, behind `before` commands that are in the message already. */
  take(space: number, msgId: number, before: number): Queued[] {
    const taken: Queued[] = [];
    let left = space;
    let lastId = before;
    for (let next = this.#waiting[0]; next; next = this.#waiting[0]) {
      const { command, ids } = numbered(next.command, lastId);
      const size = sizeInXml(elementOfCommand(command), 0);
      // Whole in the next message rather than in two parts.
      if (size > left && size <= space && taken.some(isNoStatus)) break;
      const parts = size > left ? cut(command, left - (size - dataBound(command)), next.rest) : undefined;
      // What can be made no smaller goes alone: the other side has to say what it thinks of it.
      if (size > left && !parts && before + taken.length > 1) break;
      this.#waiting.shift();
      const sending = parts?.chunk ?? command;
      taken.push({ ...next, command: sending });
      next.sent?.(sending, msgId);
      if (parts) {
        this.#lastChunk = `${msgId} ${sending.cmdId}`;
        this.#waiting.unshift({ ...next, command: parts.rest, rest: true });
        break;
      }
      this.#follow(next);
      lastId += ids;
      left -= size;
    }
    return taken;
  }
}

const isNoStatus = ({ command }: Queued): boolean => command.name !== 'Status';

/** Gives a command, and those within it, their IDs in one message. */
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

/** The one item whose value can go in chunks: statuses, and commands of several items, go whole. */
function onlyItem(command: Command): Item | undefined {
  const items = itemsOf(command);
  return items.length === 1 && command.name !== 'Status' ? items[0] : undefined;
}

function dataBound(command: Command): number {
  const data = onlyItem(command)?.data ?? '';
  return typeof data === 'string' ? textInXml(data) : Math.ceil(data.length / 3) * 4;
}

/** Cuts a command so that the value of its first part has at most `room` bytes on the wire. */
function cut(command: Command, room: number, isRest = false): { chunk: Command; rest: Command } | undefined {
  const item = onlyItem(command);
  if (item?.data === undefined || room < smallestChunk) return undefined;
  const { data, meta } = item;
  const [head, tail] =
    typeof data === 'string' ? cutText(data, room) : cutOctets(Buffer.from(data), Math.floor(room / 4) * 3);
  const withItem = (changed: Item): Command => ({ ...command, items: [changed] }) as Command;
  const { size: _, ...unsized } = meta ?? {};
  return {
    chunk: withItem({
      ...item,
      meta: isRest ? unsized : { ...unsized, size: Buffer.byteLength(data) },
      data: head,
      moreData: true,
    }),
    rest: withItem({ ...item, meta: unsized, data: tail }),
  };
}

const cutOctets = (data: Buffer, length: number): [Buffer, Buffer] => [
  data.subarray(0, length),
  data.subarray(length),
];

function cutText(text: string, room: number): [string, string] {
  let length = Math.min(text.length, room);
  for (let size = textInXml(text.slice(0, length)); size > room; size = textInXml(text.slice(0, length)))
    length = Math.max(1, Math.min(length - 1, Math.floor((length * room) / size)));
  // Not between the halves of one character.
  const last = text.charCodeAt(length - 1);
  if (last >= 0xd800 && last <= 0xdbff) length = Math.max(2, length - 1);
  return [text.slice(0, length), text.slice(length)];
}
