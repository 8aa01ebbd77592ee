import { type PersistentParts, persistently } from '../base/background.ts';
import type { Database } from '../base/database.ts';
import type { Entropy } from '../base/entropy.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import { inPackages } from '../dm/jobs.ts';
import { type Operation, type OperationOutcome, placeOf, valueText } from '../dm/server-session.ts';
import { DmStatus, isOk } from '../dm/status.ts';
import { FumoResult } from '../mo/fumo.ts';
import type { Vocabulary } from '../mo/vocabulary.ts';
import type { Notifier } from './notifier.ts';
import type { OrderBook, OrderEnd } from './order-book.ts';
import {
  type FanoutRequest,
  fanoutOperations,
  type GroupRequest,
  groupOperations,
  type ImageRequest,
  imageOperations,
  imageQuestions,
  orderNode,
  type TriggerRequest,
  triggerOperations,
} from './orders.ts';
import type { Parties } from './parties.ts';
import type { Records, ResultKind } from './records.ts';
import type { SessionRequests } from './session-requests.ts';
import type { TriggeredSessions } from './triggered-sessions.ts';

/** An operation that a gateway has accepted. An alert of the gateway reports its result later. */
export interface StartedOperation {
  readonly gateway: string;
  readonly name: string;
  /** Repeated by the alert that reports the result. 16 hexadecimal digits. */
  readonly correlator: string;
  /** DM status of the last command: 202 when the operation runs, 200 when it is already done. */
  readonly status: number;
}

/** Sessions that devices behind a gateway shall open with this server, and the operations for each session. */
export interface DeviceTriggerRequest extends Omit<TriggerRequest, 'notifications'> {
  /** DevIds. A device without an account for this server opens no session; the others do. */
  readonly devices: readonly string[];
  readonly operations: readonly Operation[];
}

export interface GatewayOperationsParts extends PersistentParts {
  readonly database: Database;
  readonly parties: Parties;
  readonly notifier: Notifier;
  readonly sessionRequests: SessionRequests;
  readonly triggeredSessions: TriggeredSessions;
  readonly orders: OrderBook;
  readonly records: Records;
  readonly vocabulary: Vocabulary;
  readonly entropy: Entropy;
}

/** Seconds after which a gateway ends a campaign, unless its order says otherwise. */
const defaultDeadline = 3600;

/** What is sent to a gateway for an order. */
interface Sending {
  readonly kind: ResultKind;
  readonly gateway: string;
  readonly name: string;
  readonly seconds?: number | undefined;
  readonly operations: (correlator: string) => readonly Operation[];
  /** Operations of a second round, which ask for the result of an order without an Exec. */
  readonly questions?: readonly Operation[];
  /** Called when the order is in the book, before it is sent. */
  readonly accepted?: () => void;
  /** Called when the gateway does not have it, for sure. */
  readonly failed?: () => void;
}

/**
 * Sends fan-outs, triggers, images and groups to gateways: writes nodes of the GwMO objects in a session and executes
 * them. The order book has each of them, except groups, from before it is sent.
 */
export class GatewayOperations {
  readonly #parts: GatewayOperationsParts;
  readonly #stop = new AbortController();

  constructor(parts: GatewayOperationsParts) {
    this.#parts = parts;
  }

  /** Gives up storing what came of orders. */
  stop(): void {
    this.#stop.abort();
  }

