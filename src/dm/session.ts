import type { Entropy } from '../base/entropy.ts';
import {
  type Alert,
  type Command,
  elementOf,
  type Item,
  itemsOf,
  type Status,
  type SyncmlMessage,
} from '../wire/syncml/message.ts';
import { sizeInXml } from '../wire/syncml/size.ts';
import { type Account, type SaveNonces, type Seal, SessionAuthentication } from './authentication.ts';
import {
  type Ends,
  header,
  isKnownVersion,
  isProtocolVersion,
  ownLimits,
  type ProtocolVersion,
} from './header.ts';
import { LargeObjectReceiver } from './large-object.ts';
import { Outgoing, type Queued } from './outgoing.ts';
import {
  abort,
  idsIn,
  idsOf,
  isChallenge,
  isRequest,
  nameOf,
  nextMessage,
  type StatusFields,
  statusOf,
  unanswered,
} from './replies.ts';
import { AlertCode, DmStatus, isOk } from './status.ts';

/** How a session ended. `status` is 200, or the DM status that says why it failed. */
export interface SessionOutcome {
  readonly status: number;
  readonly reason: string;
}

export interface SessionParts {
  readonly ends: Ends;
  readonly account: Account;
  readonly saveNonces: SaveNonces;
  readonly entropy: Entropy;
  /** Hexadecimal, as Package #0 gave it or the client chose it. */
  readonly sessionId: string;
  /** What this side speaks first; a server answers in the version that it is spoken to. */
  readonly version?: ProtocolVersion;
}

/** Messages of one session; a peer that goes on beyond is not sane. */
export const messageBound = 1024;

/** Bytes that are kept free in each message, for alert 1222 and the XML declaration. */
const spareBytes = 120;

/**
 * What both sides of a DM session have in common (OMA DM protocol 1.2.1, sections 7 to 9): credentials both ways, packages
 * of several messages, large objects, statuses, repetition. A side says what it does with commands and when a package of
 * the other side is complete.
 */
export abstract class Session {
  readonly #parts: SessionParts;
  readonly #authentication: SessionAuthentication;
  readonly #objects = new LargeObjectReceiver(ownLimits.maxObjSize);
  protected readonly outgoing = new Outgoing();
  /** Commands of the message that went out last, in case it has to be sent again with another credential. */
  #lastBatch: readonly Queued[] = [];
  #lastWasFinal = false;
  /** Who waits for the status of a command, by message and command. */
  readonly #awaited = new Map<string, (status: number) => void>();
  /** Statuses of packages whose sender had still to prove itself: they count when it has. */
  #held: Status[] = [];
  #msgId = 0;
  #received = -1;
  /** The package of the other side that is under way asks for something. */
  #requested = false;
  #answer: Promise<SyncmlMessage | undefined> = Promise.resolve(undefined);
  #peerLimit: number = ownLimits.maxMsgSize;
  #peerObjectLimit = Number.POSITIVE_INFINITY;
  #version: ProtocolVersion;
  /** This side's package is the one under way, so its last message may say so. */
  #ownTurn: boolean;
  #outcome: SessionOutcome | undefined;
  #respUri: string | undefined;

  protected constructor(parts: SessionParts, begins: boolean) {
    this.#parts = parts;
    this.#ownTurn = begins;
    this.#version = parts.version ?? 'DM/1.2';
    this.#authentication = new SessionAuthentication(parts.account, parts.saveNonces, parts.entropy);
  }

  get outcome(): SessionOutcome | undefined {
    return this.#outcome;
  }

  /** The other side has proved itself. */
  get authenticated(): boolean {
    return this.#authentication.peerProved;
  }

  /** Where the other side wants the next message, if not where the last one went. */
  get respUri(): string | undefined {
    return this.#respUri;
  }

  /** `x-syncml-hmac` for the message that was given last, once it is coded; none where this side proves itself otherwise. */
  seal(body: Uint8Array): string | undefined {
    return this.#authentication.seal(body);
  }

  /** A message that comes again, since its answer was lost, gets the same answer, and nothing is done twice. */
  protected exchange(message: SyncmlMessage, seal: Seal | undefined): Promise<SyncmlMessage | undefined> {
    const { msgId } = message.header;
    if (msgId === this.#received) return this.#answer;
    if (msgId < this.#received) return Promise.resolve(this.#outdated(message));
    this.#received = msgId;
    this.#answer = this.#take(message, seal);
    return this.#answer;
  }

  protected abstract get demandsVerdict(): boolean;
  /** Takes a command that is whole, and answers it by what it puts into `outgoing`. */
  protected abstract perform(command: Command, message: SyncmlMessage): Promise<void>;
  /** What of a message is to be durable as a whole. */
  protected abstract performAll(work: () => Promise<void>): Promise<void>;
  /** The other side's package is complete. */
  protected abstract packageEnded(requested: boolean): Promise<void>;
  /** Whether a message goes out although the session is over. */
  protected abstract get lastWord(): boolean;

  protected end(status: number, reason: string): void {
    this.#outcome ??= { status, reason };
    if (!isOk(status)) this.outgoing.clear();
    this.#awaited.clear();
    this.#objects.drop();
  }

  /** The first message of a session. */
  protected open(): SyncmlMessage {
    return this.#message([]);
  }

  /** `settled` hears of the command's first status. */
  protected push(command: Command, settled?: (status: number) => void): void {
    let isSettled = false;
    const once = (status: number) => {
      if (!isSettled) settled?.(status);
      isSettled = true;
    };
    this.outgoing.push({
      command,
      ...(settled && { sent: ({ cmdId }, msgId) => this.await(msgId, cmdId, once) }),
    });
  }

  /** Chunks of a large object have statuses of their own, which are no answer to the whole. */
  protected await(msgId: number, cmdId: string, settled: (status: number) => void): void {
    const key = `${msgId} ${cmdId}`;
    this.#awaited.set(key, (status) => {
      if (status === DmStatus.ChunkAccepted) return;
      if (!isOk(status)) this.outgoing.dropRest(key);
      settled(status);
    });
  }

