import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { transaction } from '../../base/database.ts';
import { PosternError } from '../../base/errors.ts';
import { hashedName } from '../../base/hashed-name.ts';
import type { BootstrapOrigin, DeviceRecord, DeviceRecords, Protocol } from '../../mo/device-record.ts';

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
  readonly #database: DatabaseSync;
  readonly #records = new Map<string, Kept>();
  readonly #ids = new Map<string, string>();
  readonly #put: StatementSync;
  readonly #delete: StatementSync;
  readonly #setHeard: StatementSync;
  /** Devices that were heard since `writeHeard`. */
  readonly #unwritten = new Set<string>();

  constructor(database: DatabaseSync, limit: number) {
    this.limit = limit;
    this.#database = database;
    this.#delete = database.prepare('DELETE FROM device WHERE device_id = ?');
    this.#put = database.prepare(
      `INSERT OR REPLACE INTO device (device_id, state, mode, origin, address, last_seen, manufacturer, model, firmware,
         protocol, component_type, via, device_type, objects, reason, heard_on, serial)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    );
    this.#setHeard = database.prepare('UPDATE device SET last_seen = ? WHERE device_id = ?');
    for (const row of database.prepare('SELECT * FROM device').iterate()) this.#keep(fromRow(row));
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
    this.#forget(deviceId);
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
      record.reason ?? null,
      record.heardOn ?? null,
      record.serial ?? null,
    );
    this.#keep(record);
    this.#unwritten.delete(record.deviceId);
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
    transaction(this.#database, () => {
      for (const deviceId of this.#unwritten) {
        const { lastSeen = 0 } = this.#records.get(deviceId) ?? {};
        this.#setHeard.run(Math.round(lastSeen), deviceId);
      }
    });
    this.#unwritten.clear();
    return true;
  }

  /** Takes the record in memory back to what it was before a transaction that failed. */
  restore(deviceId: string, before: DeviceRecord | undefined): void {
    if (before) this.#keep(before);
    else this.#forget(deviceId);
  }

  #forget(deviceId: string): void {
    this.#records.delete(deviceId);
    this.#ids.delete(hashedName(deviceId));
    this.#unwritten.delete(deviceId);
  }

  #keep(record: DeviceRecord): void {
    this.#records.set(record.deviceId, { ...record });
    this.#ids.set(hashedName(record.deviceId), record.deviceId);
  }
}

function fromRow(row: Record<string, unknown>): DeviceRecord {
  const optional = (name: string, column: string) =>
    row[column] === null ? {} : { [name]: String(row[column]) };
  return {
    deviceId: String(row.device_id),
    state: row.state as DeviceRecord['state'],
    mode: Number(row.mode),
    origin: row.origin as BootstrapOrigin,
    address: String(row.address),
    lastSeen: Number(row.last_seen),
    protocol: row.protocol as Protocol,
    isGateway: row.component_type === 1,
    ...optional('manufacturer', 'manufacturer'),
    ...optional('model', 'model'),
    ...optional('firmware', 'firmware'),
    ...optional('via', 'via'),
    ...optional('deviceType', 'device_type'),
    ...optional('objects', 'objects'),
    ...optional('reason', 'reason'),
    ...optional('heardOn', 'heard_on'),
    ...optional('serial', 'serial'),
  };
}
