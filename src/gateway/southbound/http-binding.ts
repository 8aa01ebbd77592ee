import { once } from 'node:events';
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer as createTlsServer, Server as TlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Admission } from '../../base/admission.ts';
import { failed, guarded } from '../../base/background.ts';
import { asPosternError, type ErrorCode, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { addressOf, type ConnectionBounds, HttpConnections } from '../../base/http-connections.ts';
import { isLoopbackHost } from '../../base/loopback.ts';
import { requestUrl } from '../../base/request-url.ts';
import { uriHost } from '../../base/uri-host.ts';
import type { EchoGuard } from '../../wire/coap/echo.ts';
import { isSupported, MediaType } from '../../wire/syncml/codec.ts';
import type { ArrivedPackage } from './arrived-package.ts';
import type { BootstrapRequest, BootstrapServer } from './bootstrap-server.ts';
import { type DeviceSessions, uriAssociation } from './device-sessions.ts';
import { HttpBodies } from './http-bodies.ts';
import { sendImage } from './http-image.ts';
import {
  connectionOf,
  hmacOf,
  packageType,
  refuse,
  remoteOf,
  send,
  serverIn,
  sourceOf,
} from './http-messages.ts';
import { imageRoot, type ServedImage } from './image-resource.ts';
import type { TunnelAnswer, TunnelledPackage } from './tunnelled.ts';

export interface HttpSettings {
  readonly host: string;
  /** TCP port; 0 takes a free one. */
  readonly port: number;
  /** Path for packages of sessions with the gateway. */
  readonly path: string;
  /** Path for the local bootstrap. */
  readonly bootstrapPath: string;
  /** Path prefix of the tunnel. `/{ServerID}` of a DM server follows it. */
  readonly tunnelPath: string;
  /** ServerID of the gateway in the accounts of these devices. */
  readonly serverId: string;
  /** Whether plain HTTP is allowed at an address that is not loopback. */
  readonly allowPlain: boolean;
}

/** Certificate and private key of the gateway, as PEM. */
export interface TlsIdentity {
  readonly cert: string;
  readonly key: string;
  /** Authorities of the devices: each client is asked for a certificate (OMA DM security 1.2.1, section 5.3). */
  readonly ca?: string;
}

export interface HttpBindingParts {
  readonly settings: HttpSettings;
  /** Certificate and private key, as PEM; plain HTTP when absent. */
  readonly tls?: TlsIdentity | undefined;
  readonly sessions: Pick<DeviceSessions, 'receive'>;
  readonly bootstrapServer: Pick<BootstrapServer, 'answer'>;
  readonly guard: EchoGuard;
  /** The entry that HTTP shares with CoAP. */
  readonly admission: Admission;
  /** Bounds of the connections. */
  readonly connections?: ConnectionBounds;
  readonly times?: typeof httpTimes;
  /** Sends a package to a DM server through the tunnel. */
  readonly forward: (up: TunnelledPackage) => Promise<TunnelAnswer>;
  /** The image, or its index, for which a path and query have a valid ticket. */
  readonly image: (pathAndQuery: string) => Promise<ServedImage | undefined> | undefined;
  /** Called when a device has proved itself; with the URI of the sessions, as it reaches them. */
  readonly heard: (deviceId: string, uri: string) => void;
  /** Resolves when what the answer promises is durable. */
  readonly settled: () => Promise<void>;
  readonly events: Events;
}

/** Most open connections. */
export const connectionDefaults: ConnectionBounds = {
  total: 512,
  strangers: 256,
  perPrefix: 128,
  perAddress: 32,
};

/**
 * Milliseconds within which the headers of a request must arrive, and the whole request; within which a TLS handshake must end;
 * that a connection may be idle between two requests; that nothing may move on it in all; and between two checks of these times.
 */
export const httpTimes = {
  headers: 10_000,
  request: 30_000,
  handshake: 10_000,
  idle: 60_000,
  silence: 120_000,
  check: 1000,
};
/** What a request takes of the admission of its address. A peer over TCP has not forged its address. */
const requestTokens = 1 / 8;
/** Seconds after which a request may come again for which there was no room. */
const overloadRetryAfter = 5;

/** Oldest version of TLS. */
const minVersion = 'TLSv1.2';

/** HTTP authentication scheme of the local bootstrap (docs/bindings.md). */
const bootstrapScheme = 'Postern-Bootstrap';

/** Parameter of the URI for the next packages of a session. */
const sessionParameter = 's';

/** Host and port in a request. */
const isHost = /^[\w.:[\]-]{1,255}$/;

/** HTTP status of error codes for which the DM status is not the right HTTP status. */
const statusOf: Readonly<Partial<Record<ErrorCode, number>>> = {
  exists: 409,
  full: 503,
  lockedOut: 429,
  storage: 503,
  timeout: 504,
  unsupportedVersion: 400,
};

/** HTTP statuses of DM statuses that a tunnel refuses with, where they differ. 420: the disk of the server is full. */
const tunnelStatus: Readonly<Record<number, number>> = { 407: 401, 408: 504, 420: 503 };

/**
 * OMA DM's HTTP binding for devices that do not speak CoAP: sessions with the gateway, local bootstrap and tunnel. The
 * answer to a package of a session has the same media type as the package.
 */
export class HttpBinding implements AsyncDisposable {
  readonly #parts: HttpBindingParts;
  readonly #bodies: HttpBodies;
  readonly #connections: HttpConnections;
  /** Errors of parts that have told them by an event. */
  readonly #told = new WeakSet<Error>();
  #server: Server | undefined;

  constructor(parts: HttpBindingParts) {
    this.#parts = parts;
    this.#bodies = new HttpBodies(parts.admission);
    this.#connections = new HttpConnections(parts.admission, parts.connections ?? connectionDefaults);
  }

  /** The TCP port; 0 before `start`. */
  get port(): number {
    return (this.#server?.address() as AddressInfo | null | undefined)?.port ?? 0;
  }

  get url(): string {
    const { settings, tls } = this.#parts;
    const { host } = settings;
    return `${tls ? 'https' : 'http'}://${uriHost(host)}:${this.port}`;
  }

  /**
   * URI of a path and query, for a client that reaches this gateway at an address.
   * @param address as the host of a URI; it counts where the binding listens at all addresses
   */
  uriAt(address: string, pathAndQuery: string): string {
    const { settings, tls } = this.#parts;
    const isEverywhere = settings.host === '0.0.0.0' || settings.host === '::';
    const host = isEverywhere ? address : uriHost(settings.host);
    return `${tls ? 'https' : 'http'}://${host}:${this.port}${pathAndQuery}`;
  }

  /**
   * @throws {PosternError} `configuration` when plain HTTP is not allowed at this address, or when the port cannot be
   * bound
   */
  async start(): Promise<void> {
    const { settings, events, tls } = this.#parts;
    const { host, port, allowPlain } = settings;
    if (!tls && !allowPlain && !isLoopbackHost(host))
      throw new PosternError(
        'configuration',
        `http.host: ${host} is not loopback, so it needs http.tls-cert and http.tls-key, or http.insecure-plain-http = true`,
      );
    this.#server = this.#create(
      guarded(events, 'http', (request: IncomingMessage, response: ServerResponse) =>
        this.#serve(request, response),
      ),
    );
    const { times = httpTimes } = this.#parts;
    this.#server.timeout = times.silence;
    // Before the handshake of TLS.
    this.#server.on(
      'connection',
      guarded(events, 'http', (socket: Socket) => this.#connections.opened(socket)),
    );
    try {
      this.#server.listen(port, host);
      await once(this.#server, 'listening');
    } catch (cause) {
      throw new PosternError(
        'configuration',
        `http.port: ${host}:${port} cannot be used: ${cause instanceof Error ? cause.message : String(cause)}`,
        { cause },
      );
    }
    this.#server.on(
      'tlsClientError',
      guarded(events, 'http', (error: NodeJS.ErrnoException, socket: Socket) => {
        // A client that left has refused, if anyone has.
        if (error.code === 'ECONNRESET') return;
        events.emit('http.refused', { peer: addressOf(socket), status: 0, reason: `TLS: ${error.message}` });
      }),
    );
    // Such as no file descriptor for a connection.
    this.#server.on('error', (error) => failed(events, 'http', error));
    if (!tls) events.emit('http.insecure', { security: 'none: HTTP without TLS' });
    events.emit('http.listening', { url: this.url });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#server?.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  #create(listener: RequestListener): Server {
    const { tls } = this.#parts;
    const { headers, request, idle, check, handshake } = this.#parts.times ?? httpTimes;
    const times = {
      headersTimeout: headers,
      requestTimeout: request,
      keepAliveTimeout: idle,
      connectionsCheckingInterval: check,
    };
    return tls
      ? createTlsServer(
          { ...tls, requestCert: tls.ca !== undefined, minVersion, handshakeTimeout: handshake, ...times },
          listener,
        )
      : createServer(times, listener);
  }

  /** Uses another certificate for the connections that follow. Without effect on plain HTTP. */
  renew(tls: TlsIdentity): void {
    if (this.#server instanceof TlsServer) this.#server.setSecureContext({ ...tls, minVersion });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { socket } = request;
    if (!this.#connections.begins(socket, response)) return;
    try {
      if (!this.#parts.admission.admits(addressOf(socket), requestTokens)) {
        // What the client has sent meanwhile would only be refused as well.
        response.setHeader('connection', 'close');
        throw new PosternError('full', 'too many requests');
      }
      await this.#route(request, response);
    } catch (thrown) {
      const error = asPosternError(thrown);
      if (error.code === 'internal')
        this.#parts.events.emit('http.failed', { message: error.message, stack: error.stack });
      const retryAfter = error.code === 'full' ? overloadRetryAfter : error.retryAfter;
      if (retryAfter !== undefined) response.setHeader('retry-after', retryAfter);
      const status = statusOf[error.code] ?? error.dmStatus;
      const reason = error.code === 'internal' ? 'internal error' : error.message;
      if (error.code !== 'internal' && !this.#told.has(error))
        this.#parts.events.emit('http.refused', { peer: addressOf(socket), status, reason });
      refuse(response, status, reason);
    }
  }

  /** Waits for a part that tells by an event what it refuses. */
  async #telling<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (thrown) {
      if (thrown instanceof PosternError) this.#told.add(thrown);
      throw thrown;
    }
  }

  async #route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { path, bootstrapPath, tunnelPath } = this.#parts.settings;
    const url = requestUrl(request.url);
    if (url.pathname.startsWith(`${imageRoot}/`))
      return await this.#image({ request, response, url, server: '' });
    const server = serverIn(url.pathname, tunnelPath);
    const handler =
      url.pathname === path
        ? this.#session
        : url.pathname === bootstrapPath
          ? this.#bootstrap
          : server === undefined
            ? undefined
            : this.#tunnel;
    if (!handler) throw new PosternError('notFound', 'no such resource');
    if (request.method !== 'POST') {
      response.setHeader('allow', 'POST');
      throw new PosternError('notAllowed', 'the method must be POST');
    }
    await handler.call(this, { request, response, url, server: server ?? '' });
  }

  /** An image of the inventory, to whoever has a ticket for it. */
  async #image({ request, response, url }: Visit): Promise<void> {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD');
      throw new PosternError('notAllowed', 'the method must be GET');
    }
    const image = await this.#parts.image(`${url.pathname}${url.search}`);
    if (!image)
      throw new PosternError('notFound', 'there is no such image, or the address is not valid any more');
    await sendImage(request, response, image);
  }

  async #session({ request, response, url }: Visit): Promise<void> {
    const mediaType = packageType(request);
    const address = remoteOf(request).address;
    const known = url.searchParams.get(sessionParameter);
    const body = await this.#bodies.read(request);
    const arrived: ArrivedPackage = {
      body,
      mediaType,
      hmac: hmacOf(request),
      way: 'http',
      associations: [connectionOf(request.socket), ...(known === null ? [] : [uriAssociation(known)])],
      // Requests of one session may use several connections.
      uriFor: (random) => `${this.#uriOf(request)}?${sessionParameter}=${random}`,
      address: `${this.#parts.tls ? 'https' : 'http'}://${uriHost(address)}`,
      serverId: this.#parts.settings.serverId,
      proved: (deviceId) => this.#proved(request, deviceId),
    };
    const answer = await this.#telling(this.#parts.sessions.receive(arrived));
    await this.#parts.settled();
    send(response, answer.body, mediaType, answer.hmac);
  }

  async #tunnel({ request, response, url, server }: Visit): Promise<void> {
    const contentType = packageType(request);
    const body = await this.#bodies.read(request);
    const answer = await this.#parts.forward({
      server,
      device: url.searchParams.get('id') ?? sourceOf(body, contentType),
      contentType,
      body,
      hmac: hmacOf(request),
      address: remoteOf(request).address,
      httpUri: this.#uriOf(request),
    });
    if (answer.kind === 'answer') send(response, answer.body, answer.contentType ?? contentType, answer.hmac);
    else {
      if (answer.retryAfter !== undefined) response.setHeader('retry-after', answer.retryAfter);
      const { status } = answer;
      refuse(response, tunnelStatus[status] ?? (status < 600 ? status : 502), answer.reason);
    }
  }

  #proved(request: IncomingMessage, deviceId: string): void {
    const { admission, heard } = this.#parts;
    const address = addressOf(request.socket);
    heard(deviceId, this.#uriOf(request));
    if (!admission.isKnown(address)) admission.proved(address, deviceId);
  }

  /** URI of the sessions, as the client reaches this gateway. */
  #uriOf({ headers }: IncomingMessage): string {
    const { settings, tls } = this.#parts;
    const { host = '' } = headers;
    return `${tls ? 'https' : 'http'}://${isHost.test(host) ? host : new URL(this.url).host}${settings.path}`;
  }

  /** Local bootstrap. Challenge and proof are in the headers of HTTP authentication (RFC 9110, section 11). */
  async #bootstrap({ request, response, url }: Visit): Promise<void> {
    const { bootstrapServer, guard } = this.#parts;
    const remote = remoteOf(request);
    const asks = (request.headers.accept ?? '').toLowerCase().split(/[\s,;]+/);
    const [accepted = MediaType.Wbxml] = asks.filter(isSupported);
    const credentials = request.headers.authorization ?? '';
    const field = (name: string) => {
      const found = new RegExp(`^${bootstrapScheme} .*\\b${name}="([A-Za-z0-9+/=]+)"`, 'i').exec(
        credentials,
      )?.[1];
      return found === undefined ? undefined : Buffer.from(found, 'base64');
    };
    const asked: BootstrapRequest = {
      deviceId: url.searchParams.get('id') ?? undefined,
      remote,
      mediaType: accepted,
      challenge: field('challenge'),
      proof: field('proof'),
      address: this.#uriOf(request),
      proved: (deviceId) => this.#proved(request, deviceId),
    };
    const answer = await this.#telling(bootstrapServer.answer(asked));
    if (answer.kind === 'bootstrap') {
      await this.#parts.settled();
      send(response, answer.body, `${accepted}; ${answer.security}`, undefined);
      return;
    }
    response.setHeader(
      'www-authenticate',
      `${bootstrapScheme} challenge="${guard.issue(remote).toString('base64')}"`,
    );
    refuse(response, 401, answer.reason);
  }
}

/** One HTTP request. */
interface Visit {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  /** ServerID in the path; empty for requests that are not for the tunnel. */
  readonly server: string;
}
