import type { ClientRequest } from 'node:http';
import { Socket } from 'node:net';
import {
  type ClientSubscribeCallback,
  connect,
  type IClientOptions,
  type IConnackPacket,
  type IDisconnectPacket,
  type IPublishPacket,
  type MqttClient,
  type Packet,
} from 'mqtt';
import { guarded } from '../../base/background.ts';
import type { Clock, Timer } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { agentFor } from '../../base/proxied.ts';
import { backoff } from '../../base/retry.ts';
import { acceptForeignCodes } from './foreign-codes.ts';
import { disconnectText, errorText, Reason, reasonText } from './mqtt-reasons.ts';
import { endpointOf, type MqttSettings, tlsFiles } from './mqtt-settings.ts';
import type { VersionEvidence } from './protocol-choice.ts';
import { type Publication, packetBytes, packetOf } from './publication.ts';
import { publishError } from './refused-message.ts';

/** How the broker delivered a message. */
export interface Delivered {
  readonly qos: number;
  /** The message was published before this client subscribed. */
  readonly retain: boolean;
  /** The broker may have delivered the message before. */
  readonly dup: boolean;
}

/**
 * An empty message with QoS 0 that nobody subscribes to. The TCP acknowledgement of a received message travels with it. A
 * broker that leaves Nagle's algorithm on, as mosquitto does by default, holds its next small write back until then, and
 * without any data to carry it Linux sends the acknowledgement after 40 ms.
 */
export interface Carrier {
  readonly topic: string;
  /** Whether further messages are expected soon. */
  readonly isNeeded: () => boolean;
}

/** What a connection needs from its surroundings. */
export interface ConnectionParts {
  readonly settings: MqttSettings;
  readonly version: 4 | 5;
  readonly clientId: string;
  /** Topic filters without which the connection is of no use. */
  readonly subscriptions: readonly string[];
  /** Topic filters that the broker may refuse. */
  readonly watches: readonly string[];
  readonly will?: { readonly topic: string; readonly payload: Buffer } | undefined;
  readonly carrier: Carrier;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** Called for each message, possibly before `granted`. */
  readonly received: (topic: string, payload: Buffer, how: Delivered) => void;
  /** The broker accepted the connection. Publishing is possible. */
  readonly accepted: (connack: IConnackPacket) => void;
  /** The broker granted a filter of `watches`. */
  readonly watching: (filter: string) => void;
  /** Outcome of a SUBSCRIBE for a filter of `subscriptions`. `refusal` is undefined when it was granted. */
  readonly subscribed: (filter: string, refusal: string | undefined) => void;
  /** All of `subscriptions` are granted. */
  readonly granted: () => void;
  /** The socket takes no more, or takes more again. Without this, messages with QoS 0 would pile up in memory. */
  readonly writable: (isWritable: boolean) => void;
  /** Called with the socket of the attempt, before anything was sent on it. */
  readonly opened?: ((socket: Socket) => void) | undefined;
  /** The attempt has failed, or the connection has ended. Messages that were not acknowledged fail after this call. */
  readonly ended: (ending: Ending) => void;
}

/** How an attempt to connect, or a connection, ended. */
export interface Ending extends VersionEvidence {
  /** For people. */
  readonly reason: string;
  /** Reason code of the broker's CONNACK or DISCONNECT. */
  readonly code?: number | undefined;
  /** The broker just closed the connection, without any other error. */
  readonly isByPeer: boolean;
  /** Sizes in bytes of the packets that the broker had not acknowledged. */
  readonly unacknowledged: readonly number[];
}

