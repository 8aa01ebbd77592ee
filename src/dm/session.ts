import {
  type Alert,
  type Chal,
  type Command,
  commandWithValues,
  elementOf,
  elementOfCommand,
  type Item,
  type Status,
  type SyncHdr,
  type SyncmlMessage,
} from '../wire/syncml/message.ts';
import { sizeInXml, textInXml } from '../wire/syncml/size.ts';
import { type Seal, SessionAuthentication } from './authentication.ts';
import { header, isProtocolVersion, ownLimits, type ProtocolVersion, unknownVersion } from './header.ts';
import { isChunk, LargeObjectReceiver, objectSize } from './large-object.ts';
import { Outgoing, type Queued, sizeOf } from './outgoing.ts';
import {
  abort,
  idsIn,
  idsOf,
  isChallenge,
  isRequest,
  nameOf,
  nextMessage,
  noEndOfData,
  type StatusFields,
  statusOf,
  unanswered,
  withoutReferences,
} from './replies.ts';
import {
  baseWeight,
  callbackWeight,
  frameBytes,
  messageBound,
  refusalBound,
  spareBytes,
  weightBound,
} from './session-bounds.ts';
import type { SessionOutcome, SessionParts } from './session-parts.ts';
import { AlertCode, DmStatus, isOk } from './status.ts';
import { weightOf } from './weight.ts';

/**
 * What both sides of a DM session have in common (OMA DM protocol 1.2.1, sections 7 to 9): credentials in both
 * directions, packages of several messages, large objects, statuses, repeated messages. A subclass defines what
 * commands do, and what happens when a package of the other side is complete.
 */
export abstract class Session {
  readonly #parts: SessionParts;
  readonly #authentication: SessionAuthentication;
  readonly #objects = new LargeObjectReceiver(ownLimits.maxObjSize);
  protected readonly outgoing = new Outgoing();
  /** Commands of the last message. They are sent again when the other side asks for another credential. */
  #lastBatch: readonly Queued[] = [];
  #lastWeight = 0;
  #lastWasFinal = false;
  /** Callbacks for the statuses of sent commands, by MsgID and CmdID. */
  readonly #awaited = new Map<string, (status: Status) => void>();
  /** Statuses that arrived before the other side had proved itself. They take effect when it has. */
  #held: Status[] = [];
  #msgId = 0;
  #received = -1;
  /** Whether the package that is being received must be answered. */
  #requested = false;
  #answer: Promise<SyncmlMessage | undefined> = Promise.resolve(undefined);
  readonly #ownLimit: number;
  #peerLimit: number;
  #peerObjectLimit = Number.POSITIVE_INFINITY;
  #version: ProtocolVersion;
  /** The last message had no room for anything of the own package. The next one may: it has no credential and no challenge. */
  #wasStuck = false;
  /** The Status for alert 1222 or 1223 of the message under way. What was asked for comes before it. */
  #asked: Status | undefined;
  /** Whether this side is sending its package, so that the last message of it may be marked Final. */
  #ownTurn: boolean;
  #outcome: SessionOutcome | undefined;
  #respUri: string | undefined;

  protected constructor(parts: SessionParts, begins: boolean) {
    this.#parts = parts;
    this.#ownTurn = begins;
    this.#ownLimit = Math.min(parts.maxMsgSize ?? Number.POSITIVE_INFINITY, ownLimits.maxMsgSize);
    this.#peerLimit = this.#ownLimit;
    this.#version = parts.version ?? 'DM/1.2';
    this.#msgId = Math.max(0, (parts.firstMsgId ?? 1) - 1);
    const { account, saveNonces, entropy, challenge, asksEach } = parts;
    this.#authentication = new SessionAuthentication(account, saveNonces, entropy, challenge, asksEach);
  }

  /** Undefined while the session goes on. */
  get outcome(): SessionOutcome | undefined {
    return this.#outcome;
  }

  /** Whether the other side has proved itself. */
  get authenticated(): boolean {
    return this.#authentication.peerProved;
  }

