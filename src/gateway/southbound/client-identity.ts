import { type Clock, type Monotonic, plus } from '../../base/clock.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import { presentable } from '../../base/presentable.ts';
import { DeviceResource, ObjectId, ServerResource } from '../../wire/lwm2m/objects.ts';
import { textOf } from '../../wire/lwm2m/resource.ts';
import type { Inventory } from '../store/inventory.ts';
import type { Registration, Registrations } from '../store/registrations.ts';
import type { Arrivals } from './arrivals.ts';
import type { DeviceAddresses } from './device-addresses.ts';
import type { LwM2mCalls, LwM2mClient, LwM2mGuard } from './lwm2m-calls.ts';
import { type Finding, isAtItsAddress, missing, nothingAt, noWayTo, proven, unproven } from './presence.ts';

export interface ClientIdentityParts {
  readonly registrations: Pick<Registrations, 'get'>;
  readonly inventory: Pick<Inventory, 'get' | 'values'>;
  readonly addresses: Pick<DeviceAddresses, 'successorOf'>;
  readonly arrivals: Pick<Arrivals, 'hasCome' | 'next' | 'lastOf'>;
  /** Whether a network interface of the gateway leads to a client. */
  readonly isInReach: (client: LwM2mClient) => boolean;
  /** URI of the address of a client. */
  readonly uriOf: (client: LwM2mClient) => string;
  /** Whether nobody but this client can read what is sent to it, where it has a key. */
  readonly isSafe: (client: LwM2mClient) => boolean;
  /** Operations without a guard, because the guard itself uses them. */
  readonly calls: Pick<LwM2mCalls, 'execute' | 'read'>;
  /** Called when a client has proved itself by its serial number. */
  readonly heard: (deviceId: string, from: LwM2mClient) => void;
  /** Called with the result of each question to a client that is always awake. */
  readonly found: (deviceId: string, finding: Finding) => void;
  readonly clock: Clock;
}

/** Milliseconds after a message or a proof of a client during which its address is taken for its own. */
const freshFor = 2000;
/** Milliseconds for each exchange with the client. */
const patience = { order: 20_000, duplicate: 5000 } as const;
/** Milliseconds within which a Registration Update must come after the trigger. */
const updateWithin = 10_000;
/** Maximum number of instances of the object Server of which the trigger is executed. */
const serverInstances = 4;

/**
 * Tells whether the client at an address is the one that registered there. Without DTLS a client has no credential, and
 * its address may belong to another client after a DHCP lease or a NAT table has changed.
 *
 * 1. Only the client knows the random path of its registration. So the gateway executes its Registration Update Trigger
 *    (`/1/x/8`, LwM2M core 1.1, appendix E.2), and waits for an update at this path from this address.
 * 2. A client without the trigger is asked for its serial number. That is a proof if no other client here has the same.
 * 3. A client with neither can prove nothing when it is asked. It proves itself by each message to its path.
 */
export class ClientIdentity implements LwM2mGuard {
  readonly #parts: ClientIdentityParts;
  /** Questions under way, by device. */
  readonly #asking = new Map<string, Promise<Finding>>();

  constructor(parts: ClientIdentityParts) {
    this.#parts = parts;
  }

  /** @throws {PosternError} `timeout` when another client has proved itself at the address of this one */
  check({ deviceId }: LwM2mClient): void {
    const other = this.#parts.addresses.successorOf(deviceId);
    if (other !== undefined) throw new PosternError('timeout', isAtItsAddress(other));
  }

