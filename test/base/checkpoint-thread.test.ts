import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { CheckpointThread } from '../../src/base/checkpoint-thread.ts';

function stateFile(folder: string) {
  const file = join(folder, 'state.db');
  const database = new DatabaseSync(file);
  database.exec('PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE x (a)');
  return { file, database };
}

test('one thread makes checkpoints, several at once; after its end another one does', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-checkpoint-'));
  const { file, database } = stateFile(folder);
  const thread = new CheckpointThread(file);
  database.exec('INSERT INTO x VALUES (1)');
  assert.deepEqual(await Promise.all([thread.checkpoint('PASSIVE'), thread.checkpoint('TRUNCATE')]), [
    true,
    true,
  ]);
  assert.equal(statSync(`${file}-wal`).size, 0);
  thread.stop();
  database.exec('INSERT INTO x VALUES (2)');
  assert.equal(await thread.checkpoint('TRUNCATE'), true);
  assert.equal(statSync(`${file}-wal`).size, 0);
  thread.stop();
  database.close();
  rmSync(folder, { recursive: true });
});

test('a checkpoint that fails says why, and the next one works; one that is stopped ends', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-checkpoint-'));
  const { file, database } = stateFile(folder);
  const notOne = join(folder, 'other.db');
  writeFileSync(notOne, 'x'.repeat(5000));
  const failing = new CheckpointThread(notOne);
  await assert.rejects(failing.checkpoint('PASSIVE'), /not a database/);
  rmSync(notOne);
  const fresh = new DatabaseSync(notOne);
  fresh.exec('PRAGMA journal_mode = WAL; CREATE TABLE x (a)');
  assert.equal(await failing.checkpoint('PASSIVE'), true);
  failing.stop();
  fresh.close();

  const stopped = new CheckpointThread(file);
  const ended = assert.rejects(stopped.checkpoint('PASSIVE'), /ended early/);
  stopped.stop();
  await ended;
  database.close();
  rmSync(folder, { recursive: true });
});
