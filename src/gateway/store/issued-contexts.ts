import type { Database } from '../../base/database.ts';
import { PosternError } from '../../base/errors.ts';
import { type ReadableTable, type Row, readRows } from '../../base/rows.ts';
import type { Sealer } from '../../base/sealing.ts';
import type { OscoreParameters } from '../../wire/secure/oscore/keys.ts';

/** The parts of a context in the order in which they are stored. */
const parts = ['masterSecret', 'masterSalt', 'idContext', 'senderId', 'recipientId'] as const;

function written(parameters: OscoreParameters): Buffer {
  const texts = parts.map((part) => parameters[part] && Buffer.from(parameters[part]).toString('base64'));
  return Buffer.from(JSON.stringify(texts));
}

function read(body: Buffer): OscoreParameters {
  const texts: readonly (string | null)[] = JSON.parse(body.toString());
  const octets = texts.map((each) => (each === null ? undefined : Buffer.from(each, 'base64')));
  return Object.fromEntries(parts.map((part, at) => [part, octets[at]])) as unknown as OscoreParameters;
}

/** Durable store of the security contexts that this gateway has issued to devices, one of each identity, sealed. */
export class IssuedContexts {
  readonly #database: Database;
  readonly #sealing: Sealer;
  readonly #limit: number;
  readonly #identities: Set<string>;
  readonly #loaded: (readonly [string, OscoreParameters])[];

  /** @param limit maximum number of devices */
  constructor(database: Database, sealing: Sealer, limit: number) {
    this.#database = database;
    this.#sealing = sealing;
    this.#limit = limit;
    this.#loaded = readRows(database, table).flatMap(([identity, text]) => {
      const opened = sealing.open(Buffer.from(text, 'base64'), sealedName(identity));
      // One that another key has sealed is of no use. Its device has to bootstrap again.
      return opened ? [[identity, read(opened)] as const] : [];
    });
    this.#identities = new Set(this.#loaded.map(([identity]) => identity));
  }

  /** What was stored before this run. To be called once. */
  load(): (readonly [string, OscoreParameters])[] {
    return this.#loaded.splice(0);
  }

  has(identity: string): boolean {
    return this.#identities.has(identity);
  }

  /** @throws {PosternError} `full` when the identity is new and the limit is reached; `storage` */
  put(identity: string, parameters: OscoreParameters): void {
    if (!this.#identities.has(identity) && this.#identities.size >= this.#limit)
      throw new PosternError('full', `the limit of ${this.#limit} devices with security contexts is reached`);
    const sealed = this.#sealing.seal(written(parameters), sealedName(identity));
    this.#database
      .prepare('INSERT OR REPLACE INTO oscore_context (identity, body) VALUES (?, ?)')
      .run(identity, sealed.toString('base64'));
    this.#identities.add(identity);
  }

  /** @throws {PosternError} `storage` */
  remove(identity: string): void {
    if (!this.#identities.has(identity)) return;
    this.#database.prepare('DELETE FROM oscore_context WHERE identity = ?').run(identity);
    this.#identities.delete(identity);
  }
}

/** Not that of a DTLS association, which has the identity alone. */
const sealedName = (identity: string): string => `oscore ${identity}`;

const table: ReadableTable<[string, string]> = {
  table: 'oscore_context',
  key: ['identity'],
  read: (row: Row) => [row.text('identity'), row.text('body')],
};
