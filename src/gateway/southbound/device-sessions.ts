import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, type ErrorCode, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { isGuess, locked, type Scheme } from '../../dm/authentication.ts';
import { Challenges } from '../../dm/challenges.ts';
import { ProofGuard } from '../../dm/proof-guard.ts';
import {
  type Operation,
  type OperationOutcome,
  ServerSession,
  valueText,
  type Work,
} from '../../dm/server-session.ts';
import { type BegunSession, SessionTable } from '../../dm/session-table.ts';
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
import { deviceIdRule, isDeviceId, paths, resourceTypes } from '../../wire/resources.ts';
import { decodeMessage, encodeMessage } from '../../wire/syncml/codec.ts';
import type { Alert, SyncHdr, SyncmlMessage } from '../../wire/syncml/message.ts';
import type { Credentials, GatewayCredential } from '../store/credentials.ts';
import type { ArrivedPackage } from './arrived-package.ts';
import type { AttachedDevice } from './associations.ts';
import type { LocalEndpoint } from './coap-network.ts';
import type { PeerAddress } from './device-addresses.ts';
import { questionsFirst } from './questions-first.ts';
import { SessionNonces } from './session-nonces.ts';

export interface DeviceSessionsParts {
  readonly gatewayId: string;
  readonly credentials: Credentials;
  /** Whether the configuration allows plain CoAP by name, and so accepts that secrets of bootstraps can be read on their way. */
  readonly isPlainAllowed?: boolean;
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
  /** How a device whose account was configured by hand and the gateway prove themselves. Default: md5 both ways. */
  readonly proofsOf?: (deviceId: string) => DeviceProofs | undefined;
  /** Operations to perform in the session after the device was attached. */
  readonly work?: (deviceId: string) => Work;
  /** Those operations of `work` that may begin before a device has answered that was attached before. */
  readonly earlyWork?: (deviceId: string) => Work;
  /** Called when a device has authenticated: from this address over CoAP, without an address over HTTP. */
  readonly proved: (deviceId: string, from: PeerAddress | undefined) => void;
}

/** Authentication schemes of the device (`client`) and of the gateway (`server`), and what the gateway calls itself. */
export interface DeviceProofs {
  readonly client: readonly Scheme[];
  readonly server: readonly Scheme[];
  /** Name in the gateway's proofs; its ServerID when absent. */
  readonly serverName: string | undefined;
}

/** Whose session it is, and where it began. */
interface Owner {
  readonly deviceId: string;
  readonly sessionId: string;
  readonly address: string;
  /** The secret by which the device proved itself. */
  readonly clientSecret: string;
  readonly nonces: SessionNonces;
}

/** Bounds of the sessions; times in milliseconds. */
export const sessionLimits = {
  sessions: 256,
  idle: 60_000,
  silent: 10_000,
  bytes: { share: 16 * 1024, pool: 16 * 1024 * 1024, keep: 300_000 },
} as const;

/**
 * Wrong answers to challenges in a row until a device is told that this gateway does not know it. A gateway whose state went
 * back in time has an older credential than the device, or none. The device then gives up its account, and is bootstrapped
 * anew when it proves its factory secret.
 */
export const failuresUntilForgotten = 3;
/** Refusals of packages that no other event tells. */
const untold: ReadonlySet<ErrorCode> = new Set([
  'malformed',
  'tooLarge',
  'unavailable',
  'unsupportedFormat',
  'unsupportedVersion',
]);
/** Random bytes in the URI for the next packages of a session. */
const uriBytes = 16;

/** The association of packages that come to a URI that only the client of a session knows, by the random text in it. */
export const uriAssociation = (random: string): string => `uri ${random}`;

/**
 * The gateway as DM server of its devices (OMA DM 1.2): CoAP resource `/dm`, and the same over HTTP through `receive`.
 */
export class DeviceSessions {
  readonly #parts: DeviceSessionsParts;
  readonly #table: SessionTable<Owner>;
  readonly #challenges: Challenges;
  readonly #guard: ProofGuard;

