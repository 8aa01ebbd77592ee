import { isAbsolute } from 'node:path';
import { type Database, transaction } from '../base/database.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { LiveConfig } from '../base/live-config.ts';
import { backUpWithKey } from '../base/sealing.ts';
import { writeAtStart } from '../base/start-writes.ts';
import type { Operation, OperationOutcome } from '../dm/server-session.ts';
import type { DeviceRecord } from '../mo/device-record.ts';
import { otherBrokerName } from './broker-name.ts';
import { composeGateway, type GatewayParts, type GatewaySurroundings } from './composition.ts';
import { demandAllowed, type GatewayConfig, gatewayReloads } from './config.ts';
import { endReset, resetBy } from './factory-reset.ts';
import type { GatewayFirmware } from './firmware.ts';
import { registrationOf } from './lwm2m-service.ts';
import { deviceContexts, forgetUnlisted, knowManualDevices } from './settings.ts';
import type { DeviceLocator } from './southbound/device-locator.ts';
import type { JoinView } from './southbound/joins.ts';
import { missing, shownRecords } from './southbound/presence.ts';
import { freeMemory, type GatewayStatus, memoryInUse, plainWarning, statusOf } from './status.ts';
import { knowServer } from './tree.ts';
import { probeCoap } from './update/probe.ts';
import { isSecureUri } from './uplink-config.ts';

/** A DM Gateway: a checked configuration in, a running gateway out. */
export class Gateway implements AsyncDisposable {
  readonly #parts: GatewayParts;
  readonly #config: LiveConfig<GatewayConfig>;
  #isStarted = false;
  /** What was told last of the name at the broker. */
  #otherName: string | undefined;
  #disposed = false;

  /**
   * @param parts composed here when absent
   * @throws {PosternError} `configuration`, as `composeGateway`
   */
  constructor(
    config: GatewayConfig,
    surroundings: GatewaySurroundings,
    parts: GatewayParts = composeGateway(config, surroundings),
  ) {
    this.#parts = parts;
    this.#config = new LiveConfig(config, parts.events, isReloadable);
  }

  /** Where the gateway and all its parts say what happens. */
  get events(): Events {
    return this.#parts.events;
  }

  /** URL of the HTTP binding, where it is on. */
  get httpUrl(): string | undefined {
    return this.#parts.http?.url;
  }

  get coapPort(): number {
    return this.#parts.network.port;
  }

  /** UDP port of CoAP over DTLS, where it is on. */
  get coapsPort(): number | undefined {
    return this.#parts.secureNetwork?.port;
  }

  /**
   * How the gateway itself is updated.
   * @throws {PosternError} `notAllowed` without slots
   */
  get firmware(): GatewayFirmware {
    const { firmware } = this.#parts;
    if (!firmware)
      throw new PosternError(
        'notAllowed',
        'this gateway has no slots: see the table update of its configuration',
      );
    return firmware;
  }