/** Milliseconds. */
const connectTimeout = 10_000;
/** Seconds. */
const keepalive = 30;
/** Seconds that the broker keeps the session of a disconnected client. */
const sessionExpiry = 3600;
/** Most messages with QoS 1 that are not acknowledged yet, in either direction. */
export const receiveMaximum = 64;
/** Largest packet that this side takes over MQTT 5, in bytes: an envelope and the rest of its packet. */
const maximumPacketSize = 528 * 1024;
/** Milliseconds that the broker may take to acknowledge a message. */
const acknowledgeWithin = 30_000;
/** Milliseconds between attempts to subscribe where the broker refused it. */
const resubscribe = { first: 5000, cap: 60_000, jitter: 0.5 } as const;
/** Milliseconds that an acknowledgement of TCP waits for a message to travel with, before an empty one is sent. */
const carryAfter = 1;
/** Bytes of messages with QoS 0 that are gathered within one turn of the event loop, and written at once. */
const batchBytes = 32 * 1024;

/** Failures of a connection that also occur when the other side just closes it. */
const closing = ['ECONNRESET', 'EPIPE'];

/**
 * One attempt to connect to a broker, and the connection that it becomes. It has an MQTT client of its own, and never
 * connects again. Therefore a message that was on its way when the connection broke is reported as failed, and is never sent
 * later without the caller's knowledge.
 */
export class MqttConnection {
  readonly #parts: ConnectionParts;
  readonly #client: MqttClient;
  /** Messages with QoS 1 that wait for their acknowledgement. */
  readonly #inFlight = new Set<{ readonly bytes: number; readonly fail: (reason: PosternError) => void }>();
  /** Identifiers of messages of which the broker says that nobody subscribes to their topic, until their PUBACK is handled. */
  readonly #unheard = new Set<number | undefined>();
  #batch: Buffer[] = [];
  #batchBytes = 0;
  /** Messages sent so far. */
  #sent = 0;
  #carrying: Timer | undefined;
  #isAccepted = false;
  /** The transport is up, and the CONNECT is on its way. */
  #isReached = false;
  #reason: string | undefined;
  #code: number | undefined;
  #isByPeer = true;
  #retry: Timer | undefined;