  /** See `Headend.fanOut`. */
  async fanOut(gateway: string, request: FanoutRequest): Promise<StartedOperation> {
    return await this.#order({
      kind: 'CommandFanout',
      gateway,
      name: request.name,
      seconds: request.deadline ?? defaultDeadline,
      operations: (correlator) => fanoutOperations(this.#parts.vocabulary, request, correlator),
    });
  }

  /** See `Headend.stageImage`. */
  async stageImage(gateway: string, request: ImageRequest): Promise<StartedOperation> {
    const { vocabulary } = this.#parts;
    return await this.#order({
      kind: 'ImageOperation',
      gateway,
      name: request.name,
      operations: (correlator) => imageOperations(vocabulary, request, correlator),
      ...(request.url === undefined && { questions: imageQuestions(vocabulary, request.name) }),
    });
  }

  /** See `Headend.putGroup`. */
  async putGroup(gateway: string, request: GroupRequest): Promise<StartedOperation> {
    this.#demandGateway(gateway);
    const operations = groupOperations(this.#parts.vocabulary, request);
    const outcomes = await this.#parts.sessionRequests.run(gateway, operations);
    demandDone(gateway, outcomes);
    return { gateway, name: request.id, correlator: this.#correlator(), status: statusOf(outcomes) };
  }

  /** See `Headend.trigger`. */
  async trigger(gateway: string, request: DeviceTriggerRequest): Promise<StartedOperation> {
    const { devices, operations, deadline = defaultDeadline, ...campaign } = request;
    const { notifier, parties, triggeredSessions, vocabulary } = this.#parts;
    this.#demandGateway(gateway);
    const strangers = new Set(devices.filter((device) => !parties.get(device)));
    const asked = devices.filter((id) => !strangers.has(id));
    const notifications = new Map(asked.map((device) => [device, notifier.durablePackage0(device)]));
    // The gateway says of each target what became of it, so it is told of those without an account too.
    const isWhole = strangers.size === 0 || Object.keys(campaign.targets).length > 0;
    const targets = isWhole ? campaign.targets : { devices };
    return await this.#order({
      kind: 'DeviceTrigger',
      gateway,
      name: request.name,
      seconds: deadline,
      operations: (correlator) =>
        triggerOperations(vocabulary, { ...campaign, targets, notifications, deadline }, correlator),
      // Before it is sent: the gateway may have it though its answer is lost, and then the devices come.
      accepted: () =>
        triggeredSessions.begin({ gateway, name: request.name, devices, strangers, operations, deadline }),
      failed: () => triggeredSessions.drop(gateway, request.name),
    });
  }

  /** See `Headend.deleteOrder`. */
  async delete(kind: ResultKind, gateway: string, name: string): Promise<void> {
    const { database, orders, records, sessionRequests, triggeredSessions, vocabulary } = this.#parts;
    this.#demandGateway(gateway);
    const [outcome] = await sessionRequests.run(gateway, [
      { name: 'Delete', uri: orderNode(vocabulary, kind, name) },
    ]);
    const { status = DmStatus.NotExecuted } = outcome ?? {};
    if (!isOk(status) && status !== DmStatus.NotFound)
      throw new PosternError('conflict', `${gateway} answered the Delete of ${name} with ${status}`);
    if (kind === 'DeviceTrigger') triggeredSessions.drop(gateway, name);
    database.transaction(() => {
      orders.remove(kind, gateway, name);
      records.removeResult(kind, gateway, name);
    });
  }

  /** @throws {PosternError} `notFound` with the names of the gateways */
  #demandGateway(id: string): void {
    const { parties } = this.#parts;
    if (parties.isGateway(id)) return;
    throw new PosternError('notFound', noGateway(parties, id));
  }

  #correlator(): string {
    return Buffer.from(this.#parts.entropy.bytes(8)).toString('hex');
  }

  /**
   * Enters an order into the book, sends it and stores what the gateway answered.
   * @throws {PosternError} `notFound` for an unknown gateway, `conflict` when the name is taken or the gateway refused an
   * operation; otherwise as `SessionRequests.perform`. An order that was accepted is in the book then too, with the reason.
   */
  async #order(sending: Sending): Promise<StartedOperation> {
    const { kind, gateway, name, seconds } = sending;
    const { orders, sessionRequests, database } = this.#parts;
    this.#demandGateway(gateway);
    // Whom nobody can reach gets no order.
    sessionRequests.brokerGatewayFor(gateway);
    const correlator = this.#correlator();
    const number = orders.begin({ kind, party: gateway, name, correlator, seconds });
    const progress = { isBegun: false };
    sending.accepted?.();
    try {
      // After a power cut the name of what was sent is still taken.
      await database.settled();
      const { outcomes, answers } = await this.#send(sending, correlator, progress);
      demandDone(gateway, outcomes);
      const end = answers && imageEnd(answers);
      this.#store(number, () => (end ? orders.end(number, end) : this.#taken(number, outcomes)));
      return { gateway, name, correlator, status: statusOf(outcomes) };
    } catch (thrown) {
      const { dmStatus: status, message: reason, code } = asPosternError(thrown);
      // What was not begun, or was refused, has no effect. Of what broke off nobody knows how far it came.
      const state = progress.isBegun && code !== 'conflict' && code !== 'full' ? 'unknown' : 'failed';
      if (state === 'failed') sending.failed?.();
      this.#store(number, () => orders.end(number, { state, status, reason }));
      throw thrown;
    }
  }

  /** Sends an order in one session. Answers are the outcomes of its questions. */
  async #send(
    { gateway, operations, questions }: Sending,
    correlator: string,
    progress: { isBegun: boolean },
  ) {
    let outcomes: readonly OperationOutcome[] = [];
    let answers: readonly OperationOutcome[] | undefined;
    await this.#parts.sessionRequests.perform(gateway, async function* () {
      progress.isBegun = true;
      outcomes = yield* inPackages(operations(correlator));
      if (questions) answers = yield* inPackages(questions);
    });
    return { outcomes, answers };
  }

  /** The gateway goes on with an order, or had nothing to do: then no alert follows. */
  #taken(number: number, outcomes: readonly OperationOutcome[]): void {
    const { orders } = this.#parts;
    const status = statusOf(outcomes);
    if (status === DmStatus.AcceptedForProcessing) orders.taken(number);
    else orders.end(number, { state: 'done', status });
  }

  /** Stores what came of an order. The gateway has it already: an error of the disk does not undo that. */
  #store(number: number, store: () => void): void {
    const { orders } = this.#parts;
    void persistently(this.#parts, 'order', store, this.#stop.signal).then(() => orders.sent(number));
  }
}

