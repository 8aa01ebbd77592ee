import { existsSync } from 'node:fs';
import { background, persistently } from '../../base/background.ts';
import { type Clock, pause } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { publicUrl } from '../../base/public-url.ts';
import type { FirmwareBranch, FirmwareOrder } from '../../mo/firmware-branch.ts';
import { downloadResult, FumoRefusal, FumoResult, FumoState } from '../../mo/fumo.ts';
import type { FileVersion } from '../northbound/file-download.ts';
import type { UpdateRecord, UpdateRecords } from '../store/update-record.ts';
import { lostSlot, otherSlot, versionNumber } from './boot-state.ts';
import type { BundleDownload } from './download-bundle.ts';
import { type HealthCheck, passHealthGate } from './health.ts';
import { untilOpen } from './maintenance.ts';
import type { BundleFacts, SlotDriver } from './slots.ts';

export interface UpdaterParts {
  readonly slots: SlotDriver;
  readonly records: UpdateRecords;
  readonly branch: FirmwareBranch;
  readonly bundle: BundleDownload;
  /** Whether a version older than the running one may be installed. */
  readonly allowOlder: boolean;
  /** When the installation of an order of a DM server may begin, as `windowForm`; at any time when absent. */
  readonly window: string | undefined;
  /** Number of starts within which a new slot must be found healthy. */
  readonly attempts: number;
  /** Milliseconds within which a start must become healthy. */
  readonly healthDeadline: number;
  /** Checks that CoAP answers. */
  readonly probe: HealthCheck;
  /** Whether the uplink is connected. */
  readonly isConnected: () => boolean;
  /** Whether devices are served at any address. */
  readonly isServed: () => boolean;
  /** Names of the records of the attached devices. */
  readonly devices: () => readonly string[];
  /** Called when an operation has ended. `result` is a result code of FUMO. */
  readonly ended: (record: UpdateRecord, result: number) => void;
  /** Called when a slot that was good was lost, or both were (undefined), and the running one has taken its place. */
  readonly lost: (slot: string | undefined) => void;
  /** Called when the running slot was found good, so copies of the state for the old version can be deleted. */
  readonly settledWell: () => void;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Status of slots and updates. */
export interface UpdateStatus {
  /** The slot that runs. */
  readonly slot: string;
  /** Version in the running slot. */
  readonly version: string;
  readonly good: string;
  readonly trying: string | undefined;
  /** A FUMO state (OMA FUMO 1.0, section 6.1). */
  readonly state: number;
  /** Bytes of the bundle received so far. */
  readonly received: number | undefined;
  /** Size of the bundle in bytes. */
  readonly total: number | undefined;
  /** The maintenance window (UTC) that the installation waits for. */
  readonly window: string | undefined;
  /** FUMO result code of the last operation that ended since the start. */
  readonly result: number | undefined;
  /** Why that operation failed, or why the download under way does not go on. */
  readonly reason: string | undefined;
}

/** An operation to start. Without `server` it was ordered at the gateway itself. */
type UpdateOrder = Omit<FirmwareOrder, 'server'> & { readonly server?: string };

const recordOf = ({ operation, url, server, correlator }: UpdateOrder): UpdateRecord => ({
  operation,
  url,
  ...(server !== undefined && { server }),
  ...(correlator !== undefined && { correlator }),
  phase: 'downloading',
  ...(operation === 'Update' && { isDownloaded: true }),
});

/**
 * Updates the gateway itself (OMA FUMO 1.0). It downloads a bundle, lets the slot driver verify it and write it to the
 * slot that does not run, and restarts into that slot. The new version is kept when it becomes healthy in time.
 * Otherwise the boot loader returns to the old slot. The update under way is recorded durably, so its result is
 * reported in both cases, whichever slot runs then.
 */
export class Updater implements AsyncDisposable {
  readonly #parts: UpdaterParts;
  readonly #stop = new AbortController();
  /** Aborted when the operation under way is cancelled. */
  #cancel = new AbortController();
  #isWaiting = false;
  /** Why the inventory is not that of the version before. It is compared once, before devices can come or leave. */
  readonly #missing: string | undefined;
  #running: Promise<void> | undefined;
  #confirming: Promise<void> | undefined;
  #last: { result: number; reason: string | undefined } | undefined;

  constructor(parts: UpdaterParts) {
    this.#parts = parts;
    this.#missing = missingDevices(parts.records.get()?.attached, parts.devices());
  }

