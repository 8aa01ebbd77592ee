import { background, persistently } from '../../base/background.ts';
import { type Clock, pause } from '../../base/clock.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { DmError } from '../../dm/dm-error.ts';
import { DmStatus } from '../../dm/status.ts';
import { FumoRefusal, FumoResult } from '../../mo/fumo.ts';
import type { CallBody } from '../../wire/coap/blockwise-client.ts';
import { FirmwareResource, FirmwareResult, FirmwareState, ObjectId } from '../../wire/lwm2m/objects.ts';
import type { Path } from '../../wire/lwm2m/path.ts';
import type { ServedImage } from '../southbound/image-resource.ts';
import type { LwM2mCalls } from '../southbound/lwm2m-calls.ts';
import {
  type ClientUpdate,
  type ClientUpdates,
  type UpdateOperation,
  updateOperations,
} from '../store/client-updates.ts';
import type { Registration } from '../store/registrations.ts';
import {
  hasFailed,
  isDownloaded,
  isStale,
  isUninstalled,
  resultOf,
  type Said,
  saidBy,
  stateOf,
} from './client-firmware.ts';

export interface AdaptedFirmwareParts {
  /** The registration of a client that is attached here. */
  readonly clientOf: (deviceId: string) => Registration | undefined;
  readonly calls: LwM2mCalls;
  /** The image at a URI that was made for this device, as long as the URI is valid. */
  readonly imageAt: (deviceId: string, uri: string) => ServedImage | undefined;
  /** The URI of such an image by HTTP or HTTPS. Undefined where the gateway serves neither. */
  readonly httpUriOf: (uri: string) => string | undefined;
  readonly updates: ClientUpdates;
  /**
   * Called when an accepted operation has ended, in the transaction that forgets it. What it throws repeats both. `result` is a
   * result code of FUMO.
   */
  readonly ended: (deviceId: string, correlator: string | undefined, result: number) => void;
  /** Called when an operation has ended with success, and that is stored. */
  readonly succeeded: (deviceId: string) => void;
  readonly clock: Clock;
  readonly events: Events;
  /** Ends all operations under way without a result. */
  readonly signal: AbortSignal;
}

const leaves = ['PkgVersion', 'State'] as const;

/** Maximum number of operations at the same time. */
const runningLimit = 1024;
/**
 * Milliseconds between two polls of a client, doubling from `first` to `cap`, and for a reset, a download or an installation.
 * The latter is long because a radio link may be slow. A restart of the gateway begins it anew.
 */
const polling = { first: 500, cap: 30_000, deadline: 3_600_000 } as const;

/** Values of the resource Firmware Update Delivery Method: by a Write of the package alone, and also by Package URI. */
const delivers = { push: 1, both: 2 } as const;

/** Values of the resource Firmware Update Protocol Support, by scheme of a URI. */
const protocolOf: Readonly<Record<string, number>> = { coap: 0, coaps: 1, http: 2, https: 3 };

/** Errors of a client that is silent, or is not back from its reboot. */
const passing: ReadonlySet<string> = new Set(['timeout', 'unavailable', 'full']);
const isPassing = (thrown: unknown): boolean =>
  !(thrown instanceof FumoRefusal) && passing.has(asPosternError(thrown).code);

/** Sends one request to a client. */
type Send = (client: Registration) => Promise<void>;

/** A change of the state of a client's update. */
interface Change {
  /** The request that makes it. Undefined when an earlier start of the gateway had its answer. */
  readonly send?: Send;
  /** Whether the request has not come to the client. */
  readonly isUntouched: (said: Said) => boolean;
  readonly isReached: (said: Said) => boolean;
}

const at = (resource: number): Path => [ObjectId.Firmware, 0, resource];

/** A node of `./FwUpdate`: the names of the children of an interior node, or the value of a leaf. */
export type FirmwareNode = readonly string[] | string;

/**
 * `./FwUpdate` of an LwM2M client: OMA FUMO 1.0 mapped to the object Firmware Update. With it, one order can update OMA
 * DM devices and LwM2M clients. An Exec is accepted at once. Then the client downloads and installs, while the gateway
 * polls its state and reports the result at the end. What is under way is durable: it goes on after a restart of the gateway.
 */
export class AdaptedFirmware {
  readonly #parts: AdaptedFirmwareParts;
  readonly #running = new Map<string, Promise<void>>();

  constructor(parts: AdaptedFirmwareParts) {
    this.#parts = parts;
  }

