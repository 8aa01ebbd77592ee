import type { DatabaseSync } from 'node:sqlite';
import type { Clock, Monotonic, Timer } from '../../base/clock.ts';
import { transaction } from '../../base/database.ts';
import type { Events } from '../../base/events.ts';
import type { StoredBranch } from '../../dm/stored-branch.ts';
import type { DeviceRecord } from '../../mo/device-record.ts';
import type { DetachReason, DeviceAttach, DeviceDetach } from '../../mo/gateway-alerts.ts';
import { GatewayMode } from '../../mo/gw-config.ts';
import type { Credentials, GatewayCredential } from '../store/credentials.ts';
import type { Inventory } from '../store/inventory.ts';
import type { Outbox } from '../store/outbox.ts';

export interface AssociationsParts {
  readonly database: DatabaseSync;
  readonly inventory: Inventory;
  readonly credentials: Credentials;
  readonly outbox: Outbox;
  readonly gwConfig: StoredBranch;
  readonly clock: Clock;
  readonly events: Events;
  /** Milliseconds after which a device that was not heard is asked whether it is there; never when 0. */
  readonly expiryOf: (deviceId: string) => number;
  /** Whether a device answers where it was heard last. */
  readonly isAlive: (deviceId: string) => Promise<boolean>;
  /** There is something to report. */
  readonly reported: () => void;
  /** A device is attached here no more. */
  readonly gone: (deviceId: string) => void;
}

/** A device that has shown that it is there. */
export interface AttachedDevice extends Omit<DeviceRecord, 'state' | 'lastSeen' | 'via'> {
  /** What it proved itself by; none where its protocol has none here. */
  readonly credential?: GatewayCredential;
}

/** Bodies of outbox entries, by their kind. */
export type AttachBody = Omit<DeviceAttach, 'sequence' | 'deviceId'>;
export type DetachBody = Pick<DeviceDetach, 'reason' | 'via'>;

