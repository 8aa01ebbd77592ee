import { background, failed } from '../base/background.ts';
import { type Clock, SystemClock } from '../base/clock.ts';
import { type Entropy, systemEntropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import { EventCounter, type Events } from '../base/events.ts';
import { openDatabase } from '../base/open-database.ts';
import { watchState } from '../base/watch-state.ts';
import { tellWeakSecrets } from '../base/weak-secrets.ts';
import { Jobs } from '../dm/jobs.ts';
import type { Opening, Work } from '../dm/server-session.ts';
import { nodeAt, vocabularyOf } from '../mo/vocabulary.ts';
import { demandUsable, mqttSettings } from '../wire/tunnel/mqtt-settings.ts';
import { AlertHandler } from './alert-handler.ts';
import { AlertSequences } from './alert-sequences.ts';
import { ChildWays } from './child-ways.ts';
import { CloneWatch } from './clone-watch.ts';
import type { HeadendConfig } from './config.ts';
import type { Departures } from './departures.ts';
import { DeviceValues } from './device-values.ts';
import { Downlink, type DownlinkReceiver } from './downlink.ts';
import { Enrolment } from './enrolment.ts';
import { GatewayOperations } from './gateway-operations.ts';
import { Handovers } from './handovers.ts';
import { Notifier } from './notifier.ts';
import { ObservationDesk } from './observation-desk.ts';
import { OrderBook } from './order-book.ts';
import { Parties } from './parties.ts';
import { PendingDetaches } from './pending-detaches.ts';
import { Policy } from './policy.ts';
import { Reachability } from './reachability.ts';
import { Records } from './records.ts';
import { Relay } from './relay.ts';
import { watchingRecords } from './removed-records.ts';
import { headendSchema } from './schema.ts';
import { SessionOrders } from './session-orders.ts';
import { SessionRequests } from './session-requests.ts';
import { type SessionContext, Sessions } from './sessions.ts';
import { TelemetryHandler } from './telemetry-handler.ts';
import { TriggeredSessions } from './triggered-sessions.ts';
import { UnreachableDevices } from './unreachable-devices.ts';

export interface HeadendSurroundings {
  readonly events: Events;
  /** The system's clock when absent. */
  readonly clock?: Clock;
  /** The system's random numbers when absent. */
  readonly entropy?: Entropy;
}

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
export const receiverOf = ({
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
