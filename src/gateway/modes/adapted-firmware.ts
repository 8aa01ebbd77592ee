import { BoundedMap } from '../../base/bounded-map.ts';
import { type Clock, pause } from '../../base/clock.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { DmError } from '../../dm/dm-error.ts';
import { DmStatus } from '../../dm/status.ts';
import { FumoResult, FumoState } from '../../mo/fumo.ts';
import { FirmwareResource, FirmwareResult, FirmwareState, ObjectId } from '../../wire/lwm2m/objects.ts';
import type { Path } from '../../wire/lwm2m/path.ts';
import type { LwM2mCalls } from '../southbound/lwm2m-calls.ts';
import type { Registration } from '../store/registrations.ts';

export interface AdaptedFirmwareParts {
  readonly clientOf: (deviceId: string) => Registration | undefined;
  readonly calls: LwM2mCalls;
  /** What was accepted has ended: with a result code of FUMO. */
  readonly ended: (deviceId: string, correlator: string | undefined, result: number) => void;
  readonly clock: Clock;
  readonly events: Events;
  readonly signal: AbortSignal;
}

const operations = ['Download', 'Update', 'DownloadAndUpdate'] as const;
type Operation = (typeof operations)[number];
const leaves = ['PkgVersion', 'State'] as const;

/** Clients whose settings are remembered; updates at one time. */
const limits = { remembered: 16_384, running: 1024 } as const;
/** Milliseconds between looks at a client, doubling, and for all of an update: a radio may be slow. */
const look = { first: 500, cap: 30_000, deadline: 3_600_000 } as const;

/** Results of LwM2M, by what FUMO calls them (OMA FUMO 1.0, section 8.2). */
const results: Readonly<Record<number, number>> = {
  [FirmwareResult.Success]: FumoResult.Ok,
  2: FumoResult.NoRoom,
  3: FumoResult.NoRoom,
  [FirmwareResult.ConnectionLost]: FumoResult.NetworkFailed,
  5: FumoResult.Corrupt,
  6: FumoResult.NotAcceptable,
  [FirmwareResult.BadUri]: FumoResult.BadUrl,
  8: FumoResult.Failed,
  9: FumoResult.BadUrl,
};

const states: Readonly<Record<number, number>> = {
  [FirmwareState.Downloading]: FumoState.Downloading,
  [FirmwareState.Downloaded]: FumoState.Downloaded,
  [FirmwareState.Updating]: FumoState.Updating,
};

const at = (resource: number): Path => [ObjectId.Firmware, 0, resource];

/** A node of `./FwUpdate`: an interior node by its children, or a leaf by its value. */
export type FirmwareNode = readonly string[] | string;

/**
 * `./FwUpdate` of an LwM2M client (OMA FUMO 1.0 on the object Firmware Update): so that one order updates a mixed fleet. An
 * Exec is accepted; the client loads and installs, the gateway looks at it meanwhile, and says what it came to.
 */
export class AdaptedFirmware {
  readonly #parts: AdaptedFirmwareParts;
  /** What was set, by device and leaf. */
  readonly #set = new BoundedMap<string, string>(limits.remembered);
  readonly #running = new Map<string, Promise<void>>();

  constructor(parts: AdaptedFirmwareParts) {
    this.#parts = parts;
  }

