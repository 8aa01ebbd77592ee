import type { DatabaseSync } from 'node:sqlite';
import { background } from '../../base/background.ts';
import type { Clock, Monotonic, Timer } from '../../base/clock.ts';
import { transaction } from '../../base/database.ts';
import type { Events } from '../../base/events.ts';
import { presentable } from '../../base/presentable.ts';
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
  /** Milliseconds of silence after which a device is asked whether it still answers. 0: never. */
  readonly expiryOf: (deviceId: string) => number;
  /** Whether a device answers at the address from which it was last heard. */
  readonly isAlive: (deviceId: string) => Promise<boolean>;
  /** Called when a report may have been added to the outbox. */
  readonly reported: () => void;
  /** Called when a device is no longer attached to this gateway. */
  readonly gone: (deviceId: string) => void;
}

/** A device that has authenticated, or whose presence was verified otherwise. */
export interface AttachedDevice extends Omit<DeviceRecord, 'state' | 'lastSeen' | 'via'> {
  /** Credential by which the device authenticated; absent for LwM2M clients, which have none. */
  readonly credential?: GatewayCredential;
}

const identityFields = ['manufacturer', 'model', 'firmware', 'deviceType'] as const;
type Identity = { readonly [K in (typeof identityFields)[number]]?: string };

/**
 * What a device says of itself, made fit to be stored, shown and reported. A device may say anything, and all that it says
 * of itself enters here.
 */
const presentableIdentity = (device: Identity): Identity =>
  Object.fromEntries(
    identityFields.flatMap((field) => {
      const value = device[field];
      return value === undefined ? [] : [[field, presentable(value)]];
    }),
  );

/** Body of an outbox entry of kind `device-attach`. */
export type AttachBody = Omit<DeviceAttach, 'sequence' | 'deviceId'>;
/** Body of an outbox entry of kind `device-detach`. */
export type DetachBody = Pick<DeviceDetach, 'reason' | 'via'>;

/** Maximum number of devices asked at the same time whether they still answer. */
const probesAtOnce = 16;
/** Milliseconds between two searches for silent devices. */
const sweepEvery = 30_000;

/**
 * Keeps track of which devices are attached. Each attach or detach is one transaction over inventory, credentials and
 * outbox. A device that was silent for too long is asked first, and detached only when it does not answer (GwMO, Device
 * Attach and Detach Alerts).
 */
export class Associations implements AsyncDisposable {
  readonly #parts: AssociationsParts;
  /** When each directly attached device was last heard. After a restart, the time of the start. */
  readonly #heard = new Map<string, Monotonic>();
  #timer: Timer | undefined;
  #sweeping: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(parts: AssociationsParts) {
    this.#parts = parts;
  }

  /** Starts the search for silent devices. */
  start(): void {
    const { inventory, clock } = this.#parts;
    // A child gateway checks the devices behind it itself.
    for (const { deviceId, via } of inventory.values())
      if (via === undefined) this.#heard.set(deviceId, clock.now());
    this.#scheduleSweep();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    await this.#sweeping;
  }

  /** Notes that a directly attached device was heard just now. */
  heard(deviceId: string): void {
    const record = this.#parts.inventory.get(deviceId);
    if (record && record.via === undefined) this.#heard.set(deviceId, this.#parts.clock.now());
  }

  /**
   * Records that a device is attached to this gateway itself. Reports it when it was not attached here before, or when
   * it authenticates with a new credential for the first time.
   * @throws {PosternError} `full`
   */
  attach({ credential, ...device }: AttachedDevice): void {
    const { database, inventory, credentials, clock, events, reported } = this.#parts;
    const { deviceId, mode, origin, address, isGateway } = device;
    const identity = presentableIdentity(device);
    const { manufacturer, model } = identity;
    const before = inventory.get(deviceId);
    const isProvenFirst = credential !== undefined && !credential.attached;
    const isNew = before === undefined || before.via !== undefined || isProvenFirst;
    transaction(database, () => {
      if (isProvenFirst) credentials.put({ ...credential, attached: true });
      inventory.put({ ...device, ...identity, state: 'attached', lastSeen: clock.wall() });
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

  /**
   * Removes a device, its credential and the devices behind it, and reports them as detached. Returns false when the
   * device was not attached.
   */
  detach(deviceId: string, reason: DetachReason): boolean {
    const report = () => this.#report('device-detach', deviceId, { reason });
    if (!this.#remove(deviceId, reason, report)) return false;
    for (const { deviceId: below, via } of [...this.#parts.inventory.values()])
      if (via?.split('/')[0] === deviceId) this.detachBehind(deviceId, below, reason);
    this.#parts.reported();
    return true;
  }

  /**
   * Records a device that a child gateway reports (GwMO 1.1). The record replaces an earlier one of the same device.
   * @param path gateways on the way to the device, the child first, joined by `/`
   * @throws {PosternError} `full`
   */
  attachBehind(path: string, attach: Omit<DeviceAttach, 'sequence'>): void {
    const { database, inventory, clock, events, reported } = this.#parts;
    const [child = ''] = path.split('/');
    const { deviceId, mode, bootstrap, isGateway = false } = attach;
    const described = presentableIdentity(attach);
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
    // The child repeats an alert that was not acknowledged, so the device may be known already.
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

  /**
   * Removes a device behind a child gateway and reports it as detached, because the child lost the device or was
   * detached itself. Does nothing when the device is attached elsewhere by now.
   */
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

  /** Removes a device by order of the DM server, so no alert is sent. Returns a function that undoes the removal. */
  remove(deviceId: string): () => void {
    const { database, inventory, credentials, clock } = this.#parts;
    const record = inventory.get(deviceId);
    const credential = credentials.get(deviceId);
    // When the device moved behind a child gateway, its record describes it there and stays. Only the credential goes.
    if (record?.via === undefined) this.#remove(deviceId, 'removed', () => {});
    else credentials.delete(deviceId);
    return () =>
      transaction(database, () => {
        if (credential) credentials.put(credential);
        if (record) inventory.put(record);
        if (record?.via === undefined) this.#heard.set(deviceId, clock.now());
      });
  }

  /** Adds an alert to the outbox unless GwConfig turns it off. Joins the caller's transaction. */
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

  #scheduleSweep(): void {
    const { clock, events } = this.#parts;
    this.#timer = clock.after(sweepEvery, () => {
      this.#sweeping = background(events, 'expiry', () => this.#sweep()).then(() => {
        if (!this.#stopped) this.#scheduleSweep();
      });
    });
  }

  async #sweep(): Promise<void> {
    const { clock, events, expiryOf, isAlive } = this.#parts;
    const silent = [...this.#heard].filter(([deviceId, since]) => {
      const expiry = expiryOf(deviceId);
      return expiry > 0 && clock.now() - since >= expiry;
    });
    for (let at = 0; at < silent.length && !this.#stopped; at += probesAtOnce)
      await Promise.all(
        silent.slice(at, at + probesAtOnce).map(([deviceId, since]) =>
          // Where one device fails, the others are asked all the same.
          background(events, 'expiry', async () => {
            const alive = await isAlive(deviceId).catch(() => false);
            // The device may have been heard or detached during the probe.
            if (this.#stopped || this.#heard.get(deviceId) !== since) return;
            if (alive) this.heard(deviceId);
            else this.detach(deviceId, 'expired');
          }),
        ),
      );
  }
}
