import type { DatabaseSync } from 'node:sqlite';

/** The tables of one party, as the steps that build them. */
export interface Schema {
  /** Name of the party in error messages, such as `gateway`. */
  readonly party: string;
  /** Marks a file as the state of this party (PRAGMA application_id). */
  readonly applicationId: number;
  /** SQL, one step for each version of the schema. A released step never changes. */
  readonly steps: readonly string[];
}

export const pragma = (
  database: DatabaseSync,
  name: 'application_id' | 'user_version' | 'page_count' | 'page_size',
): number => Number(database.prepare(`PRAGMA ${name}`).get()?.[name]);

/**
 * Refuses the file of another party or program. Files of version 0.1.0 have no mark; they hold the tables of all parties
 * and are accepted.
 */
export function checkParty(database: DatabaseSync, { party, applicationId }: Schema): void {
  const found = pragma(database, 'application_id');
  if (found === applicationId) return;
  const isReleased = found === 0 && pragma(database, 'user_version') > 0;
  const isEmpty = found === 0 && !database.prepare('SELECT 1 FROM sqlite_schema').get();
  if (!isReleased && !isEmpty)
    throw new ForeignState(`it is not the state of a ${party} but of another program`);
}

/** The content is of another party or program. */
export class ForeignState extends Error {}

/** The content of a state file contradicts itself. */
export class DamagedState extends Error {}

/** SQLITE_CORRUPT and SQLITE_NOTADB. */
const damageCodes: ReadonlySet<number> = new Set([11, 26]);

/** Whether an error says that the file is damaged, and not that it cannot be read now or belongs to somebody else. */
export const isDamage = (thrown: unknown): boolean =>
  thrown instanceof DamagedState || damageCodes.has(((thrown as { errcode?: number }).errcode ?? 0) & 0xff);

/** What SQLite says of a value that its column cannot hold. The file is whole then: `readRows` sets the row aside. */
const ofOneValue = /^(ok$|(non-\w+|\w+) value in \S+$)/;
/** Complaints that are read. With more than these the file counts as damaged, because others may follow. */
const complaintLimit = 100;

/**
 * Reads the whole file and checks its structure. Takes about 2 ms for each MB of a file that is in memory.
 * @throws {DamagedState} and errors of SQLite
 */
export function checkSound(database: DatabaseSync): void {
  const found = database
    .prepare(`PRAGMA quick_check(${complaintLimit})`)
    .all()
    .map((row) => String(Object.values(row)[0]));
  const worst =
    found.length < complaintLimit ? found.find((complaint) => !ofOneValue.test(complaint)) : found[0];
  if (worst !== undefined) throw new DamagedState(worst.replaceAll(/\s+/g, ' '));
}

/**
 * Makes a copy forget at which start it was made. A gateway that starts from the copy begins a new epoch: what it reported
 * after the copy was made has used numbers that the copy does not know of.
 */
export function forgetEpoch(copy: DatabaseSync): void {
  if (copy.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'epoch'").get())
    copy.exec('UPDATE epoch SET starts = -1');
}
