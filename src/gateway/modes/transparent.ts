import { prefixOf } from '../../base/address-prefix.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import type { FieldsOf } from '../../base/event-table.ts';
import type { Events } from '../../base/events.ts';
import { hmacHeader } from '../../dm/hmac-header.ts';
import { DmStatus } from '../../dm/status.ts';
import { call } from '../../wire/coap/blockwise-client.ts';
import { Code, codeText, isSuccess } from '../../wire/coap/codes.ts';
import { ContentFormat, contentFormatOf, mediaTypeOf } from '../../wire/coap/content-formats.ts';
import type { CoapEndpoint } from '../../wire/coap/endpoint.ts';
import { type CoapRequest, type Remote, type Reply, refusal, reply } from '../../wire/coap/message.ts';
import { Option, optionValue, text } from '../../wire/coap/options.ts';
import { remoteKey } from '../../wire/coap/peer.ts';
import type { Resource } from '../../wire/coap/router.ts';
import { Workload } from '../../wire/coap/workload.ts';
import { deviceIdRule, isDeviceId, paths, resourceTypes } from '../../wire/resources.ts';
import { decodeMessage, isSupported } from '../../wire/syncml/codec.ts';
import { type Envelope, EnvelopeKind } from '../../wire/tunnel/envelope.ts';
import type { Uplink } from '../northbound/uplink.ts';
import type { Authorisation } from '../rights/authorisation.ts';
import type { ChildScope } from '../rights/child-scope.ts';
import type { DeviceAddresses, PeerAddress } from '../southbound/device-addresses.ts';
import type { TunnelAnswer, TunnelledPackage } from '../southbound/tunnelled.ts';
import type { TunnelPolicy } from './tunnel-policy.ts';

export interface TransparentParts {
  readonly gatewayId: string;
  /** ID of the child gateway that a device is behind; undefined when it is reached directly. */
  readonly childOf: (deviceId: string) => string | undefined;
  readonly authorisation: Pick<Authorisation, 'may' | 'tunnelServers'>;
  readonly scope: Pick<ChildScope, 'refusalOf'>;
  readonly upstream: Pick<Uplink, 'request'>;
  readonly addresses: DeviceAddresses;
  readonly policy: TunnelPolicy;
  /** The attached child gateway that has proved itself at this address. */
  readonly childAt: (from: PeerAddress) => string | undefined;
  /** Whether a request comes without security from where a device proves itself by DTLS or OSCORE: its address may be forged. */
  readonly isUnsure: (from: PeerAddress & Pick<Remote, 'identity'>) => boolean;
  /** The CoAP endpoint to use for an address that was heard on a local address. */
  readonly towards: (device: PeerAddress) => CoapEndpoint | undefined;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Maximum number of packages of one device, from one address, that wait for an answer. */
const perDevice = 4;
/**
 * Maximum number of packages over CoAP that wait for an answer, as `Workload` divides it. Strangers and known addresses together
 * leave room for proven devices in the uplink, and all of them leave room for other requests.
 */
const overCoap = 768;
/** Milliseconds within which a device must answer Package #0. */
const notificationTimeout = 20_000;
/** Characters of the name of a sender behind a child gateway. */
const peerLength = 128;
/** Seconds after which a device may try again when the uplink is down. */
const retryAfter = 30;
/** Seconds after which a device may try again when too many of its packages wait. */
const overloadRetryAfter = 5;

/**
 * Transparent mode (GwMO): packages between a device and its DM server pass unchanged, and so does Package #0. The
 * gateway holds none of their keys, so it cannot read what they protect end to end.
 */
export class TransparentMode {
  readonly #parts: TransparentParts;
  /** Number of packages that wait for an answer, by device and address: anyone may name a device in its package. */
  readonly #inFlight = new Map<string, number>();

  /** Of all sockets together. */
  readonly #workload = new Workload(overCoap);

  constructor(parts: TransparentParts) {
    this.#parts = parts;
  }