  /**
   * Starts an operation: `admit`, `record` and `launch`.
   * @throws {PosternError} `conflict`, `malformed`, `storage`
   */
  begin(order: UpdateOrder): void {
    this.admit(order);
    this.record(order);
    this.launch(order);
  }

  /**
   * Whether an operation may start now.
   * @throws {PosternError} `conflict` while another operation runs, `malformed` for an Update without a downloaded package
   */
  admit({ operation }: UpdateOrder): void {
    const { records, slots } = this.#parts;
    if (this.#running || records.get()) throw new PosternError('conflict', 'an update is under way');
    if (operation === 'Update' && !existsSync(slots.bundleFile))
      throw new PosternError('malformed', 'no package is there');
  }

  /** Stores an admitted operation, as part of the transaction under way. */
  record(order: UpdateOrder): void {
    this.#parts.records.put(recordOf(order));
  }

  /**
   * Returns what cancels the operation under way.
   * @throws {PosternError} `conflict` when there is none, or its installation has begun
   */
  cancel(): () => void {
    const control = this.#cancel;
    if (!this.#running || this.#parts.records.get()?.phase !== 'downloading')
      throw new PosternError('conflict', 'no update is under way, or its installation has begun');
    return () => control.abort(new FumoRefusal(FumoResult.Cancelled, 'the update was cancelled'));
  }

  /** Begins to work on a stored operation. */
  launch(order: UpdateOrder): void {
    if (order.operation !== 'Update') this.#parts.bundle.dropComplete();
    this.#last = undefined;
    this.#run(() => this.#advance(recordOf(order)));
  }

  status(): UpdateStatus {
    const { slots, branch, bundle, window } = this.#parts;
    const { good, trying } = slots.state();
    return {
      slot: slots.current,
      version: slots.version,
      good,
      trying,
      state: branch.state,
      received: bundle.progress?.received,
      total: bundle.progress?.total,
      window: this.#isWaiting ? window : undefined,
      result: this.#last?.result,
      reason: this.#last?.reason ?? bundle.trouble,
    };
  }

  /**
   * Continues an update after a start of the gateway: resumes a download, or checks the health of a new slot. To be
   * called when the store is open and CoAP is served.
   */
  start(): void {
    const { records, slots, events } = this.#parts;
    const record = records.get();
    const { good, trying, starts } = slots.state();
    if (trying !== slots.current && (good !== slots.current || starts > 0))
      this.#confirming = background(events, 'update', () => this.#confirm(), this.#stop.signal);
    if (!record) {
      // The slot was set to be tried by hand. It must be found healthy all the same.
      if (trying === slots.current) this.#run(() => this.#prove({}));
      return;
    }
    if (record.phase === 'downloading') this.#run(() => this.#advance(record));
    else if (record.phase === 'installing')
      this.#run(() => this.#end(record, FumoResult.Failed, 'the installation was broken off'));
    else this.#run(() => this.#afterRestart(record));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new PosternError('unavailable', 'the gateway stops'));
    await this.#running;
    await this.#confirming;
    this.#rememberDevices();
  }

  /**
   * Notes which devices are attached when the gateway stops while a slot is on trial: devices may have left since the
   * record was made. A version that lost devices does not note that.
   */
  #rememberDevices(): void {
    const { records, devices } = this.#parts;
    try {
      const record = records.get();
      if (record?.phase === 'trying' && this.#missing === undefined)
        records.put({ ...record, attached: devices() });
    } catch {
      // The record of before is compared then.
    }
  }

  /** Runs work in the background. `#running` is set meanwhile. Whatever the work throws ends here. */
  #run(work: () => Promise<void>): void {
    const { events } = this.#parts;
    this.#running = background(events, 'update', work, this.#stop.signal).then(() => {
      this.#running = undefined;
    });
  }

