import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { withoutTables } from '../../build/without-tables.ts';
import { openDatabase, type Schema } from '../../src/base/open-database.ts';
import { deviceSchema } from '../../src/device/schema.ts';
import { headendSchema } from '../../src/headend/schema.ts';

const bundle = new URL('../../dist/postern.mjs', import.meta.url).pathname;
const folderFor = (t: { after: (work: () => void) => void }) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-tables-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
};

test('the bundle of the gateway restores the states of all parties without having their tables', (t) => {
  assert.doesNotMatch(readFileSync(bundle, 'utf8'), /CREATE TABLE (enrolment|applied_bootstrap) /);
  const folder = folderFor(t);
  for (const schema of [headendSchema, deviceSchema]) {
    const backup = join(folder, `${schema.party}.backup`);
    openDatabase(backup, schema).close();
    const state = join(folder, `${schema.party}.db`);
    const restore = () =>
      spawnSync(process.execPath, [bundle, 'restore', backup, '--state', state], { encoding: 'utf8' });
    assert.deepEqual(
      [restore().stdout, restore().stdout],
      [
        `the state of the ${schema.party} is restored\n`,
        `the state of the ${schema.party} is restored; the one before is ${state}.replaced-1\n`,
      ],
    );
    openDatabase(state, schema).close();
    {
      using later = new DatabaseSync(backup);
      later.exec(`PRAGMA user_version = ${schema.steps.length + 1}`);
    }
    assert.match(restore().stderr, new RegExp(`of version ${schema.steps.length + 1}; this program knows`));
  }
});

test('no state is opened with tables that were left out', (t) => {
  const file = join(folderFor(t), 'state.db');
  const bare: Schema = new Function(`return ${withoutTables(headendSchema)};`)();
  assert.equal(bare.steps.length, headendSchema.steps.length);
  assert.throws(() => openDatabase(file, bare), /syntax error/);
});