  /**
   * CoAP resource `/dm/t/{ServerID}`.
   * @param heardOn local address of the socket that it is served on
   */
  resource(heardOn?: string): Resource {
    return {
      path: paths.tunnel,
      subtree: true,
      workload: this.#workload,
      links: () =>
        this.#parts.authorisation.tunnelServers.map((server) => ({
          target: `${paths.tunnel}/${server}`,
          attributes: { rt: resourceTypes.tunnel, title: server },
        })),
      methods: { POST: (request) => this.#overCoap(request, heardOn) },
    };
  }

  /**
   * Delivers Package #0 to a device, directly or through its child gateway.
   * @throws {PosternError} `notFound` when no address of the device is known, `timeout` when it does not answer,
   * `unauthorized` when it refuses the digest, `unavailable` for any other error answer
   */
  async deliver(device: string, server: string, body: Uint8Array): Promise<void> {
    const { gatewayId, addresses, towards, entropy, events, childOf } = this.#parts;
    const child = childOf(device);
    const found = addresses.get(child ?? device);
    const endpoint = found && towards(found);
    if (!found || !endpoint) {
      const uri = addresses.httpUriOf(device);
      const reason =
        uri === undefined
          ? `no address of ${device} is known to ${gatewayId}`
          : `${device} comes over HTTP, which does not lead back to it`;
      events.emit('notification.no-address', { device, server, reason });
      throw new PosternError('notFound', reason);
    }
    const answer = await call(endpoint, entropy, found.address, found.port, {
      method: Code.POST,
      path: paths.notification,
      ...(child !== undefined && { query: [`id=${device}`] }),
      contentFormat: ContentFormat.Notification,
      payload: body,
      timeout: notificationTimeout,
    });
    const fields: FieldsOf<'notification.delivered' | 'notification.rejected'> = {
      device,
      server,
      code: codeText(answer.code),
    };
    if (isSuccess(answer.code)) {
      events.emit('notification.delivered', fields);
      return;
    }
    // The child knows no address of it.
    if (child !== undefined && answer.code === Code.NotFound) {
      const reason = Buffer.from(answer.payload).toString() || `${child} knows no address of ${device}`;
      events.emit('notification.no-address', { device, server, reason });
      throw new PosternError('notFound', reason);
    }
    events.emit('notification.rejected', fields);
    const why = `${device} answered Package #0 with ${codeText(answer.code)}`;
    throw new PosternError(answer.code === Code.Unauthorized ? 'unauthorized' : 'unavailable', why);
  }

  async #overCoap(request: CoapRequest, heardOn: string | undefined): Promise<Reply> {
    const [, , server = '', ...more] = request.path;
    const hmac = optionValue(request.message.options, Option.SyncmlHmac);
    const device = request.parameter('id');
    const answer = await this.forward({
      server: more.length > 0 ? request.path.slice(2).join('/') : server,
      device,
      via: request.parameter('via'),
      contentType: mediaTypeOf(request.contentFormat ?? -1),
      body: request.payload,
      hmac: hmac && Buffer.from(hmac).toString(),
      peer: request.parameter('peer'),
      address: request.remote.address,
      from: { address: request.remote.address, port: request.remote.port, heardOn },
      identity: request.remote.identity,
    });
    if (answer.kind === 'refused') {
      const { status, reason, retryAfter: maxAge } = answer;
      return refusal(coapOfStatus(status), reason, maxAge === undefined ? {} : { maxAge });
    }
    const contentFormat = answer.contentType === undefined ? undefined : contentFormatOf(answer.contentType);
    return reply(Code.Changed, {
      payload: answer.body,
      ...(contentFormat !== undefined && { contentFormat }),
      ...(answer.hmac !== undefined && { options: [text(Option.SyncmlHmac, answer.hmac)] }),
    });
  }

  /**
   * Forwards a package from any transport to a DM server. Returns the server's package, or a refusal with a DM status.
   * @throws what the uplink throws, except `timeout`, `tooLarge`, `unavailable`, `overBudget` and `full`, which are refusals
   */
  async forward(up: TunnelledPackage): Promise<TunnelAnswer> {
    const { gatewayId, authorisation, scope, childAt, isUnsure, upstream, events, policy } = this.#parts;
    const { server, device, via, contentType, body, hmac, address, from, identity } = up;
    if (!authorisation.may(server, 'get-packages')) {
      events.emit('tunnel.unknown-server', { server: server.slice(0, 64), peer: address });
      return refused(404, 'no tunnel to this ServerID');
    }
    const refuse = (status: number, reason: string, retry?: number) => {
      events.emit('tunnel.package-refused', { device, peer: address, status, reason });
      return refused(status, reason, retry);
    };
    if (!isDeviceId(device)) return refuse(400, `?id=<DevId>: expected ${deviceIdRule}`);
    // Otherwise anyone could speak to the DM server, and fail there, in the name of this gateway.
    if (device === gatewayId) return refuse(403, 'no device is named like this gateway');
    if (contentType === undefined || body.length === 0)
      return refuse(415, 'the package must be a DM message in XML, WBXML or CBOR');
    const isSure = from === undefined || !isUnsure({ ...from, identity });
    const child = from && isSure ? childAt(from) : undefined;
    const lie = scope.refusalOf({ device, via: via?.split('/'), identity, child });
    if (lie) {
      const retry = lie.status === 503 ? overloadRetryAfter : undefined;
      if (via === undefined) return refuse(lie.status, lie.reason, retry);
      events.emit('hierarchy.package-refused', { device, via });
      return refused(lie.status, lie.reason, retry);
    }
    // Without security, from where a device has an association: what is the device's, its sessions with the DM server included, is apart.
    const mark = isSure ? '' : ' plain';
    const place = from ? remoteKey(from.address, from.port) + mark : address;
    // By a key the device has proved itself for this package, wherever it is.
    const hasProof = via !== undefined || (identity !== undefined && policy.admits(device));
    const isFree = isSure && (hasProof || this.#isProven(device, from) || policy.hasAccepted(device, place));
    const refusal = isFree ? undefined : policy.refusalOf(device, address, body.length);
    if (refusal) return refused(refusal.status, refusal.reason, refusal.retryAfter);
    const sender = `${address}${mark} ${device}`;
    const count = this.#inFlight.get(sender) ?? 0;
    if (count >= perDevice)
      return refuse(503, 'too many packages of this device are under way', overloadRetryAfter);
    this.#inFlight.set(sender, count + 1);
    try {
      const answer = await upstream.request({
        device,
        flow: isFree ? flowOf(address, up.peer) : `/${prefixOf(address)}`,
        ...(via !== undefined && { via }),
        peer: via === undefined || up.peer === undefined ? place : `${place} ${up.peer.slice(0, peerLength)}`,
        server,
        contentType,
        body,
        ...(hmac !== undefined && { headers: { [hmacHeader]: hmac } }),
      });
      events.emit('tunnel.forwarded', {
        device,
        server,
        up: body.length,
        down: answer.body?.length ?? 0,
      });
      const { addresses } = this.#parts;
      const isWay = addresses.httpUriOf(device) === up.httpUri;
      if ((!isWay || !policy.hasAccepted(device, place)) && isAcceptance(answer)) {
        policy.accept(device, place);
        if (from) addresses.heard(device, from, false);
        else if (up.httpUri !== undefined) addresses.heardOverHttp(device, up.httpUri);
      }
      return this.#answered(device, server, answer);
    } catch (thrown) {
      return this.#failed(device, server, thrown);
    } finally {
      const left = (this.#inFlight.get(sender) ?? 1) - 1;
      if (left > 0) this.#inFlight.set(sender, left);
      else this.#inFlight.delete(sender);
    }
  }

  /** Whether a device has proved itself to this gateway at this address. */
  #isProven(device: string, from: PeerAddress | undefined): boolean {
    return from !== undefined && this.#parts.addresses.deviceAt(from) === device;
  }

  #answered(device: string, server: string, answer: Envelope): TunnelAnswer {
    const { kind, status = 500, reason = '', contentType, body = new Uint8Array(), headers } = answer;
    if (kind === EnvelopeKind.Error) {
      this.#parts.events.emit('tunnel.refused', { device, server, status, reason });
      return refused(status, `${status} ${reason}`);
    }
    return { kind: 'answer', body, contentType, hmac: headers?.[hmacHeader] };
  }

  #failed(device: string, server: string, thrown: unknown): TunnelAnswer {
    if (!(thrown instanceof PosternError)) throw thrown;
    this.#parts.events.emit('tunnel.failed', {
      device,
      server,
      reason: thrown.message,
      code: thrown.code,
    });
    switch (thrown.code) {
      case 'timeout':
        return refused(408, 'the DM server did not answer');
      case 'tooLarge':
        return refused(413, thrown.message);
      case 'overBudget':
        return refused(503, thrown.message, thrown.retryAfter);
      case 'full':
        return refused(503, thrown.message, overloadRetryAfter);
      case 'unavailable':
        return refused(503, 'the uplink is down', retryAfter);
      default:
        throw thrown;
    }
  }
}

