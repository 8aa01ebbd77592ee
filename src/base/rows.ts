import type { SQLOutputValue } from 'node:sqlite';
import * as v from 'valibot';
import { type Database, keepLatest, transaction } from './database.ts';

/** SQL for the table of rows that could not be read: a step of the schema of each party. */
export const setAsideTable =
  'CREATE TABLE set_aside (number INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, reason TEXT NOT NULL, body TEXT NOT NULL) STRICT;';

/** Rows that are kept in the table `set_aside`, and characters of each. */
export const setAsideLimits = { rows: 256, characters: 64 * 1024 } as const;

/** Largest distance of a time from 1970, in milliseconds, that has a date (ECMA-262, section 21.4.1.1). */
const timeLimit = 8.64e15;

/** A row of a table. Each method returns the value of a column, and throws when the column holds another kind of value. */
export class Row {
  readonly #values: Readonly<Record<string, SQLOutputValue>>;

  constructor(values: Readonly<Record<string, SQLOutputValue>>) {
    this.#values = values;
  }

  text(column: string): string {
    const value = this.#values[column];
    if (typeof value !== 'string') throw new Error(`${column} is not a text`);
    return value;
  }

  /** `{ [name]: text }`, or nothing for NULL. It is made to be spread into a record. */
  optionalText<Name extends string>(name: Name, column: string = name): { readonly [K in Name]?: string } {
    return this.#values[column] === null ? {} : ({ [name]: this.text(column) } as { [K in Name]: string });
  }

  octets(column: string): Uint8Array {
    const value = this.#values[column];
    if (!(value instanceof Uint8Array)) throw new Error(`${column} does not consist of octets`);
    return value;
  }

  /** As `octets`; undefined for NULL. */
  optionalOctets(column: string): Uint8Array | undefined {
    return this.#values[column] === null ? undefined : this.octets(column);
  }

  /** An integer from `min` to `max`, both included. */
  integer(column: string, min = 0, max = Number.MAX_SAFE_INTEGER): number {
    const value = this.#values[column];
    const number = typeof value === 'bigint' ? Number(value) : value;
    if (typeof number !== 'number' || !Number.isSafeInteger(number) || number < min || number > max)
      throw new Error(`${column} is not an integer from ${min} to ${max}`);
    return number;
  }

  /** As `integer` with a lower bound of 0. `{ [name]: integer }`, or nothing for NULL. */
  optionalInteger<Name extends string>(name: Name): { readonly [K in Name]?: number } {
    return this.#values[name] === null ? {} : ({ [name]: this.integer(name) } as { [K in Name]: number });
  }

  /** Milliseconds since 1970. */
  time(column: string): number {
    return this.integer(column, -timeLimit, timeLimit);
  }

  oneOf<Value extends string | number>(column: string, allowed: readonly Value[]): Value {
    const value = this.#values[column];
    const plain = typeof value === 'bigint' ? Number(value) : value;
    const found = allowed.find((each) => each === plain);
    if (found === undefined) throw new Error(`${column} is none of ${allowed.join(', ')}`);
    return found;
  }

  /** A value that was stored as JSON. */
  json<S extends v.GenericSchema>(column: string, schema: S): v.InferOutput<S> {
    let value: unknown;
    try {
      value = JSON.parse(this.text(column));
    } catch (cause) {
      throw new Error(`${column} is not JSON`, { cause });
    }
    const { success, output, issues } = v.safeParse(schema, value);
    if (success) return output;
    throw new Error(`${column}.${v.getDotPath(issues[0]) ?? ''} has a wrong value`);
  }
}

/** A table whose rows are read one by one. */
export interface ReadableTable<T> {
  readonly table: string;
  /** Columns of the primary key. */
  readonly key: readonly string[];
  /** What is selected of each row, a constant of the program: SQL with all columns of the table. `*` when absent. */
  readonly columns?: string;
  /** Makes a value of a row. Throws when the row cannot be read. */
  readonly read: (row: Row) => T;
  /** Stores a substitute for a row that cannot be read, and returns it. Throws where there can be none. */
  readonly instead?: (row: Row, database: Database) => T;
}

/** Rows of one table that could not be read. */
export interface SetAside {
  readonly table: string;
  readonly rows: number;
  /** Primary key of the first of them. */
  readonly row: string;
  /** Why the first of them cannot be read. */
  readonly reason: string;
}

interface Listening {
  readonly found: SetAside[];
  listener?: (found: SetAside) => void;
}
const listening = new WeakMap<Database, Listening>();
const listeningOf = (database: Database): Listening => {
  const known = listening.get(database) ?? { found: [] };
  listening.set(database, known);
  return known;
};

