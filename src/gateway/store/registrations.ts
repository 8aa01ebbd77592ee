import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { BoundedMap } from '../../base/bounded-map.ts';

/** An LwM2M client that has registered, and how it is reached. */
export interface Registration {
  /** Endpoint name. */
  readonly deviceId: string;
  /** What stands for the registration in its Location-Path. */
  readonly location: string;
  readonly address: string;
  readonly port: number;
  readonly version: string;
  /** Seconds. */
  readonly lifetime: number;
  readonly queueMode: boolean;
  /** Segments before the path of each object. */
  readonly root: readonly string[];
  /** Objects and instances, by their IDs. */
  readonly paths: readonly (readonly number[])[];
  /** Content formats that the client names. */
  readonly formats: readonly number[];
}

/** Registrations of LwM2M clients, one for each; they outlive a restart, since clients believe that they do. */
export class Registrations {
  readonly #known: BoundedMap<string, Registration>;
  readonly #deviceAt = new Map<string, string>();
  readonly #put: StatementSync;
  readonly #delete: StatementSync;

  /** @param limit at which the one that was renewed longest ago goes; its client registers again */
  constructor(database: DatabaseSync, limit: number) {
    this.#put = database.prepare('INSERT OR REPLACE INTO registration (device_id, body) VALUES (?, ?)');
    this.#delete = database.prepare('DELETE FROM registration WHERE device_id = ?');
    this.#known = new BoundedMap(limit, (deviceId, { location }) => {
      this.#deviceAt.delete(location);
      this.#delete.run(deviceId);
    });
    for (const { body } of database.prepare('SELECT body FROM registration').iterate())
      this.#keep(JSON.parse(String(body)) as Registration);
  }

  get(deviceId: string): Registration | undefined {
    return this.#known.get(deviceId);
  }

  at(location: string): Registration | undefined {
    return this.#known.get(this.#deviceAt.get(location) ?? '');
  }

  values(): IterableIterator<Registration> {
    return this.#known.values();
  }

  put(registration: Registration): void {
    this.#put.run(registration.deviceId, JSON.stringify(registration));
    this.#keep(registration);
  }

  delete(deviceId: string): void {
    const known = this.#known.get(deviceId);
    if (!known) return;
    this.#delete.run(deviceId);
    this.#deviceAt.delete(known.location);
    this.#known.delete(deviceId);
  }

  #keep(registration: Registration): void {
    const { deviceId, location } = registration;
    const before = this.#known.get(deviceId);
    if (before) this.#deviceAt.delete(before.location);
    this.#known.set(deviceId, registration);
    this.#deviceAt.set(location, deviceId);
  }
}
