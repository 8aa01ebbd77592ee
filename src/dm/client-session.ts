import { asPosternError } from '../base/errors.ts';
import type { Alert, Command, CommandOf, Item, SyncmlMessage } from '../wire/syncml/message.ts';
import type { Seal } from './authentication.ts';
import { type CommandOutcome, execute, isTreeCommand } from './commands.ts';
import { nameOf, resultsOf } from './replies.ts';
import { Session, type SessionOutcome, type SessionParts } from './session.ts';
import { AlertCode, DmStatus, isOk } from './status.ts';
import type { ManagementTree } from './tree.ts';

/** An alert to report in a session; `settled` hears the server's status of it. */
export interface OutgoingAlert {
  readonly code: number;
  readonly correlator?: string;
  readonly items: readonly Item[];
  readonly settled?: (status: number) => void;
}

export interface ClientSessionParts extends SessionParts {
  readonly tree: ManagementTree;
  /** Package #0 asked for this session. */
  readonly notified: boolean;
  readonly alerts?: readonly OutgoingAlert[];
  /** Hears of each command and what it came to; for logs. */
  readonly executed?: (command: string, uri: string | undefined, status: number) => void;
  /** Answers user interactions; a device without it has no user. */
  readonly interact?: (alert: CommandOf<'Alert'>) => number;
}

/**
 * A DM client's side of one session (OMA DM protocol 1.2.1, section 8), without transport: `start` gives the first message,
 * `receive` takes each message of the server and gives the next one, until `outcome` is there.
 */
export class ClientSession extends Session {
  readonly #parts: ClientSessionParts;

  constructor(parts: ClientSessionParts) {
    super(parts, true);
    this.#parts = parts;
  }

  /** Package 1: the session alert, DevInfo, and what is to report (section 8.3). */
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

  /** Takes a message of the server. No value: the session is over. */
  async receive(message: SyncmlMessage, seal?: Seal): Promise<SyncmlMessage | undefined> {
    return await this.exchange(message, seal);
  }

  /** The transport failed, or waited in vain. */
  abandon(status: number, reason: string): void {
    this.end(status, reason);
  }

  protected override get demandsVerdict(): boolean {
    return true;
  }

  protected override get lastWord(): boolean {
    return false;
  }

  /** What the commands of one message change is written as a whole. */
  protected override async performAll(work: () => Promise<void>): Promise<void> {
    await this.#parts.tree.atomically(work);
  }

  protected override async perform(command: Command, message: SyncmlMessage): Promise<void> {
    const { tree, ends, interact, executed } = this.#parts;
    // A server reports nothing to a client (section 8.4); results of what was never asked for are dropped.
    if (command.name === 'Results') return;
    for (const outcome of await execute({ tree, serverId: ends.remote, interact }, command)) {
      this.#answer(outcome, message);
      for (const { uri, status } of outcome.items) executed?.(nameOf(outcome.command), uri, status);
    }
  }

  /** Section 8.3: a package without commands ends the session, and is not answered. */
  protected override async packageEnded(requested: boolean): Promise<void> {
    if (!requested && this.outgoing.isEmpty) this.end(DmStatus.Ok, 'done');
  }

  #answer({ command, items }: CommandOutcome, message: SyncmlMessage): void {
    const tooLarge = (item: Item) => Buffer.byteLength(item.data ?? '') > this.peerObjectLimit;
    const checked = items.map((item) =>
      Array.isArray(item.results) && item.results.some(tooLarge)
        ? { uri: item.uri, status: DmStatus.RequestEntityTooLarge, results: [] }
        : item,
    );
    // One status where all items came to the same, else one for each (representation protocol, section 6.6.15).
    const same = checked.every(({ status }) => status === checked[0]?.status);
    for (const group of same ? [checked] : checked.map((one) => [one]))
      this.status(message, command, nameOf(command), group[0]!.status, {
        targetRefs: group.flatMap(({ uri }) => uri ?? []),
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

/** A message of the other side as a transport brings it. */
export interface Incoming {
  readonly message: SyncmlMessage;
  readonly seal?: Seal;
}

/** One exchange with the server: a message there, the server's back. `seal` gives `x-syncml-hmac` for the coded message. */
export type Exchange = (
  message: SyncmlMessage,
  seal: (body: Uint8Array) => string | undefined,
) => Promise<Incoming>;

/** Times that one message is sent when its answer does not come: a server knows it by its number, and does nothing twice. */
const sendings = 2;

/**
 * Runs a session to its end over a transport.
 * @throws what `exchange` throws, when a message was sent again in vain; the session is abandoned then
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
      // It gave a number again, so what it was answered by before answers it: it lost the session, and counts anew.
      next = following === next ? undefined : following;
    }
  } catch (thrown) {
    session.abandon(DmStatus.SessionAborted, 'the transport failed');
    throw thrown;
  }
  session.abandon(DmStatus.SessionAborted, 'the server does not know the session any more');
  return session.outcome ?? { status: DmStatus.SessionAborted, reason: '' };
}

export const succeeded = ({ status }: SessionOutcome): boolean => isOk(status);
export type { SessionOutcome } from './session.ts';
