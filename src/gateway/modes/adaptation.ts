import { persistently } from '../../base/background.ts';
import { BoundedMap } from '../../base/bounded-map.ts';
import { type Clock, type Monotonic, plus } from '../../base/clock.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { Operation, OperationOutcome } from '../../dm/server-session.ts';
import { DmStatus } from '../../dm/status.ts';
import type { LwM2mCalls } from '../southbound/lwm2m-calls.ts';
import { awakeFor } from '../southbound/presence.ts';
import type { Registration } from '../store/registrations.ts';
import { AdaptedClient } from './adapted-client.ts';
import { AdaptedFirmware, type AdaptedFirmwareParts } from './adapted-firmware.ts';
import { AdaptedPatience } from './adapted-patience.ts';
import { type Manage, WaitingWork } from './waiting-work.ts';

export interface AdaptationModeParts {
  /** The registration of a client that is attached here. */
  readonly clientOf: (deviceId: string) => Registration | undefined;
  /** When a client was heard last. */
  readonly lastHeard: (deviceId: string) => Monotonic;
  /** Whether a client has been heard at its address since a time, or proves itself now. Never rejects. */
  readonly isThere: (deviceId: string, since: Monotonic, signal: AbortSignal) => Promise<boolean>;
  readonly calls: LwM2mCalls;
  /** Called when a firmware update that a client accepted has ended. */
  readonly updated: AdaptedFirmwareParts['ended'];
  readonly imageAt: AdaptedFirmwareParts['imageAt'];
  readonly clock: Clock;
  readonly events: Events;
}

/** Maximum number of clients whose last contact is remembered. */
const remembered = 16_384;

/**
 * Adaptation mode (GwMO): like proxy mode, but for LwM2M clients. In place of a DM session, the gateway sends LwM2M
 * requests to the client, one operation after the other. Operations wait until the client is heard if it is in queue
 * mode, or if it does not prove that it is at its address.
 */
export class AdaptationMode implements AsyncDisposable {
  readonly #parts: AdaptationModeParts;
  readonly #waiting: WaitingWork;
  readonly #talking = new Map<string, Promise<unknown>>();
  /** Signals that are aborted at the deadline of an order, by the operations of the order. */
  readonly #deadlines = new WeakMap<readonly Operation[], AbortSignal>();
  readonly #heardAt = new BoundedMap<string, Monotonic>(remembered);
  readonly #stop = new AbortController();
  readonly #firmware: AdaptedFirmware;

  constructor(parts: AdaptationModeParts) {
    this.#parts = parts;
    const { updated: ended, ...rest } = parts;
    const { signal } = this.#stop;
    this.#firmware = new AdaptedFirmware({ ...rest, ended, signal });
    this.#waiting = new WaitingWork(parts.clock);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new PosternError('unavailable', 'the gateway stops'));
    await Promise.all(this.#talking.values());
    await this.#firmware.settled;
  }

  /** To be called when a client was heard. A client in queue mode is awake now, so waiting operations start. */
  heard(deviceId: string): void {
    this.#heardAt.set(deviceId, this.#parts.clock.now());
    // The message shows that the client is at its address now.
    if (this.#waiting.has(deviceId)) void this.#talk(deviceId, this.#parts.lastHeard(deviceId));
  }

  /** To be called when a client is no longer attached. Waiting operations fail with `notFound`. */
  detached(deviceId: string): void {
    this.#waiting.detached(deviceId);
  }

  /**
   * Performs operations on a client, as soon as it listens.
   * @throws {PosternError} `notFound` for a device that is not registered here or was detached, `timeout`, `full`
   */
  readonly manage: Manage = async (deviceId, operations, options) => {
    const client = this.#parts.clientOf(deviceId);
    if (!client) throw new PosternError('notFound', `${deviceId} is not registered here`);
    const { until, patience = options.timeout, begun } = options;
    const own = [...operations];
    if (until) this.#deadlines.set(own, until);
    let isWaiting = true;
    const waiting = {
      ...options,
      timeout: client.queueMode ? patience : options.timeout,
      begun: () => {
        isWaiting = false;
        begun?.();
      },
    };
    try {
      return await this.#waiting.perform(deviceId, own, waiting, async () => {
        if (!client.queueMode || this.#isAwake(deviceId)) await this.#talk(deviceId, this.#parts.clock.now());
        if (isWaiting) options.away?.();
      });
    } finally {
      isWaiting = false;
    }
  };

  #isAwake(deviceId: string): boolean {
    const heardAt = this.#heardAt.get(deviceId);
    return heardAt !== undefined && this.#parts.clock.now() < plus(heardAt, awakeFor);
  }

  /**
   * Performs all waiting operations of a client, unless that is under way already. Resolves when none is left, or the
   * client is not there.
   * @param since a message of the client since then shows that it is at its address
   */
  async #talk(deviceId: string, since: Monotonic): Promise<void> {
    const { clock, events } = this.#parts;
    const { signal } = this.#stop;
    if (!this.#talking.has(deviceId) && !signal.aborted)
      this.#talking.set(
        deviceId,
        persistently({ clock, events }, 'device-work', () => this.#converse(deviceId, since), signal),
      );
    await this.#talking.get(deviceId);
  }

  /**
   * Performs all waiting operations of a client, those that are added meanwhile too. They wait on until the client is
   * heard if it does not prove that it is at its address: another client may be there.
   */
  async #converse(deviceId: string, since: Monotonic): Promise<void> {
    const { isThere } = this.#parts;
    const { signal } = this.#stop;
    while (this.#waiting.has(deviceId) && !signal.aborted && (await isThere(deviceId, since, signal))) {
      const work = this.#waiting.of(deviceId);
      try {
        for (let next = await work.next([]); !next.done; )
          next = await work.next(await this.#performAll(deviceId, next.value));
      } finally {
        // The operations that were begun fail, when something throws here.
        await work.return();
      }
    }
    // At once: operations that are added from now on need another conversation.
    this.#talking.delete(deviceId);
  }

  async #performAll(
    deviceId: string,
    operations: readonly Operation[],
  ): Promise<readonly OperationOutcome[]> {
    const { clientOf, calls, clock, isThere } = this.#parts;
    const until = this.#deadlines.get(operations);
    const stop = this.#stop.signal;
    const patience = new AdaptedPatience({
      isThere: (...args) => isThere(deviceId, ...args),
      signal: until ? AbortSignal.any([stop, until]) : stop,
      clock,
    });
    const outcomes: OperationOutcome[] = [];
    for (const operation of operations) {
      // The client may have left, or changed its address, since the operation before.
      const client = clientOf(deviceId);
      outcomes.push(
        client
          ? await new AdaptedClient(client, calls, this.#firmware, patience).perform(operation)
          : { operation, status: DmStatus.NotFound, results: [] },
      );
    }
    return outcomes;
  }
}
