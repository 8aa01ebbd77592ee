import { background, failed } from '../base/background.ts';
import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { DmStatus } from '../dm/status.ts';
import { decodeEnvelope, type Envelope, EnvelopeKind, encodeEnvelope } from '../wire/tunnel/envelope.ts';
import { decodeState, type GatewayState } from '../wire/tunnel/gateway-state.ts';
import type { Delivered } from '../wire/tunnel/mqtt-connection.ts';
import { MqttLink } from '../wire/tunnel/mqtt-link.ts';
import type { MqttSettings } from '../wire/tunnel/mqtt-settings.ts';
import { gatewayTopics, headendCarrier, parseUpTopic } from '../wire/tunnel/topics.ts';
import { GatewayBudget } from './gateway-budget.ts';
import { PackageAnswers } from './package-answers.ts';
import { TopicCheck } from './topic-check.ts';

/** A DM package from a party. */
export interface UpPackage {
  /** The broker gateway that published the package. */
  readonly gateway: string;
  readonly envelope: Envelope;
}

/** The answer to a DM package. */
export type DownPackage = Pick<Envelope, 'contentType' | 'headers' | 'body'>;

export interface DownlinkParts {
  /** ServerID of this server. */
  readonly serverId: string;
  /** Name of this worker. Later packages of its sessions come to `dm/{gateway}/up/{route}`. */
  readonly route: string;
  /** Group of workers that share the first packages of sessions, by a shared subscription. */
  readonly group?: string | undefined;
  readonly settings: MqttSettings;
  /** Messages a second of one gateway that are looked at. See `GatewayBudget`. */
  readonly gatewayRate: number;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Receives what gateways publish. */
export interface DownlinkReceiver {
  /** Whether the party of a package has proved itself through the gateway that published it, or needs not to do so here. */
  readonly isProven: (gateway: string, device: string | undefined) => boolean;
  /** Answers a package. An error that it throws is sent back as an error envelope. */
  readonly answerPackage: (up: UpPackage) => Promise<DownPackage>;
  /**
   * Handles a gateway's state. `state` is undefined when the gateway has cleared it. `isNews`: the gateway has just published it;
   * it is neither retained nor a repetition.
   */
  readonly gatewayStateChanged: (gateway: string, state: GatewayState | undefined, isNews: boolean) => void;
}

/** Notifications whose outcome is awaited. */
export const notificationLimit = 1024;
/** Milliseconds that a gateway may take to deliver a notification and report the outcome. */
const notificationTimeout = 30_000;

/** How a message came: its QoS and its size. */
interface Arrival {
  readonly qos: number;
  readonly bytes: number;
}

/** The head-end's side of the MQTT binding (docs/bindings.md): packages in, answers and notifications out. */
export class Downlink implements AsyncDisposable {
  readonly #parts: DownlinkParts;
  readonly #link: MqttLink;
  readonly #answers = new PackageAnswers();
  readonly #budget: GatewayBudget;
  readonly #check: TopicCheck;
  readonly #notifications = new Map<string, (outcome: Envelope) => void>();
  #receiver: DownlinkReceiver | undefined;

