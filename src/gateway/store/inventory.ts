import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { PosternError } from '../../base/errors.ts';
import { hashedName } from '../../base/hashed-name.ts';
import { type ReadableTable, readRows } from '../../base/rows.ts';
import {
  bootstrapOrigins,
  type DeviceRecord,
  type DeviceRecords,
  protocols,
} from '../../mo/device-record.ts';

/** Durable records of the attached devices, all kept in memory too. A full inventory refuses new devices. */
export class Inventory implements DeviceRecords {
  /** Maximum number of devices. */
  readonly limit: number;
  readonly #records = new Map<string, DeviceRecord>();
  readonly #ids = new Map<string, string>();
  readonly #put: StatementSync;
  readonly #delete: StatementSync;

  constructor(database: DatabaseSync, limit: number) {
    this.limit = limit;
    this.#delete = database.prepare('DELETE FROM device WHERE device_id = ?');
    this.#put = database.prepare(
      `INSERT OR REPLACE INTO device (device_id, state, mode, origin, address, last_seen, manufacturer, model, firmware,
         protocol, component_type, via, device_type, objects) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    );
    for (const record of readRows(database, deviceTable)) this.#keep(record);
  }

  get size(): number {
    return this.#records.size;
  }

  /** All records. The inventory may change during the iteration. */
  values(): IterableIterator<DeviceRecord> {
    return this.#records.values();
  }

  /** Node names of all records (`recordName`). */
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
    this.#delete.run(deviceId);
    this.#records.delete(deviceId);
    this.#ids.delete(hashedName(deviceId));
  }

  /**
   * Adds or replaces the record of a device.
   * @throws {PosternError} `full` when the device is new and the limit is reached
   */
  put(record: DeviceRecord): void {
    if (!this.#records.has(record.deviceId) && this.#records.size >= this.limit)
      throw new PosternError('full', `the limit of ${this.limit} devices in the inventory is reached`);
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
    this.#keep(record);
  }

  #keep(record: DeviceRecord): void {
    this.#records.set(record.deviceId, record);
    this.#ids.set(hashedName(record.deviceId), record.deviceId);
  }
}

const deviceTable: ReadableTable<DeviceRecord> = {
  table: 'device',
  key: ['device_id'],
  read: (row) => ({
    deviceId: row.text('device_id'),
    state: row.oneOf('state', ['attached']),
    mode: row.oneOf('mode', [0, 1, 2]),
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