  /** @throws {Error} when TLS files cannot be read or used, or the URL is wrong */
  constructor(parts: ConnectionParts) {
    this.#parts = parts;
    const { settings, version, clientId, will } = parts;
    const options: IClientOptions = {
      clientId,
      clean: false,
      protocolVersion: version,
      keepalive: settings.keepalive ?? keepalive,
      connectTimeout,
      reconnectPeriod: 0,
      queueQoSZero: false,
      resubscribe: false,
      ...(settings.username !== undefined && { username: settings.username }),
      ...(settings.password !== undefined && { password: settings.password }),
      ...tlsFiles(settings),
      ...(will && { will: { ...will, qos: 1, retain: true } }),
      ...(version === 5 && {
        properties: { sessionExpiryInterval: sessionExpiry, receiveMaximum, maximumPacketSize },
      }),
    };
    acceptForeignCodes();
    // The write cache holds all 16-bit numbers in encoded form. It costs megabytes, and a second on a small board.
    const client = connect({
      ...options,
      ...endpointOf(settings.url),
      writeCache: false,
      // The stream of a WebSocket is no socket. The socket below it is known when its request is about to be sent.
      wsOptions: {
        ...(/^ws/.test(settings.url) && { agent: agentFor(settings.url) }),
        // Packages are short, and many would have to be decompressed before they are bounded.
        perMessageDeflate: false,
        finishRequest: (request: ClientRequest) => {
          request.once(
            'socket',
            this.#callback((socket: Socket) => parts.opened?.(socket)),
          );
          request.end();
        },
      },
    });
    this.#client = client;
    if (client.stream instanceof Socket) parts.opened?.(client.stream);
    client.stream.once(/^(mqtts|ssl):/.test(settings.url) ? 'secureConnect' : 'connect', () => {
      this.#isReached = true;
    });
    const { events } = parts;
    client.on(
      'connect',
      this.#callback((connack: IConnackPacket) => this.#accepted(connack)),
    );
    client.on(
      'message',
      guarded(events, 'mqtt-message', (topic: string, payload: Buffer, packet: IPublishPacket) => {
        if (packet.qos === 0) this.#carry();
        parts.received(topic, payload, packet);
      }),
    );
    // mqtt.js gives the reason code of a PUBACK to nobody unless it is an error.
    client.on(
      'packetreceive',
      this.#callback((packet: Packet) => {
        if (packet.cmd === 'puback' && packet.reasonCode === Reason.NoMatchingSubscribers)
          this.#unheard.add(packet.messageId);
      }),
    );
    client.on(
      'disconnect',
      this.#callback((packet: IDisconnectPacket) => {
        this.#because(disconnectText(packet, clientId), packet.reasonCode);
        this.end();
      }),
    );
    client.on(
      'error',
      this.#callback((error: Error & { code?: unknown }) => {
        if (!closing.includes(String(error.code))) this.#isByPeer = false;
        this.#because(errorText(error), typeof error.code === 'number' ? error.code : undefined);
        client.end(true);
      }),
    );
    client.on(
      'close',
      guarded(events, 'mqtt-link', () => this.#closed()),
    );
  }

  /** A callback of the client or its socket. When it fails, the connection ends, so that another one can be made. */
  #callback<Args extends unknown[]>(callback: (...args: Args) => void): (...args: Args) => void {
    return guarded(this.#parts.events, 'mqtt-link', (...args: Args) => {
      try {
        callback(...args);
      } catch (thrown) {
        this.end(asPosternError(thrown).message);
        throw thrown;
      }
    });
  }

  /** Whether messages can be published. A kept session delivers messages before the subscriptions are granted. */
  get isAccepted(): boolean {
    return this.#isAccepted && this.#client.connected;
  }

  /** Closes the connection at once. */
  end(reason?: string): void {
    if (reason !== undefined) this.#because(reason);
    this.#isByPeer = false;
    // `client.end(true)` does nothing after `client.end(false)`, which never ends when the connection breaks before an
    // acknowledgement. Only closing the stream always ends the client.
    this.#client.stream.destroy();
  }

  /** Waits until the broker has acknowledged what was published, then says goodbye. */
  finish(reason?: string): void {
    if (reason !== undefined) this.#because(reason);
    this.#flush();
    this.#isByPeer = false;
    if (this.#client.connected) this.#client.end();
    else this.end();
  }

  /**
   * Publishes with QoS 1. Resolves when the broker has acknowledged the message, with false when it says that nobody
   * subscribes to the topic.
   * @throws {PosternError} `unavailable` when the connection breaks, a `RefusedMessage` when the broker refuses the message
   */
  async publish(publication: Publication): Promise<boolean> {
    const { topic, payload, retain = false, expiry, responseTopic } = publication;
    const properties = {
      ...(expiry !== undefined && { messageExpiryInterval: expiry }),
      ...(responseTopic !== undefined && { responseTopic }),
    };
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    const message = { bytes: packetBytes(publication, this.#parts.version), fail: reject };
    this.#inFlight.add(message);
    this.#sent++;
    const overdue = this.#parts.clock.after(acknowledgeWithin, () =>
      this.end(`the broker did not acknowledge a message in ${acknowledgeWithin / 1000} s`),
    );
    const version5 = this.#parts.version === 5;
    this.#client.publish(
      topic,
      payload,
      { qos: 1, retain, ...(version5 && { properties }) },
      (error, sent) =>
        error ? reject(publishError(topic, error)) : resolve(!this.#unheard.delete(sent?.messageId)),
    );
    try {
      return await promise;
    } finally {
      overdue.cancel();
      this.#inFlight.delete(message);
    }
  }

  /** Publishes with QoS 0. Messages of one turn of the event loop are written at once. */
  post(publication: Publication): void {
    this.#sent++;
    if (this.#batch.length === 0) setImmediate(this.#callback(() => this.#flush()));
    const packet = packetOf(publication, this.#parts.version);
    this.#batch.push(packet);
    this.#batchBytes += packet.length;
    if (this.#batchBytes >= batchBytes) this.#flush();
  }

  /** After a message with QoS 0, which has no acknowledgement of MQTT: sends something, so that TCP acknowledges it. */
  #carry(): void {
    const { carrier, clock } = this.#parts;
    const sent = this.#sent;
    this.#carrying ??= clock.after(carryAfter, () => {
      this.#carrying = undefined;
      if (sent === this.#sent && carrier.isNeeded())
        this.post({ topic: carrier.topic, payload: Buffer.alloc(0) });
    });
  }

  #flush(): void {
    const { stream } = this.#client;
    const batch = this.#batch;
    if (batch.length === 0) return;
    this.#batch = [];
    this.#batchBytes = 0;
    if (!this.isAccepted || stream.destroyed) return;
    if (stream.write(batch.length === 1 ? batch[0] : Buffer.concat(batch))) return;
    this.#parts.writable(false);
    stream.once(
      'drain',
      this.#callback(() => this.#parts.writable(true)),
    );
  }

  #accepted(connack: IConnackPacket): void {
    const { stream } = this.#client;
    this.#isAccepted = true;
    // A package is one small write, and the sender waits for its answer. Nagle's algorithm would only add delay.
    if (stream instanceof Socket) stream.setNoDelay(true);
    this.#parts.accepted(connack);
    const { watches, subscriptions, entropy } = this.#parts;
    if (watches.length > 0)
      this.#client.subscribe(
        [...watches],
        { qos: 1 },
        this.#callback<Parameters<ClientSubscribeCallback>>((_error, _granted, packet) => {
          for (const [at, filter] of watches.entries())
            if (Number(packet?.granted[at] ?? 0x80) < 0x80) this.#parts.watching(filter);
        }),
      );
    this.#subscribe(subscriptions, backoff(resubscribe, entropy));
  }

  /** Subscribes. What the broker refuses is asked for again, because its rules may change while it runs. */
  #subscribe(filters: readonly string[], delays: Iterator<number, never>): void {
    const answered: ClientSubscribeCallback = (error, _granted, packet) => {
      const codes = packet?.granted;
      if (!codes) {
        if (!this.#client.stream.destroyed) this.end(`MQTT subscribe failed: ${error?.message}`);
        return;
      }
      const codeOf = (at: number) => Number(codes[at] ?? 0x80);
      const refused = filters.filter((_filter, at) => codeOf(at) >= 0x80);
      for (const [at, filter] of filters.entries())
        this.#parts.subscribed(filter, codeOf(at) >= 0x80 ? reasonText(codeOf(at)) : undefined);
      if (refused.length === 0) this.#parts.granted();
      else this.#retry = this.#parts.clock.after(delays.next().value, () => this.#subscribe(refused, delays));
    };
    this.#client.subscribe([...filters], { qos: 1 }, this.#callback(answered));
  }

  /** The first reason is the cause. Later ones follow from it. */
  #because(reason: string, code?: number): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    this.#code = code;
  }

  #closed(): void {
    this.#retry?.cancel();
    this.#carrying?.cancel();
    const isRefusal = this.#code === Reason.UnsupportedVersion || this.#code === Reason.UnacceptableVersion;
    const reason = this.#reason ?? 'the broker closed the connection';
    const unacknowledged = [...this.#inFlight].map(({ bytes }) => bytes);
    try {
      this.#parts.ended({
        reason,
        code: this.#code,
        isByPeer: this.#isByPeer,
        refusesVersion: !this.#isAccepted && isRefusal,
        isUnanswered: !this.#isAccepted && this.#isReached && this.#isByPeer,
        unacknowledged,
      });
    } finally {
      const broke = new PosternError('unavailable', `the connection to the MQTT broker broke: ${reason}`);
      for (const { fail } of this.#inFlight) fail(broke);
      this.#client.end(true);
    }
  }
}
