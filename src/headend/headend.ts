import { BoundedMap } from '../base/bounded-map.ts';
import { type Clock, SystemClock } from '../base/clock.ts';
import { type Entropy, systemEntropy } from '../base/entropy.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { recordName } from '../base/record-name.ts';
import { Jobs } from '../dm/jobs.ts';
import type { Operation, OperationOutcome, Work } from '../dm/server-session.ts';
import { DmStatus, isOk } from '../dm/status.ts';
import { isAlertOf, readDeviceAttach, readDeviceDetach, readLocationUpdate } from '../mo/gateway-alerts.ts';
import { nodeAt, type Vocabulary, vocabularyOf } from '../mo/vocabulary.ts';
import type { MqttSettings } from '../northbound/mqtt-link.ts';
import { openDatabase } from '../store/database.ts';
import type { Alert } from '../syncml/message.ts';
import { encodeNotification, resyncNonces } from '../syncml/notification.ts';
import { bootstrapToGateway } from './assisted-bootstrap.ts';
import type { HeadendConfig } from './config.ts';
import { Downlink } from './downlink.ts';
import { Parties } from './parties.ts';
import { Relay } from './relay.ts';
import { type SessionContext, Sessions } from './sessions.ts';

export interface HeadendSurroundings {
  readonly events: Events;
  readonly clock?: Clock;
  readonly entropy?: Entropy;
}

export interface GatewayView {
  readonly id: string;
  /** Unknown until the gateway was heard. */
  readonly online: boolean | undefined;
  readonly software: string | undefined;
}

/** What a fan-out of a gateway came to, as XML (docs/bindings.md). */
export interface FanoutView {
  readonly gateway: string;
  readonly fanout: string;
  readonly correlator: string | undefined;
  readonly result: string;
}

export interface DeviceView {
  readonly id: string;
  /** It has an account for this server, so it can be managed from here. */
  readonly known: boolean;
  /** The gateway that it is attached to, or came through. */
  readonly gateway: string | undefined;
  readonly attached: boolean;
}

/** Devices whose way through a tunnel is remembered; gateways whose state is; fan-outs whose result is. */
const limits = { heard: 65_536, gateways: 65_536, fanouts: 256 } as const;

/** The reference DM server: sessions over MQTT, the policy of bootstrap, and what its HTTP API asks for. */
export class Headend implements AsyncDisposable {
  readonly #config: HeadendConfig;
  readonly #clock: Clock;
  readonly #entropy: Entropy;
  readonly #events: Events;
  readonly #vocabulary: Vocabulary;
  readonly #database: ReturnType<typeof openDatabase>;
  readonly #parties: Parties;
  readonly #jobs = new Jobs();
  readonly #sessions: Sessions;
  readonly #downlink: Downlink;
  readonly #relay: Relay | undefined;
  readonly #heardThrough = new BoundedMap<string, string>(limits.heard);
  readonly #fanouts = new BoundedMap<string, FanoutView>(limits.fanouts);
  readonly #gateways = new BoundedMap<string, GatewayView>(limits.gateways);
  #nextSessionId: number;
  #disposed = false;

