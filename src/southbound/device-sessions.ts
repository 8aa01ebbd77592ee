import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock, Timer } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import type { Events } from '../base/events.ts';
import { Code } from '../coap/codes.ts';
import { ContentFormat, mediaTypeOf } from '../coap/content-formats.ts';
import { type CoapRequest, type Remote, type Reply, refusal, reply } from '../coap/message.ts';
import type { Resource } from '../coap/router.ts';
import { ServerSession, type Work } from '../dm/server-session.ts';
import { DmStatus, isOk } from '../dm/status.ts';
import type { Credentials, GatewayCredential } from '../store/credentials.ts';
import { decodeMessage, encodeMessage, isSupported } from '../syncml/codec.ts';
import type { LocalEndpoint } from './coap-network.ts';
import { isDeviceId, paths, resourceTypes } from './resources.ts';

/** What a device told of itself when it and the gateway had proved themselves to each other. */
export interface AttachedDevice {
  readonly deviceId: string;
  readonly credential: GatewayCredential;
  readonly remote: Remote;
  readonly manufacturer?: string;
  readonly model?: string;
  readonly firmware?: string;
}

export interface DeviceSessionsParts {
  readonly gatewayId: string;
  readonly credentials: Credentials;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  readonly attached: (device: AttachedDevice) => void;
  /** A device proved itself from this address. */
  readonly proved: (deviceId: string, remote: Remote) => void;
}

interface Open {
  readonly session: ServerSession;
  readonly deviceId: string;
  idle: Timer;
}

/** Sessions at one time, and milliseconds that one may lie still. At the bound the one heard longest ago goes. */
export const sessionLimits = { sessions: 256, idle: 60_000 } as const;

/** The gateway as DM server of its devices: the resource `/dm`. */
export class DeviceSessions {
  readonly #parts: DeviceSessionsParts;
  readonly #open: BoundedMap<string, Open>;