  constructor(parts: DownlinkParts) {
    const { group, route, serverId, settings, clock, entropy, events, gatewayRate } = parts;
    this.#parts = parts;
    this.#budget = new GatewayBudget(gatewayRate, clock, events);
    this.#check = new TopicCheck({ route, group, link: () => this.#link, clock, entropy, events });
    const firstPackages = group === undefined ? 'dm/+/up' : `$share/${group}/dm/+/up`;
    this.#link = new MqttLink({
      settings,
      clock,
      entropy,
      events,
      clientId: `${serverId}-${route}`,
      // Gateways send at any time.
      carrier: { topic: headendCarrier, isNeeded: () => true },
      subscriptions: [firstPackages, `dm/+/up/${route}`, 'dm/+/state'],
      watches: [TopicCheck.watch],
      received: (topic, payload, how) => this.#receive(topic, payload, how),
      connected: () => this.#check.connected(),
      disconnected: () => this.#check.disconnected(),
    });
  }

  /** True while the connection to the broker is up. */
  get connected(): boolean {
    return this.#link.connected;
  }

  /** What is wrong with the connection, in words. See `MqttLink.problems`. */
  get problems(): readonly string[] {
    return this.#link.problems;
  }

  /** Connects to the broker and passes what gateways publish to the receiver. Returns before the connection is up. */
  start(receiver: DownlinkReceiver): void {
    this.#receiver = receiver;
    this.#link.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#link[Symbol.asyncDispose]();
  }

  /**
   * Sends Package #0 to a device behind a broker gateway, or to the gateway itself when `device` is undefined.
   * Resolves when the gateway reports that the party has accepted it; with the reason when the gateway cannot ask the device, which
   * has to come by itself.
   * @throws {PosternError} `unauthorized` when the party refused the digest, `full` when too many notifications wait,
   * `timeout`, `unavailable`
   */
  async deliverNotification(
    gateway: string,
    device: string | undefined,
    body: Uint8Array,
  ): Promise<string | undefined> {
    const { clock, entropy, route, serverId } = this.#parts;
    if (this.#notifications.size >= notificationLimit)
      throw new PosternError('full', 'too many notifications wait');
    const correlation = entropy.bytes(12);
    const id = hexOf(correlation);
    const timeToLive = notificationTimeout / 1000;
    const payload = encodeEnvelope({
      kind: EnvelopeKind.Notification,
      correlation,
      server: serverId,
      timeToLive,
      route,
      body,
      ...(device !== undefined && { device }),
    });
    const { promise, resolve, reject } = Promise.withResolvers<Envelope>();
    const timer = clock.after(notificationTimeout, () =>
      reject(new PosternError('timeout', `gateway ${gateway} did not report on the notification`)),
    );
    this.#notifications.set(id, resolve);
    try {
      // A broker that is slow to take the message does not prolong the time.
      const published = this.#link.publish({
        topic: gatewayTopics(gateway).down,
        payload,
        expiry: timeToLive,
      });
      const [{ kind, status, reason }] = await Promise.all([promise, published]);
      if (kind === EnvelopeKind.Error)
        throw new PosternError(
          status === 401 ? 'unauthorized' : 'unavailable',
          `${status ?? 500}: ${reason ?? 'no reason given'}`,
        );
      return status === DmStatus.AcceptedForProcessing ? (reason ?? 'it cannot be asked') : undefined;
    } finally {
      timer.cancel();
      this.#notifications.delete(id);
    }
  }

  /** How many messages of a gateway were not looked at, because it sends too many. */
  refusedOf(gateway: string): number {
    return this.#budget.refusedOf(gateway);
  }

  /** The gateways whose messages were not looked at. */
  refusedGateways(): string[] {
    return this.#budget.refusedGateways();
  }

  #receive(topic: string, payload: Buffer, { qos, retain, dup }: Delivered): void {
    if (this.#check.takes(topic, payload)) return;
    const receiver = this.#receiver;
    const place = parseUpTopic(topic);
    if (!receiver || !place) return;
    this.#check.heard(place);
    // The broker keeps one state for each gateway, and sends all of them after a connect.
    const isKeptState = retain && place.what === 'state';
    if (!isKeptState && !this.#budget.admits(place.gateway, payload.length)) return;
    try {
      if (place.what === 'state')
        receiver.gatewayStateChanged(
          place.gateway,
          payload.length === 0 ? undefined : decodeState(payload),
          !retain && !dup,
        );
      else
        this.#receiveEnvelope(receiver, place.gateway, decodeEnvelope(payload), {
          qos,
          bytes: payload.length,
        });
    } catch (thrown) {
      const { code, message } = asPosternError(thrown);
      if (code === 'internal') failed(this.#parts.events, 'package', thrown);
      else this.#parts.events.emit('mqtt.malformed', { gateway: place.gateway, reason: message });
    }
  }

  #receiveEnvelope(
    receiver: DownlinkReceiver,
    gateway: string,
    envelope: Envelope,
    { qos, bytes }: Arrival,
  ): void {
    const { serverId, events } = this.#parts;
    // Several DM servers may share one broker.
    if (envelope.kind === EnvelopeKind.Request && envelope.server !== serverId) {
      events.emit('package.for-another', { gateway, server: envelope.server });
      return;
    }
    if (envelope.kind === EnvelopeKind.Request) {
      const isAdmitted =
        receiver.isProven(gateway, envelope.device) || this.#budget.admitsUnproven(gateway, envelope.device);
      void background(events, 'package', () =>
        isAdmitted
          ? this.#publishAnswer(receiver, gateway, envelope, { qos, bytes })
          : this.#publishBusy(gateway, envelope, qos),
      );
    } else {
      const told = this.#notifications.get(hexOf(envelope.correlation));
      if (told) this.#check.wasHeard();
      told?.(envelope);
    }
  }

  /**
   * A package may arrive more than once: QoS 1 may deliver it twice, and a gateway without an answer repeats it. A
   * duplicate gets the answer of the first delivery. The answer goes with the QoS of the package, so the gateway decides
   * whether the broker must keep it.
   */
  async #publishAnswer(
    receiver: DownlinkReceiver,
    gateway: string,
    envelope: Envelope,
    { qos, bytes }: Arrival,
  ): Promise<void> {
    const key = `${gateway} ${hexOf(envelope.correlation)}`;
    const answer = await this.#answers
      .of(key, bytes, () => this.#makeAnswer(receiver, gateway, envelope))
      .catch((thrown) => this.#refusal(gateway, envelope, thrown));
    await this.#publish(gateway, envelope, qos, answer);
  }

  /** Frees the place of a package at its gateway at once. The package may come again, so this answer is not kept. */
  async #publishBusy(gateway: string, envelope: Envelope, qos: number): Promise<void> {
    const { dmStatus, message } = new PosternError(
      'unavailable',
      'too many packages of parties that have not proved themselves; try again later',
    );
    await this.#publish(gateway, envelope, qos, this.#error(envelope, dmStatus, message));
  }

  async #publish(gateway: string, envelope: Envelope, qos: number, answer: Buffer): Promise<void> {
    const { timeToLive, correlation, device, server } = envelope;
    const publish = async (payload: Buffer) =>
      await this.#link.publish({
        topic: gatewayTopics(gateway).down,
        payload,
        quick: qos === 0,
        ...(timeToLive !== undefined && timeToLive > 0 && { expiry: timeToLive }),
      });
    try {
      await publish(answer).catch(async (thrown) => {
        const { code, dmStatus, message } = asPosternError(thrown);
        if (code !== 'tooLarge') throw thrown;
        // The broker does not take the answer. Without an error in its place the gateway would wait in vain.
        await publish(this.#error({ correlation, device, server }, dmStatus, message));
      });
    } catch (thrown) {
      this.#parts.events.emit('mqtt.answer-lost', { gateway, reason: asPosternError(thrown).message });
    }
  }

  async #makeAnswer(receiver: DownlinkReceiver, gateway: string, envelope: Envelope): Promise<Buffer> {
    const { correlation, device, server } = envelope;
    const { route } = this.#parts;
    const context = contextOf({ correlation, device, server });
    try {
      return encodeEnvelope({
        kind: EnvelopeKind.Response,
        ...context,
        route,
        ...(await receiver.answerPackage({ gateway, envelope })),
      });
    } catch (thrown) {
      return this.#refusal(gateway, envelope, thrown);
    }
  }

  #refusal(gateway: string, envelope: Envelope, thrown: unknown): Buffer {
    const { dmStatus, message, code } = asPosternError(thrown);
    this.#parts.events.emit(code === 'internal' ? 'package.failed' : 'package.refused', {
      gateway,
      device: envelope.device,
      status: dmStatus,
      reason: message,
    });
    return this.#error(envelope, dmStatus, message);
  }

  #error(context: Context, status: number, reason: string): Buffer {
    return encodeEnvelope({
      kind: EnvelopeKind.Error,
      ...contextOf(context),
      status,
      reason: reason.slice(0, 200),
    });
  }
}

/** What an answer repeats of its request. */
interface Context {
  readonly correlation: Uint8Array;
  readonly device?: string | undefined;
  readonly server?: string | undefined;
}

const contextOf = ({ correlation, device, server }: Context) => ({
  correlation,
  ...(device !== undefined && { device }),
  ...(server !== undefined && { server }),
});

const hexOf = (octets: Uint8Array): string => Buffer.from(octets).toString('hex');
