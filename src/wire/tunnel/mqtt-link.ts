import { readFileSync } from 'node:fs';
import { Socket } from 'node:net';
import {
  connect,
  type ErrorWithReasonCode,
  type IClientOptions,
  type IConnackPacket,
  type MqttClient,
} from 'mqtt';
import { guarded, persistently } from '../../base/background.ts';
import { type Clock, pause } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { publicUrl } from '../../base/public-url.ts';
import { backoff } from '../../base/retry.ts';

/** How to reach and to trust an MQTT broker. */
export interface MqttSettings {
  /** `mqtt://host:1883` or `mqtts://host:8883`. */
  readonly url: string;
  /** Protocol level: 5, 4 (MQTT 3.1.1), or `auto`, which tries 5 first and then alternates. */
  readonly protocol: 'auto' | 4 | 5;
  readonly username?: string;
  readonly password?: string;
  /** Path of a PEM file: the CA that issued the broker's certificate. */
  readonly ca?: string;
  /** Path of a PEM file: this client's certificate. */
  readonly cert?: string;
  /** Path of a PEM file: the private key of `cert`. */
  readonly key?: string;
}

/** What a link needs from its surroundings. */
export interface MqttLinkParts {
  readonly settings: MqttSettings;
  readonly clientId: string;
  /** Topic filters. */
  readonly subscriptions: readonly string[];
  /** Last Will: the broker publishes it, retained, when this client disappears without disconnecting. */
  readonly will?: { readonly topic: string; readonly payload: Buffer };
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** Called for each message, possibly before `connected`. */
  readonly received: (topic: string, payload: Buffer) => void;
  /** Called when a connection is up and the broker has granted all subscriptions. */
  readonly connected?: () => void;
  /** Called when such a connection has ended. */
  readonly disconnected?: () => void;
}

/** A message to publish. `expiry` and `responseTopic` are sent over MQTT 5 only. */
export interface Publication {
  readonly topic: string;
  readonly payload: Buffer;
  /** Default false. */
  readonly retain?: boolean;
  /** Message Expiry in seconds, after which the broker need not deliver the message. */
  readonly expiry?: number;
  readonly responseTopic?: string;
}

const reconnect = { first: 500, cap: 60_000, jitter: 0.5 } as const;
/** Milliseconds. */
const connectTimeout = 10_000;
/** Milliseconds for an orderly disconnection. */
const disconnectTimeout = 2000;
/** Seconds. */
const keepalive = 30;
/** Seconds that the broker keeps the session of a disconnected client. */
const sessionExpiry = 3600;
/** Most messages with QoS 1 that are not acknowledged yet, in either direction. */
const receiveMaximum = 64;

/**
 * A connection to an MQTT broker, which is made again after each failure, with jittered exponential delays. The link
 * queues nothing: a message that cannot be published now is refused, because the only queue is the gateway's outbox. Each
 * attempt uses a new MQTT client. Therefore a message that was on its way when the connection broke is reported as
 * failed, and is never sent later without the caller's knowledge.
 */
export class MqttLink implements AsyncDisposable {
  readonly #parts: MqttLinkParts;
  readonly #stop = new AbortController();
  #client: MqttClient | undefined;
  #protocol: 4 | 5;
  #maximumPacketSize = Number.POSITIVE_INFINITY;
  #inFlight = 0;
  #running: Promise<void> | undefined;
  #isConnected = false;

  constructor(parts: MqttLinkParts) {
    this.#parts = parts;
    this.#protocol = parts.settings.protocol === 4 ? 4 : 5;
  }

  /** Whether a connection is up and the broker has granted all subscriptions. */
  get connected(): boolean {
    return this.#isConnected;
  }

