import { BoundedMap } from '../../base/bounded-map.ts';
import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { CoapAnswer, CoapCall } from '../../wire/coap/blockwise-client.ts';
import { Code, codeText, isSuccess } from '../../wire/coap/codes.ts';
import { ContentFormat } from '../../wire/coap/content-formats.ts';
import { parseLinks } from '../../wire/coap/link-format.ts';
import { type CoapRequest, type Remote, type Reply, refusal, reply } from '../../wire/coap/message.ts';
import type { Resource } from '../../wire/coap/router.ts';
import { coapUri } from '../../wire/coap/uri.ts';
import { encodeContent } from '../../wire/lwm2m/content.ts';
import { ObjectId } from '../../wire/lwm2m/objects.ts';
import type { Path } from '../../wire/lwm2m/path.ts';
import { queryOf } from '../../wire/lwm2m/registration.ts';
import type { Entry, Value } from '../../wire/lwm2m/resource.ts';
import { deviceIdRule, isDeviceId, paths, resourceTypes } from '../../wire/resources.ts';
import { issuedContext, ofDevice, secretBytes } from '../../wire/secure/transport-keys.ts';
import type { DeviceKeys } from '../store/device-keys.ts';
import { type AccountSecurity, freshIdentity, securityOf } from './account-security.ts';
import type { LocalEndpoint } from './coap-network.ts';
import type { DeviceLocator } from './device-locator.ts';
import { DeviceTasks } from './device-tasks.ts';
import type { LwM2mCalls } from './lwm2m-calls.ts';

export interface LwM2mBootstrapParts {
  /** Whether a client with this endpoint name may be bootstrapped, where the sender has no key or one of this name. */
  readonly isAllowed: (deviceId: string, remote: Remote) => boolean;
  /**
   * Whether the sender of a request is a client of this name that has joined, or joins now.
   * @throws {PosternError} `forbidden`, `full`, `storage`
   */
  readonly isJoined: (deviceId: string, remote: Remote) => boolean;
  readonly call: DeviceLocator['call'];
  readonly calls: LwM2mCalls;
  /** Registration lifetime in seconds that is written to the client. */
  readonly lifetime: number;
  readonly keys: DeviceKeys;
  /** Whether a client is to use OSCORE, also when it is bootstrapped over DTLS. */
  readonly isForOscore: (deviceId: string) => boolean;
  /** URI of a path over CoAP that OSCORE protects, at the address of a socket. */
  readonly oscoreUri: (local: LocalEndpoint, path: string) => string;
  /** @throws {PosternError} `storage` when the disk has taken no writes lately, and still takes none */
  readonly tryDisk: () => void;
  readonly entropy: Entropy;
  readonly clock: Clock;
  readonly events: Events;
}

/** Short Server ID of the gateway in a client. */
const shortServerId = 1;
/** Security Modes "Pre-Shared Key" and "NoSec" (LwM2M core 1.1, appendix E.1). */
const securityModes = { preShared: 0, none: 3 } as const;
/** Milliseconds for each exchange. */
const timeout = 20_000;
/**
 * Maximum number of bootstraps at the same time, of clients remembered as bootstrapped here, and of instances that are deleted
 * one by one.
 */
const limits = { atWork: 64, remembered: 16_384, deletions: 16 } as const;
/** Formats of a bootstrap pack (LwM2M core 1.2, section 6.1.7.5). */
const packFormats: readonly number[] = [ContentFormat.SenmlCbor, ContentFormat.SenmlJson];

/**
 * CoAP resources `/bs` and `/bspack`: the gateway as LwM2M bootstrap server. It gives a client an account for the
 * gateway as LwM2M server (LwM2M core 1.1, section 6.1).
 */
export class LwM2mBootstrapServer implements AsyncDisposable {
  readonly #parts: LwM2mBootstrapParts;
  readonly #tasks: DeviceTasks;
  /** Where the clients in bootstrap are. */
  readonly #places = new BoundedMap<string, string>(limits.atWork);
  readonly #bootstrapped = new BoundedMap<string, true>(limits.remembered);

