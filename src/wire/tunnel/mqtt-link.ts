import type { Socket } from 'node:net';
import { guarded, persistently } from '../../base/background.ts';
import { BoundedMap } from '../../base/bounded-map.ts';
import { type Clock, type Monotonic, pause, plus, type Timer } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { FairWindow } from '../../base/fair-window.ts';
import { publicUrl } from '../../base/public-url.ts';
import { backoff } from '../../base/retry.ts';
import {
  type Carrier,
  type Delivered,
  type Ending,
  MqttConnection,
  receiveMaximum,
} from './mqtt-connection.ts';
import { Reason } from './mqtt-reasons.ts';
import type { MqttSettings } from './mqtt-settings.ts';
import { PacketLimit } from './packet-limit.ts';
import { ProtocolChoice } from './protocol-choice.ts';
import { type Publication, packetBytes } from './publication.ts';
import { type Access, Refusals } from './refusals.ts';
import { RefusedMessage } from './refused-message.ts';

/** What a link needs from its surroundings. */
export interface MqttLinkParts {
  readonly settings: MqttSettings;
  readonly clientId: string;
  /** Topic filters without which the link is not connected. */
  readonly subscriptions: readonly string[];
  /** Topic filters that the broker may refuse. */
  readonly watches?: readonly string[];
  /** Last Will: the broker publishes it, retained, when this client disappears without disconnecting. */
  readonly will?: { readonly topic: string; readonly payload: Buffer };
  readonly carrier: Carrier;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** Called for each message, possibly before `connected`. */
  readonly received: (topic: string, payload: Buffer, how: Delivered) => void;
  /** Called when a connection is up and the broker has granted all subscriptions. */
  readonly connected?: () => void;
  /** Called when such a connection has ended. */
  readonly disconnected?: () => void;
  /** Called with the socket of each attempt to connect, before anything was sent on it. */
  readonly opened?: (socket: Socket) => void;
  /** Called when a connection has been up for minutes. */
  readonly settled?: () => void;
  /** Called when an attempt to connect has failed. */
  readonly failed?: () => void;
}

const reconnect = { first: 500, cap: 60_000, jitter: 0.5 } as const;
/**
 * Milliseconds after which a connection counts as stable, so that the delays begin anew. It is longer than the longest
 * delay. Otherwise two clients of one name would throw each other out for ever with short delays.
 */
const stableAfter = 180_000;
/**
 * Connections in a row that the broker ends without a reason, before they were stable, after which the reason names the most
 * likely cause. Over MQTT 3.1.1, and from some brokers of MQTT 5, a client learns no more when another one takes its name.
 */
const suspicious = 3;
/** Milliseconds for an orderly disconnection. */
const disconnectTimeout = 2000;
/** Milliseconds after which a connection of MQTT 3.1.1 is replaced, where only closed connections spoke against MQTT 5. */
const checkVersionAfter = 300_000;
/** Publications of each QoS that wait for their turn: their number, and their bytes. */
const queue = { waiting: 1024, bytes: 8 * 1024 * 1024 } as const;
/** Topics that are remembered as allowed. */
const allowedTopics = 4096;

/**
 * A connection to an MQTT broker, which is made again after each failure, with jittered exponential delays. Publications
 * wait in a bounded queue while the broker has not acknowledged earlier ones. When the connection breaks, the queue is
 * emptied: all that waits is reported as failed.
 */
export class MqttLink implements AsyncDisposable {
  readonly #parts: MqttLinkParts;
  readonly #stop = new AbortController();
  readonly #protocol: ProtocolChoice;
  readonly #limit: PacketLimit;
  readonly #refusals: Refusals;
  /** Publications with QoS 1: they are running until the broker has acknowledged them. */
  readonly #acknowledged = new FairWindow({ width: receiveMaximum, ...queue });
  /** Publications with QoS 0. They wait only while the socket takes no more. */
  readonly #quick = new FairWindow({ width: Number.MAX_SAFE_INTEGER, ...queue });
  /** Topics on which the broker has acknowledged a message of this connection. */
  readonly #allowed = new BoundedMap<string, true>(allowedTopics);
  /** Filters of `watches` that the broker granted on this connection. */
  readonly #watching = new Set<string>();
  #connection: MqttConnection | undefined;
  /** Ends a connection that does not finish. */
  #patience: Timer | undefined;
  #running: Promise<unknown> | undefined;
  #isConnected = false;
  /** A connection ends because another one is wanted, and none has been made since. */
  #isRenewing = false;
  #nextAttempt: Monotonic | undefined;
  /** Why there is no connection. */
  #failure: string | undefined;
  /** Why another client seems to use this client's name. */
  #rival: string | undefined;

