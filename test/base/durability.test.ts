import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { Durability, logBytes } from '../../src/base/durability.ts';

/** A database that commits rows of 4 KiB, as `openDatabase` sets one up. */
function writer(file: string) {
  const database = new DatabaseSync(file);
  database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0');
  database.exec(`PRAGMA journal_size_limit = ${logBytes.growth}; CREATE TABLE t (x BLOB)`);
  const insert = database.prepare('INSERT INTO t VALUES (?)');
  const durability = new Durability(file, () => database.exec('PRAGMA wal_checkpoint(PASSIVE)'), false);
  return {
    durability,
    commit: () => {
      insert.run(Buffer.alloc(4096));
      durability.committed();
    },
    close: async () => {
      for (let wait = durability.underWay; wait; wait = durability.underWay) await wait;
      durability.stop();
      database.close();
    },
  };
}

test('checkpoints follow the growth of the log, and a log under constant load stays bounded', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-durability-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'state.db');
  const { durability, commit, close } = writer(file);
  const written = { commits: 0, largest: 0 };
  // At least two pages of 4 KiB go into the log for each commit.
  const commits = Math.ceil((6 * logBytes.atMost) / 8192);
  while (written.commits < commits) {
    for (let at = 0; at < 32; at++, written.commits++) commit();
    await durability.settled();
    written.largest = Math.max(written.largest, statSync(`${file}-wal`).size);
  }
  t.diagnostic(`${durability.checkpoints} checkpoints, log of at most ${written.largest} bytes`);
  // While a thread makes a checkpoint, the log grows beyond its bound: on a busy machine by as much again.
  assert.ok(written.largest < 3 * logBytes.atMost, `log of ${written.largest} bytes`);
  // Once the log has had its first full length, its file stays long: length alone is no reason for a checkpoint.
  assert.ok(durability.checkpoints <= 48, `${durability.checkpoints} checkpoints`);
  assert.ok(durability.checkpoints >= 3);
  await close();
});