  constructor(parts: LwM2mBootstrapParts) {
    this.#parts = parts;
    this.#tasks = new DeviceTasks('bootstrap', parts);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tasks[Symbol.asyncDispose]();
  }

  /** Whether a client was bootstrapped here: since the start, or with a key that it still has. */
  has(deviceId: string): boolean {
    return this.#bootstrapped.has(deviceId) || this.#parts.keys.of(deviceId).length > 0;
  }

  resources(local: LocalEndpoint): Resource[] {
    const link = { target: paths.lwm2mBootstrap, attributes: { rt: resourceTypes.lwm2mBootstrap } };
    return [
      {
        path: paths.lwm2mBootstrap,
        links: () => [link],
        methods: { POST: (request) => this.#requested(request, local) },
      },
      { path: paths.lwm2mBootstrapPack, methods: { GET: (request) => this.#pack(request, local) } },
    ];
  }

  /**
   * Bootstrap-Request. The bootstrap itself starts after the answer.
   * @throws {PosternError} `malformed`, `forbidden`, `unavailable` when too many bootstraps run, or one of this client does at
   *   another address
   */
  #requested(request: CoapRequest, local: LocalEndpoint): Reply {
    const deviceId = this.#allowed(request);
    if (this.#tasks.size >= limits.atWork && !this.#tasks.has(deviceId))
      throw new PosternError('unavailable', `${limits.atWork} bootstraps are running already`);
    if (this.#tasks.has(deviceId) && this.#places.get(deviceId) !== request.remote.key)
      throw new PosternError('unavailable', 'a bootstrap of this client runs at another address');
    this.#places.set(deviceId, request.remote.key);
    const wanted = Number(queryOf(request.query).get('pct') ?? Number.NaN);
    this.#tasks.begin(deviceId, () => this.#bootstrap(deviceId, request.remote, local, wanted));
    return reply(Code.Changed);
  }

  /**
   * Bootstrap-Pack-Request: the whole account in one answer. Nothing tells where the account of the bootstrap server is, so it is
   * assumed at instance 0.
   * @throws {PosternError} `malformed`, `forbidden`, `storage`
   */
  #pack(request: CoapRequest, local: LocalEndpoint): Reply {
    const deviceId = this.#allowed(request);
    const contentFormat = request.accept ?? ContentFormat.SenmlCbor;
    if (!packFormats.includes(contentFormat))
      return refusal(Code.NotAcceptable, `content formats of the pack: ${packFormats.join(' ')}`);
    const key = this.#newKey(deviceId, local, request.remote);
    if (key) this.#parts.keys.add(deviceId, key);
    const entries = [...this.#oscore(1, key), ...this.#security(local, 1, 1, key), ...this.#server()];
    this.#bootstrapped.set(deviceId, true);
    this.#parts.events.emit('lwm2m.bootstrapped', { device: deviceId, peer: request.remote.address });
    return reply(Code.Content, { payload: encodeContent(contentFormat, entries, []), contentFormat });
  }

  /**
   * Returns the endpoint name of a request.
   * @throws {PosternError} `malformed` without a name, `forbidden` for a name that is not configured, or that is not the one of
   *   the sender's key
   */
  #allowed({ query, remote }: CoapRequest): string {
    // A client that has proved its name may leave it out (LwM2M core 1.1, section 6.1.7.1).
    const proved = remote.credential === 'joining' ? undefined : remote.identity;
    const deviceId = queryOf(query).get('ep') ?? proved;
    if (!isDeviceId(deviceId))
      throw new PosternError('malformed', `?ep=<endpoint name>: expected ${deviceIdRule}`);
    if (this.#isServed(deviceId, remote)) return deviceId;
    const isOwn = remote.identity === undefined || remote.identity === deviceId;
    const fields = { device: deviceId.slice(0, 200), peer: remote.address };
    this.#parts.events.emit('bootstrap.refused', {
      ...fields,
      reason: isOwn ? 'unknown device' : `the key is that of ${remote.identity}`,
    });
    throw new PosternError('forbidden', 'a client with this endpoint name is not bootstrapped here');
  }

  /** @throws {PosternError} as `LwM2mBootstrapParts.isJoined` */
  #isServed(deviceId: string, remote: Remote): boolean {
    const { isAllowed, isJoined } = this.#parts;
    const { identity = deviceId } = remote;
    return (identity === deviceId && isAllowed(deviceId, remote)) || isJoined(deviceId, remote);
  }

  async #bootstrap(deviceId: string, remote: Remote, local: LocalEndpoint, wanted: number): Promise<void> {
    const { call, calls, events, keys, tryDisk } = this.#parts;
    const { signal } = this.#tasks;
    const { address, port } = remote;
    const heardOn = local.bound;
    const client = { deviceId, address, port, heardOn, version: '1.1', root: [], formats: [wanted] };
    const send = async (request: Omit<CoapCall, 'timeout' | 'signal'>): Promise<CoapAnswer> =>
      await call(address, port, { ...request, timeout, signal, isOwed: true }, heardOn);
    try {
      const find = async () =>
        accountsOf(
          await send({ method: Code.GET, path: [], accept: ContentFormat.LinkFormat }),
          local.scheme === 'coap' && remote.identity !== undefined,
        );
      let accounts = await find();
      // Before the client loses its former account.
      tryDisk();
      const key = this.#newKey(deviceId, local, remote);
      const party = key && deviceId;
      for (const path of accounts.stale) {
        const answer = await send({ method: Code.DELETE, path: path.split('/') });
        const { code } = answer;
        // It was deleted already, or a client without this object says so by 4.00 (LwM2M 1.0).
        if (code !== Code.NotFound && (path.includes('/') || code !== Code.BadRequest))
          expectDone(deviceId, 'Delete', answer);
      }
      // The only one that is left is that of the bootstrap server.
      if (accounts.isUnclear) accounts = await find();
      const { free: instance, context } = accounts;
      // A client may look for the context as soon as something links to it.
      // No other party may read the key, wherever the client is by now.
      for (const [path, entries] of [
        [[ObjectId.Oscore, context], this.#oscore(context, key)],
        [[ObjectId.Security, instance], this.#security(local, instance, context, key)],
        [[ObjectId.Server, 0], this.#server()],
      ] as const)
        if (entries.length > 0) await calls.write(client, path, entries, { signal, party });
      // Without a Finish the client keeps its former account (section 6.1). So a bootstrap that is broken off takes no key away
      // and gives none. After it, the former key is valid until the client uses this one: the answer to the Finish may be lost.
      // The client may have been removed meanwhile.
      if (!this.#isServed(deviceId, remote))
        throw new PosternError('forbidden', `${deviceId} may not be bootstrapped any more`);
      if (key) keys.add(deviceId, key);
      expectDone(deviceId, 'Finish', await send({ method: Code.POST, path: ['bs'] }));
      this.#bootstrapped.set(deviceId, true);
      events.emit('lwm2m.bootstrapped', { device: deviceId, peer: address });
    } catch (thrown) {
      if (signal.aborted) return;
      const { message } = asPosternError(thrown);
      events.emit('lwm2m.bootstrap-failed', { device: deviceId, peer: address, reason: message });
    }
  }

  /** A new key for a client, which is not valid yet. Undefined where its account has none (`securityOf`). */
  #newKey(deviceId: string, local: LocalEndpoint, remote: Remote): Key | undefined {
    const { entropy, isForOscore } = this.#parts;
    const security = securityOf(local, remote, isForOscore(deviceId));
    if (!security) return undefined;
    const octets = entropy.bytes(secretBytes);
    // The specification wants a Master Secret that is text, though its type is opaque (LwM2M core 1.1, appendix E.9).
    const key = security === 'oscore' ? Buffer.from(Buffer.from(octets).toString('base64url')) : octets;
    return { security, identity: freshIdentity(security, entropy), key };
  }

  /** Resources of the object Security. It links to the security context, where there is one. */
  #security(local: LocalEndpoint, instance: number, context: number, key: Key | undefined): readonly Entry[] {
    const none = new Uint8Array();
    const isOscore = key?.security === 'oscore';
    const preShared = isOscore ? undefined : key;
    return resourcesOf([ObjectId.Security, instance], {
      0: isOscore ? this.#parts.oscoreUri(local, '') : coapUri(local.address, local.port, '', local.scheme),
      1: false,
      2: preShared ? securityModes.preShared : securityModes.none,
      3: preShared ? Buffer.from(preShared.identity) : none,
      4: none,
      5: preShared?.key ?? none,
      10: shortServerId,
      ...(isOscore && { 17: `${ObjectId.Oscore}:${context}` }),
    });
  }

  /** Resources of the object OSCORE: the context as the client has it. None where the key is not for OSCORE. */
  #oscore(instance: number, key: Key | undefined): readonly Entry[] {
    if (key?.security !== 'oscore') return [];
    const { masterSecret, senderId, recipientId } = ofDevice(issuedContext(key.identity, key.key));
    return resourcesOf([ObjectId.Oscore, instance], {
      0: masterSecret,
      1: senderId,
      2: recipientId,
      3: algorithms.aead,
      4: algorithms.hmac,
      5: new Uint8Array(),
    });
  }

  /** Resources of the object Server. */
  #server(): readonly Entry[] {
    return resourcesOf([ObjectId.Server, 0], {
      0: shortServerId,
      1: this.#parts.lifetime,
      6: true,
      7: 'U',
    });
  }
}

