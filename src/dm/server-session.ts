import { asPosternError, PosternError } from '../base/errors.ts';
import { ownText } from '../base/own-bytes.ts';
import type { Alert, Command, Item, Results, SyncmlMessage } from '../wire/syncml/message.ts';
import { isCompositeCommand, isWritable } from '../wire/syncml/message.ts';
import type { Seal } from './authentication.ts';
import type { TreeCommandName } from './commands.ts';
import { nameOf } from './replies.ts';
import { Session } from './session.ts';
import type { SessionOutcome, SessionParts } from './session-parts.ts';
import { AlertCode, DmStatus } from './status.ts';
import { weightOfItem } from './weight.ts';

/** A command on one node, for the client to execute. */
export interface NodeOperation {
  readonly name: TreeCommandName;
  readonly uri: string;
  /** Source URI of a Copy. */
  readonly from?: string;
  readonly format?: string;
  readonly type?: string;
  readonly data?: string | Uint8Array;
  readonly correlator?: string;
}

/** A question or a message to the user of the device (OMA DM protocol 1.2.1, section 10). */
export interface UserInteraction {
  readonly name: 'Alert';
  /** 1100 to 1104. */
  readonly code: number;
  /** Options, text and choices, in the order of the Alert's items. */
  readonly items: readonly string[];
}

/** Operations to execute in their order (Sequence), or all or none of them (Atomic). */
export interface Compound {
  readonly name: 'Sequence' | 'Atomic';
  readonly operations: readonly Operation[];
}

export type Operation = NodeOperation | UserInteraction | Compound;

/** Whether one of the operations is an Exec, which must not be done twice. */
export const hasExec = (operations: readonly Operation[]): boolean =>
  operations.some((operation) =>
    'operations' in operation ? hasExec(operation.operations) : operation.name === 'Exec',
  );

/** What a client answered to an operation. */
export interface OperationOutcome {
  readonly operation: Operation;
  /** DM status; 215 when the client sent none. 400 or 413 may be this side's own: no message, or not this client, takes the command. */
  readonly status: number;
  /** What a Get found: an entry for each node. */
  readonly results: readonly {
    readonly uri: string;
    readonly format: string;
    readonly type?: string;
    readonly data: string | Uint8Array;
  }[];
  /** What the user said to a question: the text that was typed, or the numbers of the choices, from 1. */
  readonly said?: readonly string[];
  /** Outcomes of the operations of a compound, in their order. */
  readonly parts?: readonly OperationOutcome[];
}

/**
 * What a server does in a session. It yields a round of operations, receives their outcomes, and may wait for other
 * things between two rounds. It starts when the client has proved itself. When the session breaks, its `return` is
 * called.
 */
export type Work = AsyncGenerator<readonly Operation[], void, readonly OperationOutcome[]>;

/** What package 1 said. */
export interface Opening {
  /** Values of the leaves of DevInfo, by node name. */
  readonly devInfo: Readonly<Record<string, string>>;
  /** Whether Package #0 asked for the session. */
  readonly notified: boolean;
}

export interface ServerSessionParts extends SessionParts {
  /** Called once, when the client has proved itself. */
  readonly work: (opening: Opening) => Work;
  /** Called for each alert of the client except the session alerts 1200 and 1201. Returns the status of the alert. */
  readonly alerted: (alert: Alert) => number | Promise<number>;
}

/** Largest number of operations of one round. Work with more operations yields several rounds. */
export const operationsPerPackage = 64;

/** Leaves of DevInfo that are kept, and characters of each name and value. */
const devInfoBounds = { leaves: 32, name: 64, value: 256 } as const;

/** An operation that was sent, and what the client has answered so far. */
interface Sending {
  readonly operation: Operation;
  status: number | undefined;
  /** Results of a Get; items of the Status of a user interaction. */
  readonly results: Item[];
  readonly parts: readonly Sending[];
}

