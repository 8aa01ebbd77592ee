import { existsSync } from 'node:fs';
import { background } from '../../base/background.ts';
import type { Clock } from '../../base/clock.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { publicUrl } from '../../base/public-url.ts';
import type { FirmwareBranch, FirmwareOrder } from '../../mo/firmware-branch.ts';
import { FumoRefusal, FumoResult, FumoState } from '../../mo/fumo.ts';
import type { UpdateRecord, UpdateRecords } from '../store/update-record.ts';
import { otherSlot, versionNumber } from './boot-state.ts';
import type { BundleDownload } from './download-bundle.ts';
import { type HealthCheck, passHealthGate } from './health.ts';
import type { BundleFacts, SlotDriver } from './slots.ts';

export interface UpdaterParts {
  readonly slots: SlotDriver;
  readonly records: UpdateRecords;
  readonly branch: FirmwareBranch;
  readonly bundle: BundleDownload;
  /** Whether a version older than the running one may be installed. */
  readonly allowOlder: boolean;
  /** Number of starts within which a new slot must be found healthy. */
  readonly attempts: number;
  /** Milliseconds within which a start must become healthy. */
  readonly healthDeadline: number;
  /** Checks that CoAP answers. */
  readonly probe: HealthCheck;
  /** Whether the uplink is connected. */
  readonly isConnected: () => boolean;
  /** Digest of the IDs of the attached devices. */
  readonly devices: () => string;
  /** Called when an operation has ended. `result` is a result code of FUMO. */
  readonly ended: (record: UpdateRecord, result: number) => void;
  /** Called when the running slot was found good, so copies of the state for the old version can be deleted. */
  readonly settledWell: () => void;
  readonly clock: Clock;
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
  /** FUMO result code of the last operation that ended since the start. */
  readonly result: number | undefined;
  /** Why that operation failed. */
  readonly reason: string | undefined;
}

/**
 * Updates the gateway itself (OMA FUMO 1.0). It downloads a bundle, lets the slot driver verify it and write it to the
 * slot that does not run, and restarts into that slot. The new version is kept when it becomes healthy in time.
 * Otherwise the boot loader returns to the old slot. The update under way is recorded durably, so its result is
 * reported in both cases, whichever slot runs then.
 */
export class Updater implements AsyncDisposable {
  readonly #parts: UpdaterParts;
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;
  #last: { result: number; reason: string | undefined } | undefined;

  constructor(parts: UpdaterParts) {
    this.#parts = parts;
  }

