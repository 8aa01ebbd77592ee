import { persistently } from '../../base/background.ts';
import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { type BootstrapOrigin, GatewayMode } from '../../mo/device-record.ts';
import { Code } from '../../wire/coap/codes.ts';
import { ContentFormat } from '../../wire/coap/content-formats.ts';
import { type CoapRequest, type Remote, type Reply, refusal, reply } from '../../wire/coap/message.ts';
import { Option, text } from '../../wire/coap/options.ts';
import { remoteKey } from '../../wire/coap/peer.ts';
import type { Resource } from '../../wire/coap/router.ts';
import { coapUri } from '../../wire/coap/uri.ts';
import { ObjectId } from '../../wire/lwm2m/objects.ts';
import { pathText } from '../../wire/lwm2m/path.ts';
import { queryOf, readLifetime, readObjects, readRegistration } from '../../wire/lwm2m/registration.ts';
import { type Entry, textOf } from '../../wire/lwm2m/resource.ts';
import { paths, resourceTypes } from '../../wire/resources.ts';
import type { Registration, Registrations } from '../store/registrations.ts';
import type { AttachedDevice } from './associations.ts';
import type { LocalEndpoint } from './coap-network.ts';
import type { PeerAddress } from './device-addresses.ts';
import { DeviceTasks } from './device-tasks.ts';
import type { LwM2mCalls } from './lwm2m-calls.ts';

export interface RegistrationServerParts {
  readonly registrations: Registrations;
  readonly calls: LwM2mCalls;
  /** Whether a client with this endpoint name may register here. */
  readonly isAllowed: (deviceId: string) => boolean;
  /** Whether it is attached as an LwM2M client. */
  readonly isAttached: (deviceId: string) => boolean;
  /** Whether an OMA DM device with this name is attached. */
  readonly isOther: (deviceId: string) => boolean;
  /** Whether an attached client with this name is at an address other than `remote`. */
  readonly livesElsewhere: (deviceId: string, remote: Remote) => Promise<boolean>;
  readonly originOf: (deviceId: string) => BootstrapOrigin;
  /** Called when a client has answered at the address from which it registered. May throw. */
  readonly attached: (device: AttachedDevice) => void;
  /** Called when a client has deregistered. */
  readonly left: (deviceId: string) => void;
  /**
   * Called when an attached client was heard from this address: it used the path of its registration there, which only
   * this client knows, or it answered there after that.
   */
  readonly heard: (deviceId: string, from: PeerAddress) => void;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Random bytes in the path of a registration. Anyone who knows the path can change the registration. */
const locationBytes = 9;

/** Resources of the object Device that go into the inventory record of a client. */
const described = { 0: 'manufacturer', 1: 'model', 2: 'serial', 3: 'firmware', 17: 'deviceType' } as const;

/**
 * CoAP resource `/rd`: registrations of LwM2M clients (LwM2M core 1.1, section 6.2). After a registration the gateway
 * reads the object Device at the address from which the client registered. Only when the client answers is it attached,
 * so a forged source address attaches nothing.
 */
export class RegistrationServer implements AsyncDisposable {
  readonly #parts: RegistrationServerParts;
  readonly #probing: DeviceTasks;

  constructor(parts: RegistrationServerParts) {
    this.#parts = parts;
    this.#probing = new DeviceTasks('registration', parts);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#probing[Symbol.asyncDispose]();
  }