/** The DM server's side of one session (OMA DM protocol 1.2.1, section 8), without transport. */
export class ServerSession extends Session {
  readonly #parts: ServerSessionParts;
  #work: Work | undefined;
  /** Operations of the last round. */
  #records: readonly Sending[] = [];
  /** The same operations, and those within them, by MsgID and CmdID. */
  readonly #sent = new Map<string, Sending>();
  readonly #devInfo: { [name: string]: string } = {};
  /** Bytes of the results of the last round. */
  #resultWeight = 0;
  #opening: 'none' | 'client' | 'server' = 'none';
  /** DevDetail/LrgObj: whether the client takes values in chunks. Undefined until it was asked. */
  #takesChunks: boolean | undefined;
  /** A round that waits for this answer. */
  #postponed: readonly Operation[] | undefined;

  constructor(parts: ServerSessionParts) {
    super(parts, false);
    this.#parts = parts;
    this.outgoing.mayCut = false;
  }

  override get weight(): number {
    return super.weight + this.#resultWeight;
  }

  /** Takes a message of the client and returns the answer. Every message of a client is answered. */
  async receive(message: SyncmlMessage, seal?: Seal): Promise<SyncmlMessage> {
    const answer = await this.exchange(message, seal);
    if (this.outcome) await this.#work?.return();
    if (!answer) throw asPosternError('a server always answers');
    return answer;
  }

  /** The answer to a message that does not prove its sender, for a session that is dropped afterwards. */
  refuse(message: SyncmlMessage, seal: Seal): SyncmlMessage {
    return this.challenge(message, seal);
  }

  /** Ends the session because the client did not come back. */
  async abandon(status: number, reason: string): Promise<void> {
    this.end(status, reason);
    await this.#work?.return();
  }

  protected override end(status: number, reason: string): void {
    super.end(status, reason);
    this.#forgetRound();
  }

  protected override get demandsVerdict(): boolean {
    return false;
  }

  protected override get lastWord(): boolean {
    return true;
  }

  protected override async performAll(work: () => Promise<void>): Promise<void> {
    await work();
  }

