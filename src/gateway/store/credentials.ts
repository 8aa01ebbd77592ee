import * as v from 'valibot';
import { type Database, withoutTraces } from '../../base/database.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import { hashedName } from '../../base/hashed-name.ts';
import { type ReadableTable, readRows } from '../../base/rows.ts';
import type { Sealer } from '../../base/sealing.ts';
import { type BootstrapOrigin, bootstrapOrigins, type ExpectedDevice } from '../../mo/device-record.ts';
import { DeviceKeys } from './device-keys.ts';

/** The secrets and nonces by which one device and the gateway authenticate to each other. */
export interface GatewayCredential extends ExpectedDevice {
  readonly origin: BootstrapOrigin;
  /** The device has authenticated with this credential at least once. Until then, a new bootstrap may replace it. */
  readonly attached: boolean;
}

/**
 * Durable store of the credentials of devices, one per device. They come from a local bootstrap, from the DM server or
 * from the configuration (`origin`). All are kept in memory too.
 */
export class Credentials {
  /** Maximum number of devices. */
  readonly limit: number;
  /** The keys of the devices for DTLS. They end with the credential. */
  readonly keys: DeviceKeys;
  readonly #database: Database;
  readonly #known = new Map<string, GatewayCredential>();
  /** Device IDs by node name (`hashedName`). */
  readonly #ids = new Map<string, string>();
  #ended: (deviceId: string) => void = () => {};
  /** Devices whose nonces are to be written. */
  readonly #unwritten = new Set<string>();
  readonly #sealing: Sealer;
  /** Rows that another key has sealed. They stay as they are: their devices are bootstrapped anew, or the key comes back. */
  readonly lost: number;

  constructor(database: Database, limit: number, sealing: Sealer) {
    this.limit = limit;
    this.#database = database;
    this.keys = new DeviceKeys(database, sealing);
    this.#sealing = sealing;
    let lost = 0;
    const plain: GatewayCredential[] = [];
    for (const row of readRows(database, credentialTable)) {
      const isSealed = row.clientSecret.startsWith(sealMark);
      const secrets = isSealed ? openSecrets(sealing, row) : row;
      if (!isSealed) plain.push(row);
      if (secrets) this.#keep({ ...row, ...secrets });
      else lost++;
    }
    this.lost = lost + this.keys.lost;
    if (plain.length > 0) this.#sealAll(plain);
  }

