import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { BootstrapOrigin } from '../../mo/device-record.ts';
import { GatewayMode } from '../../mo/gw-config.ts';
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
import { DeviceTasks } from './device-tasks.ts';
import type { LwM2mCalls } from './lwm2m-calls.ts';

export interface RegistrationServerParts {
  readonly registrations: Registrations;
  readonly calls: LwM2mCalls;
  /** Whether an endpoint of this name may register here. */
  readonly isAllowed: (deviceId: string) => boolean;
  /** Whether it is attached as an LwM2M client, and whether it is as something else. */
  readonly isAttached: (deviceId: string) => boolean;
  readonly isOther: (deviceId: string) => boolean;
  /** Whether a client of this name answers at another address than this. */
  readonly livesElsewhere: (deviceId: string, remote: Remote) => Promise<boolean>;
  readonly originOf: (deviceId: string) => BootstrapOrigin;
  readonly attached: (device: AttachedDevice) => void;
  readonly left: (deviceId: string) => void;
  /** A client that is attached was heard, from there. */
  readonly heard: (deviceId: string, remote: Remote) => void;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Random octets in the path of a registration: who knows the path may change the registration. */
const locationBytes = 9;

/** What the inventory says of a client, by resources of its object Device. */
const described = { 0: 'manufacturer', 1: 'model', 3: 'firmware', 17: 'deviceType' } as const;

/**
 * `/rd`: registrations of LwM2M clients (LwM2M core 1.1, section 6.2). Whoever registers is asked for its object Device at
 * the address it registered from, and is attached when it answers: a forged source address attaches nothing.
 */
export class RegistrationServer implements AsyncDisposable {
  readonly #parts: RegistrationServerParts;
  readonly #probing: DeviceTasks;

  constructor(parts: RegistrationServerParts) {
    this.#parts = parts;
    this.#probing = new DeviceTasks(parts.clock);
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

  /** @throws {PosternError} `malformed`, `unsupportedVersion`, `forbidden`, `conflict` */
  async #register(request: CoapRequest, local: LocalEndpoint): Promise<Reply> {
    const { isAllowed, isOther, livesElsewhere, registrations, entropy, events } = this.#parts;
    const { remote, payload, query } = request;
    const { endpoint, objects, ...rest } = readRegistration(query, payload);
    const peer = remote.address;
    if (!isAllowed(endpoint)) {
      events.emit('registration.refused', { device: endpoint.slice(0, 200), peer });
      throw new PosternError('forbidden', 'no endpoint of this name may register here');
    }
    if (isOther(endpoint))
      throw new PosternError('conflict', 'a device of this name is attached that speaks OMA DM');
    if (await livesElsewhere(endpoint, remote)) {
      events.emit('registration.duplicate', { device: endpoint, peer });
      throw new PosternError('conflict', 'a client of this name is attached and answers elsewhere');
    }
    const location = Buffer.from(entropy.bytes(locationBytes)).toString('base64url');
    const registration: Registration = {
      deviceId: endpoint,
      location,
      address: remote.address,
      port: remote.port,
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

  /** @throws {PosternError} `malformed` */
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
      lifetime,
      queueMode: given.has('Q') || (binding === undefined ? known.queueMode : binding.includes('Q')),
      ...(payload.length > 0 && keepFormats(readObjects(payload), known)),
    };
    const { deviceId, address, port } = known;
    const hasMoved = remote.address !== address || remote.port !== port;
    // What only says that it is there costs no write.
    if (hasMoved || lifetime !== known.lifetime || payload.length > 0) this.#parts.registrations.put(updated);
    if (hasMoved || payload.length > 0) this.#probe(deviceId, remote, local);
    else this.#parts.heard(deviceId, remote);
    return reply(Code.Changed);
  }

  #deregister(request: CoapRequest): Reply {
    const known = this.#at(request);
    if (!known) return unknown;
    this.#parts.registrations.delete(known.deviceId);
    this.#parts.left(known.deviceId);
    return reply(Code.Deleted);
  }

  /** A registration is as good as its device is attached, or about to be. */
  #at({ path }: CoapRequest): Registration | undefined {
    const found = path.length === 2 ? this.#parts.registrations.at(path[1] ?? '') : undefined;
    const isGood = found && (this.#parts.isAttached(found.deviceId) || this.#probing.has(found.deviceId));
    return isGood ? found : undefined;
  }

  /** Asks the client what it is, once its registration is answered. One that does not say so yet is asked once. */
  #probe(deviceId: string, remote: Remote, local: LocalEndpoint): void {
    this.#probing.begin(deviceId, () => this.#ask(deviceId, remote, local));
  }

  async #ask(deviceId: string, remote: Remote, local: LocalEndpoint): Promise<void> {
    const { registrations, calls, attached, heard, originOf, events } = this.#parts;
    const client = registrations.get(deviceId);
    if (!client || this.#probing.signal.aborted) return;
    let device: readonly Entry[] = [];
    try {
      device = await calls.read(client, [ObjectId.Device, 0], this.#probing.signal);
    } catch (thrown) {
      const { code, message } = asPosternError(thrown);
      if (this.#probing.signal.aborted) return;
      events.emit('registration.silent-device', { device: deviceId, reason: message });
      // What refuses is there all the same.
      if (code === 'timeout' || code === 'unavailable' || code === 'full') return;
    }
    // It may have changed, or left, while it was asked.
    const current = registrations.get(deviceId);
    if (!current || current.location !== client.location) return;
    // What it proved, it proved of the address of then.
    if (current.address !== client.address || current.port !== client.port)
      return await this.#ask(deviceId, remoteOf(current), local);
    local.endpoint().vouch(remote);
    try {
      attached({
        deviceId,
        mode: GatewayMode.Adaptation,
        origin: originOf(deviceId),
        protocol: 'LwM2M',
        address: coapUri(remote.address, remote.port),
        isGateway: false,
        objects: current.paths.map(pathText).join(' '),
        ...describe(device),
      });
    } catch (thrown) {
      const { message } = asPosternError(thrown);
      events.emit('registration.not-attached', { device: deviceId, reason: message });
      registrations.delete(deviceId);
      return;
    }
    heard(deviceId, remote);
    events.emit('registration.proven', { device: deviceId, ...describe(device) });
  }
}

const unknown: Reply = refusal(Code.NotFound, 'no such registration; register again');

const remoteOf = ({ address, port }: Registration): Remote => ({
  address,
  port,
  key: remoteKey(address, port),
});

/** An update lists objects, and need not say again in which formats. */
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