  /** Resolves when all operations under way have ended. `signal` ends them early. */
  get settled(): Promise<unknown> {
    return Promise.all(this.#running.values());
  }

  /**
   * Goes on with all operations that were under way when the gateway stopped.
   * @param awaited devices that have accepted an order and have not reported. A client among them of which no operation is known
   *   gets 410 as its result: the order was lost with its row, or is of a version that kept none
   */
  resume(awaited: readonly string[]): void {
    const { updates, clientOf, events } = this.#parts;
    for (const update of updates.all()) {
      events.emit('adaptation.update-resumed', { device: update.deviceId });
      this.#start(update, true);
    }
    for (const device of awaited) {
      if (this.#running.has(device) || !clientOf(device)) continue;
      events.emit('adaptation.update-failed', { device, reason: 'the gateway has lost the order' });
      void background(events, 'lwm2m-update', () => this.#end(device, undefined, FumoResult.Failed));
    }
  }

  /**
   * Returns the node at a path below `./FwUpdate`.
   * @throws {PosternError} as `LwM2mCalls.read`
   * @throws {DmError} 404 when there is no such node
   */
  async get(client: Registration, path: readonly string[]): Promise<FirmwareNode> {
    const [first, second, ...more] = path;
    if (first === undefined) return [...updateOperations, ...leaves];
    if (first === 'State' && second === undefined) return String(stateOf(await this.#poll(client)));
    if (first === 'PkgVersion' && second === undefined) return this.#setting(client, 'PkgVersion');
    if (isOperation(first) && second === undefined) return first === 'Update' ? [] : ['PkgURL'];
    if (isOperation(first) && first !== 'Update' && second === 'PkgURL' && more.length === 0)
      return this.#setting(client, first);
    throw new DmError(DmStatus.NotFound, `./FwUpdate/${path.join('/')} is not there`);
  }

  /**
   * Sets a `PkgURL` or `PkgVersion`. At most 1024 characters are kept.
   * @throws {DmError} 405 for any other node
   * @throws {PosternError} `storage`
   */
  set(client: Registration, [first = '', second, ...more]: readonly string[], value: string): void {
    const isUrl = isOperation(first) && first !== 'Update' && second === 'PkgURL' && more.length === 0;
    if (!isUrl && !(first === 'PkgVersion' && second === undefined))
      throw new DmError(DmStatus.CommandNotAllowed, 'a server cannot set this node');
    this.#parts.updates.set(client.deviceId, first, value.slice(0, 1024));
  }

  /**
   * Starts an operation. Its result is reported later by `ended`.
   * @throws {DmError} 405 for a node that is not an operation
   * @throws {PosternError} `conflict` while another operation of the client runs, `full`, `malformed` without a URL, `storage`
   */
  execute(client: Registration, path: readonly string[], correlator: string | undefined): void {
    const { deviceId } = client;
    const [operation = '', ...more] = path;
    if (!isOperation(operation) || more.length > 0)
      throw new DmError(DmStatus.CommandNotAllowed, 'this node cannot be executed');
    if (this.#running.has(deviceId)) throw new PosternError('conflict', 'an update is under way');
    if (this.#running.size >= runningLimit) throw new PosternError('full', 'too many updates are under way');
    const url = operation === 'Update' ? undefined : this.#setting(client, operation);
    if (url === '') throw new PosternError('malformed', 'no PkgURL');
    const update: ClientUpdate = {
      deviceId,
      operation,
      stage: 'ordered',
      ...(url !== undefined && { url }),
      ...(correlator !== undefined && { correlator }),
    };
    this.#parts.updates.put(update);
    this.#start(update, false);
  }

  #start(update: ClientUpdate, isResumed: boolean): void {
    const { events, signal } = this.#parts;
    const { deviceId } = update;
    const run = () => this.#run(update, isResumed);
    const running = background(events, 'lwm2m-update', run, signal).then(() => {
      this.#running.delete(deviceId);
    });
    this.#running.set(deviceId, running);
  }

  async #run(update: ClientUpdate, isResumed: boolean): Promise<void> {
    const { events, clock, signal } = this.#parts;
    const { deviceId, correlator } = update;
    let result: number = FumoResult.Ok;
    try {
      // The Exec must be answered before the result is reported.
      await pause(clock, 0, signal);
      await this.#drive(update, isResumed);
    } catch (thrown) {
      if (signal.aborted) return;
      const { code, message } = asPosternError(thrown);
      if (thrown instanceof FumoRefusal) result = thrown.result;
      else result = code === 'timeout' ? FumoResult.NetworkFailed : FumoResult.Failed;
      events.emit('adaptation.update-failed', { device: deviceId, reason: message });
    }
    await this.#end(deviceId, correlator, result);
  }

  /** Forgets an operation and reports its result, both or nothing. Goes on to try while the disk takes nothing. */
  async #end(device: string, correlator: string | undefined, result: number): Promise<void> {
    const { updates, ended, succeeded, events, signal } = this.#parts;
    const end = () => updates.end(device, () => ended(device, correlator, result));
    if (!(await persistently(this.#parts, 'lwm2m-update', end, signal))) return;
    events.emit('adaptation.update-ended', { device, result });
    if (result === FumoResult.Ok) succeeded(device);
  }

  /**
   * Takes a client through an operation, from the stage that it has reached. What the client says decides how to go on after a
   * restart; the stage decides whether it says that of this operation.
   * @throws {FumoRefusal} when the update has failed
   * @throws {PosternError} when the client refuses a request or does not end its update
   */
  async #drive(update: ClientUpdate, isResumed: boolean): Promise<void> {
    const { deviceId, operation, url } = update;
    let { stage } = update;
    let isInstalling = false;
    let said: Said | undefined;
    if (isResumed) {
      said = await this.#patiently(deviceId, (client) => this.#poll(client));
      const isBlank = said.state === FirmwareState.Idle && said.result === FirmwareResult.None;
      if (isBlank && stage === 'downloaded')
        throw new FumoRefusal(FumoResult.Failed, `${deviceId} tells nothing of its update any more`);
      // It has lost what it was given. It gets that again.
      if (isBlank) stage = 'ordered';
      // Nothing else follows an Execute than another state, or a result.
      isInstalling = stage === 'downloaded' && !isUninstalled(said) && !(isDownloaded(said) && isStale(said));
    }
    if (url !== undefined && stage !== 'downloaded')
      said = await this.#deliver(update, url, stage === 'given');
    if (operation === 'Download') return;
    // What the client says from now on is of this operation. A client without a package refuses to install.
    said ??= await this.#patiently(deviceId, (client) => this.#poll(client));
    if (!isInstalling && isDownloaded(said)) await this.#reach(update, 'downloaded');
    await this.#install(deviceId, isInstalling, isStale(said));
  }

  /** Resolves when the stage is durable. The client is not asked for anything further before. */
  async #reach(update: ClientUpdate, stage: ClientUpdate['stage']): Promise<void> {
    const { updates, signal } = this.#parts;
    const store = async () => {
      updates.put({ ...update, stage });
      await updates.settled();
    };
    await persistently(this.#parts, 'lwm2m-update', store, signal);
    signal.throwIfAborted();
  }

  /**
   * Gives a client the package at `url` unless it is given, and waits until the client has it. Resolves with what it says then.
   * Throws as `#request`.
   */
  async #deliver(update: ClientUpdate, url: string, isGiven: boolean): Promise<Said> {
    const { deviceId } = update;
    let kept: number = FirmwareResult.None;
    const change = {
      isUntouched: ({ state, result }: Said) =>
        state === FirmwareState.Idle && (result === FirmwareResult.None || result === kept),
      isReached: isDownloaded,
    };
    if (isGiven) return await this.#request(deviceId, change);
    const prepared = await this.#patiently(deviceId, (client) => this.#prepare(client, url));
    const { give } = prepared;
    kept = prepared.kept;
    const send = async (client: Registration) => {
      await give(client);
      await this.#reach(update, 'given');
    };
    return await this.#request(deviceId, { ...change, send });
  }

  /**
   * Has a client install its package, unless it does already. Throws as `#request`.
   * @param hasStale the client tells of an earlier success, although it should have forgotten that
   */
  async #install(deviceId: string, isInstalling: boolean, hasStale: boolean): Promise<void> {
    const { calls, signal } = this.#parts;
    // A client that reboots at once does not answer.
    const send: Send = (client) => calls.execute(client, at(FirmwareResource.Update), '', signal);
    await this.#request(deviceId, {
      ...(!isInstalling && { send }),
      isUntouched: (said) => isUninstalled(said) || (hasStale && isDownloaded(said)),
      isReached: ({ state, result }) =>
        result === FirmwareResult.Success && (!hasStale || state === FirmwareState.Idle),
    });
  }

  /**
   * Resets the client's update, which forgets an earlier result and package. Returns what then gives the package: a Write of its
   * URI, that by HTTP where the client knows no other; or a Write of the package itself, to a client that takes packages by Write
   * alone or knows no protocol by which the gateway has the package. `kept` is the result that a client tells all the same.
   * @throws {PosternError} as `LwM2mCalls.write`
   */
  async #prepare(asked: Registration, url: string): Promise<{ readonly give: Send; readonly kept: number }> {
    const { calls, imageAt, httpUriOf, signal } = this.#parts;
    const { state, result, delivery, protocols } = await this.#poll(asked);
    const image = imageAt(asked.deviceId, url);
    const isKnown = (uri: string) =>
      protocols.length === 0 || protocols.includes(protocolOf[uri.split(':', 1)[0]!] ?? -1);
    const offers = image ? [url, httpUriOf(url) ?? url] : [url];
    const offered = image ? offers.find(isKnown) : url;
    const isPush =
      image && (delivery === delivers.push || (delivery === delivers.both && offered === undefined));
    const give = async (client: Registration, value: string) => {
      const path = at(FirmwareResource.PackageUri);
      await calls.write(client, path, [{ path, value }], { signal });
    };
    const push = (client: Registration, body: CallBody) =>
      calls.push(client, at(FirmwareResource.Package), body, signal);
    let isReset = true;
    let kept: number = FirmwareResult.None;
    if (state !== FirmwareState.Idle || result !== FirmwareResult.None) {
      // Not every client has this. Its earlier result is then told by the first poll alone.
      await (isPush ? push(asked, Buffer.alloc(1)) : give(asked, '')).catch((thrown) => {
        if (isPassing(thrown)) throw thrown;
        isReset = false;
      });
      if (isReset) kept = (await this.#poll(asked)).result;
    }
    const body: CallBody | undefined = isPush
      ? { length: image.size, subarray: (from, to) => image.read(from, Math.min(to, image.size) - from) }
      : undefined;
    const giveIt: Send = async (client) => {
      try {
        await (body ? push(client, body) : give(client, offered ?? url));
      } catch (thrown) {
        if (isReset) throw thrown;
        // Its state does not tell whether it has this package or an earlier one, which must not be installed.
        throw new PosternError('conflict', 'the client keeps an earlier package', { cause: thrown });
      }
    };
    return { give: giveIt, kept };
  }

  /**
   * Sends a request that changes the state of a client's update, and polls until the client has reached a state.
   * Whether a request without an answer was heard is read from the state: it is sent again while the client is untouched by it.
   * Resolves with what the client says then.
   * @throws {FumoRefusal} when the update has failed
   * @throws {PosternError} `timeout` as `#patiently`; the refusal of the client
   */
  async #request(deviceId: string, { send, isUntouched, isReached }: Change): Promise<Said> {
    let isAnswered = !send;
    let refusal: unknown;
    let sent = 0;
    let failures = 0;
    const trySend = async (client: Registration): Promise<undefined> => {
      try {
        sent++;
        await send?.(client);
        isAnswered = true;
      } catch (thrown) {
        if (isPassing(thrown)) return;
        // One that is repeated may be refused because the client has heard it before. The next poll tells.
        if (sent === 1) throw thrown;
        refusal = thrown;
      }
    };
    return await this.#patiently(deviceId, async (client): Promise<Said | undefined> => {
      if (send && sent === 0) return await trySend(client);
      const said = await this.#poll(client);
      // Until the client has begun, it may tell the result of an earlier update.
      if (hasFailed(said)) {
        if (failures++ === 0) return undefined;
        const { result } = said;
        throw new FumoRefusal(resultOf(result), `Update Result ${result}`);
      }
      if (isReached(said)) return said;
      if (isAnswered || !isUntouched(said)) return undefined;
      if (refusal !== undefined) throw refusal;
      return await trySend(client);
    });
  }

  /**
   * Does something with a client again and again until it has a value. It is repeated when the client does not answer, and a client
   * that has deregistered is waited for, because the client may be rebooting.
   * @throws {PosternError} `timeout` after `polling.deadline`; what `work` throws
   */
  async #patiently<T>(deviceId: string, work: (client: Registration) => Promise<T | undefined>): Promise<T> {
    const { clientOf, clock, signal } = this.#parts;
    const begun = clock.now();
    for (let delay: number = polling.first; ; delay = Math.min(polling.cap, delay * 2)) {
      try {
        const client = clientOf(deviceId);
        const done = client && (await work(client));
        if (done !== undefined) return done;
      } catch (thrown) {
        signal.throwIfAborted();
        if (!isPassing(thrown)) throw thrown;
      }
      if (clock.now() - begun > polling.deadline)
        throw new PosternError('timeout', `${deviceId} did not end its update`);
      await pause(clock, delay, signal);
    }
  }

  async #poll(client: Registration): Promise<Said> {
    const entries = await this.#parts.calls.read(client, [ObjectId.Firmware, 0], this.#parts.signal);
    return saidBy(entries);
  }

  #setting({ deviceId }: Registration, leaf: string): string {
    return this.#parts.updates.setting(deviceId, leaf);
  }
}

const isOperation = (name: string): name is UpdateOperation =>
  (updateOperations as readonly string[]).includes(name);
