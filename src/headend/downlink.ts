import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { decodeEnvelope, type Envelope, EnvelopeKind, encodeEnvelope } from '../wire/tunnel/envelope.ts';
import { decodeState, type GatewayState } from '../wire/tunnel/gateway-state.ts';
import { MqttLink, type MqttSettings } from '../wire/tunnel/mqtt-link.ts';
import { gatewayTopics, parseUpTopic } from '../wire/tunnel/topics.ts';

/** A package that came up, and the gateway it came through. */
export interface UpPackage {
  readonly gateway: string;
  readonly envelope: Envelope;
}

/** What goes back for a package. */
export type DownPackage = Pick<Envelope, 'contentType' | 'headers' | 'body'>;

export interface DownlinkParts {
  readonly serverId: string;
  readonly route: string;
  readonly group?: string | undefined;
  readonly settings: MqttSettings;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** Answers a package; what it throws goes back as an error envelope. */
  readonly received: (up: UpPackage) => Promise<DownPackage>;
  readonly stateChanged: (gateway: string, state: GatewayState | undefined) => void;
}

/** Answers kept for duplicates, and notifications that wait for their outcome. */
const limits = { answers: 4096, notifications: 1024 } as const;
/** Milliseconds that a gateway may take to deliver a notification. */
const notificationTimeout = 30_000;

/** The head-end's side of the MQTT binding. */
export class Downlink implements AsyncDisposable {
  readonly #parts: DownlinkParts;
  readonly #link: MqttLink;
  readonly #answers = new BoundedMap<string, Promise<Buffer>>(limits.answers);
  readonly #notifications = new Map<string, (outcome: Envelope) => void>();

  constructor(parts: DownlinkParts) {
    const { group, route, serverId } = parts;
    this.#parts = parts;
    const first = group === undefined ? 'dm/+/up' : `$share/${group}/dm/+/up`;
    this.#link = new MqttLink({
      ...parts,
      clientId: `${serverId}-${route}`,
      subscriptions: [first, `dm/+/up/${route}`, 'dm/+/state'],
      received: (topic, payload) => this.#receive(topic, payload),
    });
  }

  get connected(): boolean {
    return this.#link.connected;
  }

  start(): void {
    this.#link.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#link[Symbol.asyncDispose]();
  }

  /**
   * Sends Package #0 to a device behind a gateway, or to the gateway itself, and resolves when it was taken.
   * @throws {PosternError} `unavailable`, `timeout`, `unauthorized` when the digest was not believed
   */
  async notify(gateway: string, device: string | undefined, body: Uint8Array): Promise<void> {
    const { clock, entropy, route, serverId } = this.#parts;
    if (this.#notifications.size >= limits.notifications)
      throw new PosternError('full', 'too many notifications wait');
    const correlation = entropy.bytes(12);
    const id = Buffer.from(correlation).toString('hex');
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
      await this.#link.publish({ topic: gatewayTopics(gateway).down, payload, expiry: timeToLive });
      const { kind, status, reason } = await promise;
      if (kind === EnvelopeKind.Error)
        throw new PosternError(
          status === 401 ? 'unauthorized' : 'unavailable',
          `${status ?? 500}: ${reason ?? 'no reason given'}`,
        );
    } finally {
      timer.cancel();
      this.#notifications.delete(id);
    }
  }

  #receive(topic: string, payload: Buffer): void {
    const { events, stateChanged } = this.#parts;
    const place = parseUpTopic(topic);
    if (!place) return;
    try {
      if (place.what === 'state')
        stateChanged(place.gateway, payload.length === 0 ? undefined : decodeState(payload));
      else this.#take(place.gateway, decodeEnvelope(payload));
    } catch (thrown) {
      events.emit('mqtt.malformed', {
        gateway: place.gateway,
        reason: asPosternError(thrown).message,
      });
    }
  }

  #take(gateway: string, envelope: Envelope): void {
    // Several DM servers may share one broker.
    const { serverId, events } = this.#parts;
    if (envelope.kind === EnvelopeKind.Request && envelope.server !== serverId) {
      events.emit('package.for-another', { gateway, server: envelope.server });
      return;
    }
    const id = Buffer.from(envelope.correlation).toString('hex');
    if (envelope.kind === EnvelopeKind.Request) void this.#answer(gateway, `${gateway} ${id}`, envelope);
    else this.#notifications.get(id)?.(envelope);
  }

  async #answer(gateway: string, key: string, envelope: Envelope): Promise<void> {
    const { events } = this.#parts;
    let answer = this.#answers.get(key);
    if (!answer) {
      answer = this.#make(gateway, envelope);
      this.#answers.set(key, answer);
    }
    try {
      const { timeToLive } = envelope;
      await this.#link.publish({
        topic: gatewayTopics(gateway).down,
        payload: await answer,
        ...(timeToLive !== undefined && timeToLive > 0 && { expiry: timeToLive }),
      });
    } catch (thrown) {
      events.emit('mqtt.answer-lost', { gateway, reason: asPosternError(thrown).message });
    }
  }

  async #make(gateway: string, envelope: Envelope): Promise<Buffer> {
    const { correlation, device, server } = envelope;
    const { route, received, events } = this.#parts;
    const context = {
      correlation,
      ...(device !== undefined && { device }),
      ...(server !== undefined && { server }),
    };
    try {
      return encodeEnvelope({
        kind: EnvelopeKind.Response,
        ...context,
        route,
        ...(await received({ gateway, envelope })),
      });
    } catch (thrown) {
      const { dmStatus, message, code } = asPosternError(thrown);
      events.emit(code === 'internal' ? 'package.failed' : 'package.refused', {
        gateway,
        device,
        status: dmStatus,
        reason: message,
      });
      return encodeEnvelope({
        kind: EnvelopeKind.Error,
        ...context,
        status: dmStatus,
        reason: message.slice(0, 200),
      });
    }
  }
}
