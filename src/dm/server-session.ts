import type { Entropy } from '../base/entropy.ts';
import { asPosternError } from '../base/errors.ts';
import type { Alert, Command, CommandOf, Item, Status, SyncmlMessage } from '../syncml/message.ts';
import { type Account, type SaveNonces, SessionAuthentication } from './authentication.ts';
import type { SessionOutcome } from './client-session.ts';
import { type Ends, header, isKnownVersion } from './header.ts';
import { AlertCode, DmStatus } from './status.ts';

/** A command that the server wants done. */
export interface Operation {
  readonly name: 'Get' | 'Add' | 'Replace' | 'Delete' | 'Exec';
  readonly uri: string;
  readonly format?: string;
  readonly type?: string;
  readonly data?: string | Uint8Array;
  readonly correlator?: string;
}

export interface OperationOutcome {
  readonly operation: Operation;
  readonly status: number;
  /** What a Get found, by URI. */
  readonly results: readonly {
    readonly uri: string;
    readonly format: string;
    readonly data: string | Uint8Array;
  }[];
}

/**
 * What a server does in a session: yields operations, is given what they came to, and may wait for other things in
 * between. It starts when the client has proved itself, and is returned early when the session breaks.
 */
export type Work = AsyncGenerator<readonly Operation[], void, readonly OperationOutcome[]>;

/** What package 1 said. */
export interface Opening {
  /** By node name. */
  readonly devInfo: Readonly<Record<string, string>>;
  /** Package #0 had asked for the session. */
  readonly notified: boolean;
}

export interface ServerSessionParts {
  readonly ends: Ends;
  readonly account: Account;
  readonly saveNonces: SaveNonces;
  readonly entropy: Entropy;
  readonly sessionId: string;
  /** Begins when the client has proved itself. */
  readonly work: (opening: Opening) => Work;
  /** An alert of the client other than the session's own. Answers with its status. */
  readonly alerted: (alert: Alert) => number | Promise<number>;
}

/** Operations of one package. */
const operationsPerPackage = 64;
const messageBound = 256;

/** A DM server's side of one session (OMA DM protocol 1.2.1, section 8), without transport. */
export class ServerSession {
  readonly #parts: ServerSessionParts;
  readonly #authentication: SessionAuthentication;
  #work: Work | undefined;
  /** Operations on their way, by command of the last package. */
  #pending: readonly { cmdId: string; operation: Operation }[] = [];
  #statuses = new Map<string, number>();
  #results = new Map<string, Item[]>();
  #msgId = 0;
  #lastReceived = 0;
  #lastAnswer: SyncmlMessage | undefined;
  #outcome: SessionOutcome | undefined;
  #opening: 'none' | 'client' | 'server' = 'none';

  constructor(parts: ServerSessionParts) {
    this.#parts = parts;
    this.#authentication = new SessionAuthentication(parts.account, parts.saveNonces, parts.entropy);
  }

  get outcome(): SessionOutcome | undefined {
    return this.#outcome;
  }

  get authenticated(): boolean {
    return this.#authentication.peerProved;
  }

