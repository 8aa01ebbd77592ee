import { background } from '../../base/background.ts';
import { BoundedMap } from '../../base/bounded-map.ts';
import type { Clock, Timer } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { decodeEnvelope, type Envelope, EnvelopeKind, encodeEnvelope } from '../../wire/tunnel/envelope.ts';
import { encodeState } from '../../wire/tunnel/gateway-state.ts';
import { MqttLink, type MqttSettings } from '../../wire/tunnel/mqtt-link.ts';
import { gatewayTopics, isTopicLevel } from '../../wire/tunnel/topics.ts';
import type { Uplink, UplinkListener, UpRequest } from './uplink.ts';

export interface UpstreamParts {
  readonly gatewayId: string;
  readonly settings: MqttSettings;
  readonly softwareVersion: string;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** A request that waits for its answer. */
interface Pending {
  /** Key of the session's route: device ID and ServerID. */
  readonly session: string;
  readonly settle: (outcome: Envelope | PosternError) => void;
}

/** Maximum number of requests that wait for an answer, of remembered routes, and of remembered notifications. */
const limits = { pending: 1024, routes: 4096, notifications: 1024 } as const;

/**
 * The gateway's side of the MQTT binding (docs/bindings.md). It sends packages up and receives their answers. It
 * receives notifications and sends their outcomes up.
 */
export class Upstream implements Uplink {
  readonly #parts: UpstreamParts;
  readonly #timeout: number;
  readonly #topics: ReturnType<typeof gatewayTopics>;
  readonly #link: MqttLink;
  readonly #pending = new Map<string, Pending>();
  /** Route to the head-end worker that holds a session, by `Pending.session`. */
  readonly #routes = new BoundedMap<string, string>(limits.routes);
  /** Outcomes of notifications by correlation, so that a repeated notification is answered but not delivered again. */
  readonly #notifications = new BoundedMap<string, Promise<Buffer>>(limits.notifications);
  readonly #bootId: Uint8Array;
  #listener: UplinkListener | undefined;

