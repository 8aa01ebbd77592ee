import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import {
  ClientSession,
  type OutgoingAlert,
  runClientSession,
  type SessionOutcome,
} from '../dm/client-session.ts';
import type { ManagementTree } from '../dm/tree.ts';
import type { Accounts, DmAccount } from '../mo/dm-acc.ts';
import { contentFormatOf } from '../wire/coap/content-formats.ts';
import { Option } from '../wire/coap/options.ts';
import { coapBase, parseCoapUri } from '../wire/coap/uri.ts';
import { decodeMessage, encodeMessage, encodings } from '../wire/syncml/codec.ts';
import { sessionIdText } from '../wire/syncml/notification.ts';
import type { CoapStack } from './coap-stack.ts';

/** What `ServerSessions` needs from the device. */
export interface ServerSessionsParts {
  readonly deviceId: string;
  /** Coding of the packages. */
  readonly encoding: keyof typeof encodings;
  readonly accounts: Accounts;
  readonly tree: ManagementTree;
  readonly coap: CoapStack;
  readonly entropy: Entropy;
  readonly events: Events;
  /** Returns the gateway's resource to which packages for a DM server are sent. */
  readonly tunnelPlace: (serverId: string) => Promise<{ base: string; path: string; query: string }>;
  /** Called when a gateway says that it does not know the device (4.03). */
  readonly forget: (serverId: string) => void;
}

/** Milliseconds for one package and its answer, in a session with the gateway itself. */
const directTimeout = 20_000;
/** The same for a session with a DM server, whose answer the gateway has to wait for. */
const tunnelTimeout = 90_000;
/** Most sessions that run or wait at one time. */
const queuedSessions = 8;

/** The DM sessions of the device with its servers. One runs at a time, the others wait in order. */
export class ServerSessions {
  readonly #parts: ServerSessionsParts;
  #queue: Promise<unknown> = Promise.resolve();
  #queued = 0;
  #nextSessionId: number;

  constructor(parts: ServerSessionsParts) {
    this.#parts = parts;
    this.#nextSessionId = 1 + Math.floor(parts.entropy.uniform() * 0x7fff);
  }

  /** Resolves when all sessions that run or wait have ended. */
  get idle(): Promise<unknown> {
    return this.#queue.catch(() => {});
  }

  /**
   * Opens a session with a server for which the device has an account.
   * @param notifiedId session ID that Package #0 gave; `undefined` for a session that the device begins
   * @param alerts alerts for the first package
   * @throws {PosternError} `notFound` without an account, `full` when too many sessions wait, `timeout`, `unavailable`
   */
  async run(
    serverId: string,
    notifiedId: string | undefined,
    alerts: readonly OutgoingAlert[] = [],
  ): Promise<SessionOutcome> {
    if (this.#queued >= queuedSessions) throw new PosternError('full', 'too many sessions wait');
    this.#queued++;
    const run = this.#queue.then(() => this.#runSession(serverId, notifiedId, alerts));
    this.#queue = run.catch(() => {});
    try {
      return await run;
    } finally {
      this.#queued--;
    }
  }

  async #runSession(
    serverId: string,
    notifiedId: string | undefined,
    alerts: readonly OutgoingAlert[],
  ): Promise<SessionOutcome> {
    const account = this.#parts.accounts.find(serverId);
    if (!account) throw new PosternError('notFound', `no account for ${serverId}`);
    const sessionId = notifiedId ?? this.#takeSessionId();
    const mediaType = encodings[this.#parts.encoding];
    const tunnelled = !isDirect(account);
    const place = tunnelled ? await this.#parts.tunnelPlace(serverId) : placeOf(account.address);
    const session = new ClientSession({
      ends: { local: this.#parts.deviceId, remote: serverId },
      account,
      saveNonces: this.#parts.accounts.nonceKeeper(serverId),
      tree: this.#parts.tree,
      entropy: this.#parts.entropy,
      sessionId,
      mediaType,
      // A gateway that forwards a package could read what is in it.
      isPeerVerified: !tunnelled && account.transport !== undefined,
      notified: notifiedId !== undefined,
      alerts,
      executed: (command, uri, status) =>
        this.#parts.events.emit('device.command', {
          device: this.#parts.deviceId,
          server: serverId,
          command,
          uri,
          status,
        }),
    });
    this.#parts.events.emit('device.session-started', {
      device: this.#parts.deviceId,
      server: serverId,
      session: sessionId,
      tunnelled,
    });
    const outcome = await runClientSession(session, async (message, seal) => {
      const body = encodeMessage(message, mediaType);
      const hmac = seal(body);
      const { code, payload, maxAge, option } = await this.#parts.coap.request({
        method: 'POST',
        ...place,
        contentFormat: contentFormatOf(mediaType)!,
        payload: body,
        timeout: tunnelled ? tunnelTimeout : directTimeout,
        ...(hmac !== undefined && { options: { [Option.SyncmlHmac.number]: Buffer.from(hmac) } }),
      });
      if (code === '2.04') {
        const proof = option(Option.SyncmlHmac.number);
        return {
          message: decodeMessage(payload, mediaType),
          seal: { body: payload, hmac: proof && Buffer.from(proof).toString() },
        };
      }
      const why = `${place.path} answered ${code}: ${Buffer.from(payload).toString()}`;
      if (code === '4.03' && !tunnelled) this.#parts.forget(serverId);
      // What a gateway says of its tunnel is about another party.
      throw new PosternError('unavailable', why, {
        ...(maxAge !== undefined && !tunnelled && { retryAfter: maxAge }),
      });
    });
    this.#parts.events.emit('device.session-ended', {
      device: this.#parts.deviceId,
      server: serverId,
      session: sessionId,
      status: outcome.status,
    });
    return outcome;
  }

  #takeSessionId(): string {
    this.#nextSessionId = (this.#nextSessionId % 0xffff) + 1;
    return sessionIdText(this.#nextSessionId);
  }
}

/** Whether the server is a gateway, reached at its coap or coaps URI. Any other server is reached through the gateway's tunnel. */
export const isDirect = ({ address }: DmAccount): boolean => /^coaps?:/.test(address);

/**
 * Splits a coap or coaps URI into what is before its path, and the path.
 * @throws {PosternError} `malformed`
 */
export function placeOf(address: string): { base: string; path: string } {
  const { host, port, path, scheme } = parseCoapUri(address);
  return { base: coapBase(host, port, scheme), path: `/${path.join('/')}` };
}

/**
 * Whether two coap URIs have the same scheme, host and port. A zone makes no difference: it is known on one machine only, so an
 * account has none.
 * @throws {PosternError} `malformed`
 */
export function isSamePlace(one: string, other: string): boolean {
  const [a, b] = [parseCoapUri(one), parseCoapUri(other)];
  return a.scheme === b.scheme && a.port === b.port && a.host.split('%')[0] === b.host.split('%')[0];
}