  /** Resolves when what was begun has ended; the signal ends it early. */
  get settled(): Promise<unknown> {
    return Promise.all(this.#running.values());
  }

  /** @throws {PosternError} as a Read of the client; {DmError} 404 */
  async get(client: Registration, path: readonly string[]): Promise<FirmwareNode> {
    const [first, second, ...more] = path;
    if (first === undefined) return [...operations, ...leaves];
    if (first === 'State' && second === undefined) return String(await this.#state(client));
    if (first === 'PkgVersion' && second === undefined) return this.#setting(client, 'PkgVersion');
    if (isOperation(first) && second === undefined) return first === 'Update' ? [] : ['PkgURL'];
    if (isOperation(first) && first !== 'Update' && second === 'PkgURL' && more.length === 0)
      return this.#setting(client, first);
    throw new DmError(DmStatus.NotFound, `./FwUpdate/${path.join('/')} is not there`);
  }

  /** @throws {DmError} 405 */
  set(client: Registration, [first = '', second, ...more]: readonly string[], value: string): void {
    const isUrl = isOperation(first) && first !== 'Update' && second === 'PkgURL' && more.length === 0;
    if (!isUrl && !(first === 'PkgVersion' && second === undefined))
      throw new DmError(DmStatus.CommandNotAllowed, 'that is not for a server to set');
    this.#set.set(`${client.deviceId} ${first}`, value.slice(0, 1024));
  }

  /**
   * Begins an operation; what it comes to is told later.
   * @throws {DmError} 405; {PosternError} `conflict`, `full`, `malformed` without a URL
   */
  execute(client: Registration, path: readonly string[], correlator: string | undefined): void {
    const { deviceId } = client;
    const [operation = '', ...more] = path;
    if (!isOperation(operation) || more.length > 0)
      throw new DmError(DmStatus.CommandNotAllowed, 'nothing is executed there');
    if (this.#running.has(deviceId)) throw new PosternError('conflict', 'an update is under way');
    if (this.#running.size >= limits.running)
      throw new PosternError('full', 'too many updates are under way');
    const url = operation === 'Update' ? undefined : this.#setting(client, operation);
    if (url === '') throw new PosternError('malformed', 'no PkgURL');
    const running = this.#run(deviceId, operation, url, correlator).finally(() => {
      this.#running.delete(deviceId);
    });
    this.#running.set(deviceId, running);
  }

  async #run(
    deviceId: string,
    operation: Operation,
    url: string | undefined,
    correlator: string | undefined,
  ): Promise<void> {
    const { calls, ended, events, clock, signal } = this.#parts;
    let result: number;
    try {
      result = FumoResult.Ok;
      // Nobody is told what it came to before it is told that it was accepted.
      await pause(clock, 0, signal);
      if (url !== undefined) {
        await calls.write(
          this.#client(deviceId),
          at(FirmwareResource.PackageUri),
          [{ path: at(FirmwareResource.PackageUri), value: url }],
          { signal },
        );
        result = await this.#until(deviceId, (state) => state === FirmwareState.Downloaded);
      }
      if (result === FumoResult.Ok && operation !== 'Download') {
        await calls.execute(this.#client(deviceId), at(FirmwareResource.Update), '', signal);
        result = await this.#until(deviceId, (_state, said) => said === FirmwareResult.Success);
      }
    } catch (thrown) {
      if (signal.aborted) return;
      const { code, message } = asPosternError(thrown);
      result = code === 'timeout' ? FumoResult.NetworkFailed : FumoResult.Failed;
      events.emit('adaptation.update-failed', { device: deviceId, reason: message });
    }
    events.emit('adaptation.update-ended', { device: deviceId, result });
    ended(deviceId, correlator, result);
  }

  /** Looks at a client until it has come there, or has failed. One that does not answer may be rebooting. */
  async #until(deviceId: string, isThere: (state: number, result: number) => boolean): Promise<number> {
    const { clock, signal } = this.#parts;
    const begun = clock.now();
    for (let delay: number = look.first; ; delay = Math.min(look.cap, delay * 2)) {
      await pause(clock, delay, signal);
      try {
        const { state, result } = await this.#look(this.#client(deviceId));
        if (isThere(state, result)) return FumoResult.Ok;
        if (state === FirmwareState.Idle && result > FirmwareResult.Success)
          return results[result] ?? FumoResult.Failed;
      } catch (thrown) {
        signal.throwIfAborted();
        if (asPosternError(thrown).code !== 'timeout') throw thrown;
      }
      if (clock.now() - begun > look.deadline)
        throw new PosternError('timeout', `${deviceId} did not end its update`);
    }
  }

  async #look(client: Registration): Promise<{ state: number; result: number }> {
    const entries = await this.#parts.calls.read(client, [ObjectId.Firmware, 0], this.#parts.signal);
    const value = (id: number) => Number(entries.find(({ path }) => path[2] === id)?.value ?? 0);
    return { state: value(FirmwareResource.State), result: value(FirmwareResource.Result) };
  }

  async #state(client: Registration): Promise<number> {
    const { state, result } = await this.#look(client);
    if (state !== FirmwareState.Idle) return states[state] ?? FumoState.Idle;
    if (result === FirmwareResult.None) return FumoState.Idle;
    if (result === FirmwareResult.Success) return FumoState.DoneWithoutData;
    return results[result] === FumoResult.Failed ? FumoState.FailedWithoutData : FumoState.DownloadFailed;
  }

  #setting({ deviceId }: Registration, leaf: string): string {
    return this.#set.get(`${deviceId} ${leaf}`) ?? '';
  }

  /** @throws {PosternError} `notFound` */
  #client(deviceId: string): Registration {
    const client = this.#parts.clientOf(deviceId);
    if (!client) throw new PosternError('notFound', `${deviceId} is not registered any more`);
    return client;
  }
}

const isOperation = (name: string): name is Operation => (operations as readonly string[]).includes(name);
