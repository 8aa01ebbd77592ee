import type { Clock } from '../../base/clock.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Remote } from '../../wire/coap/message.ts';
import type { Inventory } from '../store/inventory.ts';
import type { Arrivals } from './arrivals.ts';
import type { DeviceAddress, DeviceAddresses } from './device-addresses.ts';
import type { DeviceLocator } from './device-locator.ts';
import { type Finding, isAtItsAddress, missing, nothingAt, noWayTo, proven, unproven } from './presence.ts';

export interface DeviceQuestionsParts {
  readonly inventory: Pick<Inventory, 'get'>;
  readonly addresses: Pick<DeviceAddresses, 'get' | 'successorOf'>;
  readonly locator: Pick<DeviceLocator, 'answers' | 'isInReach' | 'uriOf'>;
  readonly arrivals: Pick<Arrivals, 'lastOf' | 'next'>;
  /** Asks an OMA DM device for a session by Package #0. */
  readonly requestSession: (deviceId: string) => Promise<void>;
  /** Asks an LwM2M client to prove itself. Absent where LwM2M is not configured. */
  readonly askClient: ((deviceId: string) => Promise<Finding>) | undefined;
  /** Asks a plain CoAP device. Absent where there are none. */
  readonly askCoapDevice: ((deviceId: string) => Promise<Finding>) | undefined;
  readonly clock: Clock;
}

/**
 * Milliseconds within which somebody must answer a CoAP ping, and a device must have proved itself in the session that it
 * was asked for. A device that asks for a bootstrap waits for the answer to a question about its ID, so that one is
 * shorter.
 */
const patience = { ping: 10_000, duplicatePing: 2000, session: 10_000 } as const;
/** Where no device is. */
const nowhere: Remote = { address: '', port: 0, key: '' };
/** Milliseconds after its last proven message, after which an answer to a ping is not enough. */
const provenFor = 24 * 3_600_000;

/**
 * Asks devices whether they are there. A ping is cheap, but anyone who has the device's address answers it. So a device
 * proves itself by a session, at least once a day and whenever the answer decides something.
 */
export class DeviceQuestions {
  readonly #parts: DeviceQuestionsParts;
  /** Requests for a session that is to prove a device, by device. */
  readonly #proving = new Map<string, Promise<Finding>>();

  constructor(parts: DeviceQuestionsParts) {
    this.#parts = parts;
  }

  /** Asks a directly attached device whether it is there. Never rejects. */
  async ask(deviceId: string): Promise<Finding> {
    const { inventory, addresses, locator, arrivals, askClient, askCoapDevice, clock } = this.#parts;
    const record = inventory.get(deviceId);
    if (record?.protocol === 'LwM2M')
      return (await askClient?.(deviceId)) ?? missing('LwM2M is switched off at this gateway');
    if (record?.protocol === 'CoAP')
      return (
        (await askCoapDevice?.(deviceId)) ?? missing('plain CoAP devices are switched off at this gateway')
      );
    if (record?.address.startsWith('http')) return missing('it comes over HTTP, and was silent for too long');
    const known = addresses.get(deviceId);
    if (!known) return missing('no address of it is known');
    const other = addresses.successorOf(deviceId);
    if (other !== undefined) return missing(isAtItsAddress(other));
    if (!locator.isInReach(known)) return noWayTo(locator.uriOf(known, deviceId));
    const before = arrivals.lastOf(deviceId);
    // A ping that could not be sent says nothing of the device.
    const answers = await locator.answers(known, patience.ping).catch(() => undefined);
    if (arrivals.lastOf(deviceId) > before) return proven;
    if (answers === undefined) return unproven;
    if (!answers) return nothingAt(locator.uriOf(known, deviceId));
    const isProofDue = record?.state === 'unreachable' || clock.now() - before >= provenFor;
    return isProofDue ? await this.#prove(deviceId, known) : unproven;
  }

  /**
   * Whether the attached OMA DM device with this ID is at an address other than `remote`, as only this device can show.
   * @throws {PosternError} `full` or `unavailable` when the device could not be asked now. It then keeps its place
   */
  async livesElsewhere(deviceId: string, remote: Remote): Promise<boolean> {
    const { inventory, addresses, locator } = this.#parts;
    const known = addresses.get(deviceId);
    if (!known?.proven || !inventory.get(deviceId)) return false;
    if (known.address === remote.address && known.port === remote.port) return false;
    if (addresses.successorOf(deviceId) !== undefined) return false;
    if (!(await locator.answers(known, patience.duplicatePing))) return false;
    const { kind } = await this.#prove(deviceId, known);
    if (kind === 'unproven')
      throw new PosternError('full', `${deviceId} cannot be asked now whether it is elsewhere`);
    return kind === 'proven';
  }

  /** Whether a directly attached device proves itself where it is attached. One that comes over HTTP cannot be asked. */
  async isThere(deviceId: string): Promise<boolean> {
    const record = this.#parts.inventory.get(deviceId);
    if (record?.address.startsWith('http')) return record.state === 'attached';
    if (record?.protocol === 'LwM2M' || record?.protocol === 'CoAP')
      return (await this.ask(deviceId)).kind !== 'missing';
    return await this.livesElsewhere(deviceId, nowhere);
  }

  async #prove(deviceId: string, known: DeviceAddress): Promise<Finding> {
    const proving =
      this.#proving.get(deviceId) ??
      this.#askForSession(deviceId, known).finally(() => this.#proving.delete(deviceId));
    this.#proving.set(deviceId, proving);
    return await proving;
  }

  /** Has a device open a session with the gateway. Both prove themselves in it. */
  async #askForSession(deviceId: string, known: DeviceAddress): Promise<Finding> {
    const { locator, requestSession, arrivals, clock } = this.#parts;
    const start = clock.now();
    try {
      await requestSession(deviceId);
    } catch (thrown) {
      const { code, message } = asPosternError(thrown);
      if (code === 'full') return unproven;
      return code === 'timeout' ? nothingAt(locator.uriOf(known, deviceId)) : missing(message);
    }
    if (await arrivals.next(deviceId, known, { since: start, timeout: patience.session })) return proven;
    const uri = locator.uriOf(known, deviceId);
    return missing(`what answers at ${uri} does not prove that it is this device`);
  }
}