  protected override async perform(command: Command, message: SyncmlMessage): Promise<void> {
    switch (command.name) {
      case 'Results':
        this.#takeResults(command);
        return;
      case 'Replace':
        for (const { source, target, data } of command.items) {
          // Some clients name the leaves as targets.
          const [root, leaf = ''] = plainUri((source ?? target)?.locUri ?? '').split(/\/(.*)/);
          if (root === 'DevInfo' && data !== undefined) this.#learn(leaf, valueText(data));
        }
        this.status(message, command, 'Replace', DmStatus.Ok);
        return;
      case 'Alert':
        this.status(message, command, 'Alert', await this.#alerted(command));
        return;
      default:
        // A client may send no other commands (section 8.4).
        this.status(
          message,
          command,
          nameOf(command),
          command.name === 'Unknown' ? DmStatus.OptionalFeatureNotSupported : DmStatus.CommandNotAllowed,
        );
    }
  }

  protected override async packageEnded(): Promise<void> {
    try {
      this.#work ??= this.#begin();
      let isSent = this.#postponed !== undefined && this.#resume(this.#postponed);
      while (!isSent) {
        const { value, done } = await this.#work.next(this.#records.map(outcomeOf));
        this.#forgetRound();
        if (done || value.length === 0) return this.end(DmStatus.Ok, 'done');
        if (value.length > operationsPerPackage)
          throw new PosternError('tooLarge', `work of more than ${operationsPerPackage} operations at once`);
        isSent = this.#send(value);
      }
    } catch (thrown) {
      const error = asPosternError(thrown);
      this.end(error.dmStatus, error.message);
      this.push({ name: 'Alert', cmdId: '', data: AlertCode.SessionAbort, items: [] });
    }
  }

  /**
   * Begins the work. A later message than the first one that opens no session goes on with one that this side does not know,
   * such as one from before a restart. To end that well would leave the client believing that its session was done.
   */
  #begin(): Work {
    if (this.#opening !== 'none')
      return this.#parts.work({ devInfo: this.#devInfo, notified: this.#opening === 'server' });
    if ((this.#parts.firstMsgId ?? 1) > 1)
      throw new PosternError('notFound', 'the session is not known here; begin a new one');
    return nothing();
  }

  #forgetRound(): void {
    this.#records = [];
    this.#resultWeight = 0;
    this.#sent.clear();
    this.forgetAwaited();
  }

  #learn(name: string, value: string): void {
    const isNew = !Object.hasOwn(this.#devInfo, name);
    if (name.length > devInfoBounds.name) return;
    if (isNew && Object.keys(this.#devInfo).length >= devInfoBounds.leaves) return;
    this.#devInfo[name] = ownText(value.slice(0, devInfoBounds.value));
  }

  async #alerted(alert: Alert): Promise<number> {
    if (alert.data !== AlertCode.ServerInitiated && alert.data !== AlertCode.ClientInitiated)
      return await this.#parts.alerted(alert);
    this.#opening = alert.data === AlertCode.ServerInitiated ? 'server' : 'client';
    return DmStatus.Ok;
  }

  #takeResults(results: Results): void {
    const items = results.items.map((item) => ({ ...item, meta: { ...results.meta, ...item.meta } }));
    const record = this.#askedBy(results);
    if (record) this.#takeItems(record, items);
  }

  /** A Get without its value is no success, whatever its Status says. */
  protected override spoiled(command: Command): void {
    const record = command.name === 'Results' ? this.#askedBy(command) : undefined;
    if (record) record.status = DmStatus.BadRequest;
  }

  /**
   * The Get that Results belong to. MsgRef may be absent, and a CmdID is unique in its message only. So the URIs tell which Get
   * of the package was meant.
   */
  #askedBy({ msgRef, cmdRef, items }: Results): Sending | undefined {
    const exact = msgRef === undefined ? undefined : this.#sent.get(`${msgRef} ${cmdRef}`);
    if (exact) return exact;
    const gets = [...this.#sent].flatMap(([key, record]) =>
      key.endsWith(` ${cmdRef}`) && record.operation.name === 'Get' ? [record] : [],
    );
    const found = plainUri(items[0]?.source?.locUri ?? '');
    const meant = gets.filter(({ operation }) => {
      const [asked = '', list] = plainUri(placeOf(operation)).split('?');
      return found === asked || found.startsWith(list === undefined ? `${asked}?` : `${asked}/`);
    });
    return meant.find(({ results }) => results.length === 0) ?? meant[0] ?? gets[0];
  }

  #takeItems(record: Sending, items: readonly Item[]): void {
    record.results.push(...items);
    for (const item of items) this.#resultWeight += weightOfItem(item);
  }

  /** Sends a round. Returns false when the client takes no operation of it; the records say so then. */
  #send(operations: readonly Operation[]): boolean {
    if (this.#takesChunks !== undefined || !operations.some((each) => this.#needsChunks(each)))
      return this.#sendAll(operations);
    this.#postponed = operations;
    return this.#sendAll([largeObjects]);
  }

  /** The client has answered whether it takes values in chunks. One that has no such node may take them. */
  #resume(operations: readonly Operation[]): boolean {
    this.#takesChunks = valueText(this.#records[0]?.results[0]?.data ?? '') !== 'false';
    this.outgoing.mayCut = this.#takesChunks;
    this.#postponed = undefined;
    this.#forgetRound();
    return this.#sendAll(operations);
  }

  #sendAll(operations: readonly Operation[]): boolean {
    this.#records = operations.map(recordOf);
    let isSent = false;
    for (const record of this.#records) {
      if (isUnwritable(record)) continue;
      if (this.#isRefused(record.operation)) {
        record.status = DmStatus.RequestEntityTooLarge;
        continue;
      }
      isSent = true;
      this.outgoing.push({
        command: commandOf(record.operation),
        sent: (command, msgId) => this.#follow(record, command, msgId),
      });
    }
    return isSent;
  }

  /** Whether the client cannot take an operation (OMA DM protocol 1.2.1, section 7.3): by its MaxObjSize, or by its LrgObj. */
  #isRefused(operation: Operation): boolean {
    if ('operations' in operation)
      return (
        !this.fitsWhole(commandOf(operation)) || operation.operations.some((each) => this.#isRefused(each))
      );
    if (operation.name === 'Alert') return false;
    return !this.peerTakes(operation.data) || (this.#takesChunks === false && this.#needsChunks(operation));
  }

  /** Whether the value may not fit into a message. A value within a compound is never cut. */
  #needsChunks(operation: Operation): boolean {
    return 'uri' in operation && !this.fitsMessage(operation.data) && !this.fitsWhole(commandOf(operation));
  }

  #follow(record: Sending, command: Command, msgId: number): void {
    this.#sent.set(`${msgId} ${command.cmdId}`, record);
    // A command may get several statuses. The first one that is not a success counts.
    this.await(msgId, command.cmdId, (status, items) => {
      if (record.status === undefined || record.status < 300) record.status = status;
      if (record.operation.name === 'Alert') this.#takeItems(record, items);
    });
    if (isCompositeCommand(command))
      for (const [at, inner] of command.commands.entries()) {
        const part = record.parts[at];
        if (part) this.#follow(part, inner, msgId);
      }
  }
}

