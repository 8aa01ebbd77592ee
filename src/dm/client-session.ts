import { asPosternError } from '../base/errors.ts';
import type { Alert, Command, CommandOf, Item, SyncmlMessage } from '../wire/syncml/message.ts';
import type { Seal } from './authentication.ts';
import {
  type CommandOutcome,
  execute,
  type ItemOutcome,
  isTreeCommand,
  type UserAnswer,
} from './commands.ts';
import { statusAfterRefusal } from './outgoing.ts';
import { nameOf, resultsOf } from './replies.ts';
import { Session } from './session.ts';
import { weightBound } from './session-bounds.ts';
import type { SessionOutcome, SessionParts } from './session-parts.ts';
import { AlertCode, DmStatus, isOk } from './status.ts';
import type { ManagementTree } from './tree.ts';
import { weightOfItem } from './weight.ts';

/** Bytes up to which results wait to be sent. Beyond them a Get gets 413; the rest of what a session may hold is for statuses. */
const resultBound = weightBound - 1024 * 1024;

/** An alert that the client reports in a session. */
export interface OutgoingAlert {
  /** Code of the Alert command: 1226 for a generic alert. */
  readonly code: number;
  /** Correlator of the Exec whose outcome the alert reports. */
  readonly correlator?: string;
  readonly items: readonly Item[];
  /** Called with the server's status for the alert. */
  readonly settled?: (status: number) => void;
}

export interface ClientSessionParts extends SessionParts {
  readonly tree: ManagementTree;
  /** Whether Package #0 asked for this session. */
  readonly notified: boolean;
  readonly alerts?: readonly OutgoingAlert[];
  /** Called for each executed command, for logs, when its changes are stored or taken back. */
  readonly executed?: (command: string, uri: string | undefined, status: number) => void;
  /** Answers a user interaction. Absent on a device without a user. */
  readonly interact?: (alert: CommandOf<'Alert'>) => UserAnswer;
}

/**
 * The DM client's side of one session (OMA DM protocol 1.2.1, section 8), without transport. `start` returns the first
 * message. `receive` takes each message of the server and returns the next one, until the session has an `outcome`.
 */
export class ClientSession extends Session {
  readonly #parts: ClientSessionParts;
  /** Commands of the message in work, of which `executed` is told when their changes are stored. */
  readonly #executed: [command: string, uri: string | undefined, status: number][] = [];
  /** A command of the message under way has changed something. */
  #isChanging = false;
  #hasChanged = false;

  constructor(parts: ClientSessionParts) {
    super(parts, true);
    this.#parts = parts;
  }

  /** Builds the first message of package 1: the session alert, DevInfo, and the alerts to report (section 8.3). */
  start(): SyncmlMessage {
    const { notified, alerts = [] } = this.#parts;
    this.push({
      name: 'Alert',
      cmdId: '',
      data: notified ? AlertCode.ServerInitiated : AlertCode.ClientInitiated,
      items: [],
    });
    this.push({ name: 'Replace', cmdId: '', items: this.#devInfo() });
    for (const { code, items, correlator, settled } of alerts) {
      const alert: Alert = {
        name: 'Alert',
        cmdId: '',
        data: code,
        items,
        ...(correlator !== undefined && { correlator }),
      };
      this.push(alert, settled);
    }
    return this.open();
  }

  /** Takes a message of the server and returns the answer. Returns undefined when the session is over. */
  async receive(message: SyncmlMessage, seal?: Seal): Promise<SyncmlMessage | undefined> {
    return await this.#parts.tree.inTurn(() => this.exchange(message, seal));
  }

  /** Whether commands of the server have changed something that is stored: the statuses of this session promise it. */
  get hasChanged(): boolean {
    return this.#hasChanged;
  }

  /** Ends the session because the transport failed or no answer came. */
  abandon(status: number, reason: string): void {
    this.end(status, reason);
  }

  protected override get demandsVerdict(): boolean {
    return true;
  }

  protected override get lastWord(): boolean {
    return false;
  }

  /**
   * The changes of all commands of one message become durable together. When the disk does not take them, all are taken back,
   * and their statuses, which wait to be sent, say so.
   */
  protected override async performAll(work: () => Promise<void>, { header }: SyncmlMessage): Promise<void> {
    let isDone = false;
    let isStored = false;
    let refusal: number | undefined;
    this.#isChanging = false;
    try {
      await this.#parts.tree.atomically(async () => {
        await work();
        isDone = true;
      });
      isStored = true;
      this.#hasChanged ||= this.#isChanging;
    } catch (thrown) {
      if (!isDone || asPosternError(thrown).code !== 'storage') throw thrown;
      refusal = DmStatus.DeviceFull;
      this.outgoing.refuse(header.msgId, refusal);
    } finally {
      // Only now is it known what came of them. When the session breaks off here, nothing was stored.
      const broken = isStored ? undefined : (refusal ?? DmStatus.CommandFailed);
      for (const [command, uri, status] of this.#executed.splice(0))
        this.#parts.executed?.(
          command,
          uri,
          broken === undefined ? status : statusAfterRefusal(command, status, broken),
        );
    }
  }