  /**
   * Starts an operation. Without `server` it was ordered at the gateway itself.
   * @throws {PosternError} `conflict` while another operation runs, `malformed` for an Update without a downloaded
   * package
   */
  begin({ operation, url, server, correlator }: Omit<FirmwareOrder, 'server'> & { server?: string }): void {
    const { records, slots, bundle } = this.#parts;
    if (this.#running || records.get()) throw new PosternError('conflict', 'an update is under way');
    const isThere = existsSync(slots.bundleFile);
    if (operation === 'Update' && !isThere) throw new PosternError('malformed', 'no package is there');
    if (operation !== 'Update') bundle.drop();
    this.#last = undefined;
    const record: UpdateRecord = {
      operation,
      url,
      ...(server !== undefined && { server }),
      ...(correlator !== undefined && { correlator }),
      phase: operation === 'Update' ? 'installing' : 'downloading',
    };
    records.put(record);
    this.#run(() => this.#advance(record));
  }

  status(): UpdateStatus {
    const { slots, branch, bundle } = this.#parts;
    const { good, trying } = slots.boot.read();
    return {
      slot: slots.current,
      version: slots.version,
      good,
      trying,
      state: branch.state,
      received: bundle.progress?.received,
      total: bundle.progress?.total,
      result: this.#last?.result,
      reason: this.#last?.reason,
    };
  }

  /**
   * Continues an update after a start of the gateway: resumes a download, or checks the health of a new slot. To be
   * called when the store is open and CoAP is served.
   */
  start(): void {
    const { records, slots } = this.#parts;
    const record = records.get();
    const { trying } = slots.boot.read();
    if (!record) {
      // The slot was set to be tried by hand. It must be found healthy all the same.
      if (trying === slots.current) this.#run(() => this.#prove({}));
      return;
    }
    if (record.phase === 'downloading') this.#run(() => this.#advance(record));
    else if (record.phase === 'installing')
      this.#end(record, FumoResult.Failed, 'the installation was broken off');
    else this.#run(() => this.#afterRestart(record));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new PosternError('unavailable', 'the gateway stops'));
    await this.#running;
  }

  /** Runs work in the background. `#running` is set meanwhile. */
  #run(work: () => Promise<void>): void {
    const { events } = this.#parts;
    const run = async () => {
      try {
        await work();
      } catch (thrown) {
        if (!this.#stop.signal.aborted)
          events.emit('update.stuck', { reason: asPosternError(thrown).message });
      }
    };
    this.#running = background(events, 'update', run).then(() => {
      this.#running = undefined;
    });
  }

  /** Downloads and installs, as the operation and its phase require. */
  async #advance(record: UpdateRecord): Promise<void> {
    try {
      if (record.phase === 'downloading') await this.#download(record);
      if (record.operation === 'Download') return this.#end(record, FumoResult.Ok);
      await this.#install({ ...record, phase: 'installing' });
    } catch (thrown) {
      if (this.#stop.signal.aborted) return;
      const error = asPosternError(thrown);
      this.#end(record, error instanceof FumoRefusal ? error.result : FumoResult.Failed, error.message);
    }
  }

  /** Downloads the bundle and checks that it may be installed here. */
  async #download(record: UpdateRecord): Promise<void> {
    const { bundle, branch, records, events } = this.#parts;
    branch.state = FumoState.Downloading;
    try {
      await bundle.fetch(
        record.url,
        record.validator,
        (validator) => records.put({ ...record, ...(validator !== undefined && { validator }) }),
        this.#stop.signal,
      );
      await this.#check();
    } catch (thrown) {
      if (!this.#stop.signal.aborted) {
        bundle.drop();
        branch.state = FumoState.DownloadFailed;
      }
      throw thrown;
    }
    branch.state = FumoState.Downloaded;
    events.emit('update.downloaded', { from: publicUrl(record.url).slice(0, 200) });
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
    if (wanted < slots.boot.read().floor)
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
    const { slots, records, branch, bundle, attempts, events, isConnected, devices } = this.#parts;
    records.put(record);
    branch.state = FumoState.Updating;
    const { version, floor } = await this.#check();
    const slot = otherSlot(slots.current);
    // The boot state never names a slot that is being written.
    slots.boot.change({ good: slots.current, trying: undefined, left: 0 });
    events.emit('update.installing', { slot, version });
    await slots.install((percent) => events.emit('update.install-progress', { slot, percent }));
    records.put({
      ...record,
      phase: 'trying',
      slot,
      version,
      ...(floor !== undefined && { floor }),
      wasConnected: isConnected(),
      devices: devices(),
    });
    slots.boot.change({ trying: slot, left: attempts, failed: undefined });
    bundle.drop();
    events.emit('update.restarting', { slot, version });
    slots.restart();
  }

  /** Decides after a restart whether the new slot runs, must be checked, or was given up. */
  async #afterRestart(record: UpdateRecord): Promise<void> {
    const { slots } = this.#parts;
    const { good, trying, left } = slots.boot.read();
    if (slots.current === record.slot)
      return good === slots.current ? this.#end(record, FumoResult.Ok) : await this.#prove(record);
    // The old slot runs, but the new one still has starts: the restart did not happen, so restart again.
    if (trying === record.slot && left > 0) return slots.restart();
    this.#end(record, FumoResult.Failed, `${record.version} did not prove healthy; ${slots.version} runs on`);
  }

  /** Checks the health of a slot that is tried. Marks it as good, or restarts. */
  async #prove(record: Partial<UpdateRecord>): Promise<void> {
    const { slots, probe, isConnected, devices, healthDeadline, settledWell, clock, events } = this.#parts;
    const complaint = await passHealthGate(
      {
        checks: [
          () =>
            record.devices === undefined || record.devices === devices() ? undefined : 'devices are missing',
          probe,
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
      return slots.restart();
    }
    const { floor } = slots.boot.read();
    const raised = Math.max(floor, versionNumber(record.floor ?? '') ?? 0);
    slots.boot.change({ good: slots.current, trying: undefined, left: 0, floor: raised });
    settledWell();
    events.emit('update.healthy', { slot: slots.current, version: slots.version });
    if (record.operation) this.#end(record as UpdateRecord, FumoResult.Ok);
  }

  /** Ends an operation: sets the FUMO state, deletes the record and reports the result. */
  #end(record: UpdateRecord, result: number, reason?: string): void {
    const { records, branch, slots, ended, events } = this.#parts;
    const isDownload = record.operation === 'Download';
    const hasData = existsSync(slots.bundleFile);
    // A download that failed has set its state already.
    if (!isDownload || result === FumoResult.Ok)
      branch.state = stateAfter(isDownload, result, hasData, branch.state);
    this.#last = { result, reason };
    records.end(() => ended(record, result));
    events.emit(result === FumoResult.Ok ? 'update.ended' : 'update.failed', {
      operation: record.operation,
      version: record.version,
      result,
      reason,
    });
  }
}

/** The FUMO state after an operation. */
function stateAfter(isDownload: boolean, result: number, hasData: boolean, before: number): number {
  if (isDownload) return FumoState.Downloaded;
  if (result === FumoResult.Ok) return hasData ? FumoState.DoneWithData : FumoState.DoneWithoutData;
  if (before === FumoState.DownloadFailed) return before;
  return hasData ? FumoState.FailedWithData : FumoState.FailedWithoutData;
}
