import { readFileSync } from 'node:fs';
import { Socket } from 'node:net';
import {
  connect,
  type ErrorWithReasonCode,
  type IClientOptions,
  type IConnackPacket,
  type MqttClient,
} from 'mqtt';
import { type Clock, pause } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { publicUrl } from '../../base/public-url.ts';
import { backoff } from '../../base/retry.ts';

export interface MqttSettings {
  /** `mqtt://host:1883` or `mqtts://host:8883`. */
  readonly url: string;
  /** Protocol level: 5, 4 (which is 3.1.1), or `auto`, which tries 5 first. */
  readonly protocol: 'auto' | 4 | 5;
  readonly username?: string;
  readonly password?: string;
  /** PEM files: who the broker must be, and who this client is. */
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
}

export interface MqttLinkParts {
  readonly settings: MqttSettings;
  readonly clientId: string;
  readonly subscriptions: readonly string[];
  /** Published by the broker when this client goes without a word, retained. */
  readonly will?: { readonly topic: string; readonly payload: Buffer };
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  readonly received: (topic: string, payload: Buffer) => void;
  readonly connected?: () => void;
  readonly disconnected?: () => void;
}

export interface Publication {
  readonly topic: string;
  readonly payload: Buffer;
  readonly retain?: boolean;
  /** Seconds after which the broker need not deliver it; over MQTT 5. */
  readonly expiry?: number;
  readonly responseTopic?: string;
}

const reconnect = { first: 500, cap: 60_000, jitter: 0.5 } as const;
const connectTimeout = 10_000;
/** Milliseconds for a goodbye to the broker. */
const disconnectTimeout = 2000;
const keepalive = 30;
/** Seconds that the broker keeps the session of a client that is away. */
const sessionExpiry = 3600;
/** Messages with QoS 1 on their way, in either direction. */
const receiveMaximum = 64;

/**
 * A connection to an MQTT broker that comes back by itself, with jittered exponential delays. It queues nothing: what
 * cannot be published now is refused, since the only queue is the outbox. Each attempt is a client of its own, so what
 * was on its way when a connection broke is reported as failed and not sent behind the caller's back.
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

  get connected(): boolean {
    return this.#isConnected;
  }

  /** Where the broker is, without credentials. */
  get url(): string {
    return publicUrl(this.#parts.settings.url);
  }

  /** Of the connection that is up, or was last. */
  get protocol(): 4 | 5 {
    return this.#protocol;
  }

  /** Returns at once; the connection is made, and made again, behind it. */
  start(): void {
    this.#running ??= this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    const client = this.#client;
    if (client) {
      // A broker that hangs does not get to hold up the end.
      const patience = this.#parts.clock.after(disconnectTimeout, () => client.end(true));
      await client.endAsync(false).catch(() => {});
      patience.cancel();
    }
    await this.#running;
  }

  /**
   * Resolves when the broker has acknowledged it (QoS 1).
   * @throws {PosternError} `unavailable` without a connection, `full` when too much is on its way, `tooLarge`
   */
  async publish({ topic, payload, retain = false, expiry, responseTopic }: Publication): Promise<void> {
    const client = this.#client;
    // Open from the broker's CONNACK on: what a kept session brings at once is answered before the subscriptions are confirmed.
    if (!client?.connected) throw new PosternError('unavailable', 'no connection to the MQTT broker');
    if (payload.length + Buffer.byteLength(topic) + 64 > this.#maximumPacketSize)
      throw new PosternError(
        'tooLarge',
        `the broker takes packets of at most ${this.#maximumPacketSize} bytes`,
      );
    if (this.#inFlight >= receiveMaximum)
      throw new PosternError('full', 'too many MQTT messages on their way');
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
    // Without the cache of all 65,536 numbers, which costs megabytes, and a second on a small board.
    const client = connect({ ...options, ...endpointOf(settings.url), writeCache: false });
    this.#client = client;
    // Each message on its way listens for the end of the connection.
    client.setMaxListeners(receiveMaximum + 10);
    client.on('connect', async (connack: IConnackPacket) => {
      // A package is one small write, and its answer is waited for: Nagle's delay is all loss.
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
    client.on('message', (topic, payload) => this.#parts.received(topic, payload));
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

/** The parts of a broker's URL; mqtt.js would take it apart by a deprecated parser. */
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
    throw new PosternError('configuration', `TLS file: ${String(cause)}`, { cause });
  }
}
