import { failed, guarded } from '../base/background.ts';
import { type Clock, SystemClock } from '../base/clock.ts';
import { hasTls } from '../base/config.ts';
import { DiskRoom } from '../base/disk-room.ts';
import { type Entropy, systemEntropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import { EventCounter, type Events } from '../base/events.ts';
import { hashedName } from '../base/hashed-name.ts';
import type { SetAside } from '../base/rows.ts';
import { writeAtStart } from '../base/start-writes.ts';
import { watchState } from '../base/watch-state.ts';
import { isProblem } from '../mo/gateway-alerts.ts';
import { budgetLimits } from '../mo/gw-config.ts';
import { vocabularyOf } from '../mo/vocabulary.ts';
import { parseCoapUri } from '../wire/coap/uri.ts';
import { encodings } from '../wire/syncml/codec.ts';
import { decodeNotification } from '../wire/syncml/notification.ts';
import { CoapDeviceService } from './coap-device-service.ts';
import type { GatewayConfig } from './config.ts';
import { DeviceSignals } from './device-signals.ts';
import { configAtNext, enrolIfNeeded, identityFiles, identityFolder } from './enrolled-config.ts';
import { expectedDevices } from './expected-devices.ts';
import { resetBy, resetOrder } from './factory-reset.ts';
import { GatewayFirmware } from './firmware.ts';
import { rightsOf } from './gateway-rights.ts';
import { LiveSettings } from './live-settings.ts';
import { lockedOutBy } from './locked-out.ts';
import { Lwm2mService, registrationOf } from './lwm2m-service.ts';
import { Delegation } from './modes/delegation.ts';
import { DeviceManagement } from './modes/device-management.ts';
import { ProxyMode } from './modes/proxy.ts';
import { TransparentMode } from './modes/transparent.ts';
import { networksOf } from './networks.ts';
import { DataBudget } from './northbound/data-budget.ts';
import { DepartureMarks } from './northbound/departure-marks.ts';
import { DmClient } from './northbound/dm-client.ts';
import { download } from './northbound/download.ts';
import { meteredDownload } from './northbound/metered-uplink.ts';
import { Ownership } from './northbound/ownership.ts';
import { downloadFromParent } from './northbound/parent-download.ts';
import { Reports } from './northbound/reports.ts';
import type { UplinkListener } from './northbound/uplink.ts';
import { GatewayObjects } from './objects.ts';
import { resourcesOf } from './resources.ts';
import { childIn } from './rights/child-scope.ts';
import { forgetUnlisted, imageSettings, knowManualDevices } from './settings.ts';
import { Arrivals } from './southbound/arrivals.ts';
import { Associations } from './southbound/associations.ts';
import { Children } from './southbound/children.ts';
import { Claims } from './southbound/claims.ts';
import { DeviceAddresses, provenAddresses, rememberedDevices } from './southbound/device-addresses.ts';
import { DeviceLocator } from './southbound/device-locator.ts';
import { DeviceQuestions } from './southbound/device-questions.ts';
import { DeviceSessions } from './southbound/device-sessions.ts';
import { ImageTickets } from './southbound/image-tickets.ts';
import type { ListInterfaces } from './southbound/interfaces.ts';
import { Joins } from './southbound/joins.ts';
import { KeyEnds } from './southbound/key-ends.ts';
import { notificationResource } from './southbound/notification-resource.ts';
import { missing, nothingAt } from './southbound/presence.ts';
import { PresenceWatch } from './southbound/presence-watch.ts';
import { UplinkStatus } from './southbound/uplink-status.ts';
import { openState } from './state.ts';
import { ClientUpdates } from './store/client-updates.ts';
import { TrafficRecords } from './store/traffic.ts';
import { TelemetryService } from './telemetry-service.ts';
import { gatewayBranches, gatewayTree, knowServer } from './tree.ts';
import { uplinkOf } from './uplink.ts';
import { isSecureUri } from './uplink-config.ts';

/** What surrounds a gateway; the machine's own by default. */
export interface GatewaySurroundings {
  readonly events: Events;
  readonly clock?: Clock;
  readonly entropy?: Entropy;
  readonly listInterfaces?: ListInterfaces;
  /** Ends this process so that it is started again by the boot state; for slots that are directories. */
  readonly restart?: () => void;
  /** Ends this gateway and makes another one: what it has in memory is not what its disk holds. */
  readonly startAgain?: () => void;
}

/** What is wrong, in one line for a person: the state, the data budget, images that do not come. */
/** Host, and path and query, of a URI of this gateway. It may have a zone, which `URL` does not take. */
function partsOf(uri: string): { readonly host: string; readonly path: string } {
  const [whole = '', host = ''] = /^\w+:\/\/(\[[^\]]*\]|[^:/]*)[^/]*/.exec(uri) ?? [];
  return { host, path: uri.slice(whole.length) };
}

