import { background, failed } from '../base/background.ts';
import { type Clock, SystemClock } from '../base/clock.ts';
import { type Entropy, systemEntropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import { EventCounter, type Events } from '../base/events.ts';
import { LiveConfig, overwrite } from '../base/live-config.ts';
import { openDatabase } from '../base/open-database.ts';
import { watchState } from '../base/watch-state.ts';
import { tellWeakSecrets } from '../base/weak-secrets.ts';
import { Jobs } from '../dm/jobs.ts';
import type { Opening, Operation, OperationOutcome, Work } from '../dm/server-session.ts';
import { nodeAt, vocabularyOf } from '../mo/vocabulary.ts';
import { demandUsable, mqttSettings } from '../wire/tunnel/mqtt-settings.ts';
import { AlertHandler } from './alert-handler.ts';
import { AlertSequences } from './alert-sequences.ts';
import { ChildWays } from './child-ways.ts';
import { CloneWatch } from './clone-watch.ts';
import { type HeadendConfig, headendReloads } from './config.ts';
import type { Departures } from './departures.ts';
import { DeviceValues } from './device-values.ts';
import { Downlink, type DownlinkReceiver } from './downlink.ts';
import { Enrolment } from './enrolment.ts';
import { type DeviceTriggerRequest, GatewayOperations, type StartedOperation } from './gateway-operations.ts';
import { Handovers } from './handovers.ts';
import { Notifier } from './notifier.ts';
import { ObservationDesk } from './observation-desk.ts';
import { OrderBook } from './order-book.ts';
import type { FanoutRequest, GroupRequest, ImageRequest } from './orders.ts';
import { Parties } from './parties.ts';
import { PendingDetaches } from './pending-detaches.ts';
import { Policy } from './policy.ts';
import { type DeviceView, type GatewayView, Reachability } from './reachability.ts';
import { Records, type ResultKind, type ResultRecord } from './records.ts';
import { Relay } from './relay.ts';
import { watchingRecords } from './removed-records.ts';
import { headendSchema } from './schema.ts';
import { SessionOrders } from './session-orders.ts';
import { SessionRequests } from './session-requests.ts';
import { type SessionContext, Sessions } from './sessions.ts';
import { TelemetryHandler } from './telemetry-handler.ts';
import { type TriggeredDevice, TriggeredSessions } from './triggered-sessions.ts';
import { UnreachableDevices } from './unreachable-devices.ts';

export interface HeadendSurroundings {
  readonly events: Events;
  /** The system's clock when absent. */
  readonly clock?: Clock;
  /** The system's random numbers when absent. */
  readonly entropy?: Entropy;
}

/** The reference DM server: manages gateways and devices over an MQTT broker. Its HTTP API is `HeadendApi`. */
export class Headend implements AsyncDisposable {
  readonly #parts: HeadendParts;
  readonly #config: LiveConfig<HeadendConfig>;

  /**
   * @param parts composed here when absent
   * @throws {PosternError} `configuration` when the state file cannot be used
   */
  constructor(
    config: HeadendConfig,
    surroundings: HeadendSurroundings,
    parts: HeadendParts = composeHeadend(config, surroundings),
  ) {
    this.#parts = parts;
    this.#config = new LiveConfig(config, parts.events, isReloadable);
  }

  /**
   * Reads the configuration again, and puts in force what `headendReloads` lists. Returns the configuration that holds
   * now. What came of it is told by events.
   * @param apply puts more of it in force, such as the certificate of the API, or throws and changes nothing
   */
  reload(read: () => HeadendConfig, apply: (config: HeadendConfig) => void = () => {}): HeadendConfig {
    const { parties, settings, sessions, events } = this.#parts;
    this.#config.reload(read, (config) => {
      const mqtt = mqttSettings(config.mqtt);
      demandUsable(mqtt);
      apply(config);
      parties.configure(config);
      tellWeakSecrets(config.device, events);
      void background(events, 'session-end', () => sessions.review());
      overwrite(settings.policy, config.policy);
      overwrite(settings.mqtt, mqtt);
      if (settings.enrolment && config.enrolment) overwrite(settings.enrolment, config.enrolment);
    });
    return this.#config.current;
  }

  /** Why the head-end cannot serve gateways any more. Undefined when it can. */
  complaint(): string | undefined {
    this.#parts.database.prepare('SELECT 1').get();
    return undefined;
  }

  /** Counts what it is told, and passes it on: the events of this head-end, and those of its API. */
  get events(): EventCounter {
    return this.#parts.events;
  }

  /** True while the connection to the broker is up. */
  get connected(): boolean {
    return this.#parts.downlink.connected;
  }

  /** What is wrong with the connection to the broker: why there is none, and what the broker refuses. */
  get problems(): readonly string[] {
    return this.#parts.downlink.problems;
  }

  /** The stored alerts, results and assignments. */
  get records(): Records {
    return this.#parts.records;
  }

  /** All orders that were accepted, and what came of them. */
  get orders(): OrderBook {
    return this.#parts.orders;
  }

  /** Values that gateways have reported. */
  get values(): DeviceValues {
    return this.#parts.values;
  }

  /** Observations at gateways. */
  get observations(): ObservationDesk {
    return this.#parts.observations;
  }

  /** The assignments of devices to gateways by the API, and the orders to manage devices in sessions. */
  get policy(): Policy {
    return this.#parts.policy;
  }

  /** Operations that were ordered for one session of a device or gateway each. */
  get sessionOrders(): SessionOrders {
    return this.#parts.sessionOrders;
  }

  /** Enrols gateways. Undefined when the configuration does not say so. */
  get enrolment(): Enrolment | undefined {
    return this.#parts.enrolment;
  }

  /** Connects to the broker. Returns before the connection is up. */
  start(): void {
    this.#parts.enrolment?.start();
    this.#parts.downlink.start(receiverOf(this.#parts));
  }

  /** Resolves when all that was stored so far survives a power cut. */
  async settled(): Promise<void> {
    await this.#parts.database.settled();
  }

  /** Ends all sessions with status 514, closes the connection to the broker and the state file. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.stack.disposeAsync();
  }

  /** Lists the results of fan-outs, the latest last. */
  fanouts(): ResultRecord[] {
    return this.#parts.records.results('CommandFanout');
  }

  /** Lists the sessions that have not ended. */
  sessions(): { party: string; gateway: string; session: string }[] {
    return this.#parts.sessions.list();
  }

  /** What a gateway says is wrong with it. */
  problemOf(gateway: string): string | undefined {
    return this.#parts.reachability.problemOf(gateway);
  }

  /** Lists the gateways of the configuration first, in its order, then others that were heard. */
  gateways(): GatewayView[] {
    const { reachability, downlink, clones, records } = this.#parts;
    const problems = records.problems();
    const others = [...problems.keys(), ...downlink.refusedGateways()];
    return reachability.gateways(others).map((gateway) => {
      const refused = downlink.refusedOf(gateway.id);
      const at = clones.clonedAt(gateway.id);
      return {
        ...gateway,
        problem: reachability.hasOwnConnection(gateway.id) ? gateway.problem : problems.get(gateway.id),
        ...(refused > 0 && { refused }),
        ...(at !== undefined && { cloned: new Date(at).toISOString() }),
      };
    });
  }

  /** Lists the devices of the configuration and all attached devices, sorted by DevId. */
  devices(): DeviceView[] {
    return this.#parts.reachability.devices();
  }

  /**
   * Assigns a device to a gateway. The device is bootstrapped to it in its next session. `gateway` undefined removes
   * the assignment.
   * @throws {PosternError} `notFound` for an unknown gateway, `full` when there are too many assignments
   */
  assign(device: string, gateway: string | undefined): void {
    this.#parts.policy.assign(device, gateway);
  }

  /**
   * Asks a device or gateway for a session by Package #0 and does operations in its next session. Returns one outcome
   * per operation, in their order.
   * @throws {PosternError} `notFound` when the party has no account for this server or no known gateway leads to it;
   * `timeout` when it opened no session in `headend.session-timeout` seconds; `unauthorized` when it refused Package
   * #0; `unavailable` when the broker, the gateway or the session failed; `full` when too many operations wait for
   * the party
   */
  async manage(partyId: string, operations: readonly Operation[]): Promise<readonly OperationOutcome[]> {
    return await this.#parts.sessionRequests.run(partyId, operations);
  }

  /**
   * Starts a fan-out at a gateway: the gateway does the commands on many devices in sessions of its own (proxy mode).
   * The result arrives later by alert and is then in `records`. `orders` has the state.
   * @throws {PosternError} `conflict` when a fan-out of this name exists and did not fail; `conflict` or `full` when the
   * gateway refused an operation; otherwise as `manage`
   */
  async fanOut(gateway: string, request: FanoutRequest): Promise<StartedOperation> {
    return await this.#parts.gatewayOperations.fanOut(gateway, request);
  }

  /**
   * Puts an image into a gateway's Image Inventory. An earlier image of the same name is replaced. When the image has
   * a URL, the gateway starts its download; the result arrives later by alert and is then in `records`. `orders` has the
   * state of both kinds of images.
   * @throws {PosternError} as `fanOut`
   */
  async stageImage(gateway: string, request: ImageRequest): Promise<StartedOperation> {
    return await this.#parts.gatewayOperations.stageImage(gateway, request);
  }

  /**
   * Puts a group of devices into a gateway's Device Inventory. An earlier group of the same ID is replaced.
   * @throws {PosternError} as `fanOut`
   */
  async putGroup(gateway: string, request: GroupRequest): Promise<StartedOperation> {
    return await this.#parts.gatewayOperations.putGroup(gateway, request);
  }

  /**
   * Starts a trigger at a gateway: the gateway asks many devices for a session with this server (transparent mode),
   * and this server does the operations in each of these sessions. The gateway repeats the request to a sleeping
   * device until the deadline, which is 3600 seconds by default. A device without an account for this server, such as an
   * LwM2M client, gets a status of its own: 404 as its session, 406 or 412 in the result.
   * @throws {PosternError} `notFound` when no device has an account for this server; otherwise as `fanOut`
   */
  async trigger(gateway: string, request: DeviceTriggerRequest): Promise<StartedOperation> {
    return await this.#parts.gatewayOperations.trigger(gateway, request);
  }

  /**
   * Deletes a fan-out, trigger or image at its gateway, and forgets it here. One that runs is stopped; sessions with
   * devices that are under way go on to their end.
   * @throws {PosternError} as `manage`
   */
  async deleteOrder(kind: ResultKind, gateway: string, name: string): Promise<void> {
    await this.#parts.gatewayOperations.delete(kind, gateway, name);
  }

  /**
   * Returns the sessions that a trigger requested, one per device. Undefined when the trigger is unknown or
   * forgotten.
   */
  triggered(gateway: string, name: string): TriggeredDevice[] | undefined {
    return this.#parts.triggeredSessions.of(gateway, name);
  }
}

