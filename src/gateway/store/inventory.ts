import type { StatementSync } from 'node:sqlite';
import { type Database, knownValue, readRows } from '../../base/database.ts';
import { PosternError } from '../../base/errors.ts';
import { hashedName } from '../../base/hashed-name.ts';
import {
  bootstrapOrigins,
  type DeviceRecord,
  type DeviceRecords,
  deviceStates,
  gatewayModes,
  protocols,
} from '../../mo/device-record.ts';

/** Durable records of the attached devices, all kept in memory too. A full inventory refuses new devices. */
export class Inventory implements DeviceRecords {
  /** Maximum number of devices. */
  readonly limit: number;
  readonly #records = new Map<string, DeviceRecord>();
  readonly #ids = new Map<string, string>();
  readonly #database: Database;
  readonly #put: StatementSync;
  readonly #delete: StatementSync;

  /** @param unreadable gets the reason for each record that cannot be read; such a device attaches anew */
  constructor(database: Database, limit: number, unreadable: string[] = []) {
    this.limit = limit;
    this.#database = database;
    this.#delete = database.prepare('DELETE FROM device WHERE device_id = ?');
    this.#put = database.prepare(
      `INSERT OR REPLACE INTO device (device_id, state, mode, origin, address, last_seen, manufacturer, model, firmware,
         protocol, component_type, via, device_type, objects) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    );
    for (const record of readRows(database, 'device', fromRow, unreadable)) this.#keep(record);
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
    this.#drop(deviceId);
  }

  /**
   * Adds or replaces the record of a device.
   * @throws {PosternError} `full` when the device is new and the limit is reached
   */
  put(record: DeviceRecord): void {
    if (!this.#records.has(record.deviceId) && this.#records.size >= this.limit)
      throw new PosternError('full', `the limit of ${this.limit} devices in the inventory is reached`);
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
    this.#keep(record);
  }

  /** When the transaction under way is not committed, the record of this device is again what it is now. */
  #rememberForRollback(deviceId: string): void {
    const before = this.#records.get(deviceId);
    this.#database.onRollback(() => {
      if (before) this.#keep(before);
      else this.#drop(deviceId);
    });
  }

  #drop(deviceId: string): void {
    this.#records.delete(deviceId);
    this.#ids.delete(hashedName(deviceId));
  }

  #keep(record: DeviceRecord): void {
    const { deviceId } = record;
    // The name of a node is a hash. It is computed once for each device.
    if (!this.#records.has(deviceId)) this.#ids.set(hashedName(deviceId), deviceId);
    this.#records.set(deviceId, record);
  }
}

function fromRow(row: Record<string, unknown>): DeviceRecord {
  const optional = (name: string, column: string) =>
    row[column] === null ? {} : { [name]: String(row[column]) };
  return {
    deviceId: String(row.device_id),
    state: knownValue(deviceStates, row.state, 'device.state'),
    mode: knownValue(gatewayModes, row.mode, 'device.mode'),
    origin: knownValue(bootstrapOrigins, row.origin, 'device.origin'),
    address: String(row.address),
    lastSeen: Number(row.last_seen),
    protocol: knownValue(protocols, row.protocol, 'device.protocol'),
    isGateway: row.component_type === 1,
    ...optional('manufacturer', 'manufacturer'),
    ...optional('model', 'model'),
    ...optional('firmware', 'firmware'),
    ...optional('via', 'via'),
    ...optional('deviceType', 'device_type'),
    ...optional('objects', 'objects'),
  };
}