  /** @throws {PosternError} `configuration` */
  constructor(config: HeadendConfig, surroundings: HeadendSurroundings) {
    const { clock = new SystemClock(), entropy = systemEntropy, events } = surroundings;
    const serverId = config.headend.id;
    this.#config = config;
    this.#vocabulary = vocabularyOf(config.gwmo);
    this.#clock = clock;
    this.#entropy = entropy;
    this.#events = events;
    this.#nextSessionId = 1 + Math.floor(entropy.uniform() * 0x7fff);
    this.#database = openDatabase(config.headend.state);
    this.#parties = new Parties(config, this.#database);
    this.#sessions = new Sessions({
      serverId,
      parties: this.#parties,
      clock,
      entropy,
      events,
      work: (context) => this.#work(context),
      alerted: (context, alert) => this.#alerted(context, alert),
    });
    const { relay } = config;
    this.#relay = relay && new Relay({ url: relay.url, timeout: relay.timeout * 1000, events });
    const { protocol, ...mqtt } = config.mqtt;
    this.#downlink = new Downlink({
      serverId,
      route: config.headend.route,
      group: config.headend.group,
      settings: {
        ...mqtt,
        protocol: protocol === 'auto' ? 'auto' : protocol === '5' ? 5 : 4,
      } as MqttSettings,
      clock,
      entropy,
      events,
      received: async (up) => {
        if (up.envelope.device !== undefined) this.#heardThrough.set(up.envelope.device, up.gateway);
        return up.envelope.device !== undefined && this.#relay
          ? await this.#relay.forward(up)
          : await this.#sessions.receive(up);
      },
      stateChanged: (id, state) => {
        this.#gateways.set(id, { id, online: state?.online ?? false, software: state?.software });
        if (state?.online && this.#parties.get(id) && this.#parties.pendingDetaches(id).length > 0)
          this.#call(id);
        events.emit('info', 'gateway.state', { gateway: id, online: state?.online ?? false });
      },
    });
  }

  get connected(): boolean {
    return this.#downlink.connected;
  }

  start(): void {
    this.#downlink.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await using stack = new AsyncDisposableStack();
    stack.defer(() => this.#database.close());
    stack.use(this.#downlink);
    stack.defer(() => this.#sessions.stop());
  }

  /** Fan-outs that gateways reported, the latest last. */
  fanouts(): FanoutView[] {
    return [...this.#fanouts.values()];
  }

  gateways(): GatewayView[] {
    const known = this.#config.gateway.map(({ id }) => ({ id, online: undefined, software: undefined }));
    return [...new Map([...known, ...this.#gateways.values()].map((view) => [view.id, view])).values()];
  }

  devices(): DeviceView[] {
    const attached = new Map(this.#parties.associations().map(({ device, gateway }) => [device, gateway]));
    const known = this.#parties.list().filter(({ kind }) => kind === 'device');
    const ids = new Set([...known.map(({ id }) => id), ...attached.keys()]);
    return [...ids].toSorted().map((id) => ({
      id,
      known: this.#parties.get(id) !== undefined,
      gateway: attached.get(id) ?? this.#heardThrough.get(id),
      attached: attached.has(id),
    }));
  }

  /**
   * Has a device or gateway open a session, by Package #0 through its gateway, and does operations in it.
   * @throws {PosternError} `notFound` for an unknown party or one without a way to it, `timeout`, or why it failed
   */
  async manage(partyId: string, operations: readonly Operation[]): Promise<readonly OperationOutcome[]> {
    const party = this.#parties.get(partyId);
    if (!party) throw new PosternError('notFound', `${partyId} has no account for this server`);
    const gateway = party.kind === 'gateway' ? partyId : this.#wayTo(partyId);
    if (gateway === undefined)
      throw new PosternError('notFound', `${partyId} is behind no gateway that is known`);
    const giveUp = new AbortController();
    const seconds = this.#config.headend['session-timeout'];
    const timer = this.#clock.after(seconds * 1000, () =>
      giveUp.abort(new PosternError('timeout', `${partyId} opened no session in ${seconds} s`)),
    );
    try {
      const outcomes = this.#jobs.run(partyId, operations, giveUp.signal);
      // A device may open a session by itself before the notification is reported delivered.
      this.#notify(partyId, gateway).catch((thrown) => giveUp.abort(asPosternError(thrown)));
      return await outcomes;
    } finally {
      timer.cancel();
    }
  }

  async #notify(partyId: string, gateway: string): Promise<void> {
    const party = this.#parties.get(partyId);
    if (!party) return;
    const { own } = this.#parties.account(this.#config.headend.id, party);
    this.#nextSessionId = (this.#nextSessionId % 0xffff) + 1;
    const notification = {
      uiMode: 1,
      serverInitiated: true,
      sessionId: this.#nextSessionId,
      serverId: own.name,
    } as const;
    const send = async (nonce: Uint8Array) => {
      this.#events.emit('info', 'notification.sent', { device: partyId, gateway });
      const package0 = encodeNotification(notification, own.secret, nonce);
      await this.#downlink.notify(gateway, party.kind === 'gateway' ? undefined : partyId, package0);
    };
    try {
      await send(own.nonce);
    } catch (thrown) {
      if (asPosternError(thrown).code !== 'unauthorized') throw thrown;
      // The client has another nonce than this server believes (section 6.1).
      this.#events.emit('warn', 'notification.resync', { device: partyId, gateway });
      await send(resyncNonces[0]!);
    }
  }

  #wayTo(device: string): string | undefined {
    return this.#heardThrough.get(device) ?? this.#parties.gatewayOf(device);
  }

  async *#work({ party, gateway, opening }: SessionContext): Work {
    const { 'assisted-bootstrap': assists } = this.#config.policy;
    // A device that came because this server asked has been seen to before.
    if (party.kind === 'device' && assists && !opening.notified && this.#parties.get(gateway)) {
      const isAssociated = this.#parties.gatewayOf(party.id) === gateway;
      const parts = {
        entropy: this.#entropy,
        vocabulary: this.#vocabulary,
        events: this.#events,
        isGateway: (id: string) => this.#parties.get(id)?.kind === 'gateway',
        atGateway: (id: string, operations: readonly Operation[]) => this.manage(id, operations),
      };
      try {
        yield* bootstrapToGateway(parts, party.id, gateway, isAssociated);
      } catch (thrown) {
        const { message } = asPosternError(thrown);
        this.#events.emit('warn', 'bootstrap.assisted-failed', {
          device: party.id,
          gateway,
          reason: message,
        });
      }
    }
    if (party.kind === 'gateway') yield* this.#letGoAll(party.id);
    yield* this.#jobs.work(party.id);
  }

  /** Answers an alert with its status: 415 for a type that this server does not know. */
  #alerted({ party, gateway }: Omit<SessionContext, 'opening'>, alert: Alert): number {
    const ofGateway = party.kind === 'gateway';
    const { alerts } = this.#vocabulary;
    try {
      if (isAlertOf(alert, alerts.DeviceAttach))
        return ofGateway ? this.#deviceAttached(gateway, alert) : DmStatus.Forbidden;
      if (isAlertOf(alert, alerts.DeviceDetach))
        return ofGateway ? this.#deviceDetached(gateway, alert) : DmStatus.Forbidden;
      if (isAlertOf(alert, alerts.LocationUpdate))
        return ofGateway ? DmStatus.Forbidden : this.#deviceMoved(party.id, gateway, alert);
      if (isAlertOf(alert, alerts.CommandFanout))
        return ofGateway ? this.#fanoutEnded(gateway, alert) : DmStatus.Forbidden;
      return DmStatus.UnsupportedMediaType;
    } catch (thrown) {
      return asPosternError(thrown).dmStatus;
    }
  }

  #deviceAttached(gateway: string, alert: Alert): number {
    const { sequence, deviceId, bootstrap, manufacturer, model } = readDeviceAttach(this.#vocabulary, alert);
    if (!this.#parties.takesAlert(gateway, sequence)) return DmStatus.Ok;
    this.#parties.dropPendingDetach(gateway, deviceId);
    const before = this.#parties.associate(deviceId, gateway);
    this.#events.emit('info', 'alert.device-attach', {
      device: deviceId,
      gateway,
      bootstrap,
      manufacturer,
      model,
    });
    // Two gateways hold it now; the one that spoke last is right.
    if (before !== undefined && this.#parties.get(before)) this.#letGo(before, deviceId);
    return DmStatus.Ok;
  }

  #deviceDetached(gateway: string, alert: Alert): number {
    const { sequence, deviceId, reason } = readDeviceDetach(alert);
    if (!this.#parties.takesAlert(gateway, sequence)) return DmStatus.Ok;
    this.#parties.dissociate(deviceId, gateway);
    this.#events.emit('info', 'alert.device-detach', { device: deviceId, gateway, reason });
    return DmStatus.Ok;
  }

  #fanoutEnded(gateway: string, { correlator, items: [item] }: Alert): number {
    const fanout = item?.source?.locUri.split('/').at(-1) ?? '';
    const result = String(item?.data ?? '');
    this.#fanouts.set(`${gateway} ${fanout}`, { gateway, fanout, correlator, result });
    this.#events.emit('info', 'alert.command-fanout', { gateway, fanout, correlator, bytes: result.length });
    return DmStatus.Ok;
  }

  /** GwMO 8.4.1, figure 10: where it belongs now is decided in the session that the device is in. */
  #deviceMoved(deviceId: string, gateway: string, alert: Alert): number {
    const { address, gateway: before } = readLocationUpdate(alert);
    this.#events.emit('info', 'alert.location-update', { device: deviceId, gateway, address, before });
    return DmStatus.Ok;
  }

  /** The gateway that a device was behind hears of it when it can. */
  #letGo(gateway: string, deviceId: string): void {
    this.#parties.addPendingDetach(gateway, deviceId);
    this.#events.emit('info', 'device.moved', { device: deviceId, from: gateway });
    if (this.#gateways.get(gateway)?.online) this.#call(gateway);
  }

  /** Has a gateway open a session, for what waits for it. */
  #call(gateway: string): void {
    this.#notify(gateway, gateway).catch((thrown) =>
      this.#events.emit('warn', 'notification.failed', { gateway, reason: asPosternError(thrown).message }),
    );
  }

  async *#letGoAll(gateway: string): Work {
    const devices = this.#parties.pendingDetaches(gateway);
    if (devices.length === 0) return;
    const outcomes = yield devices.map((device) => ({
      name: 'Delete' as const,
      uri: `${nodeAt(this.#vocabulary, 'GwDeviceInventory', 'Records')}/${recordName(device)}`,
    }));
    for (const [at, device] of devices.entries()) {
      const status = outcomes[at]?.status ?? 0;
      // What the gateway does not know any more is gone as well.
      if (!isOk(status) && status !== DmStatus.NotFound) continue;
      this.#parties.dropPendingDetach(gateway, device);
      this.#events.emit('info', 'device.let-go', { device, gateway, status });
    }
  }
}
