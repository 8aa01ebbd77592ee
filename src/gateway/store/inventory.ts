import type { StatementSync } from 'node:sqlite';
import type { Database } from '../../base/database.ts';
import { PosternError } from '../../base/errors.ts';
import { hashedName } from '../../base/hashed-name.ts';
import { type ReadableTable, readRows } from '../../base/rows.ts';
import {
  bootstrapOrigins,
  type DeviceRecord,
  type DeviceRecords,
  deviceStates,
  gatewayModes,
  protocols,
} from '../../mo/device-record.ts';

/** A record in memory. `heard` changes it in place, since that happens with each message of a device. */
type Kept = Omit<DeviceRecord, 'lastSeen'> & { lastSeen: number };

/**
 * Durable records of the attached devices, all kept in memory too. A full inventory refuses new devices.
 *
 * When a device was heard last changes with each of its messages. That is kept in memory, and written by `writeHeard` for
 * all devices together.
 */
export class Inventory implements DeviceRecords {
  /** Maximum number of devices. */
  readonly limit: number;
  readonly #records = new Map<string, Kept>();
  readonly #ids = new Map<string, string>();
  /** Numbers of devices behind child gateways. */
  readonly #behind = new Map<string, number>();
  readonly #database: Database;
  readonly #put: StatementSync;
  readonly #delete: StatementSync;
  readonly #putPresence: StatementSync;
  readonly #deletePresence: StatementSync;
  readonly #setHeard: StatementSync;
  /** Devices that were heard since `writeHeard`. */
  readonly #unwritten = new Set<string>();

