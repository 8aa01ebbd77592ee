import { background } from '../../base/background.ts';
import { BoundedMap } from '../../base/bounded-map.ts';
import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { ownBytes } from '../../base/own-bytes.ts';
import { DmStatus } from '../../dm/status.ts';
import { decodeEnvelope, type Envelope, EnvelopeKind, encodeEnvelope } from '../../wire/tunnel/envelope.ts';
import { MqttLink } from '../../wire/tunnel/mqtt-link.ts';
import type { MqttSettings } from '../../wire/tunnel/mqtt-settings.ts';
import type { Publication } from '../../wire/tunnel/publication.ts';
import { gatewayTopics, isTopicLevel } from '../../wire/tunnel/topics.ts';
import type { UplinkTraffic } from './metered-uplink.ts';
import { type PendingRequest, PendingRequests } from './pending-requests.ts';
import { Presence } from './presence.ts';
import type { Uplink, UplinkListener, UpRequest } from './uplink.ts';

export interface UpstreamParts {
  readonly gatewayId: string;
  readonly settings: MqttSettings;
  readonly softwareVersion: string;
  /** Epoch of the gateway's alerts. */
  readonly epoch?: () => string;
  /** What else than the uplink is wrong with the gateway; the DM server shows it to people. */
  readonly problem?: () => string | undefined;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** Counts what is sent and received. */
  readonly traffic?: UplinkTraffic;
  /** Takes the certificate of the board that has this name now. Only where this gateway is enrolled. */
  readonly holder?: (certificate: Buffer) => void;
  /** A likely cause of what the broker refuses, for a person. */
  readonly hint?: (() => string | undefined) | undefined;
  /** Told how each attempt to connect ended. */
  readonly attempts?: { readonly connected: () => void; readonly failed: () => void };
}

/** Maximum number of remembered routes, and of remembered notifications. */
const limits = { routes: 4096, notifications: 1024 } as const;
/** Characters of the reason why a device cannot be asked. */
const reasonLength = 200;
/**
 * Milliseconds without an answer after which a request is sent again, with QoS 1 and the same correlation. The first time
 * it went with QoS 0, so it may be lost; so may its answer. The far end processes it once.
 */
const repeatAfter = 5000;
/** Bytes of a packet that stay free for its topics, its properties and the envelope of a package of the gateway itself. */
const envelopeBytes = 1024;
/** Repetitions without an answer, the last of which goes to all workers instead of the one at the end of the route. */
const overdueUntilShared = 2;
/** Requests in a row without an answer, after which the status says so. */
const silentRequests = 3;

/**
 * The gateway's side of the MQTT binding (docs/bindings.md). It sends packages up and receives their answers. It
 * receives notifications and sends their outcomes up.
 */
export class Upstream implements Uplink {
  readonly #parts: UpstreamParts;
  readonly #timeout: number;
  readonly #topics: ReturnType<typeof gatewayTopics>;
  readonly #link: MqttLink;
  readonly #presence: Presence;
  readonly #pending: PendingRequests;
  /** Route to the head-end worker that holds a session, by `PendingRequest.session`. */
  readonly #routes = new BoundedMap<string, string>(limits.routes);
  /** Outcomes of notifications by correlation, so that a repeated notification is answered but not delivered again. */
  readonly #notifications = new BoundedMap<string, Promise<Buffer>>(limits.notifications);
  #listener: UplinkListener | undefined;
  /** Requests in a row that were not answered in time. */
  #unanswered = 0;

