import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { call } from '../coap/blockwise-client.ts';
import { Code, codeText, isSuccess } from '../coap/codes.ts';
import { ContentFormat, contentFormatOf, mediaTypeOf } from '../coap/content-formats.ts';
import type { CoapEndpoint } from '../coap/endpoint.ts';
import { type CoapRequest, type Reply, refusal, reply } from '../coap/message.ts';
import { Option, optionValue, text } from '../coap/options.ts';
import type { Resource } from '../coap/router.ts';
import { hmacHeader } from '../dm/hmac-header.ts';
import { type Envelope, EnvelopeKind } from '../northbound/envelope.ts';
import type { Upstream } from '../northbound/upstream.ts';
import type { DeviceAddresses } from '../southbound/device-addresses.ts';
import { isDeviceId, paths, resourceTypes } from '../southbound/resources.ts';

export interface TransparentParts {
  /** ServerIDs that devices may reach through the tunnel. */
  readonly servers: readonly string[];
  readonly upstream: Pick<Upstream, 'request'>;
  readonly addresses: DeviceAddresses;
  readonly towards: (address: string) => CoapEndpoint | undefined;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Packages of one device on their way up at one time. */
const perDevice = 4;
/** Milliseconds for a device to take Package #0. */
const notificationTimeout = 20_000;
/** Seconds after which a device may try again when the uplink is down. */
const retryAfter = 30;

/**
 * Transparent mode: packages between a device and its DM server go through untouched, and so does Package #0. The gateway
 * holds no key of theirs, so it cannot read what is protected end to end.
 */
export class TransparentMode {
  readonly #parts: TransparentParts;
  readonly #onTheirWay = new Map<string, number>();

  constructor(parts: TransparentParts) {
    this.#parts = parts;
  }

  /** `/dm/t/{ServerID}`. */
  resource(): Resource {
    return {
      path: paths.tunnel,
      subtree: true,
      links: () =>
        this.#parts.servers.map((server) => ({
          target: `${paths.tunnel}/${server}`,
          attributes: { rt: resourceTypes.tunnel, title: server },
        })),
      methods: { POST: (request) => this.#forward(request) },
    };
  }

  /**
   * Delivers Package #0 to a device.
   * @throws {PosternError} `notFound` for a device that was never heard, `timeout`, `unauthorized` when it refuses
   */
  async notify({ device = '', server = '', body = new Uint8Array() }: Envelope): Promise<void> {
    const { addresses, towards, entropy, events } = this.#parts;
    const found = addresses.get(device);
    const endpoint = found && towards(found.address);
    if (!found || !endpoint) {
      events.emit('warn', 'notification.no-address', { device, server });
      throw new PosternError('notFound', `${device} was not heard behind this gateway`);
    }
    const answer = await call(endpoint, entropy, found.address, found.port, {
      method: Code.POST,
      path: paths.notification,
      contentFormat: ContentFormat.Notification,
      payload: body,
      timeout: notificationTimeout,
    });
    const fields = { device, server, code: codeText(answer.code) };
    if (isSuccess(answer.code)) {
      events.emit('info', 'notification.delivered', fields);
      return;
    }
    events.emit('warn', 'notification.rejected', fields);
    const why = `${device} answered Package #0 with ${codeText(answer.code)}`;
    throw new PosternError(answer.code === Code.Unauthorized ? 'unauthorized' : 'unavailable', why);
  }

  async #forward(request: CoapRequest): Promise<Reply> {
    const { servers, upstream, addresses, events } = this.#parts;
    const [, , server = '', ...more] = request.path;
    if (more.length > 0 || !servers.includes(server)) {
      events.emit('warn', 'tunnel.unknown-server', {
        server: server.slice(0, 64),
        peer: request.remote.address,
      });
      return refusal(Code.NotFound, 'no tunnel to this ServerID');
    }
    const device = request.parameter('id');
    if (!isDeviceId(device)) return refusal(Code.BadRequest, 'say who you are: ?id=<DevId>');
    const contentType = mediaTypeOf(request.contentFormat ?? -1);
    if (contentType === undefined || request.payload.length === 0)
      return refusal(Code.UnsupportedContentFormat, 'a DM package comes as 65001, 65002 or 65003');
    const count = this.#onTheirWay.get(device) ?? 0;
    if (count >= perDevice)
      return refusal(Code.ServiceUnavailable, 'too many packages of this device', { maxAge: 5 });
    this.#onTheirWay.set(device, count + 1);
    addresses.heard(device, request.remote, false);
    const hmac = optionValue(request.message.options, Option.SyncmlHmac);
    try {
      const answer = await upstream.request({
        device,
        server,
        contentType,
        body: request.payload,
        ...(hmac && { headers: { [hmacHeader]: Buffer.from(hmac).toString() } }),
      });
      events.emit('debug', 'tunnel.forwarded', {
        device,
        server,
        up: request.payload.length,
        down: answer.body?.length ?? 0,
      });
      return this.#answered(device, server, answer);
    } catch (thrown) {
      return this.#failed(device, server, thrown);
    } finally {
      const left = (this.#onTheirWay.get(device) ?? 1) - 1;
      if (left > 0) this.#onTheirWay.set(device, left);
      else this.#onTheirWay.delete(device);
    }
  }

  #answered(device: string, server: string, answer: Envelope): Reply {
    const { kind, status = 500, reason = '', contentType, body, headers } = answer;
    if (kind === EnvelopeKind.Error) {
      this.#parts.events.emit('warn', 'tunnel.refused', { device, server, status, reason });
      return refusal(coapOfStatus(status), `${status} ${reason}`);
    }
    const contentFormat = contentType === undefined ? undefined : contentFormatOf(contentType);
    const hmac = headers?.[hmacHeader];
    return reply(Code.Changed, {
      payload: body ?? new Uint8Array(),
      ...(contentFormat !== undefined && { contentFormat }),
      ...(hmac !== undefined && { options: [text(Option.SyncmlHmac, hmac)] }),
    });
  }

  #failed(device: string, server: string, thrown: unknown): Reply {
    if (!(thrown instanceof PosternError)) throw thrown;
    this.#parts.events.emit('warn', 'tunnel.failed', {
      device,
      server,
      reason: thrown.message,
      code: thrown.code,
    });
    switch (thrown.code) {
      case 'timeout':
        return refusal(Code.GatewayTimeout, 'the DM server did not answer');
      case 'tooLarge':
        return refusal(Code.RequestEntityTooLarge, thrown.message);
      case 'unavailable':
      case 'full':
        return refusal(Code.ServiceUnavailable, 'the uplink is down', { maxAge: retryAfter });
      default:
        throw thrown;
    }
  }
}

/** The CoAP code that says to a device what a DM status of the far end says. */
function coapOfStatus(status: number): number {
  switch (status) {
    case 401:
    case 407:
      return Code.Unauthorized;
    case 403:
    case 425:
      return Code.Forbidden;
    case 404:
      return Code.NotFound;
    case 413:
      return Code.RequestEntityTooLarge;
    case 415:
      return Code.UnsupportedContentFormat;
    case 408:
      return Code.GatewayTimeout;
    case 503:
      return Code.ServiceUnavailable;
    default:
      return Code.BadGateway;
  }
}
