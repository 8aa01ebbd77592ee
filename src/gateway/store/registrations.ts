import { isIP } from 'node:net';
import type { StatementSync } from 'node:sqlite';
import * as v from 'valibot';
import { BoundedMap } from '../../base/bounded-map.ts';
import type { Database } from '../../base/database.ts';
import { type ReadableTable, readRows } from '../../base/rows.ts';

/** Registration of an LwM2M client (LwM2M core 1.1, section 6.2). */
export interface Registration {
  /** Endpoint name. */
  readonly deviceId: string;
  /** Second segment of the registration's Location-Path, behind `rd`. */
  readonly location: string;
  /** IP address from which the client registered or sent its last update that was stored. */
  readonly address: string;
  readonly port: number;
  /** Local IP address of the socket that received it. */
  readonly heardOn?: string;
  /** LwM2M version, such as `1.1`. */
  readonly version: string;
  /** Seconds. 0: the registration has no end. */
  readonly lifetime: number;
  /** Transports that the client announced, such as `U`. */
  readonly binding?: string;
  /** The client sleeps, and listens only for a while after it has sent something. */
  readonly queueMode: boolean;
  /** Path segments in front of each object path (root path). */
  readonly root: readonly string[];
  /** Paths of objects and object instances, as lists of IDs. */
  readonly paths: readonly (readonly number[])[];
  /** Content formats that the client announced. */
  readonly formats: readonly number[];
  /** The client proved by a key or certificate that this name is its own when it registered. */
  readonly proven?: boolean;
  /** It came, or was updated, by a key of the client. From then on nothing goes to the client in clear, whatever becomes of the key. */
  readonly keyed?: boolean;
}

/**
 * Durable store of the registrations of LwM2M clients, one per client. Registrations survive a restart of the gateway,
 * because the clients assume that they are still valid. Names whose clients have proved them once are remembered longer: until
 * `forget`.
 */
export class Registrations {
  readonly #known: BoundedMap<string, Registration>;
  readonly #deviceAt = new Map<string, string>();
  /** Clients whose rows were beyond the limit at the start: it was higher before. The rows are deleted by the next `put`. */
  readonly #beyond: string[] = [];
  readonly #proven: Set<string>;
  readonly #database: Database;
  readonly #put: StatementSync;
  readonly #delete: StatementSync;

  /**
   * @param limit maximum number; beyond it, the registration stored longest ago is deleted (its client registers again)
   */
  constructor(database: Database, limit: number) {
    this.#database = database;
    this.#put = database.prepare('INSERT OR REPLACE INTO registration (device_id, body) VALUES (?, ?)');
    this.#delete = database.prepare('DELETE FROM registration WHERE device_id = ?');
    this.#known = new BoundedMap(limit, (deviceId, { location }) => {
      this.#deviceAt.delete(location);
      this.#beyond.push(deviceId);
    });
    for (const registration of readRows(database, registrationTable)) this.#keep(registration);
    this.#proven = new Set(readRows(database, provenTable));
  }

  get(deviceId: string): Registration | undefined {
    return this.#known.get(deviceId);
  }

  /** Finds a registration by its `location`. */
  at(location: string): Registration | undefined {
    return this.#known.get(this.#deviceAt.get(location) ?? '');
  }

  values(): IterableIterator<Registration> {
    return this.#known.values();
  }

  /** Names whose clients have proved them: at most as many as the configuration lists. */
  get proven(): ReadonlySet<string> {
    return this.#proven;
  }

  /** Forgets that the client of this name has proved it. Joins the caller's transaction. @throws {PosternError} `storage` */
  forget(deviceId: string): void {
    if (!this.#proven.has(deviceId)) return;
    this.#database.onRollback(() => this.#proven.add(deviceId));
    this.#database.prepare('DELETE FROM proven_client WHERE device_id = ?').run(deviceId);
    this.#proven.delete(deviceId);
  }

  #prove(deviceId: string): void {
    if (this.#proven.has(deviceId)) return;
    this.#database.onRollback(() => this.#proven.delete(deviceId));
    this.#database.prepare('INSERT INTO proven_client (device_id) VALUES (?)').run(deviceId);
    this.#proven.add(deviceId);
  }

  /**
   * Adds or replaces the registration of a client. At the limit, the one that was stored longest ago is deleted.
   * @param also further work of the same transaction
   */
  put(registration: Registration, also: () => void = () => {}): void {
    const { deviceId } = registration;
    const [oldest] = this.#known.keys();
    this.#database.transaction(() => {
      for (const each of this.#beyond) this.#delete.run(each);
      this.#database.afterCommit(() => this.#beyond.splice(0));
      if (oldest !== undefined && this.#known.size >= this.#known.limit && !this.#known.has(deviceId))
        this.delete(oldest);
      this.#rememberForRollback(deviceId);
      this.#put.run(deviceId, JSON.stringify(registration));
      this.#keep(registration);
      if (registration.proven) this.#prove(deviceId);
      also();
    });
  }

  /**
   * Tries the disk when it has taken no writes lately. Does nothing otherwise.
   * @throws {PosternError} `storage` when the disk still takes none
   */
  tryDisk(): void {
    if (!this.#database.fault) return;
    this.#database.transaction(() => {
      this.#put.run('', '{}');
      this.#delete.run('');
    });
  }

  delete(deviceId: string): void {
    const known = this.#known.get(deviceId);
    if (!known) return;
    this.#rememberForRollback(deviceId);
    this.#delete.run(deviceId);
    this.#drop(known);
  }

  /** When the transaction under way is not committed, the registration of this client is again what it is now. */
  #rememberForRollback(deviceId: string): void {
    const before = this.#known.get(deviceId);
    this.#database.onRollback(() => {
      const now = this.#known.get(deviceId);
      if (now) this.#drop(now);
      if (before) this.#keep(before);
    });
  }

  #drop({ deviceId, location }: Registration): void {
    this.#deviceAt.delete(location);
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

const integer = v.pipe(v.number(), v.integer(), v.minValue(0));
const registrationBody = v.looseObject({
  deviceId: v.string(),
  location: v.string(),
  address: v.pipe(
    v.string(),
    v.check((text) => isIP(text) !== 0),
  ),
  port: v.pipe(integer, v.maxValue(65_535)),
  heardOn: v.exactOptional(v.string()),
  version: v.string(),
  lifetime: integer,
  binding: v.exactOptional(v.string()),
  queueMode: v.boolean(),
  root: v.array(v.string()),
  paths: v.array(v.array(integer)),
  formats: v.array(integer),
  proven: v.exactOptional(v.boolean()),
  keyed: v.exactOptional(v.boolean()),
});

const provenTable: ReadableTable<string> = {
  table: 'proven_client',
  key: ['device_id'],
  read: (row) => row.text('device_id'),
};

const registrationTable: ReadableTable<Registration> = {
  table: 'registration',
  key: ['device_id'],
  read: (row) => {
    const registration = row.json('body', registrationBody);
    if (registration.deviceId !== row.text('device_id')) throw new Error('body is of another client');
    return registration;
  },
};