/** An API without TLS cannot be given a certificate while it runs, and the other way round. */
const isReloadable = (key: string, current: HeadendConfig, next: HeadendConfig): boolean =>
  headendReloads.includes(key) &&
  (!key.startsWith('api.tls-') ||
    (current.api['tls-cert'] !== undefined && next.api['tls-cert'] !== undefined));

/** The parts of a DM server, joined to each other. */
export type HeadendParts = ReturnType<typeof composeHeadend>;

/**
 * Constructs the parts. Each part is given the parts that it uses, and is constructed after them. Nothing runs yet.
 * @throws {PosternError} `configuration` when the state file cannot be used
 */
export function composeHeadend(config: HeadendConfig, surroundings: HeadendSurroundings) {
  const { entropy = systemEntropy } = surroundings;
  const events = new EventCounter(surroundings.events);
  const { clock = new SystemClock((thrown) => failed(events, 'timer', thrown)) } = surroundings;
  const {
    id: serverId,
    state,
    route,
    group,
    'session-timeout': sessionTimeout,
    'gateway-rate': gatewayRate,
  } = config.headend;
  const settings = {
    mqtt: mqttSettings(config.mqtt),
    policy: { ...config.policy },
    enrolment: config.enrolment && { ...config.enrolment },
  };
  demandUsable(settings.mqtt);
  const database = openDatabase(state, headendSchema);
  watchState(database, state, clock, events);
  const vocabulary = vocabularyOf(config.gwmo);
  const jobs = new Jobs();
  const parties = new Parties(config, database);
  tellWeakSecrets(config.device, events);
  const sequences = new AlertSequences(database);
  const records = new Records(database, clock);
  const orders = new OrderBook(database, clock);
  const unreachableDevices = new UnreachableDevices(database, parties);
  const reachability = new Reachability(parties, unreachableDevices);
  const base = {
    serverId,
    clock,
    entropy,
    events,
    database,
    vocabulary,
    jobs,
    parties,
    sequences,
    records,
    orders,
    reachability,
  };
  const clones = new CloneWatch(base);
  const downlink = new Downlink({ ...base, route, group, gatewayRate, settings: settings.mqtt });
  const notifier = new Notifier({ ...base, downlink });
  const sessionRequests = new SessionRequests({ ...base, notifier, sessionTimeout });
  const triggeredSessions = new TriggeredSessions(base);
  const gatewayOperations = new GatewayOperations({ ...base, notifier, sessionRequests, triggeredSessions });
  const observations = new ObservationDesk({ ...base, sessionRequests });
  const lost = (gateway: string) => {
    orders.lost(gateway);
    observations.lost(gateway);
  };
  const values = new DeviceValues(database);
  const { patience } = config.headend;
  const sessionOrders = new SessionOrders({ ...base, sessionRequests, patience });
  const pendingDetaches = new PendingDetaches({ ...base, notifier });
  const handovers = new Handovers({
    ...base,
    notifier,
    unreachableDevices,
    bootstraps: () => settings.policy['assisted-bootstrap'],
  });
  const policy = new Policy({ ...base, settings: settings.policy, sessionRequests });
  const childWays = new ChildWays({ ...base, notifier, sessionRequests });
  const alertHandler = new AlertHandler({
    ...base,
    pendingDetaches,
    unreachableDevices,
    telemetry: new TelemetryHandler({ ...base, values }),
    lost,
    ask: (id, brokerGateway) => (parties.isGateway(id) ? childWays : notifier).ask(id, brokerGateway),
    departed: (...alert) => enrolment?.departures.alerted(...alert),
  });
  const sessions = new Sessions({
    ...base,
    demandWay: (gateway, brokerGateway) => childWays.demand(gateway, brokerGateway),
    work: sessionWork(
      policy,
      pendingDetaches,
      handovers,
      () => enrolment?.departures,
      jobs,
      (gateway) =>
        watchingRecords(jobs.work(gateway), nodeAt(vocabulary, 'GwDeviceInventory', 'Records'), (names) =>
          alertHandler.removed(gateway, names),
        ),
    ),
    proved: ({ party, gateway }, brokerGateway) => {
      if (party.kind === 'gateway') childWays.proved(party.id, brokerGateway);
      else reachability.prove(party.id, brokerGateway);
      // Only the first message after a restart of this server tells something: else alerts have told it.
      if (gateway !== party.id) reachability.learnFirst(gateway, brokerGateway);
      if (gateway !== party.id) alertHandler.proved(party.id, gateway);
    },
    handleAlert: (context, alert) => alertHandler.handle(context, alert),
  });
  const endSessions = (gateway: string) => {
    void background(events, 'session-end', () => sessions.endOf(gateway));
  };
  const enrolment: Enrolment | undefined =
    settings.enrolment &&
    new Enrolment({
      ...base,
      route,
      group,
      state,
      mqtt: settings.mqtt,
      settings: settings.enrolment,
      replaced: (gateway) => {
        handovers.replaced(gateway);
        // The former board goes on with none.
        database.afterCommit(() => endSessions(gateway));
      },
      returned: (gateway, key) => clones.returned(gateway, key),
      unreachableDevices,
      notifier,
      gone: lost,
      revoked: endSessions,
      manage: (gateway, operations) => sessionRequests.run(gateway, operations),
      isOnline: (gateway) => reachability.isOnline(reachability.brokerGatewayOf(gateway)),
    });
  childWays.restore();
  const relay =
    config.relay && new Relay({ url: config.relay.url, timeout: config.relay.timeout * 1000, events });

  // The stack disposes of these from the last to the first.
  const stack = new AsyncDisposableStack();
  stack.defer(() => database.close());
  stack.defer(() => gatewayOperations.stop());
  if (enrolment) stack.use(enrolment);
  stack.use(downlink);
  stack.defer(() => sessions.stop());
  stack.defer(() => triggeredSessions.stop());
  stack.defer(() => sessionOrders.stop());
  return {
    ...base,
    settings,
    clones,
    downlink,
    sessionRequests,
    sessionOrders,
    observations,
    values,
    lost,
    triggeredSessions,
    gatewayOperations,
    pendingDetaches,
    handovers,
    policy,
    sessions,
    relay,
    enrolment,
    stack,
  };
}