  constructor(parts: MqttLinkParts) {
    const { clock, events, settings } = parts;
    this.#parts = parts;
    this.#protocol = new ProtocolChoice(clock, settings.protocol);
    this.#limit = new PacketLimit(clock, settings.maxPacket);
    this.#refusals = new Refusals(events);
  }

  /** Whether a connection is up and the broker has granted all subscriptions. */
  get connected(): boolean {
    return this.#isConnected;
  }

  /** True while the link connects again because `renew` was called. */
  get isRenewing(): boolean {
    return this.#isRenewing;
  }

  /** Where the broker is, without credentials. */
  get url(): string {
    return publicUrl(this.#parts.settings.url);
  }

  /** Protocol level of the current or last attempt. */
  get protocol(): 4 | 5 {
    return this.#protocol.current;
  }

  /** Whether the broker's access rules refuse something. */
  get isRefused(): boolean {
    return this.#refusals.texts.length > 0;
  }

  /** What is wrong, in words: why there is no connection, what the broker refuses, who else uses the name. */
  get problems(): readonly string[] {
    const isUp = this.#connection?.isAccepted === true;
    const failure = isUp || this.#failure === undefined ? [] : [this.#failure];
    const others = [this.#limit.reason, this.#rival].filter((text) => text !== undefined);
    return [...failure, ...this.#refusals.texts, ...others];
  }

  /** Why another client seems to use this client's name at the broker; undefined when there is no sign of it. */
  get rival(): string | undefined {
    return this.#rival;
  }

  /** Whole seconds until the next attempt to connect, while the link waits for it. */
  get retryInSeconds(): number | undefined {
    const at = this.#nextAttempt;
    return at === undefined ? undefined : Math.max(0, Math.ceil((at - this.#parts.clock.now()) / 1000));
  }

  /** Largest packet that the broker takes, in bytes, as far as it is known. */
  get largestPacket(): number {
    return this.#limit.bytes;
  }

  /** Publications that wait for their turn. */
  get waiting(): number {
    return this.#acknowledged.waiting + this.#quick.waiting;
  }

  /** Publications with QoS 1 that the broker has not acknowledged yet. */
  get unacknowledged(): number {
    return this.#acknowledged.running;
  }

  /** Begins to connect, and returns at once. A second call has no effect. */
  start(): void {
    this.#running ??= persistently(this.#parts, 'mqtt-link', () => this.#run(), this.#stop.signal);
  }

  /** Waits until the broker has acknowledged what was published, then says goodbye: two seconds at most. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#finish();
    await this.#running;
    this.#patience?.cancel();
  }

  /** Ends the connection in order and makes another one at once, such as by another certificate. Without one nothing happens. */
  renew(reason: string): void {
    if (!this.#connection?.isAccepted) return;
    this.#isRenewing = true;
    this.#finish(reason);
  }

  /** Waits until the broker has acknowledged what was published, then says goodbye: two seconds at most. */
  #finish(reason?: string): void {
    const connection = this.#connection;
    this.#patience?.cancel();
    this.#patience = this.#parts.clock.after(disconnectTimeout, () => connection?.end());
    connection?.finish(reason);
  }

  /** Whether the broker granted a filter on this connection. */
  isGranted(filter: string): boolean {
    return this.#watching.has(filter) || (this.#isConnected && this.#parts.subscriptions.includes(filter));
  }

  /** Takes note of what the broker's access rules seem to refuse. `reason` undefined: they allow it. */
  refused(access: Access, topic: string, reason: string | undefined): void {
    if (reason === undefined) this.#refusals.clear(access, topic);
    else this.#refusals.add(access, topic, reason);
  }

  /** Takes note of another client that uses this client's name. */
  rivalled(reason: string): void {
    if (this.#rival === undefined)
      this.#parts.events.emit('mqtt.rival', { client: this.#parts.clientId, reason });
    this.#rival = reason;
  }

  /**
   * Publishes a message. With QoS 1 it resolves when the broker has acknowledged the message, with false when the broker says
   * that nobody subscribes to the topic (only over MQTT 5, and only some brokers). A `quick` message goes with
   * QoS 0 once the broker has acknowledged a message on the same topic, and one of this size, on the same connection. So
   * refusals and limits of the broker are noticed, although it never tells them for QoS 0.
   * @throws {PosternError} `unavailable` without a connection or when it breaks, `full` when too many messages wait,
   *   `tooLarge` for a packet above the broker's limit, `forbidden` when the broker refuses it
   */
  async publish(publication: Publication): Promise<boolean> {
    const connection = this.#connection;
    // Publishing is allowed from the CONNACK on, not only after the subscriptions are granted: a kept session delivers
    // messages at once, and the answers to them must go out.
    if (!connection?.isAccepted)
      throw new PosternError('unavailable', this.#failure ?? 'no connection to the MQTT broker');
    const bytes = packetBytes(publication, this.protocol);
    if (bytes > this.#limit.bytes) throw this.#tooLarge(bytes);
    const { topic, flow = topic } = publication;
    if (this.#mayBeQuick(publication, bytes)) {
      await this.#quick.run(flow, bytes, async () => connection.post(publication));
      return true;
    }
    return await this.#acknowledged.run(flow, bytes, () => this.#send(connection, publication, bytes));
  }

  /** Sends a `quick` message at once with QoS 0. Returns false when it must be published by `publish`. */
  post(publication: Publication): boolean {
    const connection = this.#connection;
    if (!connection?.isAccepted || !this.#quick.isOpen) return false;
    if (!this.#mayBeQuick(publication, packetBytes(publication, this.protocol))) return false;
    connection.post(publication);
    return true;
  }

  #mayBeQuick({ quick = false, topic }: Publication, bytes: number): boolean {
    return quick && bytes <= this.#limit.bytes && this.#allowed.has(topic) && this.#limit.isProven(bytes);
  }

  async #send(connection: MqttConnection, publication: Publication, bytes: number): Promise<boolean> {
    const { topic } = publication;
    let isHeard: boolean;
    // The limit may have been learned while the message waited for its turn.
    if (bytes > this.#limit.bytes) throw this.#tooLarge(bytes);
    try {
      isHeard = await connection.publish(publication);
    } catch (thrown) {
      if (thrown instanceof RefusedMessage && thrown.code === 'tooLarge') this.#refused(bytes);
      else if (thrown instanceof RefusedMessage && publication.isTrial !== true)
        this.#refusals.add('publish', topic, thrown.reason);
      if (bytes > this.#limit.bytes) throw this.#tooLarge(bytes);
      throw thrown;
    }
    this.#limit.acknowledged(bytes);
    this.#allowed.set(topic, true);
    this.#refusals.clear('publish', topic);
    return isHeard;
  }

  #tooLarge(bytes: number): PosternError {
    const limit = this.#limit.bytes;
    return new PosternError('tooLarge', `a packet of ${bytes} bytes; the MQTT broker takes at most ${limit}`);
  }

  async #run(): Promise<void> {
    const { clock, entropy, events } = this.#parts;
    const begin = () => backoff(reconnect, entropy);
    let delays = begin();
    /** The failure that was said last. The same failure is said once. */
    let said: string | undefined;
    let kicks = 0;
    while (!this.#stop.signal.aborted) {
      const { ending, wasConnected, wasStable } = await this.#attempt(this.#protocol.next());
      if (this.#stop.signal.aborted) return;
      const { url } = this;
      const protocol = this.protocol;
      if (wasStable) delays = begin();
      kicks = wasConnected && !wasStable && ending.isByPeer ? kicks + 1 : 0;
      const hint = `; perhaps another client connects as ${this.#parts.clientId}`;
      const reason = ending.reason + (kicks < suspicious ? '' : hint);
      const isOther = !wasConnected && this.#protocol.failed(ending);
      // MQTT 3.1.1 is tried at once when the broker does not know MQTT 5.
      if (!wasConnected) this.#isRenewing = false;
      const isAtOnce = this.#isRenewing || (isOther && this.protocol === 4);
      const delay = isAtOnce ? 0 : delays.next().value;
      const retryInSeconds = Math.round(delay / 1000);
      this.#failure = reason;
      if (isOther) events.emit('mqtt.version-refused', { url, protocol, reason, next: this.protocol });
      else if (wasConnected) events.emit('mqtt.disconnected', { url, reason, retryInSeconds });
      else if (reason !== said) events.emit('mqtt.connect-failed', { url, protocol, reason, retryInSeconds });
      said = wasConnected ? undefined : reason;
      this.#nextAttempt = plus(clock.now(), delay);
      await pause(clock, delay, this.#stop.signal).catch(() => {});
      this.#nextAttempt = undefined;
    }
  }

  /** Makes one attempt to connect. Resolves when it has failed, or the connection has ended. */
  async #attempt(version: 4 | 5): Promise<{ ending: Ending; wasConnected: boolean; wasStable: boolean }> {
    const { watches = [], will, clock, events, ...parts } = this.#parts;
    const { opened, connected, disconnected, settled, failed } = parts;
    const told = guarded(events, 'mqtt-link', (tell: (() => void) | undefined) => tell?.());
    const { promise, resolve } = Promise.withResolvers<Ending>();
    let wasConnected = false;
    let wasStable = false;
    let stable: Timer | undefined;
    let check: Timer | undefined;
    try {
      this.#connection = new MqttConnection({
        ...parts,
        version,
        watches,
        will,
        clock,
        events,
        ...(opened && { opened: guarded(events, 'mqtt-link', opened) }),
        accepted: ({ properties }) => {
          this.#protocol.accepted();
          this.#allowed.clear();
          this.#watching.clear();
          this.#limit.connected(properties?.maximumPacketSize);
          this.#acknowledged.resize(properties?.receiveMaximum ?? receiveMaximum);
          this.#quick.resize(Number.MAX_SAFE_INTEGER);
          stable = clock.after(stableAfter, () => {
            wasStable = true;
            this.#rival = undefined;
            told(settled);
          });
          if (this.#protocol.isDoubtful)
            check = clock.after(checkVersionAfter, () => this.#finish('MQTT 5 is tried again'));
        },
        watching: (filter) => this.#watching.add(filter),
        subscribed: (filter, refusal) => this.refused('subscribe', filter, refusal),
        granted: () => {
          wasConnected = true;
          this.#isConnected = true;
          this.#isRenewing = false;
          events.emit('mqtt.connected', { url: this.url, protocol: version });
          told(connected);
        },
        writable: (isWritable) => this.#quick.resize(isWritable ? Number.MAX_SAFE_INTEGER : 0),
        ended: (ending) => {
          stable?.cancel();
          check?.cancel();
          this.#patience?.cancel();
          this.#isConnected = false;
          const broke = new PosternError(
            'unavailable',
            `the connection to the MQTT broker broke: ${ending.reason}`,
          );
          try {
            this.#acknowledged.refuseWaiting(broke);
            this.#quick.refuseWaiting(broke);
            told(wasConnected ? disconnected : failed);
            this.#learn(ending);
          } finally {
            resolve(ending);
          }
        },
      });
    } catch (thrown) {
      const { message: reason } = asPosternError(thrown);
      told(failed);
      resolve({ reason, isByPeer: false, refusesVersion: false, isUnanswered: false, unacknowledged: [] });
    }
    return { ending: await promise, wasConnected, wasStable };
  }

  /** Learns from the end of a connection: who ended it, and which packet may have been too large. */
  #learn({ code, reason, isByPeer, unacknowledged }: Ending): void {
    if (code === Reason.SessionTakenOver) this.rivalled(reason);
    const bytes = unacknowledged.length === 0 ? undefined : Math.max(...unacknowledged);
    if (this.protocol === 4) this.#learned(bytes, this.#limit.ended(isByPeer ? bytes : undefined));
    else if (code === Reason.PacketTooLarge && bytes !== undefined) this.#refused(bytes);
  }

  /** The broker refused a packet as too large. */
  #refused(bytes: number): void {
    this.#learned(bytes, this.#limit.refused(bytes));
  }

  #learned(bytes: number | undefined, limit: number | undefined): void {
    if (bytes !== undefined && limit !== undefined)
      this.#parts.events.emit('mqtt.packet-limit', { bytes, limit });
  }
}
