import { unreadable } from '../wire/syncml/elements.ts';
import {
  type Alert,
  type Chal,
  type Command,
  commandWithValues,
  type Item,
  itemsOf,
  type Status,
  type SyncHdr,
  type SyncmlMessage,
} from '../wire/syncml/message.ts';
import { type Seal, SessionAuthentication } from './authentication.ts';
import { ownLimits, unknownVersion } from './header.ts';
import { LargeObjectReceiver, objectSize } from './large-object.ts';
import { MessageBuilder } from './message-builder.ts';
import { Outgoing, type Queued } from './outgoing.ts';
import {
  abort,
  idsOf,
  isChallenge,
  isRequest,
  nameOf,
  noEndOfData,
  type StatusFields,
  statusOf,
  unanswered,
} from './replies.ts';
import { baseWeight, callbackWeight, messageBound, refusalBound, weightBound } from './session-bounds.ts';
import type { SessionOutcome, SessionParts } from './session-parts.ts';
import { AlertCode, DmStatus, isOk } from './status.ts';

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
  readonly #messages: MessageBuilder;
  /** Callbacks for the statuses of sent commands, by MsgID and CmdID. */
  readonly #awaited = new Map<string, (status: Status) => void>();
  /** Statuses that arrived before the other side had proved itself. They take effect when it has. */
  #held: Status[] = [];
  #received = -1;
  /** Whether the package that is being received must be answered. */
  #requested = false;
  #answer: Promise<SyncmlMessage | undefined> = Promise.resolve(undefined);
  #outcome: SessionOutcome | undefined;
  #respUri: string | undefined;

  protected constructor(parts: SessionParts, begins: boolean) {
    this.#parts = parts;
    const { ends, sessionId, firstMsgId = 1, version = 'DM/1.2', maxMsgSize, mediaType } = parts;
    const { outgoing } = this;
    this.#messages = new MessageBuilder(
      { ends, sessionId, firstMsgId, version, maxMsgSize, outgoing },
      begins,
    );
    if (mediaType !== undefined) this.#messages.speak(mediaType);
    this.#authentication = new SessionAuthentication(parts);
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
      this.#messages.weight +
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
    if (seal?.mediaType !== undefined) this.#messages.speak(seal.mediaType);
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
    return objectSize(data) <= this.#messages.objectLimit;
  }

  /** Whether the other side may refuse a value that this side stores. */
  protected get peerTakesLess(): boolean {
    return this.#messages.objectLimit < ownLimits.maxObjSize;
  }

  /** Whether a value surely fits into one message of the other side. If not, it may go in chunks. */
  protected fitsMessage(data: string | Uint8Array = ''): boolean {
    return this.#messages.fits(data);
  }

  /** Whether a command that cannot be cut fits into a message of the other side that has nothing else of the own package. */
  protected fitsWhole(command: Command): boolean {
    const { ends, respUri = '', asksEach } = this.#parts;
    const verdict = statusOf(messageBound, '0', 'SyncHdr', DmStatus.Ok, {
      targetRefs: [ends.local],
      sourceRefs: [ends.remote],
      ...(asksEach && { chal: challengeOfSize }),
    });
    return this.#messages.fitsWhole(command, { name: this.#authentication.ownName, respUri }, verdict);
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
    if (this.#messages.msgId >= messageBound) {
      this.end(DmStatus.SessionAborted, 'the session has too many messages');
      return this.#lastWords([abort]);
    }
    this.#heedHeader(message);
    const statuses = commands.filter((command): command is Status => command.name === 'Status');
    const verdict = statuses.find(({ cmdRef, msgRef }) => cmdRef === '0' && msgRef === this.#messages.msgId);
    if (!verdict && this.demandsVerdict) {
      this.end(DmStatus.BadRequest, 'an answer without a status for the header');
      return undefined;
    }
    const refused = verdict !== undefined && !this.#authentication.heed(verdict);
    if (refused && (!isChallenge(verdict) || this.#authentication.exhausted)) {
      const what = !isChallenge(verdict)
        ? 'refused the message'
        : this.#authentication.withholdsPassword
          ? 'has not proved itself, and gets no password (basic) without TLS'
          : 'did not accept the credential';
      this.end(verdict.data, `the other side ${what}`);
      return this.#lastWords([]);
    }
    // A side that asks for another credential need not prove itself yet. The last commands are sent again (section 9). A password
    // goes only to one that does.
    const awaitsProof = this.#authentication.withholdsPassword && this.recognises(message, seal);
    if (refused && !this.#authentication.peerProved && !awaitsProof)
      return this.#message([], this.#messages.lastBatch);
    const judged = this.#authentication.judge(head, seal);
    const answered = [this.#verdict(head, judged)];
    if (!this.#authentication.peerProved) {
      this.#held.push(...statuses.slice(0, messageBound));
      if (this.#authentication.exhausted) this.end(judged.status, 'the other side did not prove itself');
      if (!refused && this.#isBare(message)) this.end(DmStatus.Ok, 'done');
      if (this.#outcome && !this.lastWord) return undefined;
      return this.#untrusted(message, judged.status, answered);
    }
    if (refused) return this.#message(head.noResp ? [] : answered, this.#messages.lastBatch);
    for (const status of [...this.#held.splice(0), ...statuses])
      this.#awaited.get(`${status.msgRef} ${status.cmdRef}`)?.(status);
    // What waits in the other side's turn are statuses that had no room: no package of this side, which would go on.
    const isSending = this.#messages.isOwnTurn && !this.outgoing.isEmpty;
    await this.#performAll(message);
    if (this.weight > (this.#parts.mostWeight ?? weightBound))
      this.end(DmStatus.RequestEntityTooLarge, 'the session holds too much');
    if (this.#outcome) return this.#lastWords(answered);
    if (final) {
      this.#objects.packageEnded();
      this.#messages.beginPackage();
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
    if (seal.mediaType !== undefined) this.#messages.speak(seal.mediaType);
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

  #heedHeader({ header: head }: SyncmlMessage): void {
    this.#messages.heed(head);
    if (head.respUri !== undefined) this.#respUri = head.respUri;
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
    this.#messages.answerOnly(message.final);
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
    if (!noResp && !alert.noResp) this.#messages.accept(statusOf(msgId, alert.cmdId, 'Alert', DmStatus.Ok));
  }

  /** The command with its large object assembled. Undefined while chunks are missing, and when the object is wrong. */
  #assemble(received: Command, message: SyncmlMessage): Command | undefined {
    const command = this.#withoutUnreadable(received, message);
    if (!command) return undefined;
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

  /** The command without the items whose values cannot be read, which get a status of their own. Undefined when none is left. */
  #withoutUnreadable(command: Command, message: SyncmlMessage): Command | undefined {
    const items = itemsOf(command);
    const good = items.filter(({ data }) => data !== unreadable);
    if (good.length === items.length) return command;
    for (const item of items) {
      const { target, source, data } = item;
      if (data !== unreadable) continue;
      this.status(message, command, nameOf(command), DmStatus.BadRequest, {
        targetRefs: target ? [target.locUri] : [],
        sourceRefs: source ? [source.locUri] : [],
      });
      this.#objects.unreadable(command, item, DmStatus.BadRequest);
    }
    this.spoiled(command);
    return good.length === 0 ? undefined : ({ ...command, items: good } as Command);
  }

  /** Called for a command of which the values of some items cannot be read. */
  protected spoiled(_command: Command): void {}

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
    const { respUri } = this.#parts;
    const { ownName: name, peerProved } = this.#authentication;
    const extras = { name, ...this.#authentication.credential(), ...(peerProved && respUri && { respUri }) };
    const message = this.#messages.next(first, extras, this.#outcome !== undefined, batch);
    if (message) return message;
    const { limit } = this.#messages;
    // What was a good end before is none for the other side.
    if (this.#outcome && isOk(this.#outcome.status)) this.#outcome = undefined;
    this.end(
      DmStatus.RequestEntityTooLarge,
      `nothing fits into messages of ${limit} bytes: the other side's MaxMsgSize`,
    );
    return this.#messages.refusal(this.#received, name);
  }
}

/** As large as one that asks for a MAC or a digest. */
const challengeOfSize: Chal = {
  meta: { format: 'b64', type: 'syncml:auth-md5', nextNonce: new Uint8Array(16) },
};
