import { MediaType, sizesOf } from '../wire/syncml/codec.ts';
import {
  type Command,
  elementOf,
  elementOfCommand,
  type Status,
  type SyncHdr,
  type SyncmlMessage,
} from '../wire/syncml/message.ts';
import type { Sizes } from '../wire/syncml/size.ts';
import { type Ends, header, isProtocolVersion, ownLimits, type ProtocolVersion } from './header.ts';
import { isChunk, objectSize } from './large-object.ts';
import { Outgoing, type Queued, sizeOf } from './outgoing.ts';
import { abort, idsIn, nextMessage, statusOf, withoutReferences } from './replies.ts';
import { frameBytes, messageBound } from './session-bounds.ts';
import { DmStatus } from './status.ts';
import { weightOf } from './weight.ts';

export interface MessageBuilderParts {
  readonly ends: Ends;
  readonly sessionId: string;
  /** MsgID of the first message. */
  readonly firstMsgId: number;
  readonly version: ProtocolVersion;
  /** Largest message in either direction, in bytes, where it is less than `ownLimits`. */
  readonly maxMsgSize: number | undefined;
  /** Commands of the own package. */
  readonly outgoing: Outgoing;
}

/** What the header of a message says besides what those of a session have in common. */
export interface HeaderExtras extends Pick<SyncHdr, 'cred' | 'respUri'> {
  /** Name by which this side proves itself (LocName). */
  readonly name: string;
}

/**
 * Builds the messages of one side of a session, in the order of their MsgIDs. Each has as much of the own package as the other
 * side takes in one message (MaxMsgSize), in the coding that is spoken. The message that ends the package is Final (OMA DM
 * protocol 1.2.1, section 7.1).
 */
export class MessageBuilder {
  readonly #parts: MessageBuilderParts;
  readonly #ownLimit: number;
  #limit: number;
  #objectLimit = Number.POSITIVE_INFINITY;
  #version: ProtocolVersion;
  #sizes: Sizes = sizesOf(MediaType.Xml);
  #msgId: number;
  /** Commands of the last message. They are sent again when the other side asks for another credential. */
  #lastBatch: readonly Queued[] = [];
  #lastWeight = 0;
  #lastWasFinal = false;
  /** The last message had no room for anything of the own package. The next one may: it has no credential and no challenge. */
  #wasStuck = false;
  /** The Status for alert 1222 or 1223 of the message under way. What was asked for comes before it. */
  #asked: Status | undefined;
  /** Whether this side is sending its package, so that the last message of it may be marked Final. */
  #ownTurn: boolean;

  /** @param begins whether this side sends its package first */
  constructor(parts: MessageBuilderParts, begins: boolean) {
    this.#parts = parts;
    this.#msgId = Math.max(0, parts.firstMsgId - 1);
    this.#ownLimit = Math.min(parts.maxMsgSize ?? Number.POSITIVE_INFINITY, ownLimits.maxMsgSize);
    this.#limit = this.#ownLimit;
    this.#version = parts.version;
    this.#ownTurn = begins;
  }

  /** MsgID of the last message; that before the first one when there is none yet. */
  get msgId(): number {
    return this.#msgId;
  }

  /** About how many bytes the commands of the last message take, which are kept. */
  get weight(): number {
    return this.#lastWeight;
  }

  /** Largest message that the other side takes, in bytes. */
  get limit(): number {
    return this.#limit;
  }

  /** Whether this side is sending its package. */
  get isOwnTurn(): boolean {
    return this.#ownTurn;
  }

  /** Commands of the last message. */
  get lastBatch(): readonly Queued[] {
    return this.#lastBatch;
  }

  /** Largest object that the other side takes, in bytes. */
  get objectLimit(): number {
    return this.#objectLimit;
  }

  /**
   * Says in which coding the messages that follow are written.
   * @throws {PosternError} `unsupportedFormat`
   */
  speak(mediaType: string): void {
    this.#sizes = sizesOf(mediaType);
  }

  /** Takes what the header of the other side says of messages. */
  heed({ meta, verProto }: SyncHdr): void {
    if (isProtocolVersion(verProto)) this.#version = verProto;
    if (meta?.maxMsgSize !== undefined && meta.maxMsgSize > 0)
      this.#limit = Math.min(meta.maxMsgSize, this.#ownLimit);
    if (meta?.maxObjSize !== undefined && meta.maxObjSize > 0) this.#objectLimit = meta.maxObjSize;
  }

  /** Has the next message say that an alert which controls the session was understood. */
  accept(status: Status): void {
    this.#asked = status;
  }

  /** The package of the other side is complete, so this side sends its own. */
  beginPackage(): void {
    this.#ownTurn = true;
  }

  /** The other side has not proved itself. The answer, with statuses only, is as final as the message that it answers. */
  answerOnly(isFinal: boolean): void {
    this.#lastWasFinal = isFinal;
  }

  /** Whether a value surely fits into one message of the other side. If not, it may go in chunks. */
  fits(data: string | Uint8Array): boolean {
    const size = typeof data === 'string' ? this.#sizes.text(data) : objectSize(data);
    return size <= this.#limit - frameBytes;
  }