  constructor(database: Database, limit: number) {
    this.limit = limit;
    this.#database = database;
    this.#delete = database.prepare('DELETE FROM device WHERE device_id = ?');
    this.#put = database.prepare(
      `INSERT OR REPLACE INTO device (device_id, state, mode, origin, address, last_seen, manufacturer, model, firmware,
         protocol, component_type, via, device_type, objects) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    );
    this.#putPresence = database.prepare(
      'INSERT OR REPLACE INTO device_presence (device_id, reason, heard_on, serial) VALUES (?, ?, ?, ?)',
    );
    this.#deletePresence = database.prepare('DELETE FROM device_presence WHERE device_id = ?');
    this.#setHeard = database.prepare('UPDATE device SET last_seen = ? WHERE device_id = ?');
    const presence = new Map(readRows(database, presenceTable));
    for (const record of readRows(database, deviceTable))
      this.#keep({ ...record, ...presence.get(record.deviceId) });
  }

  get size(): number {
    return this.#records.size;
  }

  /** All records. The inventory may change during the iteration. */
  values(): IterableIterator<DeviceRecord> {
    return this.#records.values();
  }

  /** Node names of all records (`hashedName`). */
  names(): string[] {
    return [...this.#ids.keys()];
  }

  /** Finds a record by its node name. */
  named(name: string): DeviceRecord | undefined {
    const deviceId = this.#ids.get(name);
    return deviceId === undefined ? undefined : this.#records.get(deviceId);
  }

  get(deviceId: string): DeviceRecord | undefined {
    return this.#records.get(deviceId);
  }

  delete(deviceId: string): void {
    this.#rememberForRollback(deviceId);
    this.#delete.run(deviceId);
    this.#deletePresence.run(deviceId);
    this.#drop(deviceId);
  }

  /** Number of devices behind a child gateway. */
  countBehind(child: string): number {
    return this.#behind.get(child) ?? 0;
  }

  /**
   * Adds or replaces the record of a device.
   * @throws {PosternError} `full` when the device is new and the limit is reached: that of all devices, or that of one child
   *   gateway, which may tell of devices that there are not
   */
  put(record: DeviceRecord): void {
    const before = this.#records.get(record.deviceId);
    if (!before && this.#records.size >= this.limit)
      throw new PosternError('full', `the limit of ${this.limit} devices in the inventory is reached`);
    const child = childOf(record);
    const most = Math.ceil(this.limit * childShare);
    if (child !== undefined && childOf(before) !== child && this.countBehind(child) >= most)
      throw new PosternError('full', `the limit of ${most} devices behind ${child} is reached`);
    this.#rememberForRollback(record.deviceId);
    this.#put.run(
      record.deviceId,
      record.state,
      record.mode,
      record.origin,
      record.address,
      Math.round(record.lastSeen),
      record.manufacturer ?? null,
      record.model ?? null,
      record.firmware ?? null,
      record.protocol,
      record.isGateway ? 1 : 0,
      record.via ?? null,
      record.deviceType ?? null,
      record.objects ?? null,
    );
    this.#writePresence(record);
    this.#keep(record);
    this.#unwritten.delete(record.deviceId);
  }

  /** Writes what the released table of devices has no columns for, if it has changed. */
  #writePresence({ deviceId, reason, heardOn, serial }: DeviceRecord): void {
    const before = this.#records.get(deviceId);
    if (before?.reason === reason && before?.heardOn === heardOn && before?.serial === serial) return;
    this.#putPresence.run(deviceId, reason ?? null, heardOn ?? null, serial ?? null);
  }

  /** Notes in memory when a device was heard: wall time in milliseconds. */
  heard(deviceId: string, at: number): void {
    const record = this.#records.get(deviceId);
    if (!record) return;
    record.lastSeen = at;
    this.#unwritten.add(deviceId);
  }

  /**
   * Writes what `heard` noted since the last time, in one transaction. When that fails, the next call writes it. Returns
   * whether there was anything to write.
   */
  writeHeard(): boolean {
    if (this.#unwritten.size === 0) return false;
    this.#database.transaction(() => {
      for (const deviceId of this.#unwritten) {
        const { lastSeen = 0 } = this.#records.get(deviceId) ?? {};
        this.#setHeard.run(Math.round(lastSeen), deviceId);
      }
    });
    this.#unwritten.clear();
    return true;
  }

  /** When the transaction under way is not committed, the record of this device is again what it is now. */
  #rememberForRollback(deviceId: string): void {
    const before = this.#records.get(deviceId);
    const isUnwritten = this.#unwritten.has(deviceId);
    this.#database.onRollback(() => {
      if (!before) return this.#drop(deviceId);
      this.#keep(before);
      if (isUnwritten) this.#unwritten.add(deviceId);
    });
  }

  #drop(deviceId: string): void {
    this.#count(this.#records.get(deviceId), -1);
    this.#records.delete(deviceId);
    this.#ids.delete(hashedName(deviceId));
    this.#unwritten.delete(deviceId);
  }

  #keep(record: DeviceRecord): void {
    const { deviceId } = record;
    // The name of a node is a hash. It is computed once for each device.
    if (!this.#records.has(deviceId)) this.#ids.set(hashedName(deviceId), deviceId);
    this.#count(this.#records.get(deviceId), -1);
    this.#count(record, 1);
    this.#records.set(deviceId, { ...record });
  }

  #count(record: DeviceRecord | undefined, by: number): void {
    const child = childOf(record);
    if (child === undefined) return;
    const count = this.countBehind(child) + by;
    if (count > 0) this.#behind.set(child, count);
    else this.#behind.delete(child);
  }
}

/** Part of all devices that may be behind one child gateway. */
export const childShare = 0.75;

/** The child gateway that a device is behind. */
const childOf = (record: DeviceRecord | undefined): string | undefined => record?.via?.split('/')[0];

const presenceTable: ReadableTable<readonly [string, Pick<DeviceRecord, 'reason' | 'heardOn' | 'serial'>]> = {
  table: 'device_presence',
  key: ['device_id'],
  read: (row) => [
    row.text('device_id'),
    {
      ...row.optionalText('reason'),
      ...row.optionalText('heardOn', 'heard_on'),
      ...row.optionalText('serial'),
    },
  ],
};

const deviceTable: ReadableTable<DeviceRecord> = {
  table: 'device',
  key: ['device_id'],
  read: (row) => ({
    deviceId: row.text('device_id'),
    state: row.oneOf('state', deviceStates),
    mode: row.oneOf('mode', gatewayModes),
    origin: row.oneOf('origin', bootstrapOrigins),
    address: row.text('address'),
    lastSeen: row.time('last_seen'),
    protocol: row.oneOf('protocol', protocols),
    isGateway: row.oneOf('component_type', [0, 1]) === 1,
    ...row.optionalText('manufacturer'),
    ...row.optionalText('model'),
    ...row.optionalText('firmware'),
    ...row.optionalText('via'),
    ...row.optionalText('deviceType', 'device_type'),
    ...row.optionalText('objects'),
  }),
};
