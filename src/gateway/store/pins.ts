import type { Database } from '../../base/database.ts';
import { PosternError } from '../../base/errors.ts';
import { type ReadableTable, readRows } from '../../base/rows.ts';
import { type Protocol, protocols } from '../../mo/device-record.ts';

/** A device that joined, and the public key by which it did. */
export interface Pin {
  readonly deviceId: string;
  /** `markOf` the public key. */
  readonly mark: string;
  /** What it joined as. */
  readonly protocol: Protocol;
  /** Milliseconds since 1970 by the gateway's clock. */
  readonly joined: number;
}

/** Durable store of the devices that joined, one key for each. All are kept in memory too. */
export class Pins {
  /** Maximum number of devices. */
  readonly limit: number;
  readonly #database: Database;
  readonly #byDevice = new Map<string, Pin>();
  readonly #byMark = new Map<string, Pin>();

  constructor(database: Database, limit: number) {
    this.limit = limit;
    this.#database = database;
    for (const pin of readRows(database, pinTable)) this.#keep(pin);
  }

  get size(): number {
    return this.#byDevice.size;
  }

  values(): IterableIterator<Pin> {
    return this.#byDevice.values();
  }

  get(deviceId: string): Pin | undefined {
    return this.#byDevice.get(deviceId);
  }

  /** The device that has the key with this mark. */
  at(mark: string): Pin | undefined {
    return this.#byMark.get(mark);
  }

  /**
   * Pins a key to a device. Joins the caller's transaction.
   * @throws {PosternError} `conflict` when the device or the key is pinned already, `full`, `storage`
   */
  add(pin: Pin): void {
    const { deviceId, mark, protocol, joined } = pin;
    if (this.#byDevice.has(deviceId) || this.#byMark.has(mark))
      throw new PosternError('conflict', 'this device or this key is pinned already');
    if (this.#byDevice.size >= this.limit)
      throw new PosternError('full', `the limit of ${this.limit} devices that joined is reached`);
    this.#database
      .prepare('INSERT INTO pinned_key (device_id, mark, protocol, joined) VALUES (?, ?, ?, ?)')
      .run(deviceId, mark, protocol, joined);
    this.#keep(pin);
    this.#database.onRollback(() => this.#drop(pin));
  }

  /** Forgets the key of a device, as part of the transaction under way. */
  delete(deviceId: string): void {
    const pin = this.#byDevice.get(deviceId);
    if (!pin) return;
    this.#database.prepare('DELETE FROM pinned_key WHERE device_id = ?').run(deviceId);
    this.#drop(pin);
    this.#database.onRollback(() => this.#keep(pin));
  }

  #keep(pin: Pin): void {
    this.#byDevice.set(pin.deviceId, pin);
    this.#byMark.set(pin.mark, pin);
  }

  #drop({ deviceId, mark }: Pin): void {
    this.#byDevice.delete(deviceId);
    this.#byMark.delete(mark);
  }
}

const pinTable: ReadableTable<Pin> = {
  table: 'pinned_key',
  key: ['device_id'],
  read: (row) => ({
    deviceId: row.text('device_id'),
    mark: row.text('mark'),
    protocol: row.oneOf('protocol', protocols),
    joined: row.time('joined'),
  }),
};