export type { SessionOutcome };

/** What an operation acts on, for logs and reports: a URI, the code of an alert, or nothing for a compound. */
export const placeOf = (operation: Operation): string =>
  'uri' in operation ? operation.uri : operation.name === 'Alert' ? String(operation.code) : '';

/** A value that is text by its description. Where XML cannot hold the text, a peer sends its octets. */
export const valueText = (data: string | Uint8Array): string =>
  typeof data === 'string' ? data : Buffer.from(data).toString();

async function* nothing(): Work {}

/** Whether an operation cannot be written, such as for its URI, and is not sent. Its record says so, and those of the parts to blame. */
function isUnwritable(record: Sending): boolean {
  const isWhole = 'operations' in record.operation;
  if (isWhole ? !record.parts.map(isUnwritable).includes(true) : isWritable(commandOf(record.operation)))
    return false;
  record.status = DmStatus.BadRequest;
  return true;
}

/** A URI without the `./` that a peer may leave out. */
const plainUri = (uri: string): string => uri.replace(/^\.\//, '');

/** Asks a client, before it gets a value in chunks, whether it takes them. */
const largeObjects: NodeOperation = { name: 'Get', uri: './DevDetail/LrgObj' };

const recordOf = (operation: Operation): Sending => ({
  operation,
  status: undefined,
  results: [],
  parts: 'operations' in operation ? operation.operations.map(recordOf) : [],
});

const foundOf = ({ source, meta, data }: Item, operation: Operation) => ({
  uri: source?.locUri ?? ('uri' in operation ? operation.uri : ''),
  format: meta?.format ?? 'chr',
  ...(meta?.type !== undefined && { type: meta.type }),
  data: data ?? '',
});

const outcomeOf = ({ operation, status, results, parts }: Sending): OperationOutcome => ({
  operation,
  // Without a status, this side has to assume that the command was not executed.
  status: status ?? DmStatus.NotExecuted,
  ...(operation.name === 'Alert'
    ? { results: [], ...(results.length > 0 && { said: results.map(({ data = '' }) => valueText(data)) }) }
    : { results: results.map((item) => foundOf(item, operation)) }),
  ...(parts.length > 0 && { parts: parts.map(outcomeOf) }),
});

/** The command for an operation. Its CmdIDs are set when it is sent. */
export function commandOf(operation: Operation): Command {
  if ('operations' in operation)
    return { name: operation.name, cmdId: '', commands: operation.operations.map(commandOf) };
  if (operation.name === 'Alert')
    return {
      name: 'Alert',
      cmdId: '',
      data: operation.code,
      items: operation.items.map((data) => ({ data })),
    };
  const { name, uri, from, format, type, data, correlator } = operation;
  const item: Item = {
    target: { locUri: uri },
    ...(from !== undefined && { source: { locUri: from } }),
    ...((format !== undefined || type !== undefined) && {
      meta: { ...(format !== undefined && { format }), ...(type !== undefined && { type }) },
    }),
    ...(data !== undefined && { data }),
  };
  const command = { cmdId: '', items: [item] };
  return name === 'Exec'
    ? { name, ...command, ...(correlator !== undefined && { correlator }) }
    : { name, ...command };
}