  /** @throws {PosternError} `configuration` when the port is taken, or plain CoAP was not allowed */
  async start(): Promise<void> {
    const { config, state, events, network, compose, http, uplink, uplinkListener } = this.#parts;
    const { clock, presence, lwm2m, coapDevices, objects, firmware, endOfServers, transport, secureNetwork } =
      this.#parts;
    const { telemetry } = this.#parts;
    demandAllowed(config);
    if (config.coap['insecure-plain-coap']) events.emit('coap.insecure', { security: plainWarning });
    if (config.parent && !isSecureUri(config.parent.uri))
      events.emit('parent.insecure', { parent: config.parent.id });
    lwm2m?.start();
    presence.start();
    await network.start(compose);
    // On a disk that takes nothing, devices shake hands again: another start could not know of the records of this one.
    if (transport)
      await whenDurable(state.database, () =>
        transport.restore((device) => state.inventory.get(device)?.lastSeen ?? 0),
      );
    // The state that tells of a reset is on the disk then.
    if (resetBy(config) !== undefined) await whenDurable(state.database, () => endReset(config));
    await secureNetwork?.start(compose);
    await http?.start();
    this.#checkClock();
    // The gateway may have stopped before all of it was ended.
    writeAtStart({ database: state.database, clock, events }, endOfServers);
    objects.resume();
    lwm2m?.resume(objects.awaited);
    telemetry.resume();
    events.emit('gateway.started', {
      gateway: config.gateway.id,
      port: network.port,
      devices: state.inventory.size,
      rss: memoryInUse().rss,
      free: freeMemory(),
    });
    coapDevices?.start();
    this.#checkName(config);
    this.#isStarted = true;
    uplink.start(uplinkListener);
    firmware?.start();
    this.#parts.certificate?.start();
    this.#parts.ownership?.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    const { config, state, events, network, http, uplink } = this.#parts;
    const {
      presence,
      arrivals,
      lwm2m,
      coapDevices,
      objects,
      telemetry,
      firmware,
      dmClient,
      sessions,
      secureNetwork,
      certificate,
      ownership,
      joins,
    } = this.#parts;
    await using stack = new AsyncDisposableStack();
    stack.defer(() => state.database.close());
    stack.defer(() => telemetry.reports.stop());
    // From the last to the first. What waits for the uplink ends when the uplink does.
    stack.use(dmClient);
    stack.use(uplink);
    stack.use(objects);
    if (firmware) stack.use(firmware);
    stack.defer(() => certificate?.stop());
    stack.defer(() => ownership?.stop());
    stack.use(presence);
    stack.use(network);
    if (secureNetwork) stack.use(secureNetwork);
    if (lwm2m) stack.use(lwm2m);
    if (coapDevices) stack.use(coapDevices);
    if (http) stack.use(http);
    // Without a network nobody answers. So nobody is asked any more before the network is closed.
    stack.defer(() => {
      presence.stop();
      arrivals.stop();
    });
    stack.defer(() => sessions.stop());
    stack.defer(() => joins.stop());
    // Campaigns stop before sockets and sessions do. Otherwise the stop would be the outcome of their devices.
    stack.defer(() => objects.stop());
    stack.defer(() => telemetry.stop());
    if (this.#isStarted) events.emit('gateway.stopping', { gateway: config.gateway.id });
  }

  /**
   * Reads the configuration again, and puts in force what `gatewayReloads` lists. Certificates are read again even where
   * the configuration is the same. Returns the configuration that holds now. What came of it is told by events.
   */
  reload(read: () => GatewayConfig): GatewayConfig {
    const { live, state, http, transport, contexts, sessions, presence, locator, signals } = this.#parts;
    this.#config.reload(read, (config) => {
      demandAllowed(config);
      const apply = live.prepare(config);
      contexts?.demandTogether(deviceContexts(config));
      transaction(state.database, () => {
        knowManualDevices(config, state.credentials, this.events);
        forgetUnlisted(config, state, this.events);
        knowServer(state.accounts, config);
      });
      const former = live.current;
      const reached = [...state.inventory.values()].filter(({ deviceId }) => locator.isReached(deviceId));
      apply();
      for (const [identity, key] of former.deviceKeys)
        if (Buffer.compare(key, live.current.deviceKeys.get(identity) ?? noKey) !== 0)
          transport?.revoke(identity);
      for (const [identity, { deviceId, secret }] of former.factorySecrets) {
        const now = live.current.factorySecrets.get(identity);
        if (now?.secret !== secret || now.deviceId !== deviceId) transport?.revoke(identity);
      }
      contexts?.configure(live.current.deviceContexts);
      transport?.review();
      sessions.review();
      presence.review();
      const ended = missing('the key that it proved itself by has ended');
      for (const { deviceId } of reached) if (!locator.isReached(deviceId)) signals.found(deviceId, ended);
      this.#checkClock();
      this.#checkName(config);
      if (live.current.http) http?.renew(live.current.http);
    });
    return this.#config.current;
  }

  /** Tells when the clock is wrong for sure, so that the dates of certificates are checked in part only. */
  #checkClock(): void {
    const { live, clock, events } = this.#parts;
    const { trust } = live.current.certificates ?? {};
    if (!trust || trust.authorities.size === 0 || clock.wall() >= trust.notBefore) return;
    const [time, least] = [clock.wall(), trust.notBefore].map((each) => new Date(each).toISOString());
    events.emit('dtls.clock-unset', { time: time!, least: least! });
  }

  /** Tells once when the certificate for the broker has another name than this gateway. */
  #checkName(config: GatewayConfig): void {
    const { file, reason } = otherBrokerName(config) ?? {};
    if (file !== undefined && reason !== undefined && reason !== this.#otherName)
      this.events.emit('mqtt.other-name', { gateway: config.gateway.id, file, reason });
    this.#otherName = reason;
  }

  /** Why the gateway cannot serve devices any more. Undefined when it can. */
  async complaint(): Promise<string | undefined> {
    const { state, network, clock } = this.#parts;
    state.database.prepare('SELECT 1').get();
    if (network.isOffline) return undefined;
    const bound = network.addresses.map(({ address }) => address);
    return await probeCoap(bound, network.port, clock);
  }

  status(): GatewayStatus {
    return statusOf({ ...this.#parts, configuration: this.#config });
  }

  /**
   * Writes a consistent copy of the state.
   * @param order `target` is the absolute path of a file that does not exist; `key` is true for the key of its secrets beside it
   * @throws {PosternError} `malformed`, `conflict`, `notFound`, `storage`; `notAllowed` when the state or its key cannot be copied
   */
  async backUp(order: unknown): Promise<void> {
    const { target, key } = { ...(order as { target?: unknown; key?: unknown } | null) };
    if (typeof target !== 'string' || !isAbsolute(target))
      throw new PosternError('malformed', 'a body such as {"target": "/path/of/a/new/file"} is wanted');
    const copies = this.#parts.state.database.file?.copies;
    if (!copies)
      throw new PosternError(
        'notAllowed',
        'the state is in memory, or was opened on a full or read-only disk',
      );
    if (key !== true) return await copies.backUp(target);
    const { state, 'key-command': command } = this.#parts.config.gateway;
    if (command) throw new PosternError('notAllowed', 'the key is that of gateway.key-command');
    await backUpWithKey(state, target, () => copies.backUp(target));
  }

  /** The join window, and the devices that have joined. */
  joins(): JoinView {
    return this.#parts.joins.view;
  }

  /**
   * Opens or closes the join window, or forgets a device that has joined.
   * @param order `{ minutes, devices }`, `{ close: true }` or `{ forget: DevId }`
   * @throws {PosternError} `malformed`, `notAllowed`, `notFound`, `storage`
   */
  async orderJoins(order: unknown): Promise<JoinView> {
    const { joins, presence, state } = this.#parts;
    const { minutes, devices, close, forget } = { ...(order as Readonly<Record<string, unknown>> | null) };
    if (typeof forget === 'string') {
      if (!joins.forget(forget)) throw new PosternError('notFound', `${forget} has not joined`);
      presence.review();
      await state.database.settled();
    } else if (close === true) joins.close();
    else joins.open({ minutes: Number(minutes), devices: Number(devices) }, 'admin');
    return joins.view;
  }

  /**
   * Deletes the state and starts anew, with the configuration and the identity.
   * @param order `{ gateway }` is the ID of this gateway
   * @throws {PosternError} `malformed`
   */
  reset(order: unknown): void {
    this.#parts.reset((order as { gateway?: unknown } | null)?.gateway, 'admin')();
  }

  /** The attached devices. `security` says what protects the messages of one that is not behind a child gateway. */
  devices(): readonly ShownDevice[] {
    const { state, locator } = this.#parts;
    return Array.from(shownRecords(state.inventory).values(), (record) => ({
      ...record,
      security: locator.securityOf(record),
      registration: registrationOf(state, record.deviceId),
    }));
  }

  /**
   * Does operations on a device, with the gateway as its DM server: in the session that the device opens next. The gateway
   * asks for that session by Package #0 where the device can be reached.
   * @param timeout milliseconds until the session must have begun
   * @throws {PosternError} `notFound` for a device without an account here, `timeout`, `full`, or why its session failed
   */
  async manage(
    deviceId: string,
    operations: readonly Operation[],
    timeout: number,
  ): Promise<readonly OperationOutcome[]> {
    return await this.#parts.management.manage(deviceId, operations, { timeout });
  }
}

/** A device as the admin API shows it. */
export interface ShownDevice extends DeviceRecord {
  readonly security: ReturnType<DeviceLocator['securityOf']>;
  /** Of an LwM2M client. */
  readonly registration: ReturnType<typeof registrationOf>;
}

const noKey = new Uint8Array();

/** Does something when the state is on the disk; nothing when the disk takes no writes. */
async function whenDurable(database: Database, work: () => void): Promise<void> {
  try {
    await database.settled();
  } catch (thrown) {
    if (asPosternError(thrown).code !== 'storage') throw thrown;
    return;
  }
  work();
}

/** A server without TLS cannot be given a certificate while it runs, and the other way round. */
const isReloadable = (key: string, current: GatewayConfig, next: GatewayConfig): boolean =>
  gatewayReloads.includes(key) &&
  (!key.startsWith('http.tls-') ||
    (current.http?.['tls-cert'] !== undefined && next.http?.['tls-cert'] !== undefined));