/** The work of a session: first what the server's own policy asks for, then the operations that were requested. */
const sessionWork = (
  policy: Policy,
  pendingDetaches: PendingDetaches,
  handovers: Handovers,
  departures: () => Departures | undefined,
  jobs: Jobs,
  ordered: (gateway: string) => Work,
) =>
  async function* (context: SessionContext, opening: Opening): Work {
    const { party } = context;
    if (party.kind === 'device') {
      yield* policy.bootstrap(context, opening);
      yield* jobs.work(party.id);
    } else {
      yield* pendingDetaches.work(party.id);
      yield* handovers.work(party.id);
      yield* departures()?.work(party.id) ?? [];
      yield* ordered(party.id);
    }
  };

/**
 * Passes packages of devices to the relay, if there is one, and all other packages to the sessions of this server.
 */
const receiverOf = ({
  database,
  reachability,
  parties,
  sequences,
  lost,
  pendingDetaches,
  handovers,
  sessions,
  relay,
  clones,
  enrolment,
  events,
}: HeadendParts): DownlinkReceiver => ({
  isProven: (gateway, device) =>
    // The other server, to which packages of devices go, proves them.
    (device !== undefined && relay !== undefined) || reachability.isProvenThrough(device ?? gateway, gateway),
  answerPackage: async (up) => {
    // The session in which it said so goes on to its end.
    if (enrolment?.isGone(up.gateway) && !(up.envelope.device === undefined && sessions.knows(up.gateway)))
      throw new PosternError('forbidden', `${up.gateway} has left this server`);
    if (up.envelope.device !== undefined && relay) return await relay.forward(up);
    const answer = await sessions.receive(up);
    await database.settled();
    return answer;
  },
  gatewayStateChanged: (gateway, state, isNews) => {
    if (state && isNews) clones.heard(gateway, state);
    const online = state?.online ?? false;
    const known = reachability.problemOf(gateway);
    reachability.setState(gateway, state);
    const reason = state?.problem;
    if (reason !== undefined && reason !== known) events.emit('gateway.problem', { gateway, reason });
    if (online) pendingDetaches.gatewayOnline(gateway);
    if (online) handovers.gatewayOnline(gateway);
    if (online) enrolment?.gatewayOnline(gateway);
    events.emit('gateway.state', { gateway, online });
    const epoch = state?.epoch;
    if (epoch !== undefined && parties.isGateway(gateway) && sequences.isNews(gateway, epoch)) {
      events.emit('gateway.new-epoch', { gateway, epoch });
      lost(gateway);
    }
  },
});
