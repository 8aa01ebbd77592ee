import type { Clock } from '../../base/clock.ts';
import type { Database } from '../../base/database.ts';
import { asPosternError } from '../../base/errors.ts';
import { type ReadableTable, type Row, readRows } from '../../base/rows.ts';
import type { Sealer } from '../../base/sealing.ts';
import {
  type AssociationName,
  type AssociationStore,
  nameOf,
  reservedBlock,
  type StoredAssociation,
} from '../../wire/secure/association-store.ts';
import { suiteOf } from '../../wire/secure/dtls/suites.ts';
import { numbersByClock } from '../../wire/secure/numbers-by-clock.ts';

export interface DtlsAssociationsParts {
  readonly sealing: Sealer;
  readonly clock: Pick<Clock, 'wall'>;
  /** The state is new or went back in time: what it says of sequence numbers may be too low. */
  readonly isNew: boolean;
  /** Called with the number of associations that another key has sealed. */
  readonly lost: (count: number) => void;
}

/** Name of a row from before an identity could have several associations. It gets its right name when it is read. */
const unnamed = '';

/**
 * Durable store of the DTLS associations with devices, sealed. A run of the gateway uses at most `reservedBlock`
 * sequence numbers after those that a row says, until the row is stored again. So the rows need not be written at a start: each run
 * since then counts for one block. The number of a run is not lower than the clock says, so that a state which was taken back counts
 * more blocks than were used since.
 */
export class DtlsAssociations implements AssociationStore {
  readonly #database: Database;
  readonly #parts: DtlsAssociationsParts;
  #run = 0;

  constructor(database: Database, parts: DtlsAssociationsParts) {
    this.#database = database;
    this.#parts = parts;
  }

  load(): readonly StoredAssociation[] {
    const database = this.#database;
    try {
      return database.transaction(() => {
        if (this.#parts.isNew) database.prepare('DELETE FROM dtls_association').run();
        const byClock = Math.floor(numbersByClock(this.#parts.clock) / reservedBlock);
        database.prepare('UPDATE dtls_run SET number = max(number + 1, ?)').run(byClock);
        this.#run = Number(database.prepare('SELECT number FROM dtls_run').get()?.number);
        const rows = readRows(database, table);
        // From now on records come that the rows do not know of.
        database.prepare('UPDATE dtls_association SET clean = 0 WHERE clean = 1').run();
        const read = rows.map((row) => this.#read(row));
        const lost = read.filter((each) => each === 'sealed').length;
        if (lost > 0) this.#parts.lost(lost);
        return read.filter((each) => each !== 'sealed' && each !== undefined);
      });
    } catch (thrown) {
      // A gateway starts on a full disk too. Its devices shake hands again, since nothing can be reserved.
      if (asPosternError(thrown).code !== 'storage') throw thrown;
      return [];
    }
  }

  save(associations: readonly StoredAssociation[]): void {
    const put = this.#database.prepare(
      'INSERT OR REPLACE INTO dtls_association (identity, name, run, clean, body) VALUES (?, ?, ?, ?, ?)',
    );
    this.#database.transaction(() => {
      for (const { state, credential, isClean } of associations) {
        const { suite, keys, peerCid, ...rest } = state;
        const body = {
          ...rest,
          credential,
          suite: suite.id,
          keys: keys.toString('base64'),
          peerCid: peerCid?.toString('base64'),
        };
        const plain = Buffer.from(JSON.stringify(body));
        const sealed = this.#parts.sealing.seal(plain, state.identity);
        plain.fill(0);
        keys.fill(0);
        put.run(state.identity, nameOf(state), this.#run, isClean ? 1 : 0, sealed.toString('base64'));
      }
    });
  }

  remove(association: AssociationName): void {
    this.#delete(association.identity, nameOf(association));
  }

  settled(): Promise<void> {
    return this.#database.settled();
  }

  #delete(identity: string, name: string): void {
    this.#database
      .prepare('DELETE FROM dtls_association WHERE identity = ? AND name = ?')
      .run(identity, name);
  }

  /** `sealed` for a row that another key has sealed: its device shakes hands again. */
  #read({ identity, name, run, isClean, sealed }: Sealed): StoredAssociation | 'sealed' | undefined {
    const opened = this.#parts.sealing.open(Buffer.from(sealed, 'base64'), identity);
    if (!opened) {
      this.#delete(identity, name);
      return 'sealed';
    }
    const { credential, suite, keys, peerCid, sent, ...rest } = JSON.parse(opened.toString());
    opened.fill(0);
    const known = suiteOf(suite);
    if (!known) return undefined;
    const state = {
      ...rest,
      suite: known,
      keys: Buffer.from(keys, 'base64'),
      peerCid: peerCid === undefined ? undefined : Buffer.from(peerCid, 'base64'),
      sent: sent + reservedBlock * (this.#run - run),
    };
    if (name === unnamed)
      this.#database
        .prepare('UPDATE dtls_association SET name = ? WHERE identity = ? AND name = ?')
        .run(nameOf(state), identity, unnamed);
    return { state, credential, isClean };
  }
}

interface Sealed {
  readonly identity: string;
  readonly name: string;
  readonly run: number;
  readonly isClean: boolean;
  readonly sealed: string;
}

const table: ReadableTable<Sealed> = {
  table: 'dtls_association',
  key: ['identity', 'name'],
  read: (row: Row) => ({
    identity: row.text('identity'),
    name: row.text('name'),
    run: row.integer('run'),
    isClean: row.integer('clean', 0, 1) === 1,
    sealed: row.text('body'),
  }),
};
