import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { PosternError } from '../base/errors.ts';

/** How a device's account for the gateway came: local (GwMO 8.4.2), by the DM server (8.4.1), or by hand on both sides. */
export type BootstrapOrigin = 'local' | 'server' | 'manual';

export interface DeviceRecord {
  readonly deviceId: string;
  readonly state: 'attached';
  /** 0 transparent, 1 proxy, 2 adaptation. */
  readonly mode: number;
  readonly origin: BootstrapOrigin;
  /** URI of where the device was heard last. */
  readonly address: string;
  /** Wall time in milliseconds since 1970, as the gateway's clock had it. */
  readonly lastSeen: number;
  readonly manufacturer?: string;
  readonly model?: string;
  readonly firmware?: string;
}

/** The End Devices that are attached. A full inventory refuses new ones. */
export class Inventory {
  readonly limit: number;
  readonly #records = new Map<string, DeviceRecord>();
  readonly #put: StatementSync;
  readonly #delete: StatementSync;

  constructor(database: DatabaseSync, limit: number) {
    this.limit = limit;
    this.#delete = database.prepare('DELETE FROM device WHERE device_id = ?');
    this.#put = database.prepare(
      `INSERT INTO device (device_id, state, mode, origin, address, last_seen, manufacturer, model, firmware) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (device_id) DO UPDATE SET state = excluded.state, mode = excluded.mode, origin = excluded.origin,
         address = excluded.address, last_seen = excluded.last_seen, manufacturer = excluded.manufacturer, model = excluded.model, firmware = excluded.firmware`,
    );
    for (const row of database.prepare('SELECT * FROM device').iterate()) {
      const record = fromRow(row);
      this.#records.set(record.deviceId, record);
    }
  }

  list(): DeviceRecord[] {
    return [...this.#records.values()];
  }

  delete(deviceId: string): void {
    this.#delete.run(deviceId);
    this.#records.delete(deviceId);
  }

  get(deviceId: string): DeviceRecord | undefined {
    return this.#records.get(deviceId);
  }

  /** @throws {PosternError} `full` */
  put(record: DeviceRecord): void {
    const {
      deviceId,
      state,
      mode,
      origin,
      address,
      lastSeen,
      manufacturer = null,
      model = null,
      firmware = null,
    } = record;
    if (!this.#records.has(deviceId) && this.#records.size >= this.limit)
      throw new PosternError('full', `the inventory holds ${this.limit} devices`);
    this.#put.run(
      deviceId,
      state,
      mode,
      origin,
      address,
      Math.round(lastSeen),
      manufacturer,
      model,
      firmware,
    );
    this.#records.set(deviceId, record);
  }
}

function fromRow(row: Record<string, unknown>): DeviceRecord {
  const { device_id, state, mode, origin, address, last_seen, manufacturer, model, firmware } = row as Record<
    string,
    string
  > & {
    mode: number;
    last_seen: number;
  };
  return {
    deviceId: device_id!,
    state: state as DeviceRecord['state'],
    mode: Number(mode),
    origin: origin as BootstrapOrigin,
    address: address!,
    lastSeen: Number(last_seen),
    ...(manufacturer && { manufacturer }),
    ...(model && { model }),
    ...(firmware && { firmware }),
  };
}