  /**
   * Whether a command that cannot be cut fits into a message of the other side that has nothing else of the own package.
   * @param verdict Status for the header of the other side, as long as it may be
   */
  fitsWhole(command: Command, extras: HeaderExtras, verdict: Status): boolean {
    const head = this.#header(extras, messageBound);
    const size = this.#sizes.document(elementOf({ header: head, commands: [verdict, command], final: true }));
    return size + this.#sizes.of(elementOfCommand(longestNext)) + otherBytes <= this.#limit;
  }

  /**
   * Builds the next message: `first`, then `batch`, or as much of the own package as fits. Undefined when nothing of it fits.
   * @param isOver the session has ended, so this message ends the package
   */
  next(
    first: readonly Command[],
    extras: HeaderExtras,
    isOver: boolean,
    batch?: readonly Queued[],
  ): SyncmlMessage | undefined {
    const { outgoing } = this.#parts;
    this.#msgId++;
    const head = this.#header(extras);
    const { lead, space } = this.#lead(head, first);
    const again = batch && this.#again(batch, space, lead.length);
    const queued = again ?? outgoing.take(space, this.#sizes, this.#msgId, lead.length);
    const isStuck = !again && queued.length === 0 && !outgoing.isEmpty;
    if (space < 0 || (isStuck && this.#wasStuck)) return undefined;
    this.#wasStuck = isStuck;
    this.#lastBatch = queued;
    this.#lastWeight = queued.reduce((sum, { command }) => sum + weightOf(command), 0);
    const commands = [...lead, ...queued.map(({ command }) => command)];
    const isFinal = again ? this.#lastWasFinal : outgoing.isEmpty && (this.#ownTurn || isOver);
    if (!isFinal && !this.#ownTurn) commands.push({ ...nextMessage, cmdId: String(idsIn(commands) + 1) });
    if (isFinal) this.#ownTurn = false;
    this.#lastWasFinal = isFinal;
    return { header: head, commands, final: isFinal };
  }

  /**
   * In place of a message that `next` could not build: the other side's messages are so small that this side can say nothing in
   * them. It says that, in as few bytes as it can.
   * @param msgRef MsgID of the message that is answered
   */
  refusal(msgRef: number, name: string): SyncmlMessage {
    const verdict = statusOf(msgRef, '0', 'SyncHdr', DmStatus.RequestEntityTooLarge);
    const commands = [verdict, abort].map((command, at) => ({ ...command, cmdId: String(at + 1) }));
    return { header: this.#header({ name }), commands, final: true };
  }

  #header({ name, ...extra }: HeaderExtras, msgId = this.#msgId): SyncHdr {
    const { ends, sessionId } = this.#parts;
    const common = { ends, name, sessionId, version: this.#version, maxMsgSize: this.#ownLimit };
    return header(common, msgId, extra);
  }

  /**
   * What comes first in a message, and the bytes that are left. Statuses lose what they may lack where the other side's
   * MaxMsgSize is small, and the Status for alert 1222 comes only where it is no burden to what was asked for.
   */
  #lead(head: SyncHdr, first: readonly Command[]): { lead: Command[]; space: number } {
    const numberedOnes = first.map((command, at) => ({ ...command, cmdId: String(at + 1) }));
    const sizeOfNext = this.#ownTurn ? 0 : this.#sizes.of(elementOfCommand(longestNext));
    const spaceBeside = (commands: readonly Command[]) =>
      this.#limit - sizeOfNext - this.#sizes.document(elementOf({ header: head, commands, final: true }));
    const short = numberedOnes.map(withoutReferences);
    // The Status of the header is the first. The commands of an unproven message come again, and get theirs then.
    const wanted = this.#parts.outgoing.isEmpty ? 0 : spaceForOne;
    const isRoomy = spaceBeside(numberedOnes) >= wanted;
    const lead = isRoomy ? numberedOnes : spaceBeside(short) >= 0 ? short : short.slice(0, 1);
    const space = spaceBeside(lead);
    if (!this.#asked) return { lead, space };
    const asked = { ...this.#asked, cmdId: String(lead.length + 1) };
    this.#asked = undefined;
    const size = this.#sizes.of(elementOfCommand(asked));
    const isBurden = size > (this.#parts.outgoing.isEmpty ? space : space / 4);
    return isBurden ? { lead, space } : { lead: [...lead, asked], space: space - size };
  }

  /**
   * The commands of the last message once more. Undefined when the other side, which has told its MaxMsgSize since, takes them only
   * in smaller messages: they wait to be sent then. Chunks are as small as they were told to be.
   */
  #again(batch: readonly Queued[], space: number, before: number): Queued[] | undefined {
    const again = new Outgoing();
    again.putBack(batch);
    if (batch.some(({ command }) => isChunk(command)) || sizeOf(batch, this.#sizes) <= space)
      return again.take(Number.POSITIVE_INFINITY, this.#sizes, this.#msgId, before);
    this.#parts.outgoing.putBack(batch);
    this.#ownTurn ||= this.#lastWasFinal;
    return undefined;
  }
}

/** Alert 1222 with a CmdID of four digits. */
const longestNext = { ...nextMessage, cmdId: '0000' };

/** Bytes of the Status for alert 1222, and of the IDs of a command and of those within it. */
const otherBytes = 400;

/** Bytes below which what a Status may lack gives way to the own package. */
const spaceForOne = 256;
