import type { Clock } from '../../base/clock.ts';
import { type Database, transaction } from '../../base/database.ts';
import type { Events } from '../../base/events.ts';
import { presentable } from '../../base/presentable.ts';
import type { StoredBranch } from '../../dm/stored-branch.ts';
import type { AlertNumber } from '../../mo/alert-number.ts';
import { type DeviceRecord, GatewayMode } from '../../mo/device-record.ts';
import type { DetachReason, DeviceAttach, DeviceDetach, DevicePresence } from '../../mo/gateway-alerts.ts';
import { childIn } from '../rights/child-scope.ts';
import type { Credentials, GatewayCredential } from '../store/credentials.ts';
import type { Inventory } from '../store/inventory.ts';
import type { FromChild, Outbox } from '../store/outbox.ts';
import { type PresenceEvent, presenceAfter } from './presence.ts';

export interface AssociationsParts {
  readonly database: Database;
  readonly inventory: Inventory;
  readonly credentials: Credentials;
  readonly outbox: Outbox;
  readonly gwConfig: StoredBranch;
  readonly clock: Clock;
  readonly events: Events;
  /** Called when a report may have been added to the outbox. */
  readonly reported: () => void;
  /** Called in the transaction that deletes the record of a device. */
  readonly leaving: (deviceId: string) => void;
  /** Called when a device is attached, or when what it says of itself has changed. */
  readonly came: (deviceId: string) => void;
  /** Called when a device is no longer attached to this gateway. */
  readonly gone: (deviceId: string) => void;
  /** Called in the transaction that removes a device by order of the DM server. */
  readonly removed: (deviceId: string) => unknown;
}

/** A device that has authenticated, or whose presence was verified otherwise. */
export interface AttachedDevice extends Omit<DeviceRecord, 'state' | 'reason' | 'lastSeen' | 'via'> {
  /** Credential by which the device authenticated; absent for LwM2M clients, which have none. */
  readonly credential?: GatewayCredential;
}

const identityFields = ['manufacturer', 'model', 'firmware', 'deviceType', 'serial'] as const;
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
export type AttachBody = Omit<DeviceAttach, keyof AlertNumber | 'deviceId'>;
/** Body of an outbox entry of kind `device-detach`. */
export type DetachBody = Pick<DeviceDetach, 'reason' | 'via'>;

/** Body of an outbox entry of kind `device-presence`. */
export type PresenceBody = Omit<DevicePresence, keyof AlertNumber | 'deviceId'>;

/** The address of a device, and the local address that it was heard on, as the record has them. */
export type Whereabouts = Pick<DeviceRecord, 'address' | 'heardOn'>;

/** The node of GwConfig that says whether an alert is sent, by the kind of its outbox entry. */
const switches = {
  'device-attach': 'AttachAlert',
  'device-detach': 'DetachAlert',
  'device-presence': 'PresenceAlert',
} as const;

const attachBody = ({ mode, origin, via, isGateway, manufacturer, model }: DeviceRecord): AttachBody => ({
  mode,
  bootstrap: origin,
  ...(via !== undefined && { via }),
  ...(isGateway && { isGateway }),
  ...(manufacturer !== undefined && { manufacturer }),
  ...(model !== undefined && { model }),
});

/** The child gateway that reports a device on this path. Undefined for a device of this gateway itself. */
const fromChild = (via: string | undefined): FromChild | undefined => {
  const child = childIn(via === undefined ? undefined : { via });
  return child === undefined ? undefined : { child, mayRefuse: true };
};

/** Whether nothing but the time of the last message is different. */
function isSame({ lastSeen: _, ...before }: DeviceRecord, { lastSeen, ...now }: DeviceRecord): boolean {
  const fields = new Set([...Object.keys(before), ...Object.keys(now)]) as Set<keyof typeof now>;
  return [...fields].every((field) => before[field] === now[field]);
}

/**
 * Keeps track of which devices are attached, and whether they can be reached. Each change is one transaction over
 * inventory, credentials and outbox. A device is detached only when it leaves, when the server removes it, or when it is
 * attached elsewhere (GwMO, Device Attach and Detach Alerts). `PresenceWatch` finds out which devices are silent.
 */
export class Associations {
  readonly #parts: AssociationsParts;

  constructor(parts: AssociationsParts) {
    this.#parts = parts;
  }