  constructor(parts: DeviceSessionsParts) {
    this.#parts = parts;
    this.#open = new BoundedMap(sessionLimits.sessions, (_, evicted) => {
      evicted.idle.cancel();
      void this.#abandon(evicted, DmStatus.DeviceFull, 'too many sessions');
    });
  }

  /** Sessions under way; those that ended stay for a while to answer repetitions, and do not count. */
  get size(): number {
    return this.#open.values().reduce((count, { session }) => count + (session.outcome ? 0 : 1), 0);
  }

  resource(local: LocalEndpoint): Resource {
    const attributes = {
      rt: resourceTypes.sessions,
      ct: `${ContentFormat.SyncmlXml} ${ContentFormat.SyncmlCbor}`,
    };
    return {
      path: paths.sessions,
      links: () => [{ target: paths.sessions, attributes }],
      methods: { POST: (request) => this.#receive(request, local) },
    };
  }

  async stop(): Promise<void> {
    for (const [key, open] of [...this.#open.entries()]) {
      this.#close(key, open);
      await this.#abandon(open, DmStatus.SessionAborted, 'the gateway stops');
    }
  }

  async #receive(request: CoapRequest, local: LocalEndpoint): Promise<Reply> {
    const { contentFormat = ContentFormat.SyncmlXml, remote, payload } = request;
    const mediaType = mediaTypeOf(contentFormat);
    if (mediaType === undefined || !isSupported(mediaType))
      return refusal(Code.UnsupportedContentFormat, 'a DM package comes as 65001 or 65003');
    const message = decodeMessage(payload, mediaType);
    const { source, sessionId, msgId } = message.header;
    const deviceId = source.locUri;
    const credential = isDeviceId(deviceId) ? this.#parts.credentials.get(deviceId) : undefined;
    if (!credential) {
      this.#parts.events.emit('warn', 'session.unknown-device', {
        device: deviceId.slice(0, 200),
        peer: remote.address,
      });
      return refusal(
        Code.Forbidden,
        `no account here for this device; bootstrap it first at ${paths.bootstrap}`,
      );
    }
    const key = `${remote.key} ${deviceId} ${sessionId}`;
    const known = this.#open.get(key);
    // A first message opens a session anew, even if its number was used before.
    if (known && msgId === 1 && known.session.outcome) this.#close(key, known);
    const open = this.#open.get(key) ?? this.#begin(key, credential, sessionId, remote);
    this.#keepAwake(key, open);
    const answer = await open.session.receive(message);
    if (open.session.authenticated) {
      local.endpoint().vouch(remote);
      this.#parts.proved(deviceId, remote);
    }
    if (open.session.outcome) this.#ended(open, sessionId, remote);
    return reply(Code.Changed, { payload: encodeMessage(answer, mediaType), contentFormat });
  }

  #begin(key: string, credential: GatewayCredential, sessionId: string, remote: Remote): Open {
    const { gatewayId, credentials, entropy, events } = this.#parts;
    const { deviceId } = credential;
    const session = new ServerSession({
      ends: { local: gatewayId, remote: deviceId },
      account: {
        own: { name: gatewayId, secret: credential.serverSecret, nonce: credential.serverNonce },
        peer: { name: credential.clientName, secret: credential.clientSecret, nonce: credential.clientNonce },
      },
      saveNonces: ({ own, peer }) => {
        const current = credentials.get(deviceId);
        if (current?.clientSecret !== credential.clientSecret) return;
        credentials.put({
          ...current,
          ...(own && { serverNonce: own }),
          ...(peer && { clientNonce: peer }),
        });
      },
      entropy,
      sessionId,
      work: ({ devInfo }) => this.#greet(credential, devInfo, remote),
      alerted: ({ data }) => {
        events.emit('info', 'session.alert', { device: deviceId, alert: data });
        return DmStatus.Ok;
      },
    });
    events.emit('info', 'session.started', { device: deviceId, session: sessionId });
    const open: Open = { session, deviceId, idle: { cancel() {} } };
    this.#open.set(key, open);
    return open;
  }

  /** What the gateway asks each device that opens a session. Its answer shows that it took the gateway for the right one. */
  async *#greet(
    { deviceId }: GatewayCredential,
    devInfo: Readonly<Record<string, string>>,
    remote: Remote,
  ): Work {
    const [outcome] = yield [{ name: 'Get', uri: './DevDetail/FwV' }];
    // The credential may have been issued anew meanwhile; the one of now counts.
    const credential = this.#parts.credentials.get(deviceId);
    if (!outcome || !credential || outcome.status === DmStatus.NotExecuted) return;
    const firmware = isOk(outcome.status) ? outcome.results[0]?.data : undefined;
    this.#parts.attached({
      deviceId,
      credential,
      remote,
      ...(devInfo.Man !== undefined && { manufacturer: devInfo.Man }),
      ...(devInfo.Mod !== undefined && { model: devInfo.Mod }),
      ...(typeof firmware === 'string' && { firmware }),
    });
  }

  #keepAwake(key: string, open: Open): void {
    open.idle.cancel();
    open.idle = this.#parts.clock.after(sessionLimits.idle, () => {
      this.#open.delete(key);
      if (!open.session.outcome) void this.#abandon(open, 408, 'the device did not come back');
    });
  }

  #close(key: string, open: Open): void {
    open.idle.cancel();
    this.#open.delete(key);
  }

  /** It stays for a while, so that a package which comes again gets the same answer. */
  #ended({ session, deviceId }: Open, sessionId: string, { address }: Remote): void {
    const { status = 0, reason = '' } = session.outcome ?? {};
    this.#parts.events.emit(
      isOk(status) ? 'info' : 'warn',
      isOk(status) ? 'session.ended' : 'session.failed',
      {
        device: deviceId,
        session: sessionId,
        status,
        reason,
        peer: address,
      },
    );
  }

  async #abandon({ session, deviceId }: Open, status: number, reason: string): Promise<void> {
    if (session.outcome) return;
    await session.abandon(status, reason);
    this.#parts.events.emit('warn', 'session.failed', { device: deviceId, status, reason });
  }
}
