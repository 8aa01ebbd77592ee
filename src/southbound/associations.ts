import type { DatabaseSync } from 'node:sqlite';
import type { Clock, Monotonic, Timer } from '../base/clock.ts';
import type { Events } from '../base/events.ts';
import type { StoredBranch } from '../dm/stored-branch.ts';
import type { DetachReason, DeviceAttach, DeviceDetach } from '../mo/gateway-alerts.ts';
import type { Credentials } from '../store/credentials.ts';
import { transaction } from '../store/database.ts';
import type { Inventory } from '../store/inventory.ts';
import type { Outbox } from '../store/outbox.ts';
import type { AttachedDevice } from './device-sessions.ts';

export interface AssociationsParts {
  readonly database: DatabaseSync;
  readonly inventory: Inventory;
  readonly credentials: Credentials;
  readonly outbox: Outbox;
  readonly gwConfig: StoredBranch;
  readonly clock: Clock;
  readonly events: Events;
  /** Milliseconds after which a device that was not heard is asked whether it is there; never when 0. */
  readonly expiry: number;
  /** Whether a device answers where it was heard last. */
  readonly isAlive: (deviceId: string) => Promise<boolean>;
  /** There is something to report. */
  readonly reported: () => void;
}

/** Bodies of outbox entries, by their kind. */
export type AttachBody = Omit<DeviceAttach, 'sequence' | 'deviceId'>;
export type DetachBody = Pick<DeviceDetach, 'reason'>;

/** Devices that are asked at one time whether they are there. */
const asking = 16;

/**
 * Which devices are attached: what attaching and detaching changes is written as a whole, inventory, credential and
 * alert. A device that is silent for too long is asked before it counts as gone (GwMO, Device Attach and Detach Alerts).
 */
export class Associations implements AsyncDisposable {
  readonly #parts: AssociationsParts;
  /** When each attached device was heard; those that were attached before the start count from there. */
  readonly #heard = new Map<string, Monotonic>();
  #timer: Timer | undefined;
  #sweeping: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(parts: AssociationsParts) {
    this.#parts = parts;
  }

  start(): void {
    const { inventory, clock, expiry } = this.#parts;
    for (const { deviceId } of inventory.list()) this.#heard.set(deviceId, clock.now());
    if (expiry > 0) this.#arm();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    await this.#sweeping;
  }

  heard(deviceId: string): void {
    if (this.#parts.inventory.get(deviceId)) this.#heard.set(deviceId, this.#parts.clock.now());
  }

  attach(device: AttachedDevice): void {
    const { database, inventory, credentials, outbox, gwConfig, clock, events, reported } = this.#parts;
    const { deviceId, credential, address, manufacturer, model, firmware } = device;
    const before = inventory.get(deviceId);
    const described = {
      ...(manufacturer !== undefined && { manufacturer }),
      ...(model !== undefined && { model }),
    };
    const isNew = before === undefined || !credential.attached;
    const mode = before?.mode ?? Number(gwConfig.text('Mode') ?? 0);
    transaction(database, () => {
      if (!credential.attached) credentials.put({ ...credential, attached: true });
      inventory.put({
        deviceId,
        state: 'attached',
        mode,
        origin: credential.origin,
        address,
        lastSeen: clock.wall(),
        ...described,
        ...(firmware !== undefined && { firmware }),
      });
      const body: AttachBody = { mode, bootstrap: credential.origin, ...described };
      if (isNew && gwConfig.text('AttachAlert') === 'true')
        outbox.add('device-attach', deviceId, JSON.stringify(body));
    });
    this.#heard.set(deviceId, clock.now());
    if (!isNew) return;
    events.emit('info', 'device.attached', {
      device: deviceId,
      bootstrap: credential.origin,
      peer: address,
    });
    reported();
  }

  /** A device is gone, and its credential with it; the DM server is told. False when it was not attached. */
  detach(deviceId: string, reason: DetachReason): boolean {
    const { gwConfig, outbox, reported } = this.#parts;
    const body: DetachBody = { reason };
    const report =
      gwConfig.text('DetachAlert') === 'true'
        ? () => outbox.add('device-detach', deviceId, JSON.stringify(body))
        : () => {};
    if (!this.#remove(deviceId, reason, report)) return false;
    reported();
    return true;
  }

  /** The DM server takes a device away, and need not be told. Answers with how to take that back. */
  remove(deviceId: string): () => void {
    const { database, inventory, credentials, clock } = this.#parts;
    const record = inventory.get(deviceId);
    const credential = credentials.get(deviceId);
    this.#remove(deviceId, 'removed', () => {});
    return () =>
      transaction(database, () => {
        if (credential) credentials.put(credential);
        if (record) inventory.put(record);
        this.#heard.set(deviceId, clock.now());
      });
  }

  #remove(deviceId: string, reason: string, report: () => void): boolean {
    const { database, inventory, credentials, events } = this.#parts;
    if (!inventory.get(deviceId)) return false;
    transaction(database, () => {
      inventory.delete(deviceId);
      credentials.delete(deviceId);
      report();
    });
    this.#heard.delete(deviceId);
    events.emit('info', 'device.detached', { device: deviceId, reason });
    return true;
  }

  #arm(): void {
    const { clock, expiry } = this.#parts;
    this.#timer = clock.after(Math.max(1000, expiry / 4), () => {
      this.#sweeping = this.#sweep().finally(() => {
        if (!this.#stopped) this.#arm();
      });
    });
  }

  async #sweep(): Promise<void> {
    const { clock, expiry, isAlive } = this.#parts;
    const silent = [...this.#heard].filter(([, since]) => clock.now() - since >= expiry);
    for (let at = 0; at < silent.length && !this.#stopped; at += asking)
      await Promise.all(
        silent.slice(at, at + asking).map(async ([deviceId, since]) => {
          const alive = await isAlive(deviceId).catch(() => false);
          if (this.#stopped || this.#heard.get(deviceId) !== since) return;
          if (alive) this.heard(deviceId);
          else this.detach(deviceId, 'expired');
        }),
      );
  }
}