  /** @param timeout milliseconds within which a request must be answered */
  constructor(parts: UpstreamParts, timeout: number) {
    this.#parts = parts;
    this.#timeout = timeout;
    this.#topics = gatewayTopics(parts.gatewayId);
    this.#bootId = parts.entropy.bytes(8);
    this.#link = new MqttLink({
      ...parts,
      clientId: parts.gatewayId,
      subscriptions: [this.#topics.down],
      will: { topic: this.#topics.state, payload: this.#state(false) },
      received: (_topic, payload) => this.#receive(payload),
      connected: () => void background(parts.events, 'uplink', () => this.#online()),
      disconnected: () => void background(parts.events, 'uplink', () => this.#listener?.disconnected()),
    });
  }

  get connected(): boolean {
    return this.#link.connected;
  }

  get description() {
    return { url: this.#link.url, protocol: this.#link.protocol === 5 ? 'MQTT 5' : 'MQTT 3.1.1' };
  }

  /** Number of requests that wait for an answer. */
  get pending(): number {
    return this.#pending.size;
  }

  start(listener: UplinkListener): void {
    this.#listener = listener;
    this.#link.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const goodbye = { topic: this.#topics.state, payload: this.#state(false), retain: true };
    // If this fails, the broker publishes the Last Will.
    if (this.#link.connected) this.#link.publish(goodbye).catch(() => {});
    // Waits for the acknowledgement of the state published above, for a bounded time.
    await this.#link[Symbol.asyncDispose]();
    for (const { settle } of [...this.#pending.values()])
      settle(new PosternError('unavailable', 'the gateway stops'));
  }

  /**
   * Sends a package to a DM server and resolves with the answer. An error that the far end reports is not thrown: it is
   * an envelope of kind `Error`.
   * @throws {PosternError} `unavailable` without a broker, `timeout`, `full` when too many requests wait, `tooLarge`
   */
  async request(request: UpRequest): Promise<Envelope> {
    const { clock, entropy } = this.#parts;
    if (this.#pending.size >= limits.pending)
      throw new PosternError('full', 'too many packages wait for the DM server');
    const correlation = entropy.bytes(12);
    const id = Buffer.from(correlation).toString('hex');
    const session = `${request.device ?? ''} ${request.server}`;
    const route = this.#routes.get(session);
    const timeToLive = Math.ceil(this.#timeout / 1000);
    // The DM server needs only the gateway nearest to the device. The rest of the path is known to the gateways.
    const nearest = request.via?.split('/')[0];
    const payload = encodeEnvelope({
      kind: EnvelopeKind.Request,
      correlation,
      timeToLive,
      ...request,
      ...(nearest !== undefined && { via: nearest }),
    });
    const { promise, resolve, reject } = Promise.withResolvers<Envelope>();
    let timer: Timer | undefined;
    const settle = (outcome: Envelope | PosternError) => {
      if (!this.#pending.delete(id)) return;
      timer?.cancel();
      if (!(outcome instanceof PosternError)) return resolve(outcome);
      this.#routes.delete(session);
      reject(outcome);
    };
    this.#pending.set(id, { session, settle });
    timer = clock.after(this.#timeout, () =>
      settle(new PosternError('timeout', `the DM server did not answer in ${this.#timeout} ms`)),
    );
    const topic = route === undefined ? this.#topics.up : this.#topics.upRoute(route);
    this.#link
      .publish({ topic, payload, expiry: timeToLive, responseTopic: this.#topics.down })
      .catch((thrown) => settle(asPosternError(thrown)));
    return await promise;
  }

  /** Publishes the state of the gateway after each connect. */
  async #online(): Promise<void> {
    const { events } = this.#parts;
    try {
      await this.#link.publish({ topic: this.#topics.state, payload: this.#state(true), retain: true });
    } catch (thrown) {
      events.emit('mqtt.state-failed', { reason: asPosternError(thrown).message });
    }
    this.#listener?.connected();
  }

  #state(online: boolean): Buffer {
    return encodeState({ online, software: this.#parts.softwareVersion, bootId: this.#bootId });
  }

  #receive(payload: Buffer): void {
    let envelope: Envelope;
    try {
      envelope = decodeEnvelope(payload);
    } catch (thrown) {
      this.#parts.events.emit('mqtt.malformed', { reason: asPosternError(thrown).message });
      return;
    }
    if (envelope.kind === EnvelopeKind.Notification)
      void background(this.#parts.events, 'notification', () => this.#takeNotification(envelope));
    else if (envelope.kind !== EnvelopeKind.Request) this.#answer(envelope);
  }

  #answer(envelope: Envelope): void {
    const pending = this.#pending.get(Buffer.from(envelope.correlation).toString('hex'));
    // A duplicate, or an answer after the timeout.
    if (!pending) {
      const { device, server } = envelope;
      this.#parts.events.emit('mqtt.unexpected-answer', { device, server });
      return;
    }
    const { route } = envelope;
    if (route !== undefined && isTopicLevel(route)) this.#routes.set(pending.session, route);
    else this.#routes.delete(pending.session);
    pending.settle(envelope);
  }

  async #takeNotification(notification: Envelope): Promise<void> {
    const id = Buffer.from(notification.correlation).toString('hex');
    let outcome = this.#notifications.get(id);
    if (!outcome) {
      outcome = this.#deliver(notification);
      this.#notifications.set(id, outcome);
    }
    const { route } = notification;
    const topic = route !== undefined && isTopicLevel(route) ? this.#topics.upRoute(route) : this.#topics.up;
    await this.#link.publish({ topic, payload: await outcome }).catch((thrown) => {
      this.#parts.events.emit('mqtt.outcome-lost', { reason: asPosternError(thrown).message });
    });
  }

  /** Delivers a notification. Returns its outcome as an encoded envelope of kind `Response` or `Error`. */
  async #deliver(notification: Envelope): Promise<Buffer> {
    const { correlation, device, server, body = new Uint8Array() } = notification;
    const context = {
      correlation,
      ...(device !== undefined && { device }),
      ...(server !== undefined && { server }),
    };
    try {
      await this.#listener?.notified(device, server ?? '', body);
      return encodeEnvelope({ kind: EnvelopeKind.Response, ...context });
    } catch (thrown) {
      const { dmStatus, message } = asPosternError(thrown);
      return encodeEnvelope({ kind: EnvelopeKind.Error, ...context, status: dmStatus, reason: message });
    }
  }
}
