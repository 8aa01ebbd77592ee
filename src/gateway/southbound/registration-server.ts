import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import { Code } from '../../wire/coap/codes.ts';
import { ContentFormat } from '../../wire/coap/content-formats.ts';
import { type CoapRequest, type Remote, type Reply, refusal, reply } from '../../wire/coap/message.ts';
import { Option, text } from '../../wire/coap/options.ts';
import type { Resource } from '../../wire/coap/router.ts';
import {
  bindingLength,
  queryOf,
  readLifetime,
  readObjects,
  readRegistration,
} from '../../wire/lwm2m/registration.ts';
import { paths, resourceTypes } from '../../wire/resources.ts';
import type { Registration } from '../store/registrations.ts';
import type { LocalEndpoint } from './coap-network.ts';
import { PendingRegistrations } from './pending-registrations.ts';
import { RegistrationProof, type RegistrationProofParts } from './registration-proof.ts';

export interface RegistrationServerParts extends Omit<RegistrationProofParts, 'pending'> {
  /** Whether a client with this endpoint name may register here, where the sender has no key or one of this name. */
  readonly isAllowed: (deviceId: string, remote: Remote) => boolean;
  /**
   * Whether the sender of a request is a client of this name that has joined, or joins now.
   * @throws {PosternError} `forbidden`, `full`, `storage`
   */
  readonly isJoined: (deviceId: string, remote: Remote) => boolean;
  /** Whether it is attached as an LwM2M client. */
  readonly isAttached: (deviceId: string) => boolean;
  /** The device that has proved itself at the address of this remote, where nobody may forge it. */
  readonly deviceAt: (remote: Remote) => string | undefined;
  /** Whether an OMA DM device with this name is attached. */
  readonly isOther: (deviceId: string) => boolean;
  /** Called when a client has deregistered. */
  readonly left: (deviceId: string) => void;
  readonly entropy: Entropy;
}

/** Random bytes in the path of a registration. Anyone who knows the path can change the registration. */
const locationBytes = 9;

/**
 * CoAP resource `/rd`: registrations of LwM2M clients (LwM2M core 1.1, section 6.2). A registration is pending until its client
 * has answered (`RegistrationProof`). Meanwhile an earlier registration of the client stays valid.
 */
export class RegistrationServer implements AsyncDisposable {
  readonly #parts: RegistrationServerParts;
  readonly #pending = new PendingRegistrations();
  readonly #proof: RegistrationProof;

  constructor(parts: RegistrationServerParts) {
    this.#parts = parts;
    this.#proof = new RegistrationProof({ ...parts, pending: this.#pending });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#proof[Symbol.asyncDispose]();
  }

  /** The registration of the attached client that has sent a request: by its key, else by the place where it registered. */
  senderOf(remote: Remote): Registration | undefined {
    const { identity, address, port } = remote;
    const deviceId = identity ?? this.#parts.deviceAt(remote) ?? '';
    const known = this.#parts.registrations.get(deviceId);
    const isThere = identity !== undefined || (known?.address === address && known.port === port);
    return known && isThere && this.#isOwn(deviceId, remote) && this.#parts.isAttached(deviceId)
      ? known
      : undefined;
  }

  /** Whether the sender of a request has registered and not answered yet. */
  isAwaited(remote: Remote): boolean {
    return this.#pending.isAwaited(remote);
  }

  resources(local: LocalEndpoint): Resource[] {
    const attributes = { rt: resourceTypes.registrations, ct: String(ContentFormat.LinkFormat) };
    return [
      {
        path: paths.registrations,
        subtree: true,
        methods: {
          POST: (request) => this.#told(request, () => this.#update(request, local)),
          DELETE: (request) => this.#deregister(request),
        },
      },
      {
        path: paths.registrations,
        links: () => [{ target: paths.registrations, attributes }],
        methods: { POST: (request) => this.#told(request, () => this.#register(request, local)) },
      },
    ];
  }

  /** Answers a request. Tells why, when it is refused. */
  async #told(request: CoapRequest, answer: () => Reply | Promise<Reply>): Promise<Reply> {
    try {
      return await answer();
    } catch (thrown) {
      const { code, message: reason } = asPosternError(thrown);
      const name = queryOf(request.query).get('ep') ?? this.#at(request)?.registration.deviceId ?? '';
      const fields = { device: name.slice(0, 200), peer: request.remote.address, reason };
      this.#parts.events.emit('registration.refused', fields);
      if (code === 'unsupportedVersion') return refusal(Code.PreconditionFailed, reason);
      throw thrown;
    }
  }