  /** Where the broker is, without credentials. */
  get url(): string {
    return publicUrl(this.#parts.settings.url);
  }

  /** Protocol level of the current or last attempt. */
  get protocol(): 4 | 5 {
    return this.#protocol;
  }

  /** Begins to connect, and returns at once. A second call has no effect. */
  start(): void {
    this.#running ??= persistently(this.#parts, 'mqtt-link', () => this.#run(), this.#stop.signal);
  }

  /** Waits until the broker has acknowledged what was published, then says goodbye: two seconds at most. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    const client = this.#client;
    // `client.end(true)` does nothing after `client.end(false)`, which never ends when the connection breaks before an
    // acknowledgement. Only closing the stream always ends the client.
    const close = () => client?.stream.destroy();
    const patience = this.#parts.clock.after(disconnectTimeout, close);
    if (client?.connected) client.end();
    else close();
    await this.#running;
    patience.cancel();
  }

  /**
   * Publishes a message. Resolves when the broker has acknowledged it (QoS 1).
   * @throws {PosternError} `unavailable` without a connection or when it breaks, `full` when 64 messages are not
   *   acknowledged yet, `tooLarge` for a message above the broker's Maximum Packet Size
   */
  async publish({ topic, payload, retain = false, expiry, responseTopic }: Publication): Promise<void> {
    const client = this.#client;
    // Publishing is allowed from the CONNACK on, not only after the subscriptions are granted: a kept session delivers
    // messages at once, and the answers to them must go out.
    if (!client?.connected) throw new PosternError('unavailable', 'no connection to the MQTT broker');
    if (payload.length + Buffer.byteLength(topic) + 64 > this.#maximumPacketSize)
      throw new PosternError(
        'tooLarge',
        `the broker takes packets of at most ${this.#maximumPacketSize} bytes`,
      );
    if (this.#inFlight >= receiveMaximum)
      throw new PosternError('full', 'too many MQTT messages wait for their acknowledgement');
    this.#inFlight++;
    const properties = {
      ...(expiry !== undefined && { messageExpiryInterval: expiry }),
      ...(responseTopic !== undefined && { responseTopic }),
    };
    const lost = Promise.withResolvers<never>();
    const onClose = () =>
      lost.reject(new PosternError('unavailable', 'the connection to the MQTT broker broke'));
    client.once('close', onClose);
    try {
      await Promise.race([
        client.publishAsync(topic, payload, { qos: 1, retain, ...(this.#protocol === 5 && { properties }) }),
        lost.promise,
      ]);
    } catch (cause) {
      if (cause instanceof PosternError) throw cause;
      throw new PosternError('unavailable', `MQTT publish failed: ${String(cause)}`, { cause });
    } finally {
      client.off('close', onClose);
      this.#inFlight--;
    }
  }

  async #run(): Promise<void> {
    const { clock, entropy, events, settings } = this.#parts;
    let delays = backoff(reconnect, entropy);
    while (!this.#stop.signal.aborted) {
      const attempt = this.#connect();
      const failure = await attempt.opened;
      if (!failure) {
        delays = backoff(reconnect, entropy);
        await attempt.closed;
        if (this.#stop.signal.aborted) return;
        events.emit('mqtt.disconnected', { url: this.url });
      } else if (!this.#stop.signal.aborted) {
        events.emit('mqtt.connect-failed', {
          url: this.url,
          protocol: this.#protocol,
          reason: failure,
        });
        if (settings.protocol === 'auto') this.#protocol = this.#protocol === 5 ? 4 : 5;
      }
      await pause(clock, delays.next().value, this.#stop.signal).catch(() => {});
    }
  }

  #connect(): { opened: Promise<string | undefined>; closed: Promise<void> } {
    const { settings, clientId, will, events, subscriptions } = this.#parts;
    const v5 = this.#protocol === 5;
    const options: IClientOptions = {
      clientId,
      clean: false,
      protocolVersion: this.#protocol,
      keepalive,
      connectTimeout,
      reconnectPeriod: 0,
      queueQoSZero: false,
      resubscribe: false,
      ...(settings.username !== undefined && { username: settings.username }),
      ...(settings.password !== undefined && { password: settings.password }),
      ...tlsFiles(settings),
      ...(will && { will: { ...will, qos: 1, retain: true } }),
      ...(v5 && { properties: { sessionExpiryInterval: sessionExpiry, receiveMaximum } }),
    };
    const opened = Promise.withResolvers<string | undefined>();
    const closed = Promise.withResolvers<void>();
    // The write cache holds all 16-bit numbers in encoded form. It costs megabytes, and a second on a small board.
    const client = connect({ ...options, ...endpointOf(settings.url), writeCache: false });
    this.#client = client;
    // Each message that waits for its acknowledgement adds a listener for the end of the connection.
    client.setMaxListeners(receiveMaximum + 10);
    client.on('connect', async (connack: IConnackPacket) => {
      // A package is one small write, and the sender waits for its answer. Nagle's algorithm would only add delay.
      if (client.stream instanceof Socket) client.stream.setNoDelay(true);
      this.#maximumPacketSize = connack.properties?.maximumPacketSize ?? Number.POSITIVE_INFINITY;
      try {
        const granted = await client.subscribeAsync([...subscriptions], { qos: 1 });
        const refused = granted.find(({ qos }) => qos >= 128);
        if (refused) throw new Error(`the broker refuses the subscription ${refused.topic}`);
        this.#isConnected = true;
        events.emit('mqtt.connected', { url: this.url, protocol: this.#protocol });
        opened.resolve(undefined);
        this.#parts.connected?.();
      } catch (error) {
        opened.resolve(error instanceof Error ? error.message : String(error));
        client.end(true);
      }
    });
    client.on(
      'message',
      guarded(events, 'mqtt-message', (topic: string, payload: Buffer) =>
        this.#parts.received(topic, payload),
      ),
    );
    client.on('error', (error: Error | ErrorWithReasonCode) => {
      opened.resolve(error.message || String(error));
      client.end(true);
    });
    client.on('close', () => {
      opened.resolve('the broker closed the connection');
      const was = this.#isConnected;
      this.#isConnected = false;
      if (was) this.#parts.disconnected?.();
      client.end(true);
      closed.resolve();
    });
    return { opened: opened.promise, closed: closed.promise };
  }
}

/** The parts of a broker's URL as options. Given a URL, mqtt.js would use a deprecated parser. */
function endpointOf(text: string): IClientOptions {
  const { protocol, hostname, port, pathname, username, password } = new URL(text);
  const name = protocol.slice(0, -1) as 'mqtt' | 'mqtts' | 'ws' | 'wss' | 'tcp' | 'ssl';
  return {
    protocol: name,
    host: hostname.replace(/^\[|\]$/g, ''),
    port: port === '' ? defaultPorts[name] : Number(port),
    ...(pathname.length > 1 && { path: pathname }),
    ...(username !== '' && { username: decodeURIComponent(username) }),
    ...(password !== '' && { password: decodeURIComponent(password) }),
  };
}

const defaultPorts = { mqtt: 1883, tcp: 1883, mqtts: 8883, ssl: 8883, ws: 80, wss: 443 } as const;

function tlsFiles({ ca, cert, key }: MqttSettings): IClientOptions {
  try {
    return {
      ...(ca !== undefined && { ca: readFileSync(ca) }),
      ...(cert !== undefined && { cert: readFileSync(cert) }),
      ...(key !== undefined && { key: readFileSync(key) }),
    };
  } catch (cause) {
    throw new PosternError('configuration', `TLS file cannot be read: ${String(cause)}`, { cause });
  }
}