  protected status(
    { header: { msgId, noResp } }: SyncmlMessage,
    command: Pick<Command, 'cmdId'> & { readonly noResp?: true | undefined },
    cmd: string,
    data: number,
    fields: StatusFields = {},
  ): void {
    if (noResp || command.noResp) return;
    const { cmdId } = command;
    this.push(statusOf(msgId, cmdId, cmd, data, fields));
  }

  /** Objects above this are not taken by the other side. */
  protected get peerObjectLimit(): number {
    return this.#peerObjectLimit;
  }

  async #take(message: SyncmlMessage, seal: Seal | undefined): Promise<SyncmlMessage | undefined> {
    const { header: head, commands, final } = message;
    const { ends, sessionId } = this.#parts;
    if (this.#outcome && !this.lastWord) return undefined;
    if (!isKnownVersion(message)) {
      this.end(DmStatus.UnsupportedVersion, `protocol version ${head.verProto}`);
      return this.#lastWords([statusOf(head.msgId, '0', 'SyncHdr', DmStatus.UnsupportedVersion)]);
    }
    if (head.sessionId !== sessionId || head.source.locUri !== ends.remote) {
      this.end(DmStatus.BadRequest, 'a message of another session or party');
      return this.#lastWords([statusOf(head.msgId, '0', 'SyncHdr', DmStatus.BadRequest)]);
    }
    if (this.#msgId >= messageBound) {
      this.end(DmStatus.SessionAborted, 'session without an end');
      return this.#lastWords([abort]);
    }
    this.#heedHeader(message);
    const statuses = commands.filter((command): command is Status => command.name === 'Status');
    const verdict = statuses.find(({ cmdRef, msgRef }) => cmdRef === '0' && msgRef === this.#msgId);
    if (!verdict && this.demandsVerdict) {
      this.end(DmStatus.BadRequest, 'an answer without a status for the header');
      return undefined;
    }
    const refused = verdict !== undefined && !this.#authentication.heed(verdict);
    if (refused && (!isChallenge(verdict) || this.#authentication.exhausted)) {
      this.end(verdict.data, 'the other side refused this one');
      return this.#lastWords([]);
    }
    // Who refuses this side has nothing to prove yet; the commands of the last message go again (section 9).
    if (refused && !this.#authentication.peerProved) return this.#message([], this.#lastBatch);
    const judged = this.#authentication.judge(head, seal);
    const answered = [
      statusOf(head.msgId, '0', 'SyncHdr', judged.status, {
        targetRefs: [ends.local],
        sourceRefs: [head.source.locUri],
        ...(judged.chal && !this.#authentication.peerExhausted && { chal: judged.chal }),
      }),
    ];
    if (!this.#authentication.peerProved) return this.#untrusted(message, judged.status, answered, statuses);
    if (refused) return this.#message(head.noResp ? [] : answered, this.#lastBatch);
    for (const status of [...this.#held.splice(0), ...statuses])
      this.#awaited.get(`${status.msgRef} ${status.cmdRef}`)?.(status.data);
    const isSending = !this.outgoing.isEmpty;
    await this.#performAll(message);
    if (this.#outcome) return this.#lastWords(answered);
    if (final) {
      this.#ownTurn = true;
      const requested = this.#requested;
      this.#requested = false;
      if (!isSending) await this.packageEnded(requested);
      if (this.#outcome && !this.lastWord) return undefined;
    }
    if (judged.chal) this.#authentication.tell();
    return this.#message(head.noResp ? [] : answered);
  }

  #heedHeader({ header: { meta, respUri, verProto } }: SyncmlMessage): void {
    if (isProtocolVersion(verProto)) this.#version = verProto;
    if (meta?.maxMsgSize !== undefined && meta.maxMsgSize > 0)
      this.#peerLimit = Math.min(meta.maxMsgSize, ownLimits.maxMsgSize);
    if (meta?.maxObjSize !== undefined && meta.maxObjSize > 0) this.#peerObjectLimit = meta.maxObjSize;
    if (respUri !== undefined) this.#respUri = respUri;
  }

  /** Section 9: to one that has not proved itself the answer holds statuses only. */
  #untrusted(
    message: SyncmlMessage,
    status: number,
    answered: Command[],
    statuses: readonly Status[],
  ): SyncmlMessage | undefined {
    const { header: head, commands } = message;
    this.#held.push(...statuses.slice(0, messageBound));
    if (this.#authentication.exhausted) this.end(status, 'the other side did not prove itself');
    if (this.#outcome && !this.lastWord) return undefined;
    const refusals = commands
      .filter(({ name }) => !unanswered.has(name))
      .map((command) => statusOf(head.msgId, command.cmdId, nameOf(command), status));
    this.#lastWasFinal = message.final;
    return this.#message(head.noResp ? [] : [...answered, ...refusals], []);
  }

  async #performAll(message: SyncmlMessage): Promise<void> {
    const seen = new Set<string>();
    await this.performAll(async () => {
      for (const command of message.commands) {
        if (this.#outcome) return;
        if (command.name === 'Status') continue;
        if (seen.has(command.cmdId)) {
          this.status(message, command, nameOf(command), DmStatus.BadRequest);
          continue;
        }
        for (const id of idsOf(command)) seen.add(id);
        this.#requested ||= isRequest(command);
        if (command.name === 'Alert' && this.#flow(command, message)) continue;
        const complete = this.#assemble(command, message);
        if (complete) await this.perform(complete, message);
      }
    });
  }

  /** Alerts that steer the session itself. */
  #flow(alert: Alert, message: SyncmlMessage): boolean {
    switch (alert.data) {
      case AlertCode.NextMessage:
        this.status(message, alert, 'Alert', DmStatus.Ok);
        return true;
      case AlertCode.SessionAbort:
        this.end(DmStatus.SessionAborted, 'the other side aborted the session');
        return true;
      case AlertCode.NoEndOfData:
        this.status(message, alert, 'Alert', DmStatus.Ok);
        this.outgoing.dropRest();
        return true;
      default:
        return false;
    }
  }

  /** A command with its large object put together; none when more is to come, or it went wrong. */
  #assemble(command: Command, message: SyncmlMessage): Command | undefined {
    const items = itemsOf(command);
    if (this.#objects.open && !items.some((item) => this.#objects.continues(nameOf(command), item))) {
      // Something else came before the end of an object (section 7.3).
      const { target, source } = this.#objects.open;
      this.#objects.drop();
      this.push({
        name: 'Alert',
        cmdId: '',
        data: AlertCode.NoEndOfData,
        items: [{ ...(target && { target }), ...(source && { source }) }],
      });
    }
    if (!this.#objects.open && !items.some(({ moreData }) => moreData)) return command;
    const complete: Item[] = [];
    for (const item of items) {
      const received = this.#objects.take(nameOf(command), item);
      if (received.kind === 'complete') complete.push(received.item);
      else {
        const uri = item.target?.locUri;
        const status = received.kind === 'part' ? DmStatus.ChunkAccepted : received.status;
        this.status(
          message,
          command,
          nameOf(command),
          status,
          uri === undefined ? {} : { targetRefs: [uri] },
        );
      }
    }
    return complete.length > 0 ? ({ ...command, items: complete } as Command) : undefined;
  }

  #outdated({ header: { msgId } }: SyncmlMessage): SyncmlMessage | undefined {
    return this.#lastWords([statusOf(msgId, '0', 'SyncHdr', DmStatus.BadRequest)]);
  }

  /** What a side that always answers says when there is nothing more to do. */
  #lastWords(first: readonly Command[]): SyncmlMessage | undefined {
    if (!this.lastWord) return undefined;
    return this.#message(first);
  }

  /** The next message: what must be in it first, then `batch`, or what of the package fits. */
  #message(first: readonly Command[], batch?: readonly Queued[]): SyncmlMessage {
    const msgId = ++this.#msgId;
    const { ends, sessionId } = this.#parts;
    const authentication = this.#authentication;
    const head = header(
      { ends, name: authentication.ownName, sessionId, version: this.#version },
      msgId,
      authentication.credential(),
    );
    const lead = first.map((command, at) => ({ ...command, cmdId: String(at + 1) }));
    const empty = elementOf({ header: head, commands: lead, final: true });
    const space = this.#peerLimit - sizeInXml(empty, -1) - spareBytes;
    const from = batch ? new Outgoing() : this.outgoing;
    for (const queued of batch ?? []) from.push(queued);
    const queued = from.take(batch ? Number.POSITIVE_INFINITY : space, msgId, lead.length);
    this.#lastBatch = queued;
    const commands = [...lead, ...queued.map(({ command }) => command)];
    const isFinal = batch
      ? this.#lastWasFinal
      : this.outgoing.isEmpty && (this.#ownTurn || this.#outcome !== undefined);
    if (!isFinal && !this.#ownTurn) commands.push({ ...nextMessage, cmdId: String(idsIn(commands) + 1) });
    if (isFinal) this.#ownTurn = false;
    this.#lastWasFinal = isFinal;
    return { header: head, commands, final: isFinal };
  }
}