function problemText(
  fault: string | undefined,
  shortage: string | undefined,
  broken: ReadonlyMap<string, string>,
): string | undefined {
  const images = [...broken].map(
    ([name, reason]) => `image ${name} does not come: ${reason}; tried again within 90 s`,
  );
  const all = [fault, shortage, ...images].filter((text) => text !== undefined);
  return all.length === 0 ? undefined : all.join('; ');
}

/** The parts of a gateway, joined to each other. */
export type GatewayParts = ReturnType<typeof composeGateway>;

/**
 * Makes the parts of a gateway and joins them. Nothing runs yet: `Gateway` starts and stops the parts.
 *
 * Each part is given only parts that stand above it in this list. Where two parts need each other, an object that both know
 * stands between them: `signals` for what is noticed of devices, `reports` for what goes to DM servers. The network, the
 * uplink and the tree are joined to the parts below them by a step of their own: `network.start`, `uplink.start`,
 * `tree.mount`.
 * @throws {PosternError} `configuration` when the state cannot be opened, or a file that the configuration names cannot be read
 */
export function composeGateway(config: GatewayConfig, surroundings: GatewaySurroundings) {
  const { entropy = systemEntropy, listInterfaces, restart } = surroundings;
  const events = new EventCounter(surroundings.events);
  const { clock = new SystemClock((thrown) => failed(events, 'timer', thrown)) } = surroundings;
  const machine = { clock, entropy, events };
  const gatewayId = config.gateway.id;
  // The DM server that hears of devices is the parent gateway, where there is one.
  const ownServer = config.parent?.id ?? config['dm-server'].id;
  const vocabulary = vocabularyOf(config.gwmo);
  const live = new LiveSettings(config);

  // Ground: state, sockets, and where devices are.
  const state = openState(config, vocabulary, machine);
  const { inventory, credentials, outbox, accounts } = state;
  const disk = new DiskRoom(config.limits['keep-free'] * 1024 * 1024);
  // Servers of the configuration have their accounts again at the next start.
  const configured = new Set([config['dm-server'].id, ownServer]);
  const tree = gatewayTree(config, state);
  const { authorisation, scope, tunnelPolicy } = rightsOf({
    ...{ config, live, state, vocabulary, tree, configured, clock, events },
    judge: (...args) => claims.judge(...args),
  });
  const isServer = (serverId: string) => authorisation.may(serverId, 'have-sessions');
  const reports = new Reports(outbox, ownServer, isServer);
  const setAside = ({ table, rows, reason }: SetAside) => {
    const told = `${rows} rows of the table ${table} cannot be read: ${reason}`;
    reports.fault(table, { kind: 'state', reason: told });
  };
  watchState(state.database, config.gateway.state, clock, events, setAside, surroundings.startAgain);
  const recovery = state.database.file?.recovery;
  if (recovery) guarded(events, 'state', () => reports.recovered(recovery))();
  const lost = credentials.lost + state.nodes.lost;
  if (lost > 0) {
    events.emit('state.sealed-lost', { rows: lost, key: state.key });
    const reason = `${lost} secrets were encrypted by another key`;
    guarded(events, 'state', () => reports.fault('sealed', { kind: 'state', reason }))();
  }
  if (state.epoch.isNew) events.emit('state.new-epoch', { epoch: state.epoch.value });
  const signals = new DeviceSignals(events);
  const remembered = Math.max(rememberedDevices, config.limits.devices);
  const isListed = (deviceId: string) => live.current.listed.has(deviceId);
  const joins = new Joins({
    ...state,
    isListed,
    isTaken: (deviceId) =>
      deviceId === gatewayId ||
      isListed(deviceId) ||
      credentials.get(deviceId) !== undefined ||
      inventory.get(deviceId) !== undefined,
    canProve: () => live.current.certificates !== undefined,
    ...machine,
  });
  const networks = networksOf({ config, live, state, joins, remembered, listInterfaces, ...machine });
  const { admission, network, transport } = networks;
  const addresses = new DeviceAddresses(remembered);
  addresses.restore(inventory.values());
  for (const address of provenAddresses(inventory.values(), addresses)) admission.know(address);
  if (config.parent) admission.know(parseCoapUri(config.parent.uri).host);
  const arrivals = new Arrivals(clock, remembered);
  const locator = new DeviceLocator({
    ...networks,
    addresses,
    ...state,
    entropy,
  });
  const budget = new DataBudget({
    limits: () => budgetLimits((node) => state.gwConfig.text(node)),
    records: new TrafficRecords(state.database),
    ...machine,
  });
  /** Why images do not come, by name. At most as many as there are images. */
  const broken = new Map<string, string>();
  state.gwConfig.derive(['DataUsed'], () => JSON.stringify(budget.view()));
  const { uplink, reporting, parent, certificate, problemChanged } = uplinkOf({
    config,
    live,
    accounts,
    join: (store) => associations.joinParent(store),
    locator,
    transport,
    budget,
    startAgain: surroundings.startAgain,
    gone: () => ownership?.gone(),
    addressOf: (deviceId) => addresses.get(deviceId)?.address,
    epoch: () => state.epoch.value,
    problem: () => problemText(state.database.fault?.message, budget.shortage, broken),
    ...machine,
  });
  const by = resetBy(config);
  if (by !== undefined)
    guarded(events, 'state', () => reports.fault('reset', { kind: 'reset', reason: `by order of ${by}` }))();
  const reset = (name: unknown, orderedBy: string) => {
    const store = resetOrder(config, name, orderedBy);
    return () => {
      store();
      surroundings.startAgain?.();
    };
  };
  const marks = new DepartureMarks(identityFolder(config), identityFiles(config));
  const ownership: Ownership | undefined =
    certificate &&
    new Ownership({
      gatewayId,
      server: ownServer,
      enrol: (order, told, stop, asks) =>
        enrolIfNeeded(configAtNext(config, order, marks.next), { ...machine, events: told }, stop, asks),
      marks,
      failed: (reason) => reports.fault('transfer', { kind: 'transfer', reason }),
      startAgain: surroundings.startAgain,
      ...machine,
    });
  budget.onChanged(() => problemChanged?.());
  if (parent) (networks.secureNetwork ?? network).onChange(() => parent.addressesChanged());
  transport?.onMoved((former, { identity, address, port }, heardOn) => {
    // Where a device is heard by its key counts as much as where it proved itself in its session.
    if (identity !== undefined && addresses.deviceAt(former) === identity)
      signals.heard(identity, { address, port, heardOn });
  });
  const uplinkStatus = new UplinkStatus(clock, uplink);

  // Devices: which are attached, and how each is reached.
  const associations = new Associations({
    ...state,
    ...machine,
    reported: () => reports.wake(),
    leaving: (deviceId) => state.updates.deviceLeft(hashedName(deviceId)),
    came: (deviceId) => signals.attached(deviceId),
    gone: (deviceId) => signals.detached(deviceId),
    removed: (deviceId) => {
      joins.forget(deviceId);
      state.registrations?.forget(deviceId);
    },
  });
  const transparent = new TransparentMode({
    gatewayId,
    authorisation,
    scope,
    childOf: (deviceId) => locator.childOf(deviceId),
    childAt: (from) => locator.childAt(from),
    isUnsure: (from) => locator.isUnsure(from),
    policy: tunnelPolicy,
    towards: ({ address, port, heardOn }) => networks.networkAt(address, port).towards(address, heardOn),
    upstream: uplink,
    addresses,
    ...machine,
  });
  const proxy = new ProxyMode({
    gatewayId,
    credentials,
    reach: (deviceId, package0) => transparent.deliver(deviceId, gatewayId, package0),
    isReachable: (deviceId) => addresses.get(deviceId) !== undefined,
    asked: (deviceId) => signals.asked(deviceId),
    missed: (deviceId, { code, message }) => {
      const known = addresses.get(deviceId);
      // A child gateway answers only after the device behind it has, so its silence says nothing of the child.
      if (known && locator.childOf(deviceId) === undefined)
        signals.found(
          deviceId,
          code === 'timeout' ? nothingAt(locator.uriOf(known, deviceId)) : missing(message),
        );
    },
    ...machine,
  });
  const start = state.database.file?.lock.starts ?? 0;
  const tickets = new ImageTickets({
    sealing: state.sealing,
    start,
    devices: inventory,
    clock,
    ready: (name) => objects.images.ready(name),
  });
  const lwm2m =
    config.lwm2m &&
    state.registrations &&
    new Lwm2mService({
      settings: config.lwm2m,
      live,
      registrations: state.registrations,
      inventory,
      addresses,
      locator,
      arrivals,
      associations,
      keys: credentials.keys,
      oscoreUri: networks.oscoreUri,
      imageAt: (deviceId, uri) => tickets.imageOf(partsOf(uri).path, deviceId),
      httpUriOf: (uri) => http?.uriAt(partsOf(uri).host, partsOf(uri).path),
      updates: new ClientUpdates(state.database),
      signals,
      joins,
      ...machine,
    });
  const coapDevices =
    config['coap-devices'] &&
    new CoapDeviceService({
      settings: config['coap-devices'],
      inventory,
      locator,
      arrivals,
      associations,
      signals,
      ...machine,
    });
  const questions = new DeviceQuestions({
    inventory,
    addresses,
    locator,
    arrivals,
    requestSession: (deviceId) => proxy.requestSession(deviceId),
    askClient: lwm2m && ((deviceId) => lwm2m.ask(deviceId)),
    askCoapDevice: coapDevices && ((deviceId) => coapDevices.ask(deviceId)),
    clock,
  });
  const expiry = config.limits['device-expiry'];
  const presence = new PresenceWatch({
    inventory,
    addresses,
    arrivals,
    associations,
    ask: (deviceId) => questions.ask(deviceId),
    uriOf: (from) => locator.uriOf(from),
    lockedOut: lockedOutBy({ config, live, joins, credentials, contexts: networks.contexts, locator }),
    registrationOf: (deviceId) => registrationOf(state, deviceId),
    configured: expiry === undefined ? undefined : expiry * 1000,
    ...machine,
  });
  const management = new DeviceManagement({
    inventory,
    transparent,
    proxy,
    adaptations: { LwM2M: lwm2m, CoAP: coapDevices },
  });
  const delegation = new Delegation({ manage: proxy.manage, vocabulary, ...machine });

  const metered = meteredDownload(download, budget);
  const downloads = parent ? downloadFromParent(parent, metered) : metered;

  // The objects of the gateway's own management tree, and the client that reports to DM servers.
  const objects = new GatewayObjects({
    tickets,
    vocabulary,
    state,
    expected: expectedDevices({
      credentials,
      locator,
      addresses,
      events,
      hasOscore: config.oscore !== undefined,
    }),
    associations,
    authorisation,
    locator,
    management,
    delegation,
    reports,
    images: imageSettings(config),
    disk,
    download: downloads,
    brokeOff: (name, reason) => {
      if (reason === undefined) broken.delete(name);
      else broken.set(name, reason);
      problemChanged?.();
    },
    live,
    ...machine,
  });
  const telemetry = new TelemetryService({
    state,
    vocabulary,
    authorisation,
    choice: objects.choice,
    observer: lwm2m?.observer,
    manage: proxy.manage,
    ownServer: config['dm-server'].id,
    budget,
    limit: config.limits.telemetry,
    ...machine,
  });
  const firmware =
    config.update &&
    new GatewayFirmware({
      settings: config.update,
      live,
      stateFile: config.gateway.state,
      state,
      imageFile: (name) => objects.images.file(name),
      authorisation,
      disk,
      network,
      uplink,
      download: downloads,
      reports,
      ...(restart && { restart }),
      ...machine,
    });
  tree.mount(
    gatewayBranches({
      config,
      state,
      tree,
      authorisation,
      vocabulary,
      joins,
      objects: objects.branches,
      telemetry: telemetry.branch,
      firmware,
      certificate,
      ownServer,
      ownership,
      reset,
      events,
    }),
  );
  knowServer(accounts, config, true);
  const dmClient = new DmClient({
    gatewayId,
    serverId: ownServer,
    mediaType: encodings[config['dm-server'].encoding],
    isUplinkVerified: config.mqtt ? hasTls(config.mqtt.url) : isSecureUri(config.parent?.uri ?? ''),
    accounts,
    tree,
    outbox,
    telemetry: telemetry.reports,
    vocabulary,
    upstream: reporting,
    settled: () => state.database.settled(),
    ...(parent && { problem: () => state.database.fault?.message }),
    ...machine,
  });
  state.database.onFault(() => {
    problemChanged?.();
    if (parent) dmClient.contact(ownServer);
  });
  budget.onReleased(() => dmClient.wake());
  reports.deliverBy(dmClient);
  telemetry.reports.deliverBy(dmClient);
  /** What a server started, and its rights, end with its account. */
  const endOfServers = () => {
    const gone = outbox.servers().filter((server) => server !== undefined && !isServer(server));
    for (const server of gone) outbox.forget(server ?? '');
    objects.endOf((server) => !isServer(server));
    telemetry.endOf((server) => !isServer(server));
  };
  state.accountsBranch.listen({
    lost: (server) => {
      if (!configured.has(server)) tree.forgetServer(server);
    },
    gone: (server) => {
      if (configured.has(server)) return;
      events.emit('dm.server-gone', { server });
      dmClient.forget(server);
      endOfServers();
    },
  });

  // What comes down the uplink.
  const notified: UplinkListener['notified'] = async (deviceId, _, package0) => {
    // The digest of Package #0 is made with the name in it. What is said beside it proves nothing.
    const { serverId } = decodeNotification(package0);
    authorisation.demand(serverId, deviceId === undefined ? 'wake-gateway' : 'wake-device', deviceId);
    if (deviceId === undefined) dmClient.notified(package0);
    else return await management.told(deviceId, serverId, package0);
    return undefined;
  };
  const uplinkListener: UplinkListener = {
    notified,
    connected: () => {
      firmware?.connected();
      // A parent gateway attaches this one by a session. A DM server hears only when there is something to tell.
      if (parent) dmClient.contact(ownServer);
      else dmClient.wake();
      uplinkStatus.changed();
    },
    disconnected: () => uplinkStatus.changed(),
  };

  // What devices see.
  const claims = new Claims({
    inventory,
    isThere: async (record) => {
      const child = childIn(record);
      return child === undefined
        ? await questions.isThere(record.deviceId)
        : await delegation.reaches(child, record.deviceId, gatewayId);
    },
    ...machine,
  });
  const children = new Children({
    vocabulary,
    allowed: { has: (deviceId) => live.current.childGateways.has(deviceId) },
    associations,
    scope,
    events,
    fanoutEnded: (...args) => delegation.reported(...args),
    faulted: (fault) =>
      reports.fault(isProblem(fault) ? 'problem' : `${fault.kind} ${fault.reason.slice(0, 64)}`, fault),
  });
  const sessions = new DeviceSessions({
    gatewayId,
    credentials,
    isPlainAllowed: config.coap['insecure-plain-coap'],
    vocabulary,
    proofsOf: (deviceId) => live.current.proofs.get(deviceId),
    mayBeGateway: (deviceId) => children.mayBeGateway(deviceId),
    work: (deviceId) => proxy.work(deviceId),
    earlyWork: (deviceId) => proxy.earlyWork(deviceId),
    proved: (deviceId, from) => signals.heard(deviceId, from),
    attached: (device) => associations.attach(device),
    left: (deviceId) => keyEnds.goodbye(deviceId, () => associations.detach(deviceId, 'left')),
    alerted: (deviceId, alert) => children.alerted(deviceId, alert) ?? objects.alerted(deviceId, alert),
    ...machine,
  });
  const keyEnds = new KeyEnds({ credentials, transport, contexts: networks.contexts, sessions });
  writeAtStart({ database: state.database, ...machine }, () => {
    knowManualDevices(config, credentials, events);
    forgetUnlisted(config, state, events);
  });
  const { compose, http } = resourcesOf({
    config,
    live,
    joins,
    credentials,
    database: state.database,
    locator,
    addresses,
    livesElsewhere: (...args) => questions.livesElsewhere(...args),
    sessions,
    transparent,
    lwm2m,
    uplinkStatus,
    notifications:
      parent &&
      notificationResource(
        ({ remote }) => parent.isParent(remote),
        async (deviceId, package0) => {
          const reason = await notified(deviceId, '', package0);
          if (reason !== undefined) throw new PosternError('notFound', reason);
        },
      ),
    image: (name) => objects.images.ready(name),
    tickets,
    ...networks,
    ...machine,
  });
  signals.add(
    presence,
    objects,
    telemetry,
    proxy,
    ...(lwm2m ? [lwm2m] : []),
    ...(coapDevices ? [coapDevices] : []),
    {
      detached: (deviceId) => sessions.detached(deviceId),
    },
  );

  return {
    config,
    live,
    joins,
    locator,
    state,
    clock,
    events,
    ...networks,
    compose,
    http,
    uplink,
    budget,
    uplinkListener,
    associations,
    arrivals,
    signals,
    presence,
    lwm2m,
    coapDevices,
    management,
    tree,
    objects,
    telemetry,
    firmware,
    certificate,
    ownership,
    reset,
    reports,
    dmClient,
    sessions,
    endOfServers,
  };
}