/** AES-CCM-16-64-128 and HMAC 256/256 in the registry of COSE (RFC 8152 sections 10.2 and 7.1). */
const algorithms = { aead: 10, hmac: 5 } as const;

interface Key {
  readonly security: AccountSecurity;
  readonly identity: string;
  readonly key: Uint8Array;
}

const resourcesOf = (instance: Path, values: Readonly<Record<number, Value>>): readonly Entry[] =>
  Object.entries(values).map(([id, value]) => ({ path: [...instance, Number(id)], value }));

/** What stands for the bootstrap server in `ssid`: nothing (LwM2M core 1.1, section 6.1.7.3), or an ID that no server may have. */
const ownIds: ReadonlySet<unknown> = new Set([undefined, '0', '65535']);

/**
 * Finds by the answer to Bootstrap-Discover which instances of the objects Security, Server, Access Control and OSCORE belong to
 * accounts of other servers, and which instance IDs of the objects Security and OSCORE do not overwrite the account of the bootstrap
 * server. If the answer does not show that account, it is assumed at instance 0, where it usually is. If several accounts look like
 * it, because the client names no servers, `isUnclear` is true. In both cases the objects are deleted as a whole: a client never
 * deletes the account of its bootstrap server (section 6.1.7.5). All other objects stay as they are.
 * @param isOscore the client's bootstrap account may have a security context
 */