  resources(local: LocalEndpoint): Resource[] {
    const attributes = { rt: resourceTypes.registrations, ct: String(ContentFormat.LinkFormat) };
    return [
      {
        path: paths.registrations,
        subtree: true,
        methods: {
          POST: (request) => this.#update(request, local),
          DELETE: (request) => this.#deregister(request),
        },
      },
      {
        path: paths.registrations,
        links: () => [{ target: paths.registrations, attributes }],
        methods: { POST: (request) => this.#register(request, local) },
      },
    ];
  }

  /**
   * @throws {PosternError} `malformed`, `tooLarge`, `unsupportedVersion`, `forbidden` for a name that is not
   * configured or is not what the client proved to be, `conflict` when the name is in use elsewhere
   */
  async #register(request: CoapRequest, local: LocalEndpoint): Promise<Reply> {
    const { isAllowed, isOther, livesElsewhere, registrations, entropy, events } = this.#parts;
    const { remote, payload, query } = request;
    const { endpoint, objects, ...rest } = readRegistration(query, payload);
    const peer = remote.address;
    const { identity = endpoint } = remote;
    if (!isAllowed(endpoint) || identity !== endpoint) {
      events.emit('registration.refused', { device: endpoint.slice(0, 200), peer });
      throw new PosternError('forbidden', 'a client with this endpoint name may not register here');
    }
    if (isOther(endpoint)) throw new PosternError('conflict', 'an OMA DM device with this name is attached');
    if (await livesElsewhere(endpoint, remote)) {
      events.emit('registration.duplicate', { device: endpoint, peer });
      throw new PosternError('conflict', 'a client with this name is attached elsewhere');
    }
    const location = Buffer.from(entropy.bytes(locationBytes)).toString('base64url');
    const registration: Registration = {
      deviceId: endpoint,
      location,
      address: remote.address,
      port: remote.port,
      heardOn: local.bound,
      ...rest,
      ...objects,
    };
    registrations.put(registration);
    events.emit('registration.taken', { device: endpoint, peer, version: rest.version });
    this.#probe(endpoint, remote, local);
    return reply(Code.Created, {
      options: [text(Option.LocationPath, 'rd'), text(Option.LocationPath, location)],
    });
  }

  /** @throws {PosternError} `malformed`, `tooLarge` */
  #update(request: CoapRequest, local: LocalEndpoint): Reply {
    const known = this.#at(request);
    if (!known) return unknown;
    const { remote, query, payload } = request;
    const given = queryOf(query);
    const lifetime = readLifetime(given.get('lt')) ?? known.lifetime;
    const binding = given.get('b');
    const updated: Registration = {
      ...known,
      address: remote.address,
      port: remote.port,
      heardOn: local.bound,
      lifetime,
      queueMode: given.has('Q') || (binding === undefined ? known.queueMode : binding.includes('Q')),
      ...(payload.length > 0 && keepFormats(readObjects(payload), known)),
    };
    const { deviceId, address, port, heardOn } = known;
    const hasMoved = remote.address !== address || remote.port !== port || heardOn !== local.bound;
    // An update without changes needs no write to the disk.
    if (hasMoved || lifetime !== known.lifetime || payload.length > 0) this.#parts.registrations.put(updated);
    if (!hasMoved) this.#parts.heard(deviceId, updated);
    if (hasMoved || payload.length > 0) this.#probe(deviceId, remote, local);
    return reply(Code.Changed);
  }