  /**
   * Notes that a directly attached device sent a proven message. A device that was unreachable is reported as reached. A
   * new address is written at once, because a restart needs it. Returns whether something was written.
   * @param where absent over HTTP
   */
  heard(deviceId: string, where: Whereabouts | undefined): boolean {
    const { database, inventory, clock } = this.#parts;
    const record = inventory.get(deviceId);
    if (!record || record.via !== undefined) return false;
    inventory.heard(deviceId, clock.wall());
    const { address = record.address, heardOn = record.heardOn } = where ?? {};
    const hasMoved = address !== record.address || heardOn !== record.heardOn;
    if (record.state === 'attached' && !hasMoved) return false;
    const now = { ...record, ...where };
    if (record.state !== 'attached') return this.#change(now, { name: 'heard' });
    transaction(database, () => inventory.put(now));
    return true;
  }

  /**
   * Notes that a directly attached device cannot be reached, and reports that when it is new. Returns whether something
   * was written.
   */
  missing(deviceId: string, reason: string): boolean {
    const record = this.#parts.inventory.get(deviceId);
    return (
      record !== undefined && record.via === undefined && this.#change(record, { name: 'missing', reason })
    );
  }

  /**
   * Takes the presence of a device from the child gateway that it is behind. Does nothing when the device is attached
   * elsewhere by now.
   */
  presenceBehind(
    child: string,
    { deviceId, state, reason = '', lastSeen }: Omit<DevicePresence, 'sequence'>,
  ): void {
    const record = this.#parts.inventory.get(deviceId);
    if (!record || childIn(record) !== child) return;
    const event: PresenceEvent = state === 'attached' ? { name: 'heard' } : { name: 'missing', reason };
    this.#change({ ...record, lastSeen }, event);
  }

