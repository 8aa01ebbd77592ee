import type { Entropy } from '../base/entropy.ts';
import type { Alert, Command, Item, Status, SyncmlMessage } from '../syncml/message.ts';
import { type Account, type SaveNonces, SessionAuthentication } from './authentication.ts';
import { execute, isTreeCommand } from './commands.ts';
import { type Ends, header, isKnownVersion } from './header.ts';
import { AlertCode, DmStatus, isOk } from './status.ts';
import type { ManagementTree } from './tree.ts';

/** An alert to report in a session; `settled` hears the server's status of it. */
export interface OutgoingAlert {
  readonly code: number;
  readonly correlator?: string;
  readonly items: readonly Item[];
  readonly settled?: (status: number) => void;
}

export interface ClientSessionParts {
  readonly ends: Ends;
  readonly account: Account;
  readonly saveNonces: SaveNonces;
  readonly tree: ManagementTree;
  readonly entropy: Entropy;
  /** Hexadecimal, as Package #0 gave it or the client chose it. */
  readonly sessionId: string;
  /** Package #0 asked for this session. */
  readonly notified: boolean;
  readonly alerts?: readonly OutgoingAlert[];
  /** Hears of each command and what it came to; for logs. */
  readonly executed?: (command: string, uri: string | undefined, status: number) => void;
}

/** How a session ended. `status` is 200, or the DM status that says why it failed. */
export interface SessionOutcome {
  readonly status: number;
  readonly reason: string;
}

/** Messages of one session; a peer that goes on beyond is not sane. */
const messageBound = 256;

/**
 * A DM client's side of one session (OMA DM protocol 1.2.1, section 8), without transport: `start` gives package 1,
 * `receive` takes each package of the server and gives the next one, until `outcome` is there.
 */
export class ClientSession {
  readonly #parts: ClientSessionParts;
  readonly #authentication: SessionAuthentication;
  /** Alerts by the command that carried them. */
  readonly #waiting = new Map<string, OutgoingAlert>();
  readonly #settled = new Set<OutgoingAlert>();
  /** Statuses of packages whose sender had still to prove itself: they count when it has. */
  readonly #held: Status[] = [];
  #msgId = 0;
  #commandId = 0;
  #outcome: SessionOutcome | undefined;

  constructor(parts: ClientSessionParts) {
    this.#parts = parts;
    this.#authentication = new SessionAuthentication(parts.account, parts.saveNonces, parts.entropy);
  }

  get outcome(): SessionOutcome | undefined {
    return this.#outcome;
  }

  /** Package 1: the session alert, DevInfo, and what is to report (section 8.3). */
  start(): SyncmlMessage {
    return this.#message(this.#opening());
  }

