import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { Scheme } from '../../dm/authentication.ts';
import { LockOut } from '../../dm/lock-out.ts';
import { ServerSession, valueText, type Work } from '../../dm/server-session.ts';
import { SessionTable } from '../../dm/session-table.ts';
import { DmStatus, isOk } from '../../dm/status.ts';
import { GatewayMode } from '../../mo/device-record.ts';
import { isAlertOf } from '../../mo/gateway-alerts.ts';
import { nodeAt, type Vocabulary } from '../../mo/vocabulary.ts';
import { Code } from '../../wire/coap/codes.ts';
import { ContentFormat, dmContentFormats, mediaTypeOf } from '../../wire/coap/content-formats.ts';
import { type CoapRequest, type Reply, reply } from '../../wire/coap/message.ts';
import { Option, optionValue, text } from '../../wire/coap/options.ts';
import type { Resource } from '../../wire/coap/router.ts';
import { coapUri } from '../../wire/coap/uri.ts';
import { isDeviceId, paths, resourceTypes } from '../../wire/resources.ts';
import { decodeMessage, encodeMessage } from '../../wire/syncml/codec.ts';
import type { Alert } from '../../wire/syncml/message.ts';
import type { Credentials, GatewayCredential } from '../store/credentials.ts';
import type { AttachedDevice } from './associations.ts';
import type { LocalEndpoint } from './coap-network.ts';
import type { PeerAddress } from './device-addresses.ts';
import { SessionNonces } from './session-nonces.ts';

export interface DeviceSessionsParts {
  readonly gatewayId: string;
  readonly credentials: Credentials;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** Called when the device and the gateway have authenticated to each other, in each session. */
  readonly attached: (device: AttachedDevice) => void;
  /** Called when an authenticated device announced that it leaves. */
  readonly left: (deviceId: string) => void;
  /** Takes any other alert of an authenticated device. Returns the DM status of the alert. */
  readonly alerted: (deviceId: string, alert: Alert) => number;
  /** Whether a device may be a DM Gateway with devices of its own (GwMO 1.1). */
  readonly mayBeGateway: (deviceId: string) => boolean;
  readonly vocabulary: Vocabulary;
  /** Authentication schemes for a device whose account was configured by hand. Default: md5 both ways. */
  readonly schemesOf?: (deviceId: string) => DeviceSchemes | undefined;
  /** Operations to perform in the session after the device was attached. */
  readonly work?: (deviceId: string) => Work;
  /** Called when a device has authenticated: from this address over CoAP, without an address over HTTP. */
  readonly proved: (deviceId: string, from: PeerAddress | undefined) => void;
}

/** A DM package of a device, independent of the transport. */
export interface ArrivedPackage {
  readonly body: Uint8Array;
  readonly mediaType: string;
  /** Value of `x-syncml-hmac`. */
  readonly hmac: string | undefined;
  /** The transport. Packages with the same device ID and session ID but different `way` are not mixed up. */
  readonly way: 'coap' | 'http';
  /** The sender of all packages of a session, unless a package has a proof of its own. */
  readonly sender: string;
  /** Address of the sender as a URI. */
  readonly address: string;
  /** Where the device can be reached; absent over HTTP, which does not lead back to a device. */
  readonly from?: PeerAddress;
  /** ServerID of the gateway in the device's account, if it is not the gateway's own name. */
  readonly serverId?: string;
  /** Called when the device is authenticated, by this package or an earlier one of the session. */
  readonly proved: () => void;
}

/** Authentication schemes: of the device (`client`) and of the gateway (`server`). */
export interface DeviceSchemes {
  readonly client: readonly Scheme[];
  readonly server: readonly Scheme[];
}

/** Whose session it is, and where it began. */
interface Owner {
  readonly deviceId: string;
  readonly sessionId: string;
  readonly address: string;
  readonly nonces: SessionNonces;
}

/**
 * Bounds of the sessions; times in milliseconds. A session of a device that has proved itself gives way only to another
 * such session. A new device that cannot prove itself at once waits for a place of its own kind: otherwise many devices
 * at once would only evict each other.
 */
export const sessionLimits = {
  proven: 256,
  unproven: 256,
  unprovenOfHost: 64,
  idle: 60_000,
  silent: 10_000,
  unprovenSilent: 2000,
} as const;

/**
 * Sessions in a row that a device fails by its credential until it is told that this gateway does not know it. A gateway whose
 * state went back in time has an older credential than the device. The device then gives up its account, and is bootstrapped
 * anew when it proves its factory secret.
 */
export const failuresUntilForgotten = 3;

/**
 * The gateway as DM server of its devices (OMA DM 1.2): CoAP resource `/dm`, and the same over HTTP through `receive`.
 */
export class DeviceSessions {
  readonly #parts: DeviceSessionsParts;
  readonly #table: SessionTable<Owner>;
  readonly #lockOut: LockOut;

