import type { Database } from '../../base/database.ts';
import { PosternError } from '../../base/errors.ts';
import { type ReadableTable, readRows } from '../../base/rows.ts';
import type { Sealer } from '../../base/sealing.ts';
import type { TransportKey } from '../../mo/device-record.ts';

/** Keys of one device: the one that it uses, and the one that it was given last. */
const keysPerDevice = 2;

interface DeviceKey extends Pick<TransportKey, 'identity'> {
  readonly key: Uint8Array;
  readonly deviceId: string;
  /** Rises with each key of a device. */
  readonly serial: number;
}

/**
 * Durable store of the keys by which devices with a gateway credential prove themselves to the transport: pre-shared keys for DTLS, and
 * Master Secrets of security contexts for OSCORE, told apart by their identities (`isForOscore`). A new key does not end
 * the former one: the device may be using it, and the answer with the new one may be lost. The first use of the newest key ends
 * the others. All are kept in memory too.
 */
export class DeviceKeys {
  readonly #database: Database;
  readonly #sealing: Sealer;
  /** Rows that another key has sealed. */
  readonly lost: number;
  readonly #byIdentity = new Map<string, DeviceKey>();
  readonly #byDevice = new Map<string, readonly DeviceKey[]>();
  #ended: (identity: string, deviceId: string) => void = () => {};
  #issued: (identity: string) => void = () => {};

  constructor(database: Database, sealing: Sealer) {
    this.#database = database;
    this.#sealing = sealing;
    const rows = readRows(database, keyTable).toSorted((a, b) => a.serial - b.serial);
    let lost = 0;
    for (const row of rows) {
      // What another key has sealed stays as it is: its device is bootstrapped anew, or the key comes back.
      const key = sealing.open(Buffer.from(row.key, 'base64'), sealName(row.identity));
      if (key === undefined) lost++;
      else this.#set(row.deviceId, [...this.of(row.deviceId), { ...row, key }]);
    }
    this.lost = lost;
  }

  /** Sets what is called when a key has ended for good. */
  onEnded(listener: (identity: string, deviceId: string) => void): void {
    this.#ended = listener;
  }

  /**
   * Sets what is called in the transaction that adds a key, after the key is at hand, and again without the key when the transaction is
   * rolled back. When it throws, the key is not added.
   */
  onIssued(listener: (identity: string) => void): void {
    this.#issued = listener;
  }

  get size(): number {
    return this.#byIdentity.size;
  }

  /** The key of this identity, and whose it is. */
  at(identity: string): { readonly deviceId: string; readonly key: Uint8Array } | undefined {
    return this.#byIdentity.get(identity);
  }

  /** Devices that have keys. */
  devices(): string[] {
    return [...this.#byDevice.keys()];
  }

  /** Keys of a device that are valid, the newest last. */
  of(deviceId: string): readonly DeviceKey[] {
    return this.#byDevice.get(deviceId) ?? [];
  }

  /**
   * Gives a device a further key: octets, or a text whose octets are its UTF-8. Of the former ones only the one stays that it has
   * used.
   * @throws {PosternError} `conflict` when another key has this identity
   */
  add(deviceId: string, { identity, key }: { identity: string; key: string | Uint8Array }): void {
    if (this.#byIdentity.has(identity)) throw new PosternError('conflict', 'this identity is taken');
    const [used] = this.of(deviceId);
    const serial = (this.of(deviceId).at(-1)?.serial ?? 0) + 1;
    const kept = used ? [used] : [];
    this.#database.transaction(() =>
      this.#change(
        deviceId,
        [...kept, { deviceId, identity, key: Buffer.from(key), serial }].slice(-keysPerDevice),
      ),
    );
  }

  /** Ends the former keys of the device that has proved itself by this one. Writes nothing when there are none. */
  used(identity: string): void {
    const key = this.#byIdentity.get(identity);
    if (!key) return;
    const all = this.of(key.deviceId);
    if (all.length > 1 && all.at(-1) === key)
      this.#database.transaction(() => this.#change(key.deviceId, [key]));
  }

  /** Ends all keys of a device. */
  remove(deviceId: string): void {
    if (this.#byDevice.has(deviceId)) this.#change(deviceId, []);
  }

  #change(deviceId: string, keys: readonly DeviceKey[]): void {
    const before = this.of(deviceId);
    const issued = keys.filter((each) => !before.includes(each));
    this.#database.onRollback(() => {
      this.#set(deviceId, before);
      for (const { identity } of issued) this.#issued(identity);
    });
    const put = this.#database.prepare(
      'INSERT OR REPLACE INTO device_key (identity, device_id, serial, secret) VALUES (?, ?, ?, ?)',
    );
    const drop = this.#database.prepare('DELETE FROM device_key WHERE identity = ?');
    const gone = before.filter((key) => !keys.includes(key));
    for (const { identity } of gone) drop.run(identity);
    for (const { identity, serial, key } of issued) {
      const sealed = this.#sealing.seal(key, sealName(identity));
      put.run(identity, deviceId, serial, sealed.toString('base64'));
    }
    this.#set(deviceId, keys);
    for (const { identity } of issued) this.#issued(identity);
    this.#database.afterCommit(() => {
      for (const { identity } of gone) this.#ended(identity, deviceId);
    });
  }

  #set(deviceId: string, keys: readonly DeviceKey[]): void {
    for (const { identity } of this.of(deviceId)) this.#byIdentity.delete(identity);
    for (const key of keys) this.#byIdentity.set(key.identity, key);
    if (keys.length > 0) this.#byDevice.set(deviceId, keys);
    else this.#byDevice.delete(deviceId);
  }
}

const sealName = (identity: string): string => `device key ${identity}`;

const keyTable: ReadableTable<Omit<DeviceKey, 'key'> & { readonly key: string }> = {
  table: 'device_key',
  key: ['identity'],
  read: (row) => ({
    identity: row.text('identity'),
    deviceId: row.text('device_id'),
    serial: row.integer('serial', 1),
    key: row.text('secret'),
  }),
};