  /** Does what an update must not go on without, as often as it takes. */
  async #insist(work: () => unknown): Promise<void> {
    const { signal } = this.#stop;
    if (!(await persistently(this.#parts, 'update', work, signal))) throw signal.reason;
  }

  /** Downloads and installs, as the operation and its phase require. */
  async #advance(begun: UpdateRecord): Promise<void> {
    let record = begun;
    this.#cancel = new AbortController();
    const signal = AbortSignal.any([this.#stop.signal, this.#cancel.signal]);
    try {
      if (!record.isDownloaded) record = await this.#download(record, signal);
      if (record.operation !== 'Download') {
        if (record.server !== undefined) await this.#waitForWindow(signal);
        signal.throwIfAborted();
        record = { ...record, phase: 'installing' };
        await this.#install(record);
        return;
      }
    } catch (thrown) {
      if (this.#stop.signal.aborted) return;
      const error = asPosternError(thrown);
      const isFull = error.code === 'storage' || error.code === 'full';
      const result = error instanceof FumoRefusal || isFull ? downloadResult(error) : FumoResult.Failed;
      await this.#end(record, result, error.message);
      return;
    }
    await this.#end(record, FumoResult.Ok);
  }

  /** Resolves in the maintenance window. The clock may be set meanwhile, so it is read each minute. */
  async #waitForWindow(signal: AbortSignal): Promise<void> {
    const { window, branch, clock, events } = this.#parts;
    if (window === undefined) return;
    try {
      for (;;) {
        const left = untilOpen(window, clock.wall());
        if (left === 0) return;
        if (!this.#isWaiting) {
          branch.state = FumoState.Ready;
          events.emit('update.waiting', { window });
        }
        this.#isWaiting = true;
        await pause(clock, Math.min(left, 60_000), signal);
      }
    } finally {
      this.#isWaiting = false;
    }
  }

  /** Downloads the bundle and checks that it may be installed here. Returns the record of that. */
  async #download(record: UpdateRecord, signal: AbortSignal): Promise<UpdateRecord> {
    const { bundle, branch, records, events } = this.#parts;
    branch.state = FumoState.Downloading;
    const keep = (version: FileVersion) => records.put({ ...record, ...version });
    try {
      const isJoined = await bundle.fetch(record.url, record, keep, signal);
      await this.#check().catch(async (thrown) => {
        const isBroken =
          thrown instanceof FumoRefusal && downloadDamage.has(thrown.result) && !signal.aborted;
        if (!isJoined || !isBroken) throw thrown;
        bundle.drop();
        await bundle.fetch(record.url, {}, keep, signal, `the parts do not fit together: ${thrown.message}`);
        await this.#check();
      });
    } catch (thrown) {
      // The stop of the gateway and the failure of a server may pass.
      if (!this.#stop.signal.aborted && !mayPass(thrown)) bundle.drop();
      throw thrown;
    }
    const downloaded = { ...record, isDownloaded: true };
    records.put(downloaded);
    branch.state = FumoState.Downloaded;
    events.emit('update.downloaded', { from: publicUrl(record.url).slice(0, 200) });
    return downloaded;
  }

  /**
   * Returns the facts of the bundle when it may be installed here.
   * @throws {FumoRefusal} 403 for another kind of board, 405 for a version that is not allowed, or as
   * `SlotDriver.inspect`
   */
  async #check(): Promise<BundleFacts> {
    const { slots, allowOlder } = this.#parts;
    const facts = await slots.inspect();
    if (facts.compatible !== slots.compatible)
      throw new FumoRefusal(
        FumoResult.Mismatch,
        `the bundle is for ${facts.compatible || 'no board'}, and not for ${slots.compatible}`,
      );
    const [wanted, present] = [versionNumber(facts.version), versionNumber(slots.version)];
    if (wanted === undefined)
      throw new FumoRefusal(
        FumoResult.NotAcceptable,
        `the version must have the form 1.2.3: ${facts.version}`,
      );
    if (wanted < slots.state().floor)
      throw new FumoRefusal(FumoResult.NotAcceptable, `${facts.version} is below the lowest version allowed`);
    if (!allowOlder && present !== undefined && wanted < present)
      throw new FumoRefusal(
        FumoResult.NotAcceptable,
        `${facts.version} is older than ${slots.version}; update.allow-older = true allows it`,
      );
    return facts;
  }