const refused = (status: number, reason: string, retryAfter?: number): TunnelAnswer => ({
  kind: 'refused',
  status,
  reason,
  ...(retryAfter !== undefined && { retryAfter }),
});

/** Whether a DM server has accepted the proof of a device: so says the Status of its answer for the device's header. */
function isAcceptance({ kind, body, contentType = '' }: Envelope): boolean {
  if (kind === EnvelopeKind.Error || !body || !isSupported(contentType)) return false;
  try {
    return decodeMessage(body, contentType).commands.some(
      (command) =>
        command.name === 'Status' &&
        command.cmdRef === '0' &&
        (command.data === DmStatus.Authenticated || command.data === DmStatus.Ok),
    );
  } catch {
    return false;
  }
}

/** The CoAP code for a DM status of the far end. */
function coapOfStatus(status: number): number {
  switch (status) {
    case 401:
    case 407:
      return Code.Unauthorized;
    case 403:
    case 425:
      return Code.Forbidden;
    case 400:
      return Code.BadRequest;
    case 404:
      return Code.NotFound;
    case 413:
      return Code.RequestEntityTooLarge;
    case 415:
      return Code.UnsupportedContentFormat;
    case 408:
      return Code.GatewayTimeout;
    case 508:
      return Code.HopLimitReached;
    case 503:
      return Code.ServiceUnavailable;
    default:
      return Code.BadGateway;
  }
}

/**
 * Whose turn a package of a device takes that has proved itself: its address, and behind a child gateway also the address that
 * the child heard. Ports are left out, because one host has many. All strangers of one /24 or /64 have one turn together: a
 * stranger chooses the device that it names, and may have many addresses.
 */
const flowOf = (address: string, peer = ''): string =>
  `${address} ${peer.slice(0, peerLength)}`.replaceAll(/\|\d+/g, '');