  /** Takes a package of the server. No value: the session is over. */
  async receive(message: SyncmlMessage): Promise<SyncmlMessage | undefined> {
    if (this.#outcome) return undefined;
    const { ends, sessionId } = this.#parts;
    if (!isKnownVersion(message)) return this.#end(505, `protocol version ${message.header.verProto}`);
    if (message.header.sessionId !== sessionId || message.header.source.locUri !== ends.remote)
      return this.#end(DmStatus.BadRequest, 'an answer of another session or server');
    if (this.#msgId >= messageBound) return this.#end(DmStatus.SessionAborted, 'session without an end');

    const statuses = message.commands.filter((command): command is Status => command.name === 'Status');
    const verdict = statuses.find(({ cmdRef, msgRef }) => cmdRef === '0' && msgRef === this.#msgId);
    if (!verdict) return this.#end(DmStatus.BadRequest, 'an answer without a status for the header');
    if (!this.#authentication.heed(verdict)) {
      const challenged = [DmStatus.InvalidCredentials, DmStatus.MissingCredentials].some(
        (code) => code === verdict.data,
      );
      if (!challenged || this.#authentication.exhausted)
        return this.#end(verdict.data, 'the server refused this side');
      // The whole package again, with the credential that the challenge asks for (section 9).
      return this.#message(this.#opening());
    }
    const judged = this.#authentication.judge(message.header);
    const trusted = this.#authentication.peerProved;
    if (!trusted && this.#authentication.exhausted)
      return this.#end(DmStatus.InvalidCredentials, 'the server did not prove itself');
    this.#held.push(...statuses);
    if (trusted) this.#settle();

    const requests = message.commands.filter(({ name }) => name !== 'Status' && name !== 'Results');
    // Section 8.3: a package without commands and challenge ends the session, and is not answered.
    if (trusted && requests.length === 0) return this.#end(DmStatus.Ok, 'done');
    if (
      trusted &&
      requests.some((request) => request.name === 'Alert' && request.data === AlertCode.SessionAbort)
    )
      return this.#end(DmStatus.SessionAborted, 'the server aborted the session');
    const answers: Command[] = [
      this.#status(message, '0', 'SyncHdr', judged.status, {
        targetRefs: [ends.local],
        sourceRefs: [ends.remote],
        ...(judged.chal && { chal: judged.chal }),
      }),
    ];
    for (const request of requests)
      answers.push(
        ...(trusted ? await this.#perform(message, request) : [this.#untrusted(message, request)]),
      );
    if (judged.chal) this.#authentication.tell();
    return this.#message(answers);
  }

  /** The transport failed, or waited in vain. */
  abandon(status: number, reason: string): void {
    this.#end(status, reason);
  }

  #end(status: number, reason: string): undefined {
    this.#outcome ??= { status, reason };
    return undefined;
  }

  #opening(): Command[] {
    const { notified, tree, alerts = [] } = this.#parts;
    this.#commandId = 0;
    this.#waiting.clear();
    this.#held.length = 0;
    const session: Alert = {
      name: 'Alert',
      cmdId: this.#nextId(),
      data: notified ? AlertCode.ServerInitiated : AlertCode.ClientInitiated,
      items: [],
    };
    const { children = [] } = tree.view(['DevInfo']) ?? {};
    const items = children.flatMap((name): Item[] => {
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
    const reports = alerts
      .filter((alert) => !this.#settled.has(alert))
      .map((alert): Alert => {
        const cmdId = this.#nextId();
        this.#waiting.set(cmdId, alert);
        return {
          name: 'Alert',
          cmdId,
          data: alert.code,
          items: alert.items,
          ...(alert.correlator !== undefined && { correlator: alert.correlator }),
        };
      });
    return [session, { name: 'Replace', cmdId: this.#nextId(), items }, ...reports];
  }

  #settle(): void {
    for (const { cmdRef, cmd, data } of this.#held.splice(0)) {
      const alert = cmd === 'Alert' ? this.#waiting.get(cmdRef) : undefined;
      if (!alert) continue;
      this.#waiting.delete(cmdRef);
      this.#settled.add(alert);
      alert.settled?.(data);
    }
  }

  async #perform(message: SyncmlMessage, request: Command): Promise<Command[]> {
    if (!isTreeCommand(request)) {
      const { cmd, status } =
        request.name === 'Unknown'
          ? { cmd: request.element.name, status: DmStatus.OptionalFeatureNotSupported }
          : { cmd: request.name, status: DmStatus.CommandNotAllowed };
      return [this.#status(message, request.cmdId, cmd, status)];
    }
    const outcomes = await execute(this.#parts.tree, request, this.#parts.ends.remote);
    const answers: Command[] = [];
    // One status where all items came to the same, else one for each item (representation protocol, section 6.6.15).
    const same = outcomes.every(({ status }) => status === outcomes[0]?.status);
    for (const group of same ? [outcomes] : outcomes.map((outcome) => [outcome]))
      answers.push(
        this.#status(message, request.cmdId, request.name, group[0]!.status, {
          targetRefs: group.flatMap(({ uri }) => uri ?? []),
        }),
      );
    const found = outcomes.flatMap(({ result }) => result ?? []);
    if (found.length > 0)
      answers.push({
        name: 'Results',
        cmdId: this.#nextId(),
        msgRef: message.header.msgId,
        cmdRef: request.cmdId,
        targetRefs: [],
        sourceRefs: [],
        items: found,
      });
    for (const { uri, status } of outcomes) this.#parts.executed?.(request.name, uri, status);
    return answers;
  }

  #untrusted(message: SyncmlMessage, request: Command): Status {
    const name = request.name === 'Unknown' ? request.element.name : request.name;
    return this.#status(message, request.cmdId, name, DmStatus.InvalidCredentials);
  }

  #status(
    message: SyncmlMessage,
    cmdRef: string,
    cmd: string,
    data: number,
    extra: Partial<Pick<Status, 'targetRefs' | 'sourceRefs' | 'chal'>> = {},
  ): Status {
    return {
      name: 'Status',
      cmdId: this.#nextId(),
      msgRef: message.header.msgId,
      cmdRef,
      cmd,
      targetRefs: [],
      sourceRefs: [],
      data,
      items: [],
      ...extra,
    };
  }

  #nextId(): string {
    return String(++this.#commandId);
  }

  #message(commands: readonly Command[]): SyncmlMessage {
    const { ends, sessionId } = this.#parts;
    this.#msgId++;
    this.#commandId = 0;
    const authentication = this.#authentication;
    return {
      header: header(ends, authentication.ownName, sessionId, this.#msgId, authentication.credential()),
      commands,
      final: true,
    };
  }
}

/** One exchange with the server: a package there, the server's package back. */
export type Exchange = (message: SyncmlMessage) => Promise<SyncmlMessage>;

/**
 * Runs a session to its end over a transport.
 * @throws what `exchange` throws; the session is abandoned then
 */
export async function runClientSession(session: ClientSession, exchange: Exchange): Promise<SessionOutcome> {
  try {
    for (let next: SyncmlMessage | undefined = session.start(); next; )
      next = await session.receive(await exchange(next));
  } catch (thrown) {
    session.abandon(DmStatus.SessionAborted, 'the transport failed');
    throw thrown;
  }
  return session.outcome ?? { status: DmStatus.CommandFailed, reason: 'session without an outcome' };
}

export const succeeded = ({ status }: SessionOutcome): boolean => isOk(status);