  /**
   * Makes sure that a request to the client's address reaches this client.
   * @param since a message of the client since then is a proof; by default one of the last two seconds
   * @throws {PosternError} `timeout` when the client did not prove itself; what `signal` was aborted with
   */
  async assure(
    client: LwM2mClient,
    signal?: AbortSignal,
    since = plus(this.#parts.clock.now(), -freshFor),
  ): Promise<void> {
    const { arrivals } = this.#parts;
    const { deviceId } = client;
    this.check(client);
    if (arrivals.hasCome(deviceId, client, since)) return;
    await this.prove(deviceId, 'order', signal);
    signal?.throwIfAborted();
    // A client that proved itself at another address meanwhile is not at this one.
    if (!arrivals.hasCome(deviceId, client, since))
      throw new PosternError('timeout', `${deviceId} did not prove that it is at its address`);
  }

  /** Whether a client has been heard at its address since `since`, or proves itself now. Never rejects. */
  async isThere(deviceId: string, since: Monotonic, signal: AbortSignal): Promise<boolean> {
    const { registrations, arrivals } = this.#parts;
    const isHeard = () => {
      const client = registrations.get(deviceId);
      return client !== undefined && arrivals.hasCome(deviceId, client, since);
    };
    if (isHeard()) return true;
    await this.prove(deviceId, 'order', signal);
    return !signal.aborted && isHeard();
  }

  /** Asks a client to prove itself. One question at a time for each client. Never rejects. */
  async prove(
    deviceId: string,
    purpose: keyof typeof patience = 'order',
    signal?: AbortSignal,
  ): Promise<Finding> {
    const asked =
      this.#asking.get(deviceId) ??
      this.#prove(deviceId, patience[purpose], signal).finally(() => this.#asking.delete(deviceId));
    this.#asking.set(deviceId, asked);
    return await asked;
  }

  async #prove(deviceId: string, timeout: number, signal: AbortSignal | undefined): Promise<Finding> {
    const { registrations, arrivals, found } = this.#parts;
    const client = registrations.get(deviceId);
    if (!client) return missing('it is not registered here');
    const before = arrivals.lastOf(deviceId);
    const finding = this.#knownObstacle(client) ?? (await this.#ask(client, timeout, signal));
    if (signal?.aborted) return unproven;
    // A message that came meanwhile proves more than a question without an answer.
    const result = finding.kind !== 'proven' && arrivals.lastOf(deviceId) > before ? proven : finding;
    // A client in queue mode may just be asleep.
    if (!client.queueMode) found(deviceId, result);
    return result;
  }

  /** Why the client cannot be at its address, or cannot be asked there. */
  #knownObstacle(client: Registration): Finding | undefined {
    const other = this.#parts.addresses.successorOf(client.deviceId);
    if (other !== undefined) return missing(isAtItsAddress(other));
    if (!this.#parts.isInReach(client)) return noWayTo(this.#parts.uriOf(client));
    return this.#parts.isSafe(client)
      ? undefined
      : missing('it has no association, and is not asked in clear');
  }

  async #ask(client: Registration, timeout: number, signal: AbortSignal | undefined): Promise<Finding> {
    const { calls, arrivals, uriOf, clock } = this.#parts;
    const { deviceId } = client;
    const start = clock.now();
    let isTriggered = false;
    for (const instance of serverInstancesOf(client))
      try {
        const trigger = [ObjectId.Server, instance, ServerResource.RegistrationUpdateTrigger];
        await calls.execute(client, trigger, '', signal, timeout);
        isTriggered = true;
      } catch (thrown) {
        if (asPosternError(thrown).code === 'timeout') return nothingAt(uriOf(client));
        // A client that refuses may have no trigger.
      }
    const within = { since: start, timeout: Math.min(timeout, updateWithin), signal };
    if (isTriggered && (await arrivals.next(deviceId, client, within))) return proven;
    return await this.#compareSerial(client, timeout, signal);
  }

  async #compareSerial(
    client: Registration,
    timeout: number,
    signal: AbortSignal | undefined,
  ): Promise<Finding> {
    const { inventory, calls, uriOf, heard } = this.#parts;
    const { deviceId } = client;
    const serial = inventory.get(deviceId)?.serial;
    let said: string | undefined;
    try {
      const path = [ObjectId.Device, 0, DeviceResource.SerialNumber];
      const [entry] = await calls.read(client, path, signal, timeout);
      said = entry && presentable(String(textOf(entry.value)));
    } catch (thrown) {
      if (asPosternError(thrown).code === 'timeout') return nothingAt(uriOf(client));
      // A client that refuses may have no serial number.
    }
    if (serial === undefined || serial === '' || said === undefined) return unproven;
    if (said !== serial) return missing(`another device answers at ${uriOf(client)}`);
    const twin = Iterator.from(inventory.values()).find(
      (each) => each.serial === serial && each.deviceId !== deviceId,
    );
    if (twin) return unproven;
    heard(deviceId, client);
    return proven;
  }
}

/** Instances of the object Server that the client has registered. */
const serverInstancesOf = ({ paths }: Registration): readonly number[] =>
  paths
    .flatMap(([object, instance]) => (object === ObjectId.Server && instance !== undefined ? [instance] : []))
    .slice(0, serverInstances);
