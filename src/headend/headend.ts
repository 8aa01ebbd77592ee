import { BoundedMap } from '../base/bounded-map.ts';
import { type Clock, SystemClock } from '../base/clock.ts';
import { openDatabase } from '../base/database.ts';
import { type Entropy, systemEntropy } from '../base/entropy.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { hashedName } from '../base/hashed-name.ts';
import { Jobs } from '../dm/jobs.ts';
import { type Operation, type OperationOutcome, placeOf, type Work } from '../dm/server-session.ts';
import { DmStatus, isOk } from '../dm/status.ts';
import { nodeAt, type Vocabulary, vocabularyOf } from '../mo/vocabulary.ts';
import { encodeNotification, resyncNonces } from '../wire/syncml/notification.ts';
import type { MqttSettings } from '../wire/tunnel/mqtt-link.ts';
import { AlertDesk } from './alert-desk.ts';
import { bootstrapToGateway } from './assisted-bootstrap.ts';
import type { HeadendConfig } from './config.ts';
import { Downlink } from './downlink.ts';
import {
  type FanoutRequest,
  fanoutOperations,
  type GroupRequest,
  groupOperations,
  type ImageRequest,
  imageOperations,
  type TriggerRequest,
  triggerOperations,
} from './orders.ts';
import { Parties } from './parties.ts';
import { Records, type ResultRecord } from './records.ts';
import { Relay } from './relay.ts';
import { headendSchema } from './schema.ts';
import { type SessionContext, Sessions } from './sessions.ts';
import { type TriggeredDevice, TriggeredSessions } from './triggered-sessions.ts';

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

/** Something that a gateway was asked to execute, and reports on later. */
export interface StartedOperation {
  readonly gateway: string;
  readonly name: string;
  readonly correlator: string;
  /** 202, or 200 when it was done at once. */
  readonly status: number;
}

export interface DeviceView {
  readonly id: string;
  /** It has an account for this server, so it can be managed from here. */
  readonly known: boolean;
  /** The gateway that it is attached to, or came through. */
  readonly gateway: string | undefined;
  readonly attached: boolean;
}

/** Devices whose way through a tunnel is remembered; gateways whose state is. */
const limits = { heard: 65_536, gateways: 65_536 } as const;

const secondsOfTrigger = 3600;

/** What is wanted of devices that a gateway is to ask for a session each. */
export interface TriggerWish extends Omit<TriggerRequest, 'notifications'> {
  readonly devices: readonly string[];
  readonly operations: readonly Operation[];
}

