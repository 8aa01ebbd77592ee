import { background } from '../../base/background.ts';
import { BoundedMap } from '../../base/bounded-map.ts';
import type { Clock, Monotonic, Timer } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { Scheme } from '../../dm/authentication.ts';
import { LockOut } from '../../dm/lock-out.ts';
import { ServerSession, valueText, type Work } from '../../dm/server-session.ts';
import { DmStatus, isOk } from '../../dm/status.ts';
import { isAlertOf } from '../../mo/gateway-alerts.ts';
import { GatewayMode } from '../../mo/gw-config.ts';
import { nodeAt, type Vocabulary } from '../../mo/vocabulary.ts';
import { Code } from '../../wire/coap/codes.ts';
import { ContentFormat, dmContentFormats, mediaTypeOf } from '../../wire/coap/content-formats.ts';
import { type CoapRequest, type Remote, type Reply, reply } from '../../wire/coap/message.ts';
import { Option, optionValue, text } from '../../wire/coap/options.ts';
import type { Resource } from '../../wire/coap/router.ts';
import { coapUri } from '../../wire/coap/uri.ts';
import { isDeviceId, paths, resourceTypes } from '../../wire/resources.ts';
import { decodeMessage, encodeMessage } from '../../wire/syncml/codec.ts';
import type { Alert } from '../../wire/syncml/message.ts';
import type { Credentials, GatewayCredential } from '../store/credentials.ts';
import type { AttachedDevice } from './associations.ts';
import type { LocalEndpoint } from './coap-network.ts';

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
  /** Called when a device has authenticated from this address over CoAP. */
  readonly proved: (deviceId: string, remote: Remote) => void;
}

/** A DM package of a device, independent of the transport. */
export interface ArrivedPackage {
  readonly body: Uint8Array;
  readonly mediaType: string;
  /** Value of `x-syncml-hmac`. */
  readonly hmac: string | undefined;
  /**
   * Part of the session's key: packages with the same device ID and session ID but different `way` are not mixed up.
   */
  readonly way: string;
  /** Address of the sender as a URI. */
  readonly address: string;
  /** ServerID of the gateway in the device's account, if it is not the gateway's own name. */
  readonly serverId?: string;
  /** Called when the device is authenticated, by this package or an earlier one of the session. */
  readonly proved: (deviceId: string) => void;
}

/** Authentication schemes: of the device (`client`) and of the gateway (`server`). */
export interface DeviceSchemes {
  readonly client: readonly Scheme[];
  readonly server: readonly Scheme[];
}

interface Open {
  readonly session: ServerSession;
  readonly deviceId: string;
  heard: Monotonic;
  idle: Timer;
}

/**
 * Maximum number of sessions, and times of silence in milliseconds. A session ends after `idle`. At the maximum, a new
 * session replaces one that has ended, one that was silent for `unproved` without being authenticated, or one that was
 * silent for `silent`. If there is none, the new session is refused; otherwise many devices at once would only evict
 * each other.
 */
export const sessionLimits = { sessions: 256, idle: 60_000, unproved: 2000, silent: 10_000 } as const;

/**
 * The gateway as DM server of its devices (OMA DM 1.2): CoAP resource `/dm`, and the same over HTTP through `receive`.
 */
export class DeviceSessions {
  readonly #parts: DeviceSessionsParts;
  readonly #open: BoundedMap<string, Open>;
  readonly #lockOut: LockOut;

  constructor(parts: DeviceSessionsParts) {
    this.#parts = parts;
    this.#lockOut = new LockOut(parts.clock);
    this.#open = new BoundedMap(sessionLimits.sessions);
  }