  /** Seals what an earlier version has stored in clear, and overwrites it. On a full disk that waits for the next start. */
  #sealAll(credentials: readonly GatewayCredential[]): void {
    try {
      withoutTraces(this.#database, () => {
        for (const credential of credentials) this.#insert(credential);
      });
    } catch (thrown) {
      if (asPosternError(thrown).code !== 'storage') throw thrown;
    }
  }

  /** Sets what is called when a device has lost its credential for good. */
  onEnded(listener: (deviceId: string) => void): void {
    this.#ended = listener;
  }

  get size(): number {
    return this.#known.size;
  }

  get(deviceId: string): GatewayCredential | undefined {
    return this.#known.get(deviceId);
  }

  list(): GatewayCredential[] {
    return [...this.#known.values()];
  }

  /** Finds a credential by the node name of its device (`hashedName`). */
  named(name: string): GatewayCredential | undefined {
    const deviceId = this.#ids.get(name);
    return deviceId === undefined ? undefined : this.#known.get(deviceId);
  }

  /**
   * Adds or replaces the credential of a device. A `transport` in it is one more key of the device.
   * @throws {PosternError} `full` when the device is new and the limit is reached, `conflict` as `DeviceKeys.add`
   */
  put(credential: GatewayCredential): void {
    const { deviceId, clientName, clientSecret, clientNonce, serverSecret, serverNonce, origin, attached } =
      credential;
    if (!this.#known.has(deviceId) && this.#known.size >= this.limit)
      throw new PosternError('full', `the limit of ${this.limit} devices with credentials is reached`);
    this.#rememberForRollback(deviceId);
    const known = this.#known.get(deviceId);
    if (known?.clientSecret === clientSecret && known.serverSecret === serverSecret)
      this.#database
        .prepare(
          'UPDATE credential SET client_name = ?, client_nonce = ?, server_nonce = ?, origin = ?, attached = ? WHERE device_id = ?',
        )
        .run(clientName, clientNonce, serverNonce, origin, attached ? 1 : 0, deviceId);
    else this.#insert(credential);
    this.#database.afterCommit(() => this.#unwritten.delete(deviceId));
    const { transport, ...rest } = credential;
    if (transport) this.keys.add(deviceId, transport);
    this.#keep(rest);
  }

  #insert(credential: GatewayCredential): void {
    const { deviceId, clientName, clientSecret, clientNonce, serverSecret, serverNonce, origin, attached } =
      credential;
    const secrets = Buffer.from(JSON.stringify({ clientSecret, serverSecret }));
    const sealed = this.#sealing.seal(secrets, sealName(deviceId));
    this.#database
      .prepare(
        `INSERT OR REPLACE INTO credential (device_id, client_name, client_secret, client_nonce, server_secret, server_nonce, origin, attached)
         VALUES (?, ?, ?, ?, '', ?, ?, ?)`,
      )
      .run(
        deviceId,
        clientName,
        sealMark + sealed.toString('base64'),
        clientNonce,
        serverNonce,
        origin,
        attached ? 1 : 0,
      );
  }

  /**
   * Replaces the credential of a device by that of a new account. Keys for DTLS end if the new account has none.
   * @throws as `put`
   */
  issue(credential: GatewayCredential): void {
    this.#database.transaction(() => {
      if (!credential.transport) this.keys.remove(credential.deviceId);
      this.put(credential);
    });
  }

  /**
   * Keeps the nonces that the next session begins with. Nothing happens without a credential. They are written before the next
   * sync, those of all devices together. On a disk that takes no writes they are in memory alone for as long: sessions that
   * need nothing durable go on, and an overheard credential is not good a second time.
   */
  keepNonces(
    deviceId: string,
    nonces: { readonly serverNonce: Uint8Array | undefined; readonly clientNonce: Uint8Array | undefined },
  ): void {
    const known = this.#known.get(deviceId);
    if (!known) return;
    const { serverNonce = known.serverNonce, clientNonce = known.clientNonce } = nonces;
    if (isSame(serverNonce, known.serverNonce) && isSame(clientNonce, known.clientNonce)) return;
    this.#rememberForRollback(deviceId);
    this.#keep({ ...known, serverNonce, clientNonce });
    this.#unwritten.add(deviceId);
    this.#database.putOff(this.#writeNonces);
  }

  readonly #writeNonces = (): void => {
    const statement = this.#database.prepare(
      'UPDATE credential SET server_nonce = ?, client_nonce = ? WHERE device_id = ?',
    );
    for (const deviceId of this.#unwritten) {
      const known = this.#known.get(deviceId);
      if (known) statement.run(known.serverNonce, known.clientNonce, deviceId);
    }
    this.#database.afterCommit(() => this.#unwritten.clear());
  };

  delete(deviceId: string): void {
    this.#rememberForRollback(deviceId);
    this.#database.prepare('DELETE FROM credential WHERE device_id = ?').run(deviceId);
    this.keys.remove(deviceId);
    this.#drop(deviceId);
    this.#database.afterCommit(() => this.#ended(deviceId));
  }

  /** When the transaction under way is not committed, the credential of this device is again what it is now. */
  #rememberForRollback(deviceId: string): void {
    const before = this.#known.get(deviceId);
    this.#database.onRollback(() => {
      if (before) this.#keep(before);
      else this.#drop(deviceId);
    });
  }

  #drop(deviceId: string): void {
    this.#known.delete(deviceId);
    this.#ids.delete(hashedName(deviceId));
  }

  #keep(credential: GatewayCredential): void {
    // A nonce may be a view of a pooled 8 KiB buffer. Without a copy, the whole buffer would stay in memory.
    const clientNonce = new Uint8Array(credential.clientNonce);
    const serverNonce = new Uint8Array(credential.serverNonce);
    const { deviceId } = credential;
    // The name of a node is a hash. It is computed once for each device.
    if (!this.#known.has(deviceId)) this.#ids.set(hashedName(deviceId), deviceId);
    this.#known.set(deviceId, { ...credential, clientNonce, serverNonce });
  }
}

const isSame = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

/**
 * Both secrets are sealed together, and stored as base64 behind this mark, in the column of the client's secret. Without the mark an
 * earlier version has stored them in clear. The mark is a control character, so that no secret looks like it.
 */
const sealMark = '\u0001';

const sealName = (deviceId: string): string => `credential ${deviceId}`;

/** The secrets of a row. Undefined when another key has sealed them. */
function openSecrets(
  sealing: Sealer,
  { deviceId, clientSecret }: GatewayCredential,
): Pick<GatewayCredential, 'clientSecret' | 'serverSecret'> | undefined {
  const sealed = Buffer.from(clientSecret.slice(sealMark.length), 'base64');
  const opened = sealing.open(sealed, sealName(deviceId));
  return opened && v.parse(sealedSecrets, JSON.parse(opened.toString()));
}

const sealedSecrets = v.object({ clientSecret: v.string(), serverSecret: v.string() });

const credentialTable: ReadableTable<GatewayCredential> = {
  table: 'credential',
  key: ['device_id'],
  read: (row) => ({
    deviceId: row.text('device_id'),
    clientName: row.text('client_name'),
    clientSecret: row.text('client_secret'),
    clientNonce: row.octets('client_nonce'),
    serverSecret: row.text('server_secret'),
    serverNonce: row.octets('server_nonce'),
    origin: row.oneOf('origin', bootstrapOrigins),
    attached: row.oneOf('attached', [0, 1]) === 1,
  }),
};
