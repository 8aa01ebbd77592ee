import { persistently } from '../../base/background.ts';
import { BoundedMap } from '../../base/bounded-map.ts';
import { type Clock, type Monotonic, plus } from '../../base/clock.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { Operation, OperationOutcome } from '../../dm/server-session.ts';
import { awakeFor } from '../southbound/presence.ts';
import { AdaptedPatience } from './adapted-patience.ts';
import { type Adapter, performInTurn } from './adapter.ts';
import { type Manage, WaitingWork } from './waiting-work.ts';

/** Maximum number of clients whose last contact is remembered. */
const remembered = 16_384;

/**
 * The devices of one adapter. Operations are done on a device one after the other. They wait until the device is heard if it
 * sleeps, or if it does not prove that it is at its address.
 */
export class AdaptedDevices implements AsyncDisposable {
  readonly #adapter: Adapter;
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #waiting: WaitingWork;
  readonly #talking = new Map<string, Promise<unknown>>();
  /** Signals that are aborted at the deadline of an order, by the operations of the order. */
  readonly #deadlines = new WeakMap<readonly Operation[], AbortSignal>();
  readonly #heardAt = new BoundedMap<string, Monotonic>(remembered);
  readonly #stop = new AbortController();

  constructor(adapter: Adapter, { clock, events }: { readonly clock: Clock; readonly events: Events }) {
    this.#adapter = adapter;
    this.#clock = clock;
    this.#events = events;
    this.#waiting = new WaitingWork(clock);
  }

  /** Aborted when the gateway stops. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new PosternError('unavailable', 'the gateway stops'));
    await Promise.all(this.#talking.values());
  }

  /** To be called when a client was heard. A client in queue mode is awake now, so waiting operations start. */
  heard(deviceId: string): void {
    this.#heardAt.set(deviceId, this.#clock.now());
    // The message shows that the client is at its address now.
    if (this.#waiting.has(deviceId)) void this.#talk(deviceId, this.#adapter.lastHeard(deviceId));
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
    const sleeps = this.#adapter.sleeps(deviceId);
    if (sleeps === undefined) throw new PosternError('notFound', `${deviceId} is not registered here`);
    const { until, patience = options.timeout, begun } = options;
    const own = [...operations];
    if (until) this.#deadlines.set(own, until);
    let isWaiting = true;
    const waiting = {
      ...options,
      timeout: sleeps ? patience : options.timeout,
      begun: () => {
        isWaiting = false;
        begun?.();
      },
    };
    try {
      return await this.#waiting.perform(deviceId, own, waiting, async () => {
        if (!sleeps || this.#isAwake(deviceId)) await this.#talk(deviceId, this.#clock.now());
        if (isWaiting) options.away?.();
      });
    } finally {
      isWaiting = false;
    }
  };

  #isAwake(deviceId: string): boolean {
    const heardAt = this.#heardAt.get(deviceId);
    return heardAt !== undefined && this.#clock.now() < plus(heardAt, awakeFor);
  }

  /**
   * Performs all waiting operations of a client, unless that is under way already. Resolves when none is left, or the
   * client is not there.
   * @param since a message of the client since then shows that it is at its address
   */
  async #talk(deviceId: string, since: Monotonic): Promise<void> {
    const { signal } = this.#stop;
    if (!this.#talking.has(deviceId) && !signal.aborted)
      this.#talking.set(
        deviceId,
        persistently(
          { clock: this.#clock, events: this.#events },
          'device-work',
          () => this.#converse(deviceId, since),
          signal,
        ),
      );
    await this.#talking.get(deviceId);
  }

  /**
   * Performs all waiting operations of a client, those that are added meanwhile too. They wait on until the client is
   * heard if it does not prove that it is at its address: another client may be there.
   */
  async #converse(deviceId: string, since: Monotonic): Promise<void> {
    const { signal } = this.#stop;
    while (
      this.#waiting.has(deviceId) &&
      !signal.aborted &&
      (await this.#adapter.isThere(deviceId, since, signal))
    ) {
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
    const until = this.#deadlines.get(operations);
    const stop = this.#stop.signal;
    const patience = new AdaptedPatience({
      isThere: (...args) => this.#adapter.isThere(deviceId, ...args),
      signal: until ? AbortSignal.any([stop, until]) : stop,
      clock: this.#clock,
    });
    return await performInTurn(
      operations,
      (operation) => this.#adapter.perform(deviceId, operation, patience),
      async (gets) => await this.#adapter.reads?.(deviceId, gets, patience),
    );
  }
}