  /**
   * Number of sessions under way. Ended sessions, which are kept for a while to answer repeated packages, do not count.
   */
  get size(): number {
    return this.#open.values().reduce((count, { session }) => count + (session.outcome ? 0 : 1), 0);
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
    for (const [key, open] of [...this.#open.entries()]) {
      if (open.deviceId !== deviceId || open.session.outcome) continue;
      this.#close(key, open);
      this.#abandon(open, DmStatus.NotFound, 'the device was detached');
    }
  }

  /** Ends all sessions. */
  async stop(): Promise<void> {
    for (const [key, open] of [...this.#open.entries()]) {
      this.#close(key, open);
      await this.#abandon(open, DmStatus.SessionAborted, 'the gateway stops');
    }
  }

  async #overCoap(request: CoapRequest, local: LocalEndpoint): Promise<Reply> {
    const { contentFormat = ContentFormat.SyncmlXml, remote, payload, message } = request;
    const hmac = optionValue(message.options, Option.SyncmlHmac);
    const answer = await this.receive({
      body: payload,
      mediaType: mediaTypeOf(contentFormat) ?? '',
      hmac: hmac && Buffer.from(hmac).toString(),
      way: remote.key,
      address: coapUri(remote.address, remote.port),
      proved: (deviceId) => {
        local.endpoint().vouch(remote);
        this.#parts.proved(deviceId, remote);
      },
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
   * here, `lockedOut` after too many failed authentications, `unavailable` when there are too many sessions
   */
  async receive(arrived: ArrivedPackage): Promise<{ body: Uint8Array; hmac: string | undefined }> {
    const { body, mediaType, hmac, way, address, proved, serverId = this.#parts.gatewayId } = arrived;
    const message = decodeMessage(body, mediaType);
    const { source, sessionId, msgId } = message.header;
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
    const lockKey = `${deviceId} ${new URL(address).hostname}`;
    this.#lockOut.check(lockKey);
    const key = `${way} ${deviceId} ${sessionId}`;
    const known = this.#open.get(key);
    // Message 1 starts a new session, even if an ended session used the same session ID.
    if (known && msgId === 1 && known.session.outcome) this.#close(key, known);
    const open = this.#open.get(key) ?? this.#begin(key, credential, { sessionId, address, serverId });
    this.#keepAwake(key, open);
    const wasOver = open.session.outcome !== undefined;
    const answer = await open.session.receive(message, { body, hmac });
    if (open.session.authenticated) {
      this.#lockOut.succeeded(lockKey);
      proved(deviceId);
    }
    const { outcome } = open.session;
    if (outcome && !wasOver) {
      if (outcome.status === DmStatus.InvalidCredentials) this.#lockOut.failed(lockKey);
      this.#ended(open, sessionId, address);
    }
    const coded = encodeMessage(answer, mediaType);
    return { body: coded, hmac: open.session.seal(coded) };
  }

  #begin(
    key: string,
    credential: GatewayCredential,
    { sessionId, address, serverId }: { sessionId: string; address: string; serverId: string },
  ): Open {
    const { credentials, entropy, events, schemesOf, alerted, vocabulary } = this.#parts;
    const { deviceId } = credential;
    this.#makeRoom();
    const schemes = schemesOf?.(deviceId);
    let leaving = false;
    /** Whether a Device Detach Alert is about the sender. A child gateway sends them about its devices too. */
    const isOwn = (alert: Alert) => alert.items[0]?.source?.locUri === './DevInfo';
    const session = new ServerSession({
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
      saveNonces: ({ own, peer }) => {
        const current = credentials.get(deviceId);
        // A new bootstrap may have replaced the credential meanwhile. Its nonces must stay.
        if (current?.clientSecret !== credential.clientSecret) return;
        credentials.put({
          ...current,
          ...(own && { serverNonce: own }),
          ...(peer && { clientNonce: peer }),
        });
      },
      entropy,
      sessionId,
      // A device that leaves gets no operations.
      work: ({ devInfo }) => (leaving ? this.#goodbye(deviceId) : this.#greet(credential, devInfo, address)),
      alerted: (alert) => {
        events.emit('session.alert', { device: deviceId, alert: alert.data });
        if (isAlertOf(alert, vocabulary.alerts.DeviceDetach) && isOwn(alert)) {
          leaving = true;
          return DmStatus.Ok;
        }
        return alerted(deviceId, alert);
      },
    });
    events.emit('session.started', { device: deviceId, session: sessionId });
    const open: Open = { session, deviceId, heard: this.#parts.clock.now(), idle: { cancel() {} } };
    this.#open.set(key, open);
    return open;
  }

  /**
   * Makes room for one more session; see `sessionLimits`.
   * @throws {PosternError} `unavailable` when no session can be replaced
   */
  #makeRoom(): void {
    if (this.#open.size < sessionLimits.sessions) return;
    const now = this.#parts.clock.now();
    // Oldest session first.
    for (const [key, open] of this.#open.entries()) {
      const { authenticated, outcome } = open.session;
      const patience = authenticated ? sessionLimits.silent : sessionLimits.unproved;
      if (!outcome && now - open.heard < patience) continue;
      this.#close(key, open);
      this.#abandon(open, DmStatus.DeviceFull, 'too many sessions');
      return;
    }
    throw new PosternError('unavailable', 'too many sessions; try again later');
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
    address: string,
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
      credential,
      mode: GatewayMode.Transparent,
      origin: credential.origin,
      protocol: 'OMA-DM',
      address,
      isGateway: isOk(asGateway?.status ?? DmStatus.NotFound),
      ...(devInfo.Man !== undefined && { manufacturer: devInfo.Man }),
      ...(devInfo.Mod !== undefined && { model: devInfo.Mod }),
      ...(firmware !== undefined && { firmware: valueText(firmware) }),
      ...(deviceType !== undefined && { deviceType: valueText(deviceType) }),
    });
    const { work } = this.#parts;
    if (work) yield* work(deviceId);
  }

  /** Restarts the idle timer of a session. */
  #keepAwake(key: string, open: Open): void {
    open.heard = this.#parts.clock.now();
    open.idle.cancel();
    open.idle = this.#parts.clock.after(sessionLimits.idle, () => {
      this.#open.delete(key);
      this.#abandon(open, 408, 'the device did not come back');
    });
  }

  #close(key: string, open: Open): void {
    open.idle.cancel();
    this.#open.delete(key);
  }

  /**
   * Reports the end of a session. The session is kept until its idle timer, so that a repeated package gets its answer.
   */
  #ended({ session, deviceId }: Open, sessionId: string, address: string): void {
    const { status = 0, reason = '' } = session.outcome ?? {};
    this.#parts.events.emit(isOk(status) ? 'session.ended' : 'session.failed', {
      device: deviceId,
      session: sessionId,
      status,
      reason,
      peer: address,
    });
  }

  /** Ends a session whose device is not waiting for anything. Never rejects. */
  #abandon({ session, deviceId }: Open, status: number, reason: string): Promise<void> {
    const { events } = this.#parts;
    return background(events, 'session-end', async () => {
      if (session.outcome) return;
      await session.abandon(status, reason);
      events.emit('session.failed', { device: deviceId, status, reason });
    });
  }
}