  /** About how many bytes it holds: an unfinished object, what waits to be sent, and the last message that was sent. */
  get weight(): number {
    return (
      baseWeight +
      this.#objects.bytes +
      this.outgoing.weight +
      this.#lastWeight +
      (this.#awaited.size + this.#held.length) * callbackWeight
    );
  }

  /** Whether a message has a correct proof of the other side. Changes nothing. */
  recognises({ header: head }: SyncmlMessage, seal: Seal | undefined): boolean {
    return this.#authentication.recognises(head, seal);
  }

  /** Whether the other side has proved itself in a way that its next messages need no proof of their own. */
  get needsNoProof(): boolean {
    return this.#authentication.needsNoProof;
  }

  /** Where the other side wants the next message (RespURI), when it gave an address. */
  get respUri(): string | undefined {
    return this.#respUri;
  }

  /** Value of `x-syncml-hmac` for the last message, given its encoded form. Undefined unless this side uses MAC. */
  seal(body: Uint8Array): string | undefined {
    return this.#authentication.seal(body);
  }

  /**
   * Takes a message and returns the answer. A repeated message gets the same answer again; nothing is executed twice.
   */
  protected exchange(message: SyncmlMessage, seal: Seal | undefined): Promise<SyncmlMessage | undefined> {
    const { msgId } = message.header;
    if (msgId === this.#received) return this.#answer;
    if (msgId < this.#received) return Promise.resolve(this.#outdated(message));
    this.#received = msgId;
    this.#answer = this.#take(message, seal);
    return this.#answer;
  }

  /** Whether an answer must have a Status for this side's header. */
  protected abstract get demandsVerdict(): boolean;
  /** Executes a command whose large object is complete, and puts the replies into `outgoing`. */
  protected abstract perform(command: Command, message: SyncmlMessage): Promise<void>;
  /** Runs `work`, which executes the commands of one message. A subclass may make their changes durable together. */
  protected abstract performAll(work: () => Promise<void>, message: SyncmlMessage): Promise<void>;
  /** Called when the other side's package is complete. `requested` says whether it must be answered. */
  protected abstract packageEnded(requested: boolean): Promise<void>;
  /** Whether this side still sends an answer after the session has ended. */
  protected abstract get lastWord(): boolean;

  /** Ends the session. The first call decides the outcome. */
  protected end(status: number, reason: string): void {
    this.#outcome ??= { status, reason };
    if (!isOk(status)) this.outgoing.clear();
    this.#awaited.clear();
    this.#objects.drop();
  }

  /** Forgets what waits for statuses of commands that were sent. */
  protected forgetAwaited(): void {
    this.#awaited.clear();
  }

  /** Builds the first message of a session. */
  protected open(): SyncmlMessage {
    return this.#message([]);
  }

  /** Queues a command. `settled` is called with its first status. */
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

  /**
   * Calls `settled` with each status of a sent command, except the statuses of single chunks of a large object (213).
   */
  protected await(
    msgId: number,
    cmdId: string,
    settled: (status: number, items: readonly Item[]) => void,
  ): void {
    const key = `${msgId} ${cmdId}`;
    this.#awaited.set(key, ({ data: status, items }) => {
      if (status === DmStatus.ChunkAccepted) return;
      if (!isOk(status)) this.outgoing.dropRest(key);
      settled(status, items);
    });
  }

  /** Queues a Status for a command, unless the command or the header has NoResp. */
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

  /** Whether the other side accepts an object of this value, by its MaxObjSize. */
  protected peerTakes(data: string | Uint8Array = ''): boolean {
    return objectSize(data) <= this.#peerObjectLimit;
  }

  /** Whether the other side may refuse a value that this side stores. */
  protected get peerTakesLess(): boolean {
    return this.#peerObjectLimit < ownLimits.maxObjSize;
  }

  /** Whether a value surely fits into one message of the other side, in XML. If not, it may go in chunks. */
  protected fitsMessage(data: string | Uint8Array = ''): boolean {
    const size = typeof data === 'string' ? textInXml(data) : objectSize(data);
    return size <= this.#peerLimit - frameBytes;
  }

  /** Whether a command that cannot be cut fits into a message of the other side that has nothing else of the own package. */
  protected fitsWhole(command: Command): boolean {
    const { ends, sessionId, asksEach } = this.#parts;
    const fields = {
      ends,
      name: this.#authentication.ownName,
      sessionId,
      version: this.#version,
      maxMsgSize: 0,
    };
    const verdict = statusOf(messageBound, '0', 'SyncHdr', DmStatus.Ok, {
      targetRefs: [ends.local],
      sourceRefs: [ends.remote],
      ...(asksEach && { chal: challengeOfSize }),
    });
    const { respUri = '' } = this.#parts;
    const size = sizeInXml(
      elementOf({
        header: header(fields, messageBound, { respUri }),
        commands: [verdict, command],
        final: true,
      }),
      -1,
    );
    return size + sizeOfNext + otherBytes <= this.#peerLimit;
  }

  async #take(message: SyncmlMessage, seal: Seal | undefined): Promise<SyncmlMessage | undefined> {
    const { header: head, commands, final } = message;
    const { ends, sessionId } = this.#parts;
    if (this.#outcome && !this.lastWord) return undefined;
    const unknown = unknownVersion(message);
    if (unknown !== undefined) {
      this.end(unknown, `protocol version ${head.verProto}, DTD version ${head.verDtd}`);
      return this.#lastWords([statusOf(head.msgId, '0', 'SyncHdr', unknown)]);
    }
    if (head.sessionId !== sessionId || head.source.locUri !== ends.remote) {
      this.end(DmStatus.BadRequest, 'a message of another session or party');
      return this.#lastWords([statusOf(head.msgId, '0', 'SyncHdr', DmStatus.BadRequest)]);
    }
    if (this.#msgId >= messageBound) {
      this.end(DmStatus.SessionAborted, 'the session has too many messages');
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
      const what = isChallenge(verdict) ? 'did not accept the credential' : 'refused the message';
      this.end(verdict.data, `the other side ${what}`);
      return this.#lastWords([]);
    }
    // A side that asks for another credential need not prove itself yet. The last commands are sent again (section 9).
    if (refused && !this.#authentication.peerProved) return this.#message([], this.#lastBatch);
    const judged = this.#authentication.judge(head, seal);
    const answered = [this.#verdict(head, judged)];
    if (!this.#authentication.peerProved) {
      this.#held.push(...statuses.slice(0, messageBound));
      if (this.#authentication.exhausted) this.end(judged.status, 'the other side did not prove itself');
      if (!refused && this.#isBare(message)) this.end(DmStatus.Ok, 'done');
      if (this.#outcome && !this.lastWord) return undefined;
      return this.#untrusted(message, judged.status, answered);
    }
    if (refused) return this.#message(head.noResp ? [] : answered, this.#lastBatch);
    for (const status of [...this.#held.splice(0), ...statuses])
      this.#awaited.get(`${status.msgRef} ${status.cmdRef}`)?.(status);
    // What waits in the other side's turn are statuses that had no room: no package of this side, which would go on.
    const isSending = this.#ownTurn && !this.outgoing.isEmpty;
    await this.#performAll(message);
    if (this.weight > (this.#parts.mostWeight ?? weightBound))
      this.end(DmStatus.RequestEntityTooLarge, 'the session holds too much');
    if (this.#outcome) return this.#lastWords(answered);
    if (final) {
      this.#objects.packageEnded();
      this.#ownTurn = true;
      const requested = this.#requested;
      this.#requested = false;
      if (!isSending) await this.packageEnded(requested);
      if (this.#outcome && !this.lastWord) return undefined;
    }
    if (judged.chal) this.#authentication.tell();
    return this.#message(head.noResp ? [] : answered);
  }

  /**
   * The answer to a message that proves nothing: statuses with a challenge. Nothing of the message is kept, so this is for a
   * session that is dropped afterwards.
   */
  protected challenge(message: SyncmlMessage, seal: Seal): SyncmlMessage {
    const { header: head } = message;
    const unknown = unknownVersion(message);
    this.#received = head.msgId;
    if (unknown !== undefined) return this.#message([statusOf(head.msgId, '0', 'SyncHdr', unknown)]);
    this.#heedHeader(message);
    const judged = this.#authentication.judge(head, seal);
    return this.#untrusted(message, judged.status, [this.#verdict(head, judged)]);
  }

  /** The Status for the other side's header. */
  #verdict({ msgId, source, target }: SyncHdr, { status, chal }: { status: number; chal?: Chal }): Command {
    return statusOf(msgId, '0', 'SyncHdr', status, {
      targetRefs: [target.locUri],
      sourceRefs: [source.locUri],
      ...(chal && !this.#authentication.peerExhausted && { chal }),
    });
  }

  #heedHeader({ header: { meta, respUri, verProto } }: SyncmlMessage): void {
    if (isProtocolVersion(verProto)) this.#version = verProto;
    if (meta?.maxMsgSize !== undefined && meta.maxMsgSize > 0)
      this.#peerLimit = Math.min(meta.maxMsgSize, this.#ownLimit);
    if (meta?.maxObjSize !== undefined && meta.maxObjSize > 0) this.#peerObjectLimit = meta.maxObjSize;
    if (respUri !== undefined) this.#respUri = respUri;
  }

  /**
   * Section 9: a client does not challenge a server that has neither commands nor a challenge. Unless something waits for its
   * statuses, which count only from a server that has proved itself.
   */
  #isBare({ commands, final }: SyncmlMessage): boolean {
    return (
      !this.lastWord && final && this.#awaited.size === 0 && commands.every(({ name }) => name === 'Status')
    );
  }

  /** Section 9: the answer to a side that has not proved itself has statuses only. */
  #untrusted(message: SyncmlMessage, status: number, answered: Command[]): SyncmlMessage {
    const { header: head, commands } = message;
    const refusals = commands
      .filter(({ name }) => !unanswered.has(name))
      .slice(0, refusalBound)
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
    }, message);
  }

  /** Handles the alerts that control the session itself. Returns whether this was one of them. */
  #flow(alert: Alert, message: SyncmlMessage): boolean {
    switch (alert.data) {
      case AlertCode.NextMessage:
        this.#accept(alert, message);
        return true;
      case AlertCode.SessionAbort:
        this.#accept(alert, message);
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

  /** Has the next message say that an alert which controls the session was understood. */
  #accept(alert: Alert, { header: { msgId, noResp } }: SyncmlMessage): void {
    if (!noResp && !alert.noResp) this.#asked = statusOf(msgId, alert.cmdId, 'Alert', DmStatus.Ok);
  }

  /** The command with its large object assembled. Undefined while chunks are missing, and when the object is wrong. */
  #assemble(command: Command, message: SyncmlMessage): Command | undefined {
    const { command: complete, statuses, interrupted } = this.#objects.assemble(command);
    if (interrupted) this.push(noEndOfData(interrupted));
    for (const { status, uri } of statuses)
      this.status(message, command, nameOf(command), status, uri === undefined ? {} : { targetRefs: [uri] });
    try {
      return complete && commandWithValues(complete, message.opaque);
    } catch {
      // A value that is not base64, as its format says. The other commands of the message count.
      this.status(message, command, nameOf(command), DmStatus.BadRequest);
      return undefined;
    }
  }

  /** Answers a message with a MsgID below the last one. */
  #outdated({ header: { msgId } }: SyncmlMessage): SyncmlMessage | undefined {
    return this.#lastWords([statusOf(msgId, '0', 'SyncHdr', DmStatus.BadRequest)]);
  }

  /** The answer when the session is over or the message cannot be accepted. Undefined for a side that sends none then. */
  #lastWords(first: readonly Command[]): SyncmlMessage | undefined {
    if (!this.lastWord) return undefined;
    return this.#message(first);
  }

  /** Builds the next message: `first`, then `batch`, or as much of the own package as fits. */
  #message(first: readonly Command[], batch?: readonly Queued[]): SyncmlMessage {
    const msgId = ++this.#msgId;
    const { ends, sessionId, respUri } = this.#parts;
    const authentication = this.#authentication;
    const head = header(
      {
        ends,
        name: authentication.ownName,
        sessionId,
        version: this.#version,
        maxMsgSize: this.#ownLimit,
      },
      msgId,
      { ...authentication.credential(), ...(authentication.peerProved && respUri && { respUri }) },
    );
    const { lead, space } = this.#lead(head, first);
    const again = batch && this.#again(batch, space, lead.length);
    const queued = again ?? this.outgoing.take(space, msgId, lead.length);
    const isStuck = !again && queued.length === 0 && !this.outgoing.isEmpty;
    if (space < 0 || (isStuck && this.#wasStuck)) return this.#nothingFits(head);
    this.#wasStuck = isStuck;
    this.#lastBatch = queued;
    this.#lastWeight = queued.reduce((sum, { command }) => sum + weightOf(command), 0);
    const commands = [...lead, ...queued.map(({ command }) => command)];
    const isFinal = again
      ? this.#lastWasFinal
      : this.outgoing.isEmpty && (this.#ownTurn || this.#outcome !== undefined);
    if (!isFinal && !this.#ownTurn) commands.push({ ...nextMessage, cmdId: String(idsIn(commands) + 1) });
    if (isFinal) this.#ownTurn = false;
    this.#lastWasFinal = isFinal;
    return { header: head, commands, final: isFinal };
  }

  /**
   * What comes first in a message, and the bytes that are left. Statuses lose what they may lack where the other side's
   * MaxMsgSize is small, and the Status for alert 1222 comes only where it is no burden to what was asked for.
   */
  #lead(head: SyncHdr, first: readonly Command[]): { lead: Command[]; space: number } {
    const numberedOnes = first.map((command, at) => ({ ...command, cmdId: String(at + 1) }));
    const spaceBeside = (commands: readonly Command[]) =>
      this.#peerLimit -
      sizeInXml(elementOf({ header: head, commands, final: true }), -1) -
      (this.#ownTurn ? spareBytes : spareBytes + sizeOfNext);
    const short = numberedOnes.map(withoutReferences);
    // The Status of the header is the first. The commands of an unproven message come again, and get theirs then.
    const wanted = this.outgoing.isEmpty ? 0 : spaceForOne;
    const isRoomy = spaceBeside(numberedOnes) >= wanted;
    const lead = isRoomy ? numberedOnes : spaceBeside(short) >= 0 ? short : short.slice(0, 1);
    const space = spaceBeside(lead);
    if (!this.#asked) return { lead, space };
    const asked = { ...this.#asked, cmdId: String(lead.length + 1) };
    this.#asked = undefined;
    const size = sizeInXml(elementOfCommand(asked), 0);
    const isBurden = size > (this.outgoing.isEmpty ? space : space / 4);
    return isBurden ? { lead, space } : { lead: [...lead, asked], space: space - size };
  }

  /**
   * The commands of the last message once more. Undefined when the other side, which has told its MaxMsgSize since, takes them only
   * in smaller messages: they wait to be sent then. Chunks are as small as they were told to be.
   */
  #again(batch: readonly Queued[], space: number, before: number): Queued[] | undefined {
    const again = new Outgoing();
    again.putBack(batch);
    if (batch.some(({ command }) => isChunk(command)) || sizeOf(batch) <= space)
      return again.take(Number.POSITIVE_INFINITY, this.#msgId, before);
    this.outgoing.putBack(batch);
    this.#ownTurn ||= this.#lastWasFinal;
    return undefined;
  }

  /** The other side's messages are so small that this side can say nothing in them. It says that, in as few bytes as it can. */
  #nothingFits({ cred: _, ...head }: SyncHdr): SyncmlMessage {
    const status = DmStatus.RequestEntityTooLarge;
    // What was a good end before is none for the other side.
    if (this.#outcome && isOk(this.#outcome.status)) this.#outcome = undefined;
    this.end(status, `nothing fits into messages of ${this.#peerLimit} bytes: the other side's MaxMsgSize`);
    const verdict = statusOf(this.#received, '0', 'SyncHdr', status);
    const commands = [verdict, abort].map((command, at) => ({ ...command, cmdId: String(at + 1) }));
    return { header: head, commands, final: true };
  }
}

/** As large as one that asks for a MAC or a digest. */
const challengeOfSize: Chal = {
  meta: { format: 'b64', type: 'syncml:auth-md5', nextNonce: new Uint8Array(16) },
};

/** Bytes below which what a Status may lack gives way to the own package. */
const spaceForOne = 256;

/** Bytes of the Status for alert 1222, of the IDs of a command and of those within it, and of the XML declaration. */
const otherBytes = 400;

/** Bytes of alert 1222 in XML, with a CmdID of four digits. */
const sizeOfNext = sizeInXml(elementOfCommand({ ...nextMessage, cmdId: '0000' }), 0);
