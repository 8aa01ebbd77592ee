import { DatabaseSync } from 'node:sqlite';
import type { Entropy } from '../../src/base/entropy.ts';

/** A change of one value in one row of a state file. */
export interface Damage {
  readonly table: string;
  readonly column: string;
  /** Primary key of the row before the change. */
  readonly row: Readonly<Record<string, unknown>>;
  readonly value: unknown;
  /** The value is of a type that the column cannot have. */
  readonly isForeign: boolean;
}

interface Column {
  readonly name: string;
  readonly type: string;
  readonly notnull: number;
  readonly pk: number;
}

const pick = <T>(entropy: Entropy, list: readonly T[]): T =>
  list[Math.floor(entropy.uniform() * list.length)]!;

/** Tables of the file that have rows, those of SQLite and of the set-aside rows apart. */
const tablesOf = (database: DatabaseSync): string[] =>
  database
    .prepare(
      "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'set_aside'",
    )
    .all()
    .map(({ name }) => String(name))
    .filter((name) => database.prepare(`SELECT 1 FROM ${name} LIMIT 1`).get() !== undefined);

/** Valid JSON of another shape: a member that is gone, or that has another type. */
function otherJson(entropy: Entropy, text: string): string {
  const value = JSON.parse(text) as Record<string, unknown>;
  const name = pick(entropy, Object.keys(value));
  if (name === undefined) return '7';
  const changed = pick(entropy, [undefined, null, -1, 1e300, 'x', [], {}, [[[]]], true]);
  return JSON.stringify({ ...value, [name]: changed });
}

const isJson = (text: unknown): text is string => typeof text === 'string' && /^\{.*\}$/s.test(text);

function otherValue(entropy: Entropy, { type, notnull, pk }: Column, before: unknown): unknown {
  const nothing = notnull || pk > 0 ? [] : [null];
  if (type === 'INTEGER')
    return pick(entropy, [-1, 0, 1, 2, 3, 4, 99, 2 ** 31, 2n ** 53n, 2n ** 63n - 1n, ...nothing]);
  if (type === 'BLOB')
    return pick(entropy, [Buffer.alloc(0), Buffer.from([0xff, 0xfe]), Buffer.alloc(70_000, 1), ...nothing]);
  const texts = [
    '',
    'x',
    '{}',
    '[]',
    'null',
    '5',
    '{"a"',
    '\0',
    '../..',
    'Get=*&',
    '�'.repeat(300),
    'x'.repeat(70_000),
  ];
  if (isJson(before) && entropy.uniform() < 0.6) return otherJson(entropy, before);
  return pick(entropy, [...texts, ...nothing]);
}

const foreignValue = (entropy: Entropy, { type }: Column): unknown =>
  pick(
    entropy,
    type === 'TEXT'
      ? [Buffer.from('x'), 5, 1.5]
      : type === 'INTEGER'
        ? ['x', Buffer.from('x'), 1.5]
        : ['x', 5],
  );

/** Lets each table take values of any type, or forbids that again. */
function setStrict(file: string, strict: boolean): void {
  const database = new DatabaseSync(file);
  database.enableDefensive?.(false);
  database.exec('PRAGMA writable_schema = ON');
  const change = strict
    ? "UPDATE sqlite_schema SET sql = replace(sql, '/*strict*/', 'STRICT')"
    : "UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '/*strict*/')";
  database.exec(`${change} WHERE type = 'table'`);
  database.close();
}

/** Changes one value of one row at random. */
export function damage(file: string, entropy: Entropy): Damage {
  const isForeign = entropy.uniform() < 0.2;
  if (isForeign) setStrict(file, false);
  const database = new DatabaseSync(file);
  const table = pick(entropy, tablesOf(database));
  const columns = database.prepare(`PRAGMA table_info(${table})`).all() as unknown as Column[];
  const key = columns.filter(({ pk }) => pk > 0).map(({ name }) => name);
  const rows = database.prepare(`SELECT * FROM ${table}`).all();
  const row = pick(entropy, rows);
  const column = pick(entropy, columns);
  // SQLite itself keeps other types out of an INTEGER PRIMARY KEY.
  const isRowId = column.pk > 0 && column.type === 'INTEGER';
  const value =
    isForeign && !isRowId ? foreignValue(entropy, column) : otherValue(entropy, column, row[column.name]);
  // A table of one row has no key.
  const where = key.map((name) => `${name} IS ?`).join(' AND ') || 'TRUE';
  try {
    database
      .prepare(`UPDATE OR REPLACE ${table} SET ${column.name} = ? WHERE ${where}`)
      .run(value as string, ...key.map((name) => row[name] as string));
  } finally {
    database.close();
    if (isForeign) setStrict(file, true);
  }
  const shown = typeof value === 'string' ? value.slice(0, 60) : value;
  return {
    table,
    column: column.name,
    row: Object.fromEntries(key.map((name) => [name, row[name]])),
    value: typeof shown === 'bigint' ? String(shown) : shown,
    isForeign,
  };
}
