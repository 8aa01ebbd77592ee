import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { systemEntropy } from '../src/base/entropy.ts';
import { openDatabase, type Schema } from '../src/base/open-database.ts';
import { PlatformSealing, Sealing } from '../src/base/sealing.ts';
import { releasedSteps } from './vectors/state/released-steps.ts';

/** Schema versions before the one of the vectors. */
export const earlierVersions = [1, 2, 3, 4] as const;
export const releasedVersion = releasedSteps.length;

const vectors = fileURLToPath(new URL('vectors/state/', import.meta.url));

/** Path of a state file that does not exist yet, in a folder that goes with the test. */
export function freshState(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-state-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return join(folder, 'state.db');
}

/** Copy of a state file that a party of Postern 0.1.0 made (test/vectors/state). */
export function releasedState(t: TestContext, party: 'gateway' | 'headend' | 'device'): string {
  const file = freshState(t);
  copyFileSync(join(vectors, `${party}.db`), file);
  return file;
}

/** State file of an earlier version of the released schema, with what `rows` inserts. */
export function earlierState(t: TestContext, version: number, rows: readonly string[]): string {
  const file = freshState(t);
  using database = new DatabaseSync(file);
  database.exec('PRAGMA journal_mode = WAL');
  for (const sql of [...releasedSteps.slice(0, version), ...rows, `PRAGMA user_version = ${version}`])
    database.exec(sql);
  return file;
}

/** Checks that a file has the released tables of this schema in their released form. Later steps may have added tables. */
export function assertReleasedTables(t: TestContext, schema: Schema, file: string): void {
  const fresh = freshState(t);
  openDatabase(fresh, schema).close();
  const { tables } = shapeOf(file);
  const released = shapeOf(releasedState(t, 'gateway')).tables;
  for (const name of Object.keys(shapeOf(fresh).tables))
    if (released[name] !== undefined) assert.equal(tables[name], released[name], name);
}

/** What decides whether a version of the program can open a state file. */
export function shapeOf(file: string) {
  using database = new DatabaseSync(file);
  const pragma = (name: string) => Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0];
  const rows = database
    .prepare("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name")
    .all();
  return {
    version: pragma('user_version'),
    applicationId: pragma('application_id'),
    integrity: pragma('integrity_check'),
    /** SQL of each table and index, by its name; white space aside. */
    tables: Object.fromEntries(rows.map(({ name, sql }) => [name, String(sql).replaceAll(/\s+/g, ' ')])),
  };
}

/** Opens the secrets in the state file of a gateway. */
export const sealingOf = (file: string): PlatformSealing =>
  new PlatformSealing({ file: `${file}.key` }, systemEntropy, (reason) => {
    throw new Error(reason);
  });

/** For stores of a test alone. */
export const testSealing = new Sealing(systemEntropy.bytes(32), systemEntropy);