  protected override async perform(command: Command, message: SyncmlMessage): Promise<void> {
    const { tree, ends, interact, executed } = this.#parts;
    // A server sends a client no Results (section 8.4): the client never asks for any, so they are dropped.
    if (command.name === 'Results') return;
    // The results of an earlier Get are as the tree was then.
    if (command.name !== 'Get') this.outgoing.makeAll(resultBound);
    for (const outcome of await execute({ tree, serverId: ends.remote, interact }, command)) {
      this.#answer(outcome, message);
      this.#isChanging ||= command.name !== 'Get' && outcome.items.some(({ status }) => isOk(status));
      if (executed)
        for (const { uri, status } of outcome.items)
          this.#executed.push([nameOf(outcome.command), uri, status]);
    }
  }

  /** Section 8.3: a package without commands ends the session and is not answered. */
  protected override async packageEnded(requested: boolean): Promise<void> {
    if (!requested && this.outgoing.isEmpty) this.end(DmStatus.Ok, 'done');
  }

  #answer({ command, items }: CommandOutcome, message: SyncmlMessage): void {
    const isTooLarge = ({ data }: Item) => !this.peerTakes(data);
    const refused = ({ uri }: ItemOutcome) => ({
      uri,
      status: DmStatus.RequestEntityTooLarge,
      results: [],
    });
    let room = resultBound - this.weight;
    const checked = items.map((item): ItemOutcome => {
      if (item.results === undefined) return item;
      // A list is read while it is sent, after its Status. So it is read once more before, where a value may be too large.
      if (!Array.isArray(item.results))
        return this.peerTakesLess && Iterator.from(item.results).some(isTooLarge) ? refused(item) : item;
      const weight = item.results.reduce((sum, result) => sum + weightOfItem(result), 0);
      if (weight > 0 && (weight > room || item.results.some(isTooLarge))) return refused(item);
      room -= weight;
      return item;
    });
    // One Status when all items have the same status, otherwise one for each (representation protocol, section 6.6.15).
    const same = checked.every(({ status }) => status === checked[0]?.status);
    for (const group of same ? [checked] : checked.map((one) => [one]))
      this.status(message, command, nameOf(command), group[0]!.status, {
        targetRefs: group.flatMap(({ uri }) => uri ?? []),
        items: group.flatMap(({ said = [] }) => said.map((data) => ({ data }))),
      });
    if (!isTreeCommand(command) || command.name !== 'Get') return;
    for (const { results = [] } of checked)
      this.outgoing.pushAll(resultsOf(message.header.msgId, command.cmdId, results));
  }

  #devInfo(): Item[] {
    const { tree } = this.#parts;
    const { children = [] } = tree.view(['DevInfo']) ?? {};
    return children.flatMap((name): Item[] => {
      const view = tree.view(['DevInfo', name]);
      return view?.format === 'chr'
        ? [
            {
              source: { locUri: `./DevInfo/${name}` },
              meta: { format: 'chr', type: 'text/plain' },
              data: view.value ?? '',
            },
          ]
        : [];
    });
  }
}

/** A message of the other side as the transport delivers it. */
export interface Incoming {
  readonly message: SyncmlMessage;
  readonly seal?: Seal;
}

/** Sends a message and resolves with the server's answer. `seal` returns `x-syncml-hmac` for the encoded message. */
export type Exchange = (
  message: SyncmlMessage,
  seal: (body: Uint8Array) => string | undefined,
) => Promise<Incoming>;

/**
 * How often a message is sent when its answer does not come. The server recognizes a repeated message by its MsgID and
 * executes nothing twice.
 */
const sendings = 2;

/**
 * Runs a session to its end over a transport. A message whose answer times out is sent a second time.
 * @throws what `exchange` throws; the session is abandoned then
 */
export async function runClientSession(session: ClientSession, exchange: Exchange): Promise<SessionOutcome> {
  const send = async (message: SyncmlMessage): Promise<Incoming> => {
    for (let sending = 1; ; sending++)
      try {
        return await exchange(message, (body) => session.seal(body));
      } catch (thrown) {
        if (sending === sendings || asPosternError(thrown).code !== 'timeout') throw thrown;
      }
  };
  try {
    for (let next: SyncmlMessage | undefined = session.start(); next; ) {
      const { message, seal } = await send(next);
      const following = await session.receive(message, seal);
      // The server used a MsgID again, so the session returned its earlier answer. The server has lost the session and
      // counts from the start.
      next = following === next ? undefined : following;
    }
  } catch (thrown) {
    session.abandon(DmStatus.SessionAborted, 'the transport failed');
    throw thrown;
  }
  session.abandon(DmStatus.SessionAborted, 'the server has lost the session');
  return session.outcome ?? { status: DmStatus.SessionAborted, reason: '' };
}

/** Whether the session ended with success. */
export const succeeded = ({ status }: SessionOutcome): boolean => isOk(status);
export type { SessionOutcome } from './session-parts.ts';
