import type { Database } from '../base/database.ts';
import { type ReadableTable, readRows } from '../base/rows.ts';
import type { Parties } from './parties.ts';

/** Why a device that is attached cannot be reached. */
export interface Unreachable {
  /** For a person. */
  readonly reason: string;
  /**
   * When the device was last heard, by its gateway's clock: milliseconds since 1970. Absent when the cause is a gateway
   * above the device.
   */
  readonly lastHeard?: number;
}

/** Maximum number of gateways above a device that are looked at. */
const gatewaysAbove = 8;

/** Devices that their gateways cannot reach, by the latest Device Presence Alert of each. Durable. */
export class UnreachableDevices {
  readonly #database: Database;
  readonly #parties: Pick<Parties, 'gatewayOf'>;

  constructor(database: Database, parties: Pick<Parties, 'gatewayOf'>) {
    this.#database = database;
    this.#parties = parties;
  }

  /** Stores that a device cannot be reached. Does nothing for a gateway that the device is not associated with. */
  add(device: string, gateway: string, reason: string, lastHeard: number): void {
    if (this.#parties.gatewayOf(device) !== gateway) return;
    this.#database
      .prepare('INSERT OR REPLACE INTO unreachable (device, reason, last_heard) VALUES (?, ?, ?)')
      .run(device, reason, lastHeard);
  }

  /** Stores that a device can be reached, or is not attached any more. */
  remove(device: string): void {
    this.#database.prepare('DELETE FROM unreachable WHERE device = ?').run(device);
  }

  /**
   * Returns a function that says why a device cannot be reached: because its gateway says so, or because a gateway above it
   * cannot be reached. The function returns undefined for other devices. It knows the state of now.
   */
  reasons(): (device: string) => Unreachable | undefined {
    const told = new Map(readRows(this.#database, unreachableTable));
    return (device) => {
      const own = told.get(device);
      if (own || told.size === 0) return own;
      let gateway = this.#parties.gatewayOf(device);
      for (let level = 0; gateway !== undefined && level < gatewaysAbove; level++) {
        const above = told.get(gateway);
        if (above) return { reason: `its gateway ${gateway} is unreachable: ${above.reason}` };
        gateway = this.#parties.gatewayOf(gateway);
      }
      return undefined;
    };
  }
}

const unreachableTable: ReadableTable<readonly [string, Unreachable]> = {
  table: 'unreachable',
  key: ['device'],
  read: (row) => [row.text('device'), { reason: row.text('reason'), lastHeard: row.time('last_heard') }],
};
