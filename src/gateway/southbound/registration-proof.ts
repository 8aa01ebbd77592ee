import { persistently } from '../../base/background.ts';
import type { Clock } from '../../base/clock.ts';
import { asPosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { type BootstrapOrigin, GatewayMode } from '../../mo/device-record.ts';
import type { Remote } from '../../wire/coap/message.ts';
import { remoteKey } from '../../wire/coap/peer.ts';
import { coapUri } from '../../wire/coap/uri.ts';
import { ObjectId } from '../../wire/lwm2m/objects.ts';
import { pathText } from '../../wire/lwm2m/path.ts';
import { type Entry, textOf } from '../../wire/lwm2m/resource.ts';
import type { Registration, Registrations } from '../store/registrations.ts';
import type { AttachedDevice } from './associations.ts';
import type { LocalEndpoint } from './coap-network.ts';
import type { PeerAddress } from './device-addresses.ts';
import { DeviceTasks } from './device-tasks.ts';
import type { LwM2mCalls } from './lwm2m-calls.ts';
import type { PendingRegistrations } from './pending-registrations.ts';

export interface RegistrationProofParts {
  /** Whether a client of this name is served at all, as it is now. */
  readonly isServed: (deviceId: string) => boolean;
  readonly registrations: Registrations;
  readonly pending: PendingRegistrations;
  readonly calls: LwM2mCalls;
  /** Whether an attached client with this name is at an address other than `remote`. */
  readonly livesElsewhere: (deviceId: string, remote: Remote) => Promise<boolean>;
  readonly originOf: (deviceId: string) => BootstrapOrigin;
  /** Called when a client has answered at the address from which it registered. May throw. */
  readonly attached: (device: AttachedDevice) => void;
  /**
   * Called when an attached client was heard from this address: it used the path of its registration there, which only
   * this client knows, or it answered there after that.
   */
  readonly heard: (deviceId: string, from: PeerAddress) => void;
  readonly clock: Clock;
  readonly events: Events;
}

/**
 * Times that a client is asked that does not answer. It takes itself for registered, and would not be heard of before its lifetime
 * ends; one in queue mode listens for so long.
 */
const questions = 3;

/** Resources of the object Device that go into the inventory record of a client. */
const described = { 0: 'manufacturer', 1: 'model', 2: 'serial', 3: 'firmware', 17: 'deviceType' } as const;

/**
 * Reads the object Device of a client at the address from which it registered. Only when the client answers is its registration
 * valid and the client attached, so a forged source address attaches nothing.
 */
export class RegistrationProof implements AsyncDisposable {
  readonly #parts: RegistrationProofParts;
  readonly #asking: DeviceTasks;

  constructor(parts: RegistrationProofParts) {
    this.#parts = parts;
    this.#asking = new DeviceTasks('registration', parts);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#asking[Symbol.asyncDispose]();
  }

  /** Asks a client after its request was answered. Does nothing while a question about this registration is under way. */
  ask(location: string, remote: Remote, local: LocalEndpoint): void {
    this.#asking.begin(location, async () => {
      const isAttached = await this.#ask(location, remote, local);
      if (!isAttached && !this.#asking.signal.aborted) this.#parts.pending.end(location);
    });
  }

  /** The registration at a location. */
  #at(location: string): Registration | undefined {
    const { pending, registrations } = this.#parts;
    return pending.at(location)?.registration ?? registrations.at(location);
  }

  /** Resolves with whether the client is attached with this registration. */
  async #ask(location: string, remote: Remote, local: LocalEndpoint): Promise<boolean> {
    const { pending, calls, attached, heard, originOf, events } = this.#parts;
    const client = this.#at(location);
    const stopped = this.#asking.signal;
    if (!client || stopped.aborted) return false;
    const { deviceId } = client;
    const ended = pending.at(location)?.end.signal;
    const signal = ended ? AbortSignal.any([stopped, ended]) : stopped;
    let device: readonly Entry[] = [];
    let isThere = false;
    for (let asked = 0; asked < questions && !isThere; asked++)
      try {
        isThere = true;
        device = await calls.read(client, [ObjectId.Device, 0], signal);
      } catch (thrown) {
        if (signal.aborted) return false;
        const { code, message } = asPosternError(thrown);
        events.emit('registration.silent-device', { device: deviceId, reason: message });
        // An error answer proves just as well that the client is there.
        isThere = code !== 'timeout' && code !== 'unavailable' && code !== 'full';
        if (code !== 'timeout') break;
      }
    // The client may have left in the meantime.
    const current = this.#at(location);
    if (!current) return false;
    // The answer proves only the earlier address. If the client has moved since, ask it again.
    if (!isAtSamePlace(current, client)) return await this.#ask(location, remoteOf(current), local);
    if (!isThere || (await this.#isOvertaken(location, remote))) return false;
    local.endpoint().vouch(remote, deviceId);
    const { address, port, heardOn, paths } = current;
    const attach = () =>
      attached({
        deviceId,
        mode: GatewayMode.Adaptation,
        origin: originOf(deviceId),
        protocol: 'LwM2M',
        address: coapUri(address, port, '', local.scheme),
        ...(heardOn !== undefined && { heardOn }),
        isGateway: false,
        objects: paths.map(pathText).join(' '),
        ...describe(device),
      });
    if (!(await this.#attach(location, attach, signal))) return false;
    const now = this.#at(location);
    // It moved while the disk took no writes.
    if (now && !isAtSamePlace(now, current)) return await this.#ask(location, remoteOf(now), local);
    heard(deviceId, current);
    const { serial: _, ...fields } = describe(device);
    events.emit('registration.proven', { device: deviceId, ...fields });
    return true;
  }

  /** Whether another registration of this name has become valid since this one came, and its client is there. */
  async #isOvertaken(location: string, remote: Remote): Promise<boolean> {
    const { pending, registrations, livesElsewhere, events } = this.#parts;
    const waiting = pending.at(location);
    if (!waiting) return false;
    const { before, registration } = waiting;
    const { deviceId } = registration;
    const present = registrations.get(deviceId);
    // A proof of the name counts more than the order in which the registrations came.
    const isBeaten = !registration.proven && registrations.proven.has(deviceId);
    // Those that came before one that has become valid are gone: by its key the later one is the client too.
    const isFirst = present?.location === before || registration.proven;
    if (!isBeaten && (isFirst || !(await livesElsewhere(deviceId, remote)))) return false;
    events.emit('registration.duplicate', { device: deviceId, peer: remote.address });
    return true;
  }

  /**
   * Makes a registration valid and attaches its client. Repeats that while the disk does not take it: the client takes itself for
   * registered, and would not be heard of before its lifetime ends. Returns false when the client is not attached: it may
   * not be, or has left, or has registered again, or the gateway stops.
   */
  async #attach(location: string, attach: () => void, signal: AbortSignal): Promise<boolean> {
    const { registrations, pending, events, isServed } = this.#parts;
    let isAttached = false;
    const store = () => {
      const registration = this.#at(location);
      // The list may have lost the client while it was asked.
      if (!registration || !isServed(registration.deviceId)) return;
      const { deviceId } = registration;
      try {
        if (registrations.get(deviceId) === registration) attach();
        else registrations.put(registration, attach);
        isAttached = true;
        pending.becomesValid(registration);
      } catch (thrown) {
        if (isPassing(thrown)) throw thrown;
        const { message } = asPosternError(thrown);
        events.emit('registration.not-attached', { device: deviceId, reason: message });
        registrations.delete(deviceId);
      }
    };
    await persistently(this.#parts, 'registration', store, signal);
    return isAttached;
  }
}

const isPassing = (thrown: unknown): boolean => asPosternError(thrown).code === 'storage';

const isAtSamePlace = (one: Registration, other: Registration): boolean =>
  one.address === other.address && one.port === other.port;

const remoteOf = ({ address, port }: Registration): Remote => ({
  address,
  port,
  key: remoteKey(address, port),
});

/** What the object Device of a client says, as the inventory has it. */
export function describe(
  device: readonly Entry[],
): Readonly<Partial<Record<(typeof described)[keyof typeof described], string>>> {
  return Object.fromEntries(
    Object.entries(described).flatMap(([id, name]) => {
      const found = device.find(({ path }) => path.length === 3 && path[2] === Number(id));
      return found ? [[name, String(textOf(found.value)).slice(0, 255)]] : [];
    }),
  );
}