  #change(record: DeviceRecord, event: PresenceEvent): boolean {
    const { database, inventory, events, reported } = this.#parts;
    const { deviceId, via, lastSeen } = record;
    const presence = presenceAfter(record, event);
    const { reason: before, ...rest } = record;
    if (!presence || (presence.state === record.state && presence.reason === before)) return false;
    transaction(database, () => {
      inventory.put({ ...rest, ...presence });
      this.#report(
        'device-presence',
        deviceId,
        { ...presence, lastSeen, ...(via !== undefined && { via }) },
        fromChild(via),
      );
    });
    const fields = { device: deviceId, via };
    if (presence.reason === undefined) events.emit('device.reached', fields);
    else events.emit('device.unreachable', { ...fields, reason: presence.reason });
    reported();
    return true;
  }

  /**
   * Records that a device is attached to this gateway itself. Reports it when it was not attached here before, or when
   * it authenticates with a new credential for the first time. Writes nothing when nothing about the device has changed.
   * @throws {PosternError} `full`
   */
  attach({ credential, ...device }: AttachedDevice): void {
    const { database, inventory, credentials, clock, events, reported, came } = this.#parts;
    const { deviceId, origin, address } = device;
    const identity = presentableIdentity(device);
    const before = inventory.get(deviceId);
    const isProvenFirst = credential !== undefined && !credential.attached;
    const isNew = before === undefined || before.via !== undefined || isProvenFirst;
    const lastSeen = clock.wall();
    const record: DeviceRecord = { ...device, ...identity, state: 'attached', lastSeen };
    if (before && !isNew && isSame(before, record)) {
      inventory.heard(deviceId, lastSeen);
      return;
    }
    const isReached = !isNew && before?.state === 'unreachable';
    transaction(database, () => {
      if (isProvenFirst) credentials.put({ ...credential, attached: true });
      inventory.put(record);
      if (isReached) this.#report('device-presence', deviceId, { state: 'attached', lastSeen });
      if (isNew) this.#report('device-attach', deviceId, attachBody(record));
      database.afterCommit(() => {
        if (isReached) events.emit('device.reached', { device: deviceId });
        if (isNew)
          events.emit('device.attached', {
            device: deviceId,
            bootstrap: origin,
            peer: address,
            protocol: device.protocol,
          });
        if (isNew || isReached) reported();
        came(deviceId);
      });
    });
  }

  /**
   * Runs what stores a new account at the parent gateway, and reports all devices to it, in one transaction. A parent that
   * has lost its state knows none of them.
   */
  joinParent(store: () => void): void {
    const { database, inventory, reported } = this.#parts;
    transaction(database, () => {
      store();
      // A parent takes what is behind a gateway only when it knows that gateway.
      const depth = ({ via }: DeviceRecord): number => via?.split('/').length ?? 0;
      for (const record of [...inventory.values()].toSorted((one, other) => depth(one) - depth(other))) {
        const { deviceId, state, reason, lastSeen, via } = record;
        this.#report('device-attach', deviceId, attachBody(record));
        if (state !== 'attached')
          this.#report('device-presence', deviceId, {
            state,
            lastSeen,
            ...(reason !== undefined && { reason }),
            ...(via !== undefined && { via }),
          });
      }
    });
    reported();
  }

  /**
   * Removes a device, its credential and the devices behind it, and reports them as detached. Returns false when the
   * device was not attached. An LwM2M client that leaves keeps its keys: a deregistration ends the registration alone (LwM2M core
   * 1.1, section 6.2), and the client registers again by the account that it has.
   */
  detach(deviceId: string, reason: DetachReason): boolean {
    const { database, inventory, reported } = this.#parts;
    const report = () => this.#report('device-detach', deviceId, { reason });
    return transaction(database, () => {
      if (!this.#remove(deviceId, reason, report)) return false;
      // What follows from the end of a child is this gateway's own report, and is not refused.
      for (const { deviceId: below, via } of [...inventory.values()])
        if (via !== undefined && childIn({ via }) === deviceId)
          this.#removeBehind(below, via, reason, { child: deviceId, mayRefuse: false });
      database.afterCommit(reported);
      return true;
    });
  }

  /**
   * Records a device that a child gateway reports (GwMO 1.1). The record replaces an earlier one of the same device.
   * @param path gateways on the way to the device, the child first, joined by `/`
   * @throws {PosternError} `full`, also when too many alerts of the child wait
   */
  attachBehind(path: string, attach: Omit<DeviceAttach, keyof AlertNumber>): void {
    const { database, inventory, clock, events, reported, came } = this.#parts;
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
      if (isNew) this.#report('device-attach', deviceId, attachBody(record), fromChild(path));
    });
    if (!isNew) return;
    events.emit('device.attached', { device: deviceId, bootstrap, via: path });
    reported();
    came(deviceId);
  }

  /**
   * Removes a device behind a child gateway and reports it as detached, because the child has lost it. Does nothing when the device
   * is attached elsewhere by now.
   * @throws {PosternError} `full` when too many alerts of the child wait
   */
  detachBehind(child: string, deviceId: string, reason: DetachReason): void {
    const { database, inventory, reported } = this.#parts;
    const via = inventory.get(deviceId)?.via;
    if (via === undefined || childIn({ via }) !== child) return;
    transaction(database, () => {
      this.#removeBehind(deviceId, via, reason, fromChild(via));
      database.afterCommit(reported);
    });
  }

  #removeBehind(deviceId: string, via: string, reason: DetachReason, from: FromChild | undefined): void {
    const { database, inventory, events, leaving } = this.#parts;
    inventory.delete(deviceId);
    leaving(deviceId);
    this.#report('device-detach', deviceId, { reason, via }, from);
    database.afterCommit(() => events.emit('device.detached', { device: deviceId, reason, via }));
  }

  /** Removes a device by order of the DM server, so no alert is sent. Joins the caller's transaction. */
  remove(deviceId: string): void {
    const { inventory, credentials, removed } = this.#parts;
    removed(deviceId);
    // When the device moved behind a child gateway, its record describes it there and stays. Only the credential goes.
    if (inventory.get(deviceId)?.via === undefined) this.#remove(deviceId, 'removed', () => {});
    else credentials.delete(deviceId);
  }

  /** Adds an alert to the outbox unless GwConfig turns it off. Joins the caller's transaction. */
  #report(
    kind: keyof typeof switches,
    deviceId: string,
    body: AttachBody | DetachBody | PresenceBody,
    from?: FromChild,
  ): void {
    const { gwConfig, outbox } = this.#parts;
    if (gwConfig.text(switches[kind]) === 'true')
      outbox.add(kind, deviceId, JSON.stringify(body), undefined, from);
  }

  #remove(deviceId: string, reason: string, report: () => void): boolean {
    const { database, inventory, credentials, events, leaving, gone } = this.#parts;
    const record = inventory.get(deviceId);
    if (!record) return false;
    transaction(database, () => {
      inventory.delete(deviceId);
      if (reason !== 'left' || record.protocol !== 'LwM2M') credentials.delete(deviceId);
      leaving(deviceId);
      report();
      database.afterCommit(() => {
        events.emit('device.detached', { device: deviceId, reason });
        gone(deviceId);
      });
    });
    return true;
  }
}