  /** @param timeout milliseconds within which a request must be answered */
  constructor(parts: UpstreamParts, timeout: number) {
    this.#parts = parts;
    this.#timeout = timeout;
    this.#topics = gatewayTopics(parts.gatewayId);
    this.#pending = new PendingRequests({
      clock: parts.clock,
      timeout,
      repeatAfter,
      overdue: (pending) => this.#overdue(pending),
      expired: (pending) => this.#expired(pending),
    });
    const { state, down, holder } = this.#topics;
    const { softwareVersion, epoch, problem, traffic, attempts, clock, entropy, events } = parts;
    this.#presence = new Presence({
      topic: state,
      softwareVersion,
      epoch,
      problem,
      bootId: entropy.bytes(8),
      link: () => this.#link,
      clock,
      events,
    });
    this.#link = new MqttLink({
      ...parts,
      clientId: parts.gatewayId,
      subscriptions: [down],
      watches: parts.holder ? [state, holder] : [state],
      carrier: { topic: this.#topics.none, isNeeded: () => this.#pending.size > 0 },
      will: { topic: state, payload: this.#presence.state(false) },
      received: (topic, payload, { retain }) => this.#receive(topic, payload, retain),
      ...(traffic && { opened: (socket) => traffic.connected(socket) }),
      connected: () => {
        attempts?.connected();
        void background(events, 'uplink', () => this.#online());
      },
      ...(attempts && { failed: attempts.failed }),
      disconnected: () => {
        this.#presence.disconnected();
        this.#listener?.disconnected();
      },
      settled: () => this.#presence.changed(),
    });
  }

  get connected(): boolean {
    return this.#link.connected;
  }

  get description() {
    const { url, protocol, problems, isRefused, retryInSeconds, waiting, unacknowledged } = this.#link;
    const hint = isRefused ? this.#parts.hint?.() : undefined;
    const all = [...problems, ...(this.#unanswered < silentRequests ? [] : [this.#silence()])];
    if (hint !== undefined) all.push(hint);
    return {
      url,
      protocol: protocol === 5 ? 'MQTT 5' : 'MQTT 3.1.1',
      waiting: waiting + unacknowledged,
      ...(isRefused && { refused: true }),
      ...(all.length > 0 && { reason: all.join('; ') }),
      ...(retryInSeconds !== undefined && { retryInSeconds }),
    };
  }

  /** Tells the DM server when what is wrong with the gateway has changed. */
  problemChanged(): void {
    this.#presence.changed();
  }

  get largestBody(): number {
    return Math.max(0, this.#link.largestPacket - envelopeBytes);
  }

  /** Number of requests that wait for an answer. */
  get pending(): number {
    return this.#pending.size;
  }

  /** Replaces the connection by another one, in order. Without a connection nothing happens. */
  reconnect(reason: string): void {
    this.#link.renew(reason);
  }

  start(listener: UplinkListener): void {
    this.#listener = listener;
    this.#link.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const goodbye = { topic: this.#topics.state, payload: this.#presence.state(false), retain: true };
    // If this fails, the broker publishes the Last Will.
    if (this.#link.connected) this.#link.publish(goodbye).catch(() => {});
    // Waits for the acknowledgement of the state published above, for a bounded time.
    await this.#link[Symbol.asyncDispose]();
    for (const { settle } of this.#pending.all())
      settle(new PosternError('unavailable', 'the gateway stops'));
    this.#pending[Symbol.dispose]();
  }

  /**
   * Sends a package to a DM server and resolves with the answer. An error that the far end reports is not thrown: it is
   * an envelope of kind `Error`. When the connection breaks after the package was sent, the request waits for the next
   * connection and is sent again there.
   * @throws {PosternError} `unavailable` without a broker or when the broker's rules forbid it, `timeout`, `full` when too
   *   many requests wait, `tooLarge`
   */
  async request(request: UpRequest): Promise<Envelope> {
    const { entropy } = this.#parts;
    // While the connection is only replaced, requests wait for the next one.
    if (!this.#link.connected && !this.#link.isRenewing)
      throw new PosternError('unavailable', 'the MQTT broker is not connected');
    const flow = request.device === undefined ? undefined : (request.flow ?? request.peer ?? request.device);
    this.#pending.demandRoom(flow);
    const correlation = entropy.bytes(12);
    const id = hexOf(correlation);
    const session = `${request.device ?? ''} ${request.server} ${request.peer ?? ''}`;
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
    const pending: PendingRequest = {
      id,
      flow,
      session,
      request,
      publication: {
        topic: route === undefined ? this.#topics.up : this.#topics.upRoute(route),
        payload,
        expiry: timeToLive,
        responseTopic: this.#topics.down,
        flow: flow ?? '',
        quick: true,
      },
      isSure: false,
      overdue: 0,
      up: 0,
      settle: (outcome) => {
        if (!this.#pending.remove(id)) return;
        if (!(outcome instanceof PosternError)) return resolve(outcome);
        this.#routes.delete(session);
        this.#parts.traffic?.moved(request, { up: pending.up, down: 0 });
        reject(outcome);
      },
    };
    this.#pending.add(pending);
    if (this.#link.post(pending.publication)) pending.up += packetSize(pending.publication);
    else this.#sendLater(pending, true);
    return promise;
  }

  /** As `#send`, without anybody who waits. */
  #sendLater(pending: PendingRequest, isFirst: boolean): void {
    void background(this.#parts.events, 'uplink', () => this.#send(pending, isFirst));
  }

  async #send(pending: PendingRequest, isFirst: boolean): Promise<void> {
    const { publication } = pending;
    try {
      const isHeard = await this.#link.publish(isFirst ? publication : { ...publication, quick: false });
      if (publication === pending.publication) pending.isSure = !isFirst;
      const up = packetSize(publication);
      // The answer may come before the acknowledgement of the broker: then it has booked what had been sent.
      if (this.#pending.get(pending.id)) pending.up += up;
      else this.#parts.traffic?.moved(pending.request, { up, down: 0 });
      if (!isHeard) this.#leaveRoute(pending);
    } catch (thrown) {
      const error = asPosternError(thrown);
      if (error.code === 'forbidden') pending.settle(new PosternError('unavailable', error.message));
      // The request stays when the connection broke, or a repetition finds no room in the queue: it is sent again.
      else if (error.code !== 'unavailable' && (isFirst || error.code !== 'full')) pending.settle(error);
    }
  }

  #overdue(pending: PendingRequest): void {
    if (!this.connected) return;
    pending.overdue++;
    if (pending.overdue >= overdueUntilShared && this.#leaveRoute(pending)) return;
    if (!pending.isSure) this.#sendLater(pending, false);
  }

  /** The worker at the end of the route is gone: sends the package to any worker. Returns false when it went there already. */
  #leaveRoute(pending: PendingRequest): boolean {
    const topic = this.#topics.up;
    if (pending.publication.topic === topic || !this.#pending.get(pending.id)) return false;
    this.#routes.delete(pending.session);
    pending.publication = { ...pending.publication, topic };
    pending.isSure = false;
    this.#sendLater(pending, false);
    return true;
  }

  #expired(pending: PendingRequest): void {
    if (this.connected) this.#unanswered++;
    if (this.#unanswered === silentRequests)
      this.#parts.events.emit('mqtt.unanswered', { topic: this.#topics.down, reason: this.#silence() });
    pending.settle(new PosternError('timeout', `the DM server did not answer in ${this.#timeout} ms`));
  }

  #silence(): string {
    const { up, down } = this.#topics;
    return `the last ${this.#unanswered} packages got no answer on ${down}: the DM server does not answer, or the broker does not let this gateway publish on ${up} or read ${down}`;
  }

  /** After each connect: publishes the state, and sends again what was not answered before the connection broke. */
  async #online(): Promise<void> {
    // The state first: one of the packages may be too large for the broker. Over MQTT 3.1.1 that is only noticed when the
    // broker has acknowledged something else.
    const unanswered = this.#pending.all();
    await this.#presence.announce();
    for (const pending of unanswered) if (this.#pending.get(pending.id)) this.#sendLater(pending, false);
    this.#listener?.connected();
  }

  #receive(topic: string, payload: Buffer, isRetained: boolean): void {
    let envelope: Envelope;
    try {
      if (topic === this.#topics.state) {
        this.#presence.received(payload, isRetained);
        return;
      }
      if (topic === this.#topics.holder) {
        this.#parts.holder?.(payload);
        return;
      }
      envelope = decodeEnvelope(payload);
    } catch (thrown) {
      this.#parts.events.emit('mqtt.malformed', { reason: asPosternError(thrown).message });
      return;
    }
    this.#unanswered = 0;
    const { traffic, events } = this.#parts;
    const down = packetSize({ topic, payload });
    if (envelope.kind === EnvelopeKind.Notification) {
      traffic?.moved(envelope, { up: 0, down }, 'orders');
      void background(events, 'notification', () => this.#takeNotification(envelope));
    } else if (envelope.kind !== EnvelopeKind.Request) this.#answer(envelope, down);
  }

  #answer(envelope: Envelope, octets: number): void {
    const pending = this.#pending.get(hexOf(envelope.correlation));
    // A duplicate, or an answer after the timeout.
    if (!pending) {
      const { device, server } = envelope;
      this.#parts.events.emit('mqtt.unexpected-answer', { device, server });
      return;
    }
    this.#parts.traffic?.moved(pending.request, { up: pending.up, down: octets });
    if (envelope.kind === EnvelopeKind.Response) this.#parts.traffic?.answered(pending.request);
    const { route } = envelope;
    if (route !== undefined && isTopicLevel(route)) this.#routes.set(pending.session, route);
    else this.#routes.delete(pending.session);
    pending.settle(envelope);
  }

  async #takeNotification(notification: Envelope): Promise<void> {
    const id = hexOf(notification.correlation);
    let outcome = this.#notifications.get(id);
    if (!outcome) {
      outcome = this.#deliver(notification);
      this.#notifications.set(id, outcome);
    }
    const { route, device = '' } = notification;
    const topic = route !== undefined && isTopicLevel(route) ? this.#topics.upRoute(route) : this.#topics.up;
    const payload = await outcome;
    try {
      await this.#link.publish({ topic, payload, flow: device });
      this.#parts.traffic?.moved(notification, { up: packetSize({ topic, payload }), down: 0 }, 'orders');
    } catch (thrown) {
      this.#parts.events.emit('mqtt.outcome-lost', { reason: asPosternError(thrown).message });
    }
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
      const reason = await this.#listener?.notified(device, server ?? '', body);
      const waits = reason !== undefined && {
        status: DmStatus.AcceptedForProcessing,
        reason: reason.slice(0, reasonLength),
      };
      return ownBytes(encodeEnvelope({ kind: EnvelopeKind.Response, ...context, ...waits }));
    } catch (thrown) {
      const { dmStatus, message } = asPosternError(thrown);
      const failure = { kind: EnvelopeKind.Error, ...context, status: dmStatus, reason: message };
      return ownBytes(encodeEnvelope(failure));
    }
  }
}

/** Least octets of a PUBLISH packet of QoS 1: header, topic, packet identifier, payload. */
const packetSize = ({ topic, payload }: Publication): number => 6 + Buffer.byteLength(topic) + payload.length;

const hexOf = ({ buffer, byteOffset, length }: Uint8Array): string =>
  Buffer.from(buffer, byteOffset, length).toString('hex');