  #deregister(request: CoapRequest): Reply {
    const known = this.#at(request);
    if (!known) return unknown;
    // A client whose leave could not be stored is still registered, and repeats it.
    this.#parts.left(known.deviceId);
    this.#parts.registrations.delete(known.deviceId);
    return reply(Code.Deleted);
  }

  /** The registration of a request; undefined unless its client is attached or being asked. */
  #at({ path }: CoapRequest): Registration | undefined {
    const found = path.length === 2 ? this.#parts.registrations.at(path[1] ?? '') : undefined;
    const isGood = found && (this.#parts.isAttached(found.deviceId) || this.#probing.has(found.deviceId));
    return isGood ? found : undefined;
  }

  /** Asks the client after its request was answered. Does nothing while the client is being asked already. */
  #probe(deviceId: string, remote: Remote, local: LocalEndpoint): void {
    this.#probing.begin(deviceId, () => this.#ask(deviceId, remote, local));
  }

  /** Reads the object Device of a client and attaches the client when it answers. */
  async #ask(deviceId: string, remote: Remote, local: LocalEndpoint): Promise<void> {
    const { registrations, calls, attached, heard, originOf, events } = this.#parts;
    const client = registrations.get(deviceId);
    if (!client || this.#probing.signal.aborted) return;
    let device: readonly Entry[] = [];
    let isThere = true;
    try {
      device = await calls.read(client, [ObjectId.Device, 0], this.#probing.signal);
    } catch (thrown) {
      const { code, message } = asPosternError(thrown);
      if (this.#probing.signal.aborted) return;
      events.emit('registration.silent-device', { device: deviceId, reason: message });
      // An error answer proves just as well that the client is there.
      isThere = code !== 'timeout' && code !== 'unavailable' && code !== 'full';
    }
    // The client may have left in the meantime.
    const current = registrations.get(deviceId);
    if (!current) return;
    // The answer proves only the earlier address. If the client has moved or registered again since, ask it again.
    const { location, address, port } = current;
    if (location !== client.location || address !== client.address || port !== client.port)
      return await this.#ask(deviceId, remoteOf(current), local);
    if (!isThere) return;
    local.endpoint().vouch(remote, deviceId);
    const attach = () =>
      attached({
        deviceId,
        mode: GatewayMode.Adaptation,
        origin: originOf(deviceId),
        protocol: 'LwM2M',
        address: coapUri(address, port),
        ...(current.heardOn !== undefined && { heardOn: current.heardOn }),
        isGateway: false,
        objects: current.paths.map(pathText).join(' '),
        ...describe(device),
      });
    if (!(await this.#attach(current, attach))) return;
    const now = registrations.get(deviceId);
    // It moved while the disk took no writes.
    if (now && (now.address !== address || now.port !== port))
      return await this.#ask(deviceId, remoteOf(now), local);
    heard(deviceId, current);
    const { serial: _, ...fields } = describe(device);
    events.emit('registration.proven', { device: deviceId, ...fields });
  }

  /**
   * Attaches a client. Repeats that while the disk does not take it: the client takes itself for registered, and would not be
   * heard of before its lifetime ends. Returns false when the client is not attached: it may not be, or has left, or has
   * registered again, or the gateway stops.
   */
  async #attach({ deviceId, location }: Registration, attach: () => void): Promise<boolean> {
    const { registrations, events } = this.#parts;
    let isAttached = false;
    const store = () => {
      if (registrations.get(deviceId)?.location !== location) return;
      try {
        attach();
        isAttached = true;
      } catch (thrown) {
        if (isPassing(thrown)) throw thrown;
        const { message } = asPosternError(thrown);
        events.emit('registration.not-attached', { device: deviceId, reason: message });
        registrations.delete(deviceId);
      }
    };
    await persistently(this.#parts, 'registration', store, this.#probing.signal);
    return isAttached;
  }
}

const isPassing = (thrown: unknown): boolean => asPosternError(thrown).code === 'storage';

const unknown: Reply = refusal(Code.NotFound, 'there is no such registration; register again');

const remoteOf = ({ address, port }: Registration): Remote => ({
  address,
  port,
  key: remoteKey(address, port),
});

/** An update may leave out content formats and root path. Then the registered ones stay valid. */
const keepFormats = (objects: ReturnType<typeof readObjects>, known: Registration) => ({
  paths: objects.paths,
  ...(objects.formats.length > 0 && { formats: objects.formats }),
  root: objects.root.length > 0 ? objects.root : known.root,
});

function describe(
  device: readonly Entry[],
): Readonly<Partial<Record<(typeof described)[keyof typeof described], string>>> {
  return Object.fromEntries(
    Object.entries(described).flatMap(([id, name]) => {
      const found = device.find(({ path }) => path.length === 3 && path[2] === Number(id));
      return found ? [[name, String(textOf(found.value)).slice(0, 255)]] : [];
    }),
  );
}