  /** Takes a package of the client and gives the answer, which every package of a client gets. */
  async receive(message: SyncmlMessage): Promise<SyncmlMessage> {
    if (this.#lastAnswer && message.header.msgId === this.#lastReceived) return this.#lastAnswer;
    this.#lastReceived = message.header.msgId;
    this.#lastAnswer = await this.#answer(message);
    return this.#lastAnswer;
  }

  /** The client did not come back. */
  async abandon(status: number, reason: string): Promise<void> {
    await this.#end(status, reason);
  }

  async #answer(message: SyncmlMessage): Promise<SyncmlMessage> {
    const { header: head } = message;
    const reply = new Answer(message);
    if (!isKnownVersion(message)) {
      await this.#end(505, `protocol version ${head.verProto}`);
      return this.#message(reply.header(505).commands);
    }
    const { status, chal } = this.#authentication.judge(head);
    const refused = !this.#authentication.peerProved;
    reply.header(status, {
      targetRefs: [this.#parts.ends.local],
      sourceRefs: [head.source.locUri],
      ...(chal && !(refused && this.#authentication.exhausted) && { chal }),
    });
    if (refused) {
      // Section 9: after a failed authentication the answer holds statuses only.
      for (const command of message.commands) reply.status(command, status);
      if (this.#authentication.exhausted) await this.#end(status, 'the client did not prove itself');
      return this.#message(reply.commands);
    }
    const challenged = this.#heed(message);
    if (challenged === 'refused') {
      await this.#end(DmStatus.InvalidCredentials, 'the client refused this server');
      return this.#message(reply.commands);
    }
    const devInfo: Record<string, string> = {};
    for (const command of message.commands) await this.#take(command, reply, devInfo);
    if (this.#outcome) return this.#message(reply.commands);
    if (challenged === 'again') return this.#message([...reply.commands, ...this.#repeat(reply)]);
    return this.#message([...reply.commands, ...(await this.#next(reply, devInfo))]);
  }

  /** What the client says of this server's credential. */
  #heed({ commands }: SyncmlMessage): 'fine' | 'again' | 'refused' {
    const verdict = commands.find(
      (command): command is Status =>
        command.name === 'Status' && command.cmdRef === '0' && command.msgRef === this.#msgId,
    );
    if (!verdict || this.#authentication.heed(verdict)) return 'fine';
    return this.#authentication.exhausted || !verdict.chal ? 'refused' : 'again';
  }

  async #take(command: Command, reply: Answer, devInfo: Record<string, string>): Promise<void> {
    switch (command.name) {
      case 'Status':
        if (command.msgRef !== this.#msgId || command.cmdRef === '0') return;
        // Of several statuses for one command the first that is no success counts.
        if ((this.#statuses.get(command.cmdRef) ?? 200) < 300)
          this.#statuses.set(command.cmdRef, command.data);
        return;
      case 'Results':
        this.#results.set(command.cmdRef, [...(this.#results.get(command.cmdRef) ?? []), ...command.items]);
        return;
      case 'Replace':
        for (const { source, data } of command.items)
          if (source?.locUri.startsWith('./DevInfo/') && typeof data === 'string')
            devInfo[source.locUri.slice('./DevInfo/'.length)] = data;
        reply.status(command, DmStatus.Ok);
        return;
      case 'Alert':
        return await this.#takeAlert(command, reply);
      default:
        // A client has nothing to command (section 8.4).
        reply.status(
          command,
          command.name === 'Unknown' ? DmStatus.OptionalFeatureNotSupported : DmStatus.CommandNotAllowed,
        );
    }
  }

  async #takeAlert(alert: Alert, reply: Answer): Promise<void> {
    switch (alert.data) {
      case AlertCode.ServerInitiated:
      case AlertCode.ClientInitiated:
        this.#opening = alert.data === AlertCode.ServerInitiated ? 'server' : 'client';
        reply.status(alert, DmStatus.Ok);
        return;
      case AlertCode.NextMessage:
        reply.status(alert, DmStatus.Ok);
        return;
      case AlertCode.SessionAbort:
        reply.status(alert, DmStatus.Ok);
        await this.#end(DmStatus.SessionAborted, 'the client aborted the session');
        return;
      default:
        reply.status(alert, await this.#parts.alerted(alert));
    }
  }

  async #next(reply: Answer, devInfo: Readonly<Record<string, string>>): Promise<Command[]> {
    const outcomes = this.#collect();
    try {
      this.#work ??=
        this.#opening === 'none'
          ? nothing()
          : this.#parts.work({ devInfo, notified: this.#opening === 'server' });
      const { value, done } = await this.#work.next(outcomes);
      if (!done && value.length > 0) return this.#send(reply, value.slice(0, operationsPerPackage));
      await this.#end(DmStatus.Ok, 'done');
    } catch (thrown) {
      const error = asPosternError(thrown);
      await this.#end(error.dmStatus, error.message);
    }
    return [];
  }

  #collect(): OperationOutcome[] {
    const outcomes = this.#pending.map(({ cmdId, operation }) => ({
      operation,
      // A command without a status was not executed, as far as anyone can tell.
      status: this.#statuses.get(cmdId) ?? DmStatus.NotExecuted,
      results: (this.#results.get(cmdId) ?? []).map(({ source, meta, data }) => ({
        uri: source?.locUri ?? operation.uri,
        format: meta?.format ?? 'chr',
        data: data ?? '',
      })),
    }));
    this.#pending = [];
    return outcomes;
  }

  #repeat(reply: Answer): Command[] {
    return this.#send(
      reply,
      this.#pending.map(({ operation }) => operation),
    );
  }

  #send(reply: Answer, operations: readonly Operation[]): Command[] {
    this.#statuses.clear();
    this.#results.clear();
    const commands = operations.map((operation) => commandOf(reply.nextId(), operation));
    this.#pending = operations.map((operation, at) => ({ cmdId: commands[at]!.cmdId, operation }));
    return commands;
  }

  async #end(status: number, reason: string): Promise<void> {
    this.#outcome ??= { status, reason };
    await this.#work?.return();
  }

  #message(commands: readonly Command[]): SyncmlMessage {
    if (++this.#msgId >= messageBound)
      this.#outcome ??= { status: DmStatus.SessionAborted, reason: 'session without an end' };
    const { ends, sessionId } = this.#parts;
    const authentication = this.#authentication;
    return {
      header: header(ends, authentication.ownName, sessionId, this.#msgId, authentication.credential()),
      commands,
      final: true,
    };
  }
}

async function* nothing(): Work {}

function commandOf(
  cmdId: string,
  { name, uri, format, type, data, correlator }: Operation,
): CommandOf<'Exec'> | Command {
  const item: Item = {
    target: { locUri: uri },
    ...((format !== undefined || type !== undefined) && {
      meta: { ...(format !== undefined && { format }), ...(type !== undefined && { type }) },
    }),
    ...(data !== undefined && { data }),
  };
  const command = { cmdId, items: [item] };
  return name === 'Exec'
    ? { name, ...command, ...(correlator !== undefined && { correlator }) }
    : { name, ...command };
}

/** Statuses for one package, with command IDs that go on for the commands behind them. */
class Answer {
  readonly commands: Command[] = [];
  readonly #to: SyncmlMessage;
  #id = 0;

  constructor(to: SyncmlMessage) {
    this.#to = to;
  }

  nextId(): string {
    return String(++this.#id);
  }

  header(data: number, extra: Partial<Pick<Status, 'targetRefs' | 'sourceRefs' | 'chal'>> = {}): this {
    this.#push('0', 'SyncHdr', data, extra);
    return this;
  }

  /** A status for a command; statuses and results get none. */
  status(command: Command, data: number): void {
    if (command.name === 'Status' || command.name === 'Results') return;
    this.#push(command.cmdId, command.name === 'Unknown' ? command.element.name : command.name, data, {});
  }

  #push(cmdRef: string, cmd: string, data: number, extra: Partial<Status>): void {
    this.commands.push({
      name: 'Status',
      cmdId: this.nextId(),
      msgRef: this.#to.header.msgId,
      cmdRef,
      cmd,
      targetRefs: [],
      sourceRefs: [],
      data,
      items: [],
      ...extra,
    });
  }
}