  constructor(parts: DeviceSessionsParts) {
    this.#parts = parts;
    this.#challenges = new Challenges(parts.clock, parts.entropy);
    this.#guard = new ProofGuard(parts.clock);
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
  detached(deviceId: string, reason = 'the device was detached'): void {
    void this.#table.end((owner) => owner.deviceId === deviceId, DmStatus.NotFound, reason);
  }

  /** Ends the sessions of devices whose accounts have another secret now. */
  review(): void {
    const { credentials } = this.#parts;
    void this.#table.end(
      ({ deviceId, clientSecret }) => credentials.get(deviceId)?.clientSecret !== clientSecret,
      DmStatus.NotFound,
      'the account of the device has another secret now',
    );
  }

  /** Ends all sessions. */
  async stop(): Promise<void> {
    await this.#table.stop('the gateway stops');
  }

  async #overCoap(request: CoapRequest, local: LocalEndpoint): Promise<Reply> {
    const { contentFormat = ContentFormat.SyncmlXml, remote, payload, message } = request;
    const hmac = optionValue(message.options, Option.SyncmlHmac);
    const answer = await this.receive({
      body: payload,
      mediaType: mediaTypeOf(contentFormat) ?? '',
      hmac: hmac && Buffer.from(hmac).toString(),
      way: 'coap',
      // OSCORE does not protect the address: what comes in clear from there is another association.
      associations: [`${remote.key} ${remote.identity ?? ''} ${local.bound}`],
      address: coapUri(remote.address, remote.port, '', local.scheme),
      identity: remote.identity,
      from: { address: remote.address, port: remote.port, heardOn: local.bound },
      proved: (deviceId) => local.endpoint().vouch(remote, deviceId),
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
   * @throws {PosternError} `unsupportedFormat`, `malformed`, `tooLarge`, `forbidden` for a device that gave a wrong answer to
   * `failuresUntilForgotten` challenges, and for one that proved itself without the key of its account, `lockedOut` after too many of them, `unavailable` when there are too many sessions
   */
  async receive(arrived: ArrivedPackage): Promise<{ body: Uint8Array; hmac: string | undefined }> {
    try {
      return await this.#take(arrived, this.#read(arrived));
    } catch (thrown) {
      const { code, message: reason } = asPosternError(thrown);
      const { address: peer } = arrived;
      if (untold.has(code)) this.#parts.events.emit('session.refused', { peer, reason });
      throw thrown;
    }
  }

  /** @throws {PosternError} `unsupportedFormat`, `malformed`, `tooLarge` */
  #read({ body, mediaType }: ArrivedPackage): SyncmlMessage {
    const message = decodeMessage(body, mediaType);
    if (!isDeviceId(message.header.source.locUri))
      throw new PosternError('malformed', `Source: expected ${deviceIdRule}`);
    return message;
  }

  async #take(
    arrived: ArrivedPackage,
    message: SyncmlMessage,
  ): Promise<{ body: Uint8Array; hmac: string | undefined }> {
    const { body, mediaType, hmac, way, associations, address, identity, from, proved } = arrived;
    const { source, sessionId } = message.header;
    const deviceId = source.locUri;
    if (identity !== undefined && identity !== deviceId) {
      const reason = `the key of this association is that of ${identity}`;
      const status = DmStatus.Forbidden;
      this.#parts.events.emit('session.failed', {
        device: deviceId,
        session: sessionId,
        status,
        reason,
        peer: address,
      });
      throw new PosternError('forbidden', 'a session belongs to the device whose key it comes by');
    }
    // No device is named like the gateway, whatever a list says that several gateways share.
    const isOwnName = deviceId === this.#parts.gatewayId;
    const credential = isOwnName ? undefined : this.#parts.credentials.get(deviceId);
    const host = from?.address ?? new URL(address).hostname.replace(/^\[|\]$/g, '');
    const lock = this.#guard.lockOf(deviceId, { address: host });
    const seal = { body, mediaType, hmac };
    const arrival = { key: `${way} ${deviceId} ${sessionId}`, associations, message, seal };
    let measure: GatewayCredential | undefined;
    const found = this.#table.find(arrival, () => {
      measure = this.#measureOf(deviceId, credential);
      return this.#begin(measure, arrived, message.header, lock !== undefined);
    });
    const { session, owner, place } = found;
    if (place === 'stranger') {
      if (lock) {
        this.#parts.events.emit('session.locked-out', { device: deviceId, peer: host, reason: lock.message });
        throw lock;
      }
      if (measure && isGuess(message.header, seal, measure.clientNonce))
        this.#failed(deviceId, credential, host, sessionId);
      const refusal = encodeMessage(session.refuse(message, seal), mediaType);
      return { body: refusal, hmac: session.seal(refusal) };
    }
    if (place === 'new' && identity === undefined) this.#demandKeyless(owner, credential);
    if (place === 'new') this.#parts.events.emit('session.started', { device: deviceId, session: sessionId });
    const wasOver = session.outcome !== undefined;
    const answer = await this.#table.receive(arrival, found).finally(() => owner.nonces.store());
    if (session.authenticated && place !== 'repeated') {
      this.#guard.succeeded(deviceId, { address: host });
      proved(deviceId);
      this.#parts.proved(deviceId, from);
    }
    const { outcome } = session;
    if (outcome && !wasOver)
      this.#parts.events.emit(isOk(outcome.status) ? 'session.ended' : 'session.failed', {
        device: deviceId,
        session: sessionId,
        status: outcome.status,
        reason: outcome.reason,
        peer: address,
      });
    const coded = encodeMessage(answer, mediaType);
    return { body: coded, hmac: session.seal(coded) };
  }

  /**
   * Ends a session that began without the key for DTLS or OSCORE of its account, where a DM server has given the account. Its secrets
   * went through the tunnel, where others may have read them; the key did not. Only who has the secrets gets this answer.
   * @throws {PosternError} `forbidden`
   */
  #demandKeyless(owner: Owner, credential: GatewayCredential | undefined): void {
    const { credentials, isPlainAllowed } = this.#parts;
    if (isPlainAllowed || credential?.origin !== 'server') return;
    if (credentials.keys.of(owner.deviceId).length === 0) return;
    const reason =
      'the DM server gave this account with a key for DTLS or OSCORE, and the session came without it';
    void this.#table.end((one) => one === owner, DmStatus.Forbidden, reason);
    throw new PosternError('forbidden', reason);
  }

  /**
   * Counts a wrong answer to a challenge.
   * @throws {PosternError} `forbidden` when the device shall give up its account. Only the sender of the wrong proof gets this
   * answer: nobody can have another device give up its account
   */
  #failed(
    deviceId: string,
    credential: GatewayCredential | undefined,
    peer: string,
    sessionId: string,
  ): void {
    const { events } = this.#parts;
    const failures = this.#guard.failed(deviceId, { address: peer });
    // An account that was configured by hand cannot be had anew.
    const isManual = credential?.origin === 'manual';
    if (isManual || failures < failuresUntilForgotten) {
      const status = DmStatus.InvalidCredentials;
      const reason = 'the device did not prove itself';
      events.emit('session.failed', { device: deviceId, session: sessionId, status, reason, peer });
      return;
    }
    if (failures === failuresUntilForgotten)
      events.emit(credential ? 'session.stale-account' : 'session.unknown-device', {
        device: deviceId,
        peer,
      });
    throw new PosternError(
      'forbidden',
      `this gateway has no such account of this device; bootstrap it anew at ${paths.bootstrap}`,
    );
  }

  /**
   * What the proof of a device is measured by. Neither the answers nor their time tell which devices have an account here, so a
   * pretence is made for each device, and counts for one without an account.
   */
  #measureOf(deviceId: string, credential: GatewayCredential | undefined): GatewayCredential {
    const { secret, nonce } = this.#challenges.pretence(deviceId);
    return (
      credential ?? {
        deviceId,
        clientName: deviceId,
        clientSecret: secret,
        clientNonce: nonce,
        serverSecret: secret,
        serverNonce: nonce,
        origin: 'local',
        attached: false,
      }
    );
  }

  /** @param isLocked only the proof counts that needs no challenge: no guess can be right by it */
  #begin(
    credential: GatewayCredential,
    arrived: ArrivedPackage,
    { sessionId, msgId, target }: SyncHdr,
    isLocked: boolean,
  ): BegunSession<Owner> {
    const { credentials, entropy, events, proofsOf, alerted, vocabulary } = this.#parts;
    const { deviceId } = credential;
    const nonces = new SessionNonces(credentials, credential);
    const { gatewayId } = this.#parts;
    const { way, address, uriFor } = arrived;
    // A device that was bootstrapped knows the gateway by its own name, also over HTTP.
    const serverId = target.locUri === gatewayId ? gatewayId : (arrived.serverId ?? gatewayId);
    const proofs = proofsOf?.(deviceId);
    const name = `${way} ${deviceId} ${sessionId}`;
    const challenge = this.#challenges.of(name, credential.clientNonce, !isLocked && msgId > 1);
    const random = uriFor && Buffer.from(entropy.bytes(uriBytes)).toString('base64url');
    const peer = {
      name: credential.clientName,
      secret: credential.clientSecret,
      nonce: credential.clientNonce,
      ...(proofs && { schemes: proofs.client }),
    };
    let leaving = false;
    /** Whether a Device Detach Alert is about the sender. A child gateway sends them about its devices too. */
    const isOwn = (alert: Alert) => alert.items[0]?.source?.locUri === './DevInfo';
    const session = new ServerSession({
      ends: { local: serverId, remote: deviceId },
      account: {
        own: {
          name: proofs?.serverName ?? serverId,
          secret: credential.serverSecret,
          nonce: credential.serverNonce,
          ...(proofs && { schemes: proofs.server }),
        },
        peer: isLocked ? locked(peer) : peer,
      },
      challenge,
      firstMsgId: msgId,
      ...(uriFor && random !== undefined && { respUri: uriFor(random), asksEach: true }),
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
    return {
      session,
      owner: { deviceId, sessionId, address, clientSecret: credential.clientSecret, nonces },
      association: random && uriAssociation(random),
    };
  }

  // biome-ignore lint/correctness/useYield: a device that leaves gets no operations
  async *#goodbye(deviceId: string): Work {
    this.#parts.left(deviceId);
  }

  /**
   * First operations in each session. The device's answer shows that it accepted the gateway's authentication. After
   * that the device is attached. Waiting operations are performed after that; for a device that was attached before, they
   * begin in the same package, which saves an exchange. A device that does not accept the gateway executes nothing of it.
   */
  #greet(
    { deviceId, attached: isKnown }: GatewayCredential,
    devInfo: Readonly<Record<string, string>>,
    { address, from }: ArrivedPackage,
    nonces: SessionNonces,
  ): Work {
    const { mayBeGateway, vocabulary, work, earlyWork } = this.#parts;
    const mayBe = mayBeGateway(deviceId);
    // A device that has the object GwConfig is a DM Gateway.
    const mode = { name: 'Get' as const, uri: nodeAt(vocabulary, 'GwConfig', 'Mode') };
    const questions: readonly Operation[] = [
      { name: 'Get', uri: './DevDetail/FwV' },
      { name: 'Get', uri: './DevDetail/DevTyp' },
      ...(mayBe ? [mode] : []),
    ];
    const answered = ([outcome, kind, asGateway]: readonly OperationOutcome[]) => {
      const found = (asked: OperationOutcome | undefined) =>
        asked && isOk(asked.status) ? asked.results[0]?.data : undefined;
      // A new bootstrap may have replaced the credential during the session, so it is read again.
      const credential = this.#parts.credentials.get(deviceId);
      if (!credential) return false;
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
      return true;
    };
    return questionsFirst({
      questions,
      answered,
      work: () => work?.(deviceId),
      early: isKnown ? earlyWork?.(deviceId) : undefined,
    });
  }
}