  /**
   * @throws {PosternError} `malformed`, `tooLarge`, `unsupportedVersion`, `forbidden` for a name that is not
   * configured or is not what the client proved to be, `conflict` when the name is in use elsewhere, `storage`
   */
  async #register(request: CoapRequest, local: LocalEndpoint): Promise<Reply> {
    const { isJoined, isOther, livesElsewhere, registrations, entropy, events } = this.#parts;
    const { remote, payload, query } = request;
    const { endpoint, objects, ...rest } = readRegistration(query, payload);
    const peer = remote.address;
    const isListed = this.#isListed(endpoint, remote);
    if (!isListed && !isJoined(endpoint, remote))
      throw new PosternError('forbidden', 'a client with this endpoint name may not register here');
    if (isOther(endpoint)) throw new PosternError('conflict', 'an OMA DM device with this name is attached');
    const proven = isListed && remote.identity !== undefined;
    // Whoever proves the name by its key is the client, by whichever of its sockets: nobody keeps the name from it.
    if (remote.identity === undefined && (await livesElsewhere(endpoint, remote))) {
      events.emit('registration.duplicate', { device: endpoint, peer });
      return refusal(Code.Conflict, 'a client with this name is attached elsewhere');
    }
    registrations.tryDisk();
    const location = Buffer.from(entropy.bytes(locationBytes)).toString('base64url');
    const registration: Registration = {
      deviceId: endpoint,
      location,
      address: remote.address,
      port: remote.port,
      heardOn: local.bound,
      ...rest,
      ...objects,
      ...(proven && { proven }),
      ...(remote.identity !== undefined && { keyed: true }),
    };
    this.#pending.add(registration, registrations.get(endpoint)?.location, payload.length);
    events.emit('registration.taken', { device: endpoint, peer, version: rest.version });
    this.#proof.ask(location, remote, local);
    return reply(Code.Created, {
      options: [text(Option.LocationPath, 'rd'), text(Option.LocationPath, location)],
    });
  }

  /** @throws {PosternError} `malformed`, `tooLarge` */
  #update(request: CoapRequest, local: LocalEndpoint): Reply {
    const found = this.#at(request);
    if (!found) return unknown;
    const { isPending, registration: known } = found;
    const { remote, query, payload } = request;
    const given = queryOf(query);
    const lifetime = readLifetime(given.get('lt')) ?? known.lifetime;
    const binding = given.get('b')?.slice(0, bindingLength);
    const updated: Registration = {
      ...known,
      address: remote.address,
      port: remote.port,
      heardOn: local.bound,
      lifetime,
      ...(binding !== undefined && { binding }),
      queueMode: given.has('Q') || (binding === undefined ? known.queueMode : binding.includes('Q')),
      ...(payload.length > 0 && keepFormats(readObjects(payload), known)),
      ...(remote.identity !== undefined && { keyed: true }),
    };
    const { deviceId, location, address, port, heardOn } = known;
    const hasMoved = remote.address !== address || remote.port !== port || heardOn !== local.bound;
    if (isPending) this.#pending.update(updated, payload.length);
    // An update without changes needs no write to the disk.
    else if (JSON.stringify(updated) !== JSON.stringify(known)) this.#parts.registrations.put(updated);
    // Whoever has a key proves by it that the new address is its own.
    if (!isPending && (!hasMoved || remote.identity !== undefined)) this.#parts.heard(deviceId, updated);
    if (hasMoved || payload.length > 0) this.#proof.ask(location, remote, local);
    return reply(Code.Changed);
  }

  #deregister(request: CoapRequest): Reply {
    const found = this.#at(request);
    if (!found) return unknown;
    const { isPending, registration } = found;
    if (isPending) this.#pending.end(registration.location);
    else {
      // A client whose leave could not be stored is still registered, and repeats it.
      this.#parts.left(registration.deviceId);
      this.#parts.registrations.delete(registration.deviceId);
    }
    return reply(Code.Deleted);
  }

  /** Whether a client of this name is served, and the sender of a request has no key or the one of this client. */
  #isListed(deviceId: string, remote: Remote): boolean {
    const { identity = deviceId } = remote;
    return identity === deviceId && this.#parts.isAllowed(deviceId, remote);
  }

  /** Whether the sender of a request may be the registered client of this name. */
  #isOwn(deviceId: string, remote: Remote): boolean {
    const { isJoined } = this.#parts;
    return (
      this.#isListed(deviceId, remote) || (remote.credential !== 'joining' && isJoined(deviceId, remote))
    );
  }

  /**
   * The registration of a request: one that waits for the answer of its client, or that of an attached client. To know its path is
   * not enough where the client has a key, and the list may have lost the client since it registered.
   */
  #at({ path, remote }: CoapRequest): { registration: Registration; isPending: boolean } | undefined {
    const { registrations, isAttached } = this.#parts;
    const [, location = ''] = path.length === 2 ? path : [];
    const pending = this.#pending.at(location)?.registration;
    const registration = pending ?? registrations.at(location);
    if (!registration) return undefined;
    const { deviceId } = registration;
    return this.#isOwn(deviceId, remote) && (pending || isAttached(deviceId))
      ? { registration, isPending: !!pending }
      : undefined;
  }
}

const unknown: Reply = refusal(Code.NotFound, 'there is no such registration; register again');

/** An update may leave out content formats and root path. Then the registered ones stay valid. */
const keepFormats = (objects: ReturnType<typeof readObjects>, known: Registration) => ({
  paths: objects.paths,
  ...(objects.formats.length > 0 && { formats: objects.formats }),
  root: objects.root.length > 0 ? objects.root : known.root,
});