  constructor(parts: DeviceSessionsParts) {
    this.#parts = parts;
    this.#lockOut = new LockOut(parts.clock);
    this.#table = new SessionTable({
      clock: parts.clock,
      events: parts.events,
      limits: sessionLimits,
      abandoned: ({ deviceId, sessionId, address }, status, reason) =>
        parts.events.emit('session.failed', {
          device: deviceId,
          session: sessionId,
          status,
          reason,
          peer: address,
        }),
    });
  }

  /**
   * Number of sessions under way. Ended sessions, which are kept for a while to answer repeated packages, do not count.
   */
  get size(): number {
    return this.#table.values().reduce((count, { session }) => count + (session.outcome ? 0 : 1), 0);
  }

  /** CoAP resource `/dm`. */
  resource(local: LocalEndpoint): Resource {
    const attributes = { rt: resourceTypes.sessions, ct: dmContentFormats };
    return {
      path: paths.sessions,
      links: () => [{ target: paths.sessions, attributes }],
      methods: { POST: (request) => this.#overCoap(request, local) },
    };
  }

  /** Ends all sessions of a device that is no longer attached, whatever they are doing. */
  detached(deviceId: string): void {
    void this.#table.end(
      (owner) => owner.deviceId === deviceId,
      DmStatus.NotFound,
      'the device was detached',
    );
  }

  /** Ends all sessions. */
  async stop(): Promise<void> {
    await this.#table.end(() => true, DmStatus.SessionAborted, 'the gateway stops');
  }

  async #overCoap(request: CoapRequest, local: LocalEndpoint): Promise<Reply> {
    const { contentFormat = ContentFormat.SyncmlXml, remote, payload, message } = request;
    const hmac = optionValue(message.options, Option.SyncmlHmac);
    const answer = await this.receive({
      body: payload,
      mediaType: mediaTypeOf(contentFormat) ?? '',
      hmac: hmac && Buffer.from(hmac).toString(),
      way: 'coap',
      sender: remote.key,
      address: coapUri(remote.address, remote.port),
      from: { address: remote.address, port: remote.port, heardOn: local.bound },
      proved: () => local.endpoint().vouch(remote),
    });
    return reply(Code.Changed, {
      payload: answer.body,
      contentFormat,
      ...(answer.hmac !== undefined && { options: [text(Option.SyncmlHmac, answer.hmac)] }),
    });
  }

  /**
   * Takes a DM package from any transport. Returns the answer package in the same media type, with the value of its
   * `x-syncml-hmac` if the session uses HMAC.
   * @throws {PosternError} `unsupportedFormat`, `malformed`, `tooLarge`, `forbidden` for a device without an account
   * here or whose credential was wrong in `failuresUntilForgotten` sessions, `lockedOut` after too many failed
   * authentications, `unavailable` when there are too many sessions
   */
  async receive(arrived: ArrivedPackage): Promise<{ body: Uint8Array; hmac: string | undefined }> {
    const { body, mediaType, hmac, way, sender, address, from, proved } = arrived;
    const message = decodeMessage(body, mediaType);
    const { source, sessionId } = message.header;
    const deviceId = source.locUri;
    const credential = isDeviceId(deviceId) ? this.#parts.credentials.get(deviceId) : undefined;
    if (!credential) {
      this.#parts.events.emit('session.unknown-device', {
        device: deviceId.slice(0, 200),
        peer: address,
      });
      throw new PosternError(
        'forbidden',
        `no account here for this device; bootstrap it first at ${paths.bootstrap}`,
      );
    }
    const host = from?.address ?? new URL(address).hostname.replace(/^\[|\]$/g, '');
    const lockKey = `${deviceId} ${host}`;
    this.#lockOut.check(lockKey);
    const seal = { body, hmac };
    const { session, owner, place } = this.#table.find(
      { key: `${way} ${deviceId} ${sessionId}`, sender, host, message, seal },
      () => {
        const nonces = new SessionNonces(this.#parts.credentials, credential);
        const session = this.#begin(credential, arrived, sessionId, nonces);
        return { session, owner: { deviceId, sessionId, address, nonces } };
      },
    );
    if (place === 'new') this.#parts.events.emit('session.started', { device: deviceId, session: sessionId });
    const wasOver = session.outcome !== undefined;
    const answer = await session.receive(message, seal).finally(() => owner.nonces.store());
    if (session.authenticated && place !== 'repeated') {
      this.#lockOut.succeeded(lockKey);
      proved();
      this.#parts.proved(deviceId, from);
    }
    const { outcome } = session;
    if (outcome && !wasOver) {
      this.#parts.events.emit(isOk(outcome.status) ? 'session.ended' : 'session.failed', {
        device: deviceId,
        session: sessionId,
        status: outcome.status,
        reason: outcome.reason,
        peer: address,
      });
      if (outcome.status === DmStatus.InvalidCredentials) this.#refuse(credential, lockKey, address);
    }
    const coded = encodeMessage(answer, mediaType);
    return { body: coded, hmac: session.seal(coded) };
  }

  /**
   * Counts a session in which a device could not prove itself.
   * @throws {PosternError} `forbidden` when the device shall give up its account. Only the sender of the wrong proof gets this
   * answer: nobody can have another device give up its account
   */
  #refuse({ deviceId, origin }: GatewayCredential, lockKey: string, peer: string): void {
    const failures = this.#lockOut.failed(lockKey);
    // An account that was configured by hand cannot be had anew.
    if (failures < failuresUntilForgotten || origin === 'manual') return;
    this.#parts.events.emit('session.stale-account', { device: deviceId, peer });
    throw new PosternError(
      'forbidden',
      `the account of this device is not the one of this gateway; bootstrap it anew at ${paths.bootstrap}`,
    );
  }

  #begin(
    credential: GatewayCredential,
    arrived: ArrivedPackage,
    sessionId: string,
    nonces: SessionNonces,
  ): ServerSession {
    const { entropy, events, schemesOf, alerted, vocabulary } = this.#parts;
    const { deviceId } = credential;
    const { serverId = this.#parts.gatewayId } = arrived;
    const schemes = schemesOf?.(deviceId);
    let leaving = false;
    /** Whether a Device Detach Alert is about the sender. A child gateway sends them about its devices too. */
    const isOwn = (alert: Alert) => alert.items[0]?.source?.locUri === './DevInfo';
    return new ServerSession({
      ends: { local: serverId, remote: deviceId },
      account: {
        own: {
          name: serverId,
          secret: credential.serverSecret,
          nonce: credential.serverNonce,
          ...(schemes && { schemes: schemes.server }),
        },
        peer: {
          name: credential.clientName,
          secret: credential.clientSecret,
          nonce: credential.clientNonce,
          ...(schemes && { schemes: schemes.client }),
        },
      },
      saveNonces: (changed) => nonces.change(changed),
      entropy,
      sessionId,
      // A device that leaves gets no operations.
      work: ({ devInfo }) =>
        leaving ? this.#goodbye(deviceId) : this.#greet(credential, devInfo, arrived, nonces),
      alerted: (alert) => {
        events.emit('session.alert', { device: deviceId, alert: alert.data });
        if (isAlertOf(alert, vocabulary.alerts.DeviceDetach) && isOwn(alert)) {
          leaving = true;
          return DmStatus.Ok;
        }
        return alerted(deviceId, alert);
      },
    });
  }

  // biome-ignore lint/correctness/useYield: a device that leaves gets no operations
  async *#goodbye(deviceId: string): Work {
    this.#parts.left(deviceId);
  }

  /**
   * First operations in each session. The device's answer shows that it accepted the gateway's authentication. After
   * that the device is attached, and waiting operations are performed.
   */
  async *#greet(
    { deviceId }: GatewayCredential,
    devInfo: Readonly<Record<string, string>>,
    { address, from }: ArrivedPackage,
    nonces: SessionNonces,
  ): Work {
    const { mayBeGateway, vocabulary } = this.#parts;
    // A device that has the object GwConfig is a DM Gateway.
    const mode = { name: 'Get' as const, uri: nodeAt(vocabulary, 'GwConfig', 'Mode') };
    const [outcome, kind, asGateway] = yield [
      { name: 'Get', uri: './DevDetail/FwV' },
      { name: 'Get', uri: './DevDetail/DevTyp' },
      ...(mayBeGateway(deviceId) ? [mode] : []),
    ];
    // A new bootstrap may have replaced the credential during the session, so it is read again.
    const credential = this.#parts.credentials.get(deviceId);
    if (!outcome || !credential || outcome.status === DmStatus.NotExecuted) return;
    const found = (asked: typeof outcome | undefined) =>
      asked && isOk(asked.status) ? asked.results[0]?.data : undefined;
    const [firmware, deviceType] = [found(outcome), found(kind)];
    this.#parts.attached({
      deviceId,
      // What is written for the device takes the new nonces along.
      credential: nonces.applied(credential),
      mode: GatewayMode.Transparent,
      origin: credential.origin,
      protocol: 'OMA-DM',
      address,
      ...(from?.heardOn !== undefined && { heardOn: from.heardOn }),
      isGateway: isOk(asGateway?.status ?? DmStatus.NotFound),
      ...(devInfo.Man !== undefined && { manufacturer: devInfo.Man }),
      ...(devInfo.Mod !== undefined && { model: devInfo.Mod }),
      ...(firmware !== undefined && { firmware: valueText(firmware) }),
      ...(deviceType !== undefined && { deviceType: valueText(deviceType) }),
    });
    const { work } = this.#parts;
    if (work) yield* work(deviceId);
  }
}