/** Calls the listener for the rows of a database that were set aside already, and for those that follow. */
export function onSetAside(database: Database, listener: (found: SetAside) => void): void {
  const known = listeningOf(database);
  known.listener = listener;
  for (const found of known.found.splice(0)) listener(found);
}

/** Number of rows in the table `set_aside`. */
export const countSetAside = (database: Database): number =>
  Number(database.prepare('SELECT count(*) AS n FROM set_aside').get()?.n);

/**
 * Reads the rows of a table. A row that cannot be read is moved into the table `set_aside`, and the listener of
 * `onSetAside` is told; the other rows are not affected. A row that cannot be moved, because the disk takes no writes,
 * is left out.
 * @param where the rest of the SELECT, a constant of the program with a `?` for each parameter
 */
export function readRows<T>(
  database: Database,
  source: ReadableTable<T>,
  where = '',
  ...parameters: readonly (string | number | null)[]
): T[] {
  const found: T[] = [];
  const unreadable: Unreadable[] = [];
  for (const values of rowsOf(
    database,
    `SELECT ${source.columns ?? '*'} FROM ${source.table} ${where}`,
    parameters,
  ))
    try {
      found.push(source.read(new Row(values)));
    } catch (thrown) {
      unreadable.push({ values, reason: (thrown as Error).message });
    }
  const [first] = unreadable;
  if (!first) return found;
  const { table, key } = source;
  const row = key.map((column) => String(first.values[column])).join(' ');
  const told: SetAside = { table, rows: unreadable.length, row: row.slice(0, 200), reason: first.reason };
  const { listener, found: untold } = listeningOf(database);
  try {
    found.push(...transaction(database, () => unreadable.flatMap((each) => move(database, source, each))));
  } catch {
    // The rows stay where they are, and are read again at the next start.
  }
  if (listener) listener(told);
  else untold.push(told);
  return found;
}

/** Largest number of a row that leaves room for further rows, in SQLite and in JavaScript. */
const numberLimit = 2 ** 52;
/** Numbers that are skipped where it is unknown which numbers were used. */
const numberGap = 1_000_000;

/**
 * Makes sure that a table with AUTOINCREMENT takes further rows. Rows whose number is beyond `numberLimit` are set
 * aside: the next number would not fit into JavaScript, or not even into SQLite.
 * @param column the INTEGER PRIMARY KEY
 */
export function keepNumbersLow(database: Database, table: string, column: string): void {
  const read = () => {
    throw new Error(`${column} is no number of a row`);
  };
  readRows(database, { table, key: [column], read }, `WHERE ${column} < 1 OR ${column} > ${numberLimit}`);
  try {
    database
      .prepare(
        `UPDATE sqlite_sequence SET seq = (SELECT coalesce(max(${column}), 0) FROM ${table}) + ${numberGap}
         WHERE name = '${table}' AND seq NOT BETWEEN 0 AND ${numberLimit}`,
      )
      .run();
  } catch {
    // The disk takes no writes: there will be no further rows either.
  }
}

type Values = Readonly<Record<string, SQLOutputValue>>;
interface Unreadable {
  readonly values: Values;
  readonly reason: string;
}

/**
 * The rows of a SELECT. SQLite's integers have 64 bits. An integer that is beyond those of JavaScript ends an iteration;
 * the rest is then read with BigInt.
 */
function* rowsOf(
  database: Database,
  sql: string,
  parameters: readonly (string | number | null)[],
): Generator<Values> {
  const statement = database.prepare(sql);
  let seen = 0;
  try {
    for (const values of statement.iterate(...parameters)) {
      seen++;
      yield values;
    }
    return;
  } catch {
    statement.setReadBigInts(true);
  }
  try {
    for (const values of statement.iterate(...parameters)) if (seen-- <= 0) yield values;
  } finally {
    statement.setReadBigInts(false);
  }
}

/** Moves one row into the table `set_aside`. Returns its substitute, if the table has one. */
function move<T>(
  database: Database,
  { table, key, instead }: ReadableTable<T>,
  { values, reason }: Unreadable,
): T[] {
  const body = JSON.stringify(values, (_, value: unknown) =>
    typeof value === 'bigint'
      ? String(value)
      : value instanceof Uint8Array
        ? { base64: Buffer.from(value).toString('base64') }
        : value,
  );
  database
    .prepare('INSERT INTO set_aside (source, reason, body) VALUES (?, ?, ?)')
    .run(table, reason, body.slice(0, setAsideLimits.characters));
  keepLatest(database, 'set_aside', setAsideLimits.rows);
  database
    .prepare(`DELETE FROM ${table} WHERE ${key.map((column) => `${column} IS ?`).join(' AND ')}`)
    .run(...key.map((column) => values[column] ?? null));
  try {
    return instead ? [instead(new Row(values), database)] : [];
  } catch {
    return [];
  }
}