/** `urn:dev:ops:*` stands for all that begins so. */
const matches = (pattern: string, device: string): boolean =>
  pattern.endsWith('*') ? device.startsWith(pattern.slice(0, -1)) : device === pattern;

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
  readonly #triggers: TriggeredSessions;
  readonly #records: Records;
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
    this.#database = openDatabase(config.headend.state, headendSchema);
    this.#parties = new Parties(config, this.#database);
    this.#records = new Records(this.#database, clock);
    this.#triggers = new TriggeredSessions(this.#jobs, clock);
    const desk = new AlertDesk({
      parties: this.#parties,
      records: this.#records,
      vocabulary: this.#vocabulary,
      events,
      heardThrough: this.#heardThrough,
      letGo: (gateway, deviceId) => this.#letGo(gateway, deviceId),
    });
    this.#sessions = new Sessions({
      serverId,
      parties: this.#parties,
      clock,
      entropy,
      events,
      work: (context) => this.#work(context),
      alerted: (context, alert) => desk.alerted(context, alert),
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
        const { device, via } = up.envelope;
        if (device !== undefined) this.#heardThrough.set(device, up.gateway);
        if (via !== undefined) this.#heardThrough.set(via, up.gateway);
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
    this.#triggers.stop();
    await using stack = new AsyncDisposableStack();
    stack.defer(() => this.#database.close());
    stack.use(this.#downlink);
    stack.defer(() => this.#sessions.stop());
  }

  /** What this server remembers of alerts, results and assignments. */
  get records(): Records {
    return this.#records;
  }

  /** What fan-outs came to that gateways reported, the latest last. */
  fanouts(): ResultRecord[] {
    return this.#records.results('CommandFanout');
  }

  /**
   * Chooses the gateway that a device belongs to; none takes the choice back.
   * @throws {PosternError} `notFound` for an unknown gateway, `full`
   */
  assign(device: string, gateway: string | undefined): void {
    if (gateway !== undefined && this.#parties.get(gateway)?.kind !== 'gateway')
      throw new PosternError('notFound', `no gateway ${gateway}`);
    if (!this.#records.assign(device, gateway)) throw new PosternError('full', 'too many policies');
  }

  /** Sessions that are under way. */
  sessions(): { party: string; gateway: string; session: string }[] {
    return this.#sessions.list();
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
    if (!party)
      throw new PosternError(
        'notFound',
        `${partyId} has no account for this server; its gateway can work on it by a fan-out`,
      );
    const gateway = this.#wayTo(partyId) ?? (party.kind === 'gateway' ? partyId : undefined);
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

  /**
   * Has a gateway do a fan-out, in place of an earlier one of this name. What it comes to is in `records`, by the alert.
   * @throws {PosternError} `notFound`, `timeout`, or with the reason why the gateway refused
   */
  async fanOut(gateway: string, request: FanoutRequest): Promise<StartedOperation> {
    return await this.#order(gateway, request.name, (correlator) =>
      fanoutOperations(this.#vocabulary, request, correlator),
    );
  }

  /** Makes an image known to a gateway, in place of an earlier one of this name, and has it fetched if it has a URL. */
  async stageImage(gateway: string, request: ImageRequest): Promise<StartedOperation> {
    return await this.#order(gateway, request.name, (correlator) =>
      imageOperations(this.#vocabulary, request, correlator),
    );
  }

  async putGroup(gateway: string, request: GroupRequest): Promise<StartedOperation> {
    return await this.#order(gateway, request.id, () => groupOperations(this.#vocabulary, request));
  }

  /**
   * Asks many devices behind one gateway for a session each, by one order to the gateway, and does operations in these
   * sessions (transparent mode). Devices that sleep are asked until the deadline.
   * @throws {PosternError} `notFound` for a device without an account here, and as `fanOut`
   */
  async trigger(gateway: string, wish: TriggerWish): Promise<StartedOperation> {
    const { devices, operations, deadline = secondsOfTrigger, ...request } = wish;
    // A device may have had other sessions by the time that it hears: this nonce is always good.
    const package0 = (device: string) => this.#package0(device).bytes(resyncNonces[0]);
    const notifications = new Map(devices.map((device) => [device, package0(device)]));
    const started = await this.#order(gateway, request.name, (correlator) =>
      triggerOperations(this.#vocabulary, { ...request, notifications, deadline }, correlator),
    );
    this.#triggers.begin(`${gateway} ${request.name}`, devices, operations, deadline);
    return started;
  }

  /** How the sessions stand that a trigger asked for; none when it is not known any more. */
  triggered(gateway: string, name: string): TriggeredDevice[] | undefined {
    return this.#triggers.of(`${gateway} ${name}`);
  }

  /** All but the Delete of what was there before must be done. */
  async #order(
    gateway: string,
    name: string,
    operations: (correlator: string) => readonly Operation[],
  ): Promise<StartedOperation> {
    const correlator = Buffer.from(this.#entropy.bytes(8)).toString('hex');
    const outcomes = await this.manage(gateway, operations(correlator));
    const failed = outcomes.slice(1).find(({ status }) => !isOk(status));
    if (failed)
      throw new PosternError(
        failed.status === DmStatus.DeviceFull ? 'full' : 'conflict',
        `${gateway} answered ${failed.operation.name} ${placeOf(failed.operation)} with ${failed.status}`,
      );
    return { gateway, name, correlator, status: outcomes.at(-1)?.status ?? DmStatus.Ok };
  }

  /**
   * Package #0 for a party: with the nonce of now, or another.
   * @throws {PosternError} `notFound`
   */
  #package0(partyId: string): { bytes: (nonce?: Uint8Array) => Uint8Array } {
    const party = this.#parties.get(partyId);
    if (!party) throw new PosternError('notFound', `${partyId} has no account for this server`);
    const { own } = this.#parties.account(this.#config.headend.id, party);
    this.#nextSessionId = (this.#nextSessionId % 0xffff) + 1;
    const notification = {
      uiMode: 1,
      serverInitiated: true,
      sessionId: this.#nextSessionId,
      serverId: own.name,
    } as const;
    return { bytes: (nonce = own.nonce) => encodeNotification(notification, own.secret, nonce) };
  }

  async #notify(partyId: string, gateway: string): Promise<void> {
    const package0 = this.#package0(partyId);
    const send = async (nonce?: Uint8Array) => {
      this.#events.emit('info', 'notification.sent', { device: partyId, gateway });
      await this.#downlink.notify(gateway, gateway === partyId ? undefined : partyId, package0.bytes(nonce));
    };
    try {
      await send();
    } catch (thrown) {
      if (asPosternError(thrown).code !== 'unauthorized') throw thrown;
      // The client has another nonce than this server believes (section 6.1).
      this.#events.emit('warn', 'notification.resync', { device: partyId, gateway });
      await send(resyncNonces[0]);
    }
  }

  /** The gateway at the broker through which a party is reached: its own, or the one above that. */
  #wayTo(party: string): string | undefined {
    const heard = this.#heardThrough.get(party);
    if (heard !== undefined) return heard;
    const gateway = this.#parties.gatewayOf(party);
    return gateway === undefined ? undefined : (this.#heardThrough.get(gateway) ?? gateway);
  }

  /** Policy: the gateway that an operator chose for a device, or else the one that it came through. */
  #gatewayFor(device: string, through: string): string {
    const assigned = this.#records.assignment(device);
    if (assigned !== undefined) return assigned;
    const { assign } = this.#config.policy;
    return assign.find((rule) => matches(rule.device, device))?.gateway ?? through;
  }

  async *#work({ party, gateway: through, opening }: SessionContext): Work {
    const gateway = this.#gatewayFor(party.id, through);
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

  /** The gateway that a device was behind hears of it when it can. */
  #letGo(gateway: string, deviceId: string): void {
    this.#parties.addPendingDetach(gateway, deviceId);
    this.#events.emit('info', 'device.moved', { device: deviceId, from: gateway });
    if (this.#gateways.get(this.#wayTo(gateway) ?? gateway)?.online) this.#call(gateway);
  }

  /** Has a gateway open a session, for what waits for it. */
  #call(gateway: string): void {
    this.#notify(gateway, this.#wayTo(gateway) ?? gateway).catch((thrown) =>
      this.#events.emit('warn', 'notification.failed', { gateway, reason: asPosternError(thrown).message }),
    );
  }

  async *#letGoAll(gateway: string): Work {
    const devices = this.#parties.pendingDetaches(gateway);
    if (devices.length === 0) return;
    const outcomes = yield devices.map((device) => ({
      name: 'Delete' as const,
      uri: `${nodeAt(this.#vocabulary, 'GwDeviceInventory', 'Records')}/${hashedName(device)}`,
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