/** Devices that are asked at one time whether they are there, and milliseconds between looks for those to ask. */
const asking = 16;
const sweepEvery = 30_000;

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
    const { inventory, clock } = this.#parts;
    // What is behind a child gateway is the child's to ask.
    for (const { deviceId, via } of inventory.values())
      if (via === undefined) this.#heard.set(deviceId, clock.now());
    this.#arm();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    await this.#sweeping;
  }

  heard(deviceId: string): void {
    const record = this.#parts.inventory.get(deviceId);
    if (record && record.via === undefined) this.#heard.set(deviceId, this.#parts.clock.now());
  }

  attach({ credential, ...device }: AttachedDevice): void {
    const { database, inventory, credentials, clock, events, reported } = this.#parts;
    const { deviceId, mode, origin, address, isGateway, manufacturer, model } = device;
    const before = inventory.get(deviceId);
    const isProvenFirst = credential !== undefined && !credential.attached;
    const isNew = before === undefined || before.via !== undefined || isProvenFirst;
    transaction(database, () => {
      if (isProvenFirst) credentials.put({ ...credential, attached: true });
      inventory.put({ ...device, state: 'attached', lastSeen: clock.wall() });
      if (isNew)
        this.#report('device-attach', deviceId, {
          mode,
          bootstrap: origin,
          ...(isGateway && { isGateway }),
          ...(manufacturer !== undefined && { manufacturer }),
          ...(model !== undefined && { model }),
        });
    });
    this.#heard.set(deviceId, clock.now());
    if (!isNew) return;
    events.emit('device.attached', {
      device: deviceId,
      bootstrap: origin,
      peer: address,
      protocol: device.protocol,
    });
    reported();
  }

  /** A device is gone, and its credential with it; the DM server is told. False when it was not attached. */
  detach(deviceId: string, reason: DetachReason): boolean {
    const report = () => this.#report('device-detach', deviceId, { reason });
    if (!this.#remove(deviceId, reason, report)) return false;
    for (const { deviceId: below, via } of [...this.#parts.inventory.values()])
      if (via?.split('/')[0] === deviceId) this.detachBehind(deviceId, below, reason);
    this.#parts.reported();
    return true;
  }

  /**
   * A child gateway reports a device of its own (GwMO 1.1), which takes the place of what was known of that device. `path`
   * has the gateways on the way to it, the child first.
   */
  attachBehind(path: string, attach: Omit<DeviceAttach, 'sequence'>): void {
    const { database, inventory, clock, events, reported } = this.#parts;
    const [child = ''] = path.split('/');
    const { deviceId, mode, bootstrap, isGateway = false, manufacturer, model } = attach;
    const described = {
      ...(manufacturer !== undefined && { manufacturer }),
      ...(model !== undefined && { model }),
    };
    const record: DeviceRecord = {
      deviceId,
      state: 'attached',
      mode,
      origin: bootstrap,
      address: inventory.get(child)?.address ?? '',
      lastSeen: clock.wall(),
      protocol: mode === GatewayMode.Adaptation ? 'LwM2M' : 'OMA-DM',
      isGateway,
      via: path,
      ...described,
    };
    // The child tells again what it did not hear an answer to.
    const isNew = inventory.get(deviceId)?.via !== path;
    transaction(database, () => {
      inventory.put(record);
      const body = { mode, bootstrap, via: path, ...(isGateway && { isGateway }), ...described };
      if (isNew) this.#report('device-attach', deviceId, body);
    });
    this.#heard.delete(deviceId);
    if (!isNew) return;
    events.emit('device.attached', { device: deviceId, bootstrap, via: path });
    reported();
  }

  /** A child gateway has lost a device, or is lost itself. What is attached elsewhere by now stays. */
  detachBehind(child: string, deviceId: string, reason: DetachReason): void {
    const { database, inventory, events, reported } = this.#parts;
    const via = inventory.get(deviceId)?.via;
    if (via?.split('/')[0] !== child) return;
    transaction(database, () => {
      inventory.delete(deviceId);
      this.#report('device-detach', deviceId, { reason, via });
    });
    events.emit('device.detached', { device: deviceId, reason, via });
    reported();
  }

  /** The DM server takes a device away, and need not be told. Answers with how to take that back. */
  remove(deviceId: string): () => void {
    const { database, inventory, credentials, clock } = this.#parts;
    const record = inventory.get(deviceId);
    const credential = credentials.get(deviceId);
    // Where a device went on to a child gateway, its record is the child's; what this gateway held of it goes.
    if (record?.via === undefined) this.#remove(deviceId, 'removed', () => {});
    else credentials.delete(deviceId);
    return () =>
      transaction(database, () => {
        if (credential) credentials.put(credential);
        if (record) inventory.put(record);
        if (record?.via === undefined) this.#heard.set(deviceId, clock.now());
      });
  }

  /** Part of the caller's transaction. */
  #report(kind: 'device-attach' | 'device-detach', deviceId: string, body: AttachBody | DetachBody): void {
    const { gwConfig, outbox } = this.#parts;
    const wanted = gwConfig.text(kind === 'device-attach' ? 'AttachAlert' : 'DetachAlert');
    if (wanted === 'true') outbox.add(kind, deviceId, JSON.stringify(body));
  }

  #remove(deviceId: string, reason: string, report: () => void): boolean {
    const { database, inventory, credentials, events, gone } = this.#parts;
    if (!inventory.get(deviceId)) return false;
    transaction(database, () => {
      inventory.delete(deviceId);
      credentials.delete(deviceId);
      report();
    });
    this.#heard.delete(deviceId);
    events.emit('device.detached', { device: deviceId, reason });
    gone(deviceId);
    return true;
  }

  #arm(): void {
    this.#timer = this.#parts.clock.after(sweepEvery, () => {
      this.#sweeping = this.#sweep().finally(() => {
        if (!this.#stopped) this.#arm();
      });
    });
  }

  async #sweep(): Promise<void> {
    const { clock, expiryOf, isAlive } = this.#parts;
    const silent = [...this.#heard].filter(([deviceId, since]) => {
      const expiry = expiryOf(deviceId);
      return expiry > 0 && clock.now() - since >= expiry;
    });
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