function accountsOf({ code, payload }: CoapAnswer, isOscore: boolean) {
  const own: string[] = [];
  let stale: string[] = [];
  try {
    for (const { target, attributes } of isSuccess(code) ? parseLinks(Buffer.from(payload).toString()) : []) {
      const [, path, object] = /^\/((0|1|2|21)\/\d{1,5})$/.exec(target) ?? [];
      const isKept = (object === '0' || (isOscore && object === '21')) && ownIds.has(attributes.ssid);
      if (path) (isKept ? own : stale).push(path);
    }
  } catch {
    // What was read before the error shows no more than a list that is cut off.
  }
  const shown = own.filter((path) => path.startsWith('0/')).length;
  const isUnclear = shown > 1;
  if (shown !== 1 || stale.length > limits.deletions) stale = ['0', '1', '2', ...(isOscore ? [] : ['21'])];
  if (shown === 0) own.push('0/0', '21/0');
  const free = (of: number) => [0, 1, 2, 3].find((id) => !own.includes(`${of}/${id}`)) ?? 1;
  return { stale, isUnclear, free: free(ObjectId.Security), context: free(ObjectId.Oscore) };
}

/** @throws {PosternError} `unavailable` */
function expectDone(deviceId: string, what: string, { code }: CoapAnswer): void {
  if (!isSuccess(code))
    throw new PosternError('unavailable', `${deviceId} answered Bootstrap-${what} with ${codeText(code)}`);
}