/** Why there is no gateway of this name, and which there are. */
export function noGateway(parties: Pick<Parties, 'get' | 'list'>, id: string): string {
  const known = parties.list().flatMap((party) => (party.kind === 'gateway' ? [party.id] : []));
  const shown = known.slice(0, 10).join(', ') + (known.length > 10 ? ` and ${known.length - 10} more` : '');
  const what = parties.get(id)
    ? `${id} is a device, not a gateway`
    : `there is no gateway ${id} in the configuration of this server`;
  return `${what}; its gateways are ${shown || 'none (table [[gateway]])'}`;
}

/**
 * Checks the outcomes of an order. The first operation deletes what an earlier order of this name left and may fail; all
 * others must succeed.
 * @throws {PosternError} `full` or `conflict`
 */
export function demandDone(gateway: string, outcomes: readonly OperationOutcome[]): void {
  const failed = outcomes.slice(1).find(({ status }) => !isOk(status));
  if (failed)
    throw new PosternError(
      failed.status === DmStatus.DeviceFull ? 'full' : 'conflict',
      `${gateway} answered ${failed.operation.name} ${placeOf(failed.operation)} with ${failed.status}`,
    );
}

const statusOf = (outcomes: readonly OperationOutcome[]): number => outcomes.at(-1)?.status ?? DmStatus.Ok;

/** How a pushed image ended, by the answers to `imageQuestions`. */
function imageEnd([, result, why]: readonly OperationOutcome[]): OrderEnd {
  const text = (outcome?: OperationOutcome) => valueText(outcome?.results[0]?.data ?? '');
  const status = Number(text(result));
  if (result === undefined || !isOk(result.status) || !Number.isInteger(status))
    return { state: 'unknown', reason: 'the gateway does not say what came of the image' };
  const reason = text(why);
  return { state: status === FumoResult.Ok ? 'done' : 'failed', status, ...(reason !== '' && { reason }) };
}