  /** Installs the bundle in the other slot and restarts into it. */
  async #install(record: UpdateRecord): Promise<void> {
    const { slots, records, branch, bundle, attempts, events } = this.#parts;
    const { isConnected, isServed, devices } = this.#parts;
    records.put(record);
    branch.state = FumoState.Updating;
    const { version } = await this.#check();
    const slot = otherSlot(slots.current);
    events.emit('update.installing', { slot, version });
    await slots.install((percent) => events.emit('update.install-progress', { slot, percent }));
    records.put({
      ...record,
      phase: 'trying',
      slot,
      version,
      wasConnected: isConnected(),
      wasServed: isServed(),
      attached: devices(),
    });
    await records.settled();
    await slots.try(attempts);
    bundle.drop();
    events.emit('update.restarting', { slot, version });
    await this.#insist(() => slots.restart());
  }

  /** Counts the start of a good slot as a healthy one when it serves devices, or when there is no network to serve. */
  async #confirm(): Promise<void> {
    const { probe, isServed, clock } = this.#parts;
    const { signal } = this.#stop;
    while (isServed() && (await probe()) !== undefined) await pause(clock, probeInterval, signal);
    await this.#keep();
  }

  /** Keeps the running slot, and tells before which ones were lost. */
  async #keep(): Promise<void> {
    const { slots, events, lost } = this.#parts;
    const { current, version } = slots;
    const state = slots.state();
    const slot = state.recovered ? undefined : lostSlot(state, current);
    if (state.recovered) events.emit('slot.recovered', { slot: current, version });
    else if (slot) events.emit('slot.lost', { slot, version });
    if (state.recovered || slot) await this.#insist(() => lost(slot));
    await this.#insist(() => slots.keep());
  }

  /** Decides after a restart whether the new slot runs, must be checked, or was given up. */
  async #afterRestart(record: UpdateRecord): Promise<void> {
    const { slots } = this.#parts;
    const { good, trying, left } = slots.state();
    if (slots.current === record.slot)
      return good === slots.current ? await this.#end(record, FumoResult.Ok) : await this.#prove(record);
    // The old slot runs, but the new one still has starts: the restart did not happen, so restart again.
    if (trying === record.slot && left > 0) return await this.#insist(() => slots.restart());
    const reason = `${record.version} did not prove healthy; ${slots.version} runs on`;
    await this.#end(record, FumoResult.Failed, reason);
  }

  /** Checks the health of a slot that is tried. Marks it as good, or restarts. */
  async #prove(record: Partial<UpdateRecord>): Promise<void> {
    const { slots, probe, isConnected, isServed, healthDeadline, settledWell, clock, events } = this.#parts;
    const complaint = await passHealthGate(
      {
        checks: [
          () => this.#missing,
          () => (record.wasServed === false && !isServed() ? undefined : probe()),
          () => (isConnected() || record.wasConnected === false ? undefined : 'the broker is not reached'),
        ],
        deadline: healthDeadline,
        clock,
        events,
      },
      this.#stop.signal,
    );
    if (complaint !== undefined) {
      events.emit('update.not-healthy', {
        slot: slots.current,
        version: slots.version,
        reason: complaint,
      });
      return await this.#insist(() => slots.restart());
    }
    await this.#keep();
    await this.#insist(settledWell);
    events.emit('update.healthy', { slot: slots.current, version: slots.version });
    if (record.operation) await this.#end(record as UpdateRecord, FumoResult.Ok);
  }

  /** Ends an operation: sets the FUMO state, deletes the record and reports the result. */
  async #end(record: UpdateRecord, result: number, reason?: string): Promise<void> {
    const { records, branch, slots, ended, events } = this.#parts;
    await this.#insist(() =>
      records.end(() => {
        branch.state = stateAfter(record, result, existsSync(slots.bundleFile));
        ended(record, result);
      }),
    );
    this.#last = { result, reason };
    events.emit(result === FumoResult.Ok ? 'update.ended' : 'update.failed', {
      operation: record.operation,
      version: record.version,
      result,
      reason,
    });
  }
}

/** Milliseconds between probes of a slot that is good already. */
const probeInterval = 5000;
/** Results of a check that can come from parts that do not fit together. */
const downloadDamage: ReadonlySet<number> = new Set([FumoResult.Corrupt, FumoResult.NotValidated]);

/** Whether a download failed because of a server that may be there later. What was received is kept. */
const mayPass = (thrown: unknown): boolean =>
  thrown instanceof FumoRefusal &&
  (thrown.result === FumoResult.ServerUnavailable || thrown.result === FumoResult.NetworkFailed);

/** The FUMO state after an operation. */
function stateAfter({ operation, phase }: UpdateRecord, result: number, hasData: boolean): number {
  if (result !== FumoResult.Ok && phase === 'downloading' && !hasData) return FumoState.DownloadFailed;
  if (operation === 'Download') return FumoState.Downloaded;
  if (result === FumoResult.Ok) return hasData ? FumoState.DoneWithData : FumoState.DoneWithoutData;
  return hasData ? FumoState.FailedWithData : FumoState.FailedWithoutData;
}

/** Why the devices of now are not all of those before. More devices are no reason. */
function missingDevices(before: readonly string[] | undefined, now: readonly string[]): string | undefined {
  const there = new Set(now);
  const missing = before?.filter((name) => !there.has(name)).length ?? 0;
  return missing === 0 ? undefined : `devices are missing: ${missing} of ${before?.length}`;
}
