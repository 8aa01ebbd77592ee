import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import * as v from 'valibot';
import { openDatabase } from '../../src/base/open-database.ts';
import {
  countSetAside,
  keepNumbersLow,
  onSetAside,
  type ReadableTable,
  type Row,
  readRows,
  type SetAside,
  setAsideLimits,
  setAsideTable,
} from '../../src/base/rows.ts';

const schema = {
  party: 'test',
  applicationId: 1,
  steps: [
    `${setAsideTable}
     CREATE TABLE thing (name TEXT PRIMARY KEY, n INTEGER, octets BLOB, body TEXT) STRICT, WITHOUT ROWID;
     CREATE TABLE numbered (number INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT) STRICT;`,
  ],
};
const table: ReadableTable<readonly [string, number]> = {
  table: 'thing',
  key: ['name'],
  read: (row) => [row.text('name'), row.integer('n')],
};

function open(rows: readonly (readonly [string, number | bigint | null, Uint8Array?, string?])[]) {
  const database = openDatabase(':memory:', schema);
  const insert = database.prepare('INSERT INTO thing (name, n, octets, body) VALUES (?, ?, ?, ?)');
  for (const [name, n, octets = null, body = null] of rows) insert.run(name, n, octets, body);
  const told: SetAside[] = [];
  return { database, told };
}

const keptIn = (database: ReturnType<typeof openDatabase>) =>
  database
    .prepare('SELECT source, reason, body FROM set_aside')
    .all()
    .map(({ body }) => JSON.parse(String(body)));

test('a row that cannot be read is moved, told once, and not in the way of the others', () => {
  const { database, told } = open([
    ['a', 1],
    ['b', null, new Uint8Array([1, 255])],
    ['c', -1],
    ['d', 2],
  ]);
  onSetAside(database, (found) => told.push(found));
  for (let start = 0; start < 2; start++)
    assert.deepEqual(readRows(database, table), [
      ['a', 1],
      ['d', 2],
    ]);
  const reason = 'n is not an integer from 0 to 9007199254740991';
  assert.deepEqual(told, [{ table: 'thing', rows: 2, row: 'b', reason }]);
  assert.equal(countSetAside(database), 2);
  assert.deepEqual(keptIn(database), [
    { name: 'b', n: null, octets: { base64: 'Af8=' }, body: null },
    { name: 'c', n: -1, octets: null, body: null },
  ]);
});

test('an integer that JavaScript does not have is a wrong value like any other', () => {
  const { database } = open([
    ['a', 1],
    ['b', 2n ** 63n - 1n],
    ['c', 3],
  ]);
  const read = () => readRows(database, table, 'WHERE name <> ? ORDER BY name', 'x');
  assert.deepEqual(read(), [
    ['a', 1],
    ['c', 3],
  ]);
  assert.deepEqual(keptIn(database), [{ name: 'b', n: '9223372036854775807', octets: null, body: null }]);
});

test('rows that were set aside before anybody listened are told to the first who does', () => {
  const { database, told } = open([['a', null]]);
  readRows(database, table);
  onSetAside(database, (found) => told.push(found));
  assert.deepEqual(
    told.map(({ row }) => row),
    ['a'],
  );
});

test('a disk that takes no writes: the row is left out and told, and moved at the next start', () => {
  const { database, told } = open([
    ['a', 1],
    ['b', null],
  ]);
  onSetAside(database, (found) => told.push(found));
  database.prepare('PRAGMA query_only = ON').run();
  assert.deepEqual(readRows(database, table), [['a', 1]]);
  keepNumbersLow(database, 'numbered', 'number');
  database.prepare('PRAGMA query_only = OFF').run();
  assert.equal(countSetAside(database), 0);
  readRows(database, table);
  assert.deepEqual([countSetAside(database), told.length], [1, 2]);
});

test('what is kept is bounded in rows, and in characters of each', () => {
  const { rows, characters } = setAsideLimits;
  const { database } = open([
    ['big', null, new Uint8Array(), 'x'.repeat(2 * characters)],
    ...Array.from({ length: rows }, (_, at) => [`name-${at}`, null] as const),
  ]);
  readRows(database, table, 'WHERE name = ?', 'big');
  assert.equal(String(database.prepare('SELECT body FROM set_aside').get()?.body).length, characters);
  readRows(database, table);
  assert.equal(countSetAside(database), rows);
});

test('a substitute takes the place of the row, where there can be one', () => {
  const { database } = open([
    ['a', null],
    ['hopeless', null],
  ]);
  const instead = (row: Row, inside: typeof database) => {
    if (row.text('name') === 'hopeless') throw new Error('no substitute');
    inside.prepare('INSERT INTO thing (name, n) VALUES (?, 0)').run(row.text('name'));
    return [row.text('name'), 0] as const;
  };
  for (let start = 0; start < 2; start++)
    assert.deepEqual(readRows(database, { ...table, instead }), [['a', 0]]);
});

describe('values of a row', () => {
  const cases: readonly [string, (row: Row) => unknown, RegExp | unknown][] = [
    ['a text', (row) => row.text('name'), 'a'],
    ['a text that is an integer', (row) => row.text('n'), /^n is not a text$/],
    ['a text that may be missing', (row) => row.optionalText('body'), { body: '{"x":[1,"y"]}' }],
    ['an integer out of its range', (row) => row.integer('n', 0, 4), /^n is not an integer from 0 to 4$/],
    ['an integer that is a text', (row) => row.integer('name'), /^name is not an integer/],
    ['octets', (row) => Buffer.from(row.octets('octets')).toString('hex'), '0102'],
    ['octets that are a text', (row) => row.octets('name'), /^name does not consist of octets$/],
    ['one of a list', (row) => row.oneOf('name', ['a', 'b']), 'a'],
    ['none of a list', (row) => row.oneOf('n', [1, 2]), /^n is none of 1, 2$/],
    ['JSON', (row) => row.json('body', v.object({ x: v.array(v.unknown()) })), { x: [1, 'y'] }],
    ['text that is not JSON', (row) => row.json('name', v.unknown()), /^name is not JSON$/],
    [
      'JSON of another shape',
      (row) => row.json('body', v.object({ x: v.array(v.number()) })),
      /^body\.x\.1 has a wrong value$/,
    ],
  ];
  for (const [what, read, expected] of cases)
    test(what, () => {
      const { database, told } = open([['a', 5, new Uint8Array([1, 2]), '{"x":[1,"y"]}']]);
      onSetAside(database, (found) => told.push(found));
      const [found] = readRows(database, { table: 'thing', key: ['name'], read });
      if (expected instanceof RegExp) assert.match(told[0]?.reason ?? '', expected);
      else assert.deepEqual(found, expected);
    });
});

test('a number of a row at the end of the scale does not keep a table from taking rows', () => {
  const { database } = open([]);
  for (const number of [5n, 2n ** 53n, 2n ** 63n - 1n, -3n])
    database.prepare(`INSERT INTO numbered (number) VALUES (${number})`).all();
  database.prepare(`UPDATE sqlite_sequence SET seq = ${2n ** 63n - 1n} WHERE name = 'numbered'`).run();
  assert.throws(() => database.prepare("INSERT INTO numbered (body) VALUES ('x')").run(), /full/);
  keepNumbersLow(database, 'numbered', 'number');
  const { lastInsertRowid } = database.prepare("INSERT INTO numbered (body) VALUES ('x')").run();
  assert.ok(Number(lastInsertRowid) > 5 + 10_000, 'numbers that may have been used are not used again');
  assert.equal(countSetAside(database), 3);
});
