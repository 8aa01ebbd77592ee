import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, test } from 'node:test';
import { openDatabase } from '../../src/base/open-database.ts';
import { FailingDisk } from '../gateway/store/failing-disk.ts';

const schema = { party: 'test', applicationId: 7, steps: ['CREATE TABLE x (a INTEGER PRIMARY KEY)'] };

/** A database in a file whose rows come from `due`, put off. `stored` reads the file by another connection. */
function rig() {
  const folder = mkdtempSync(join(tmpdir(), 'postern-put-off-'));
  const file = join(folder, 'state.db');
  const disk = new FailingDisk();
  const database = openDatabase(file, schema);
  const due = new Set<number>();
  const write = () => {
    for (const a of due) database.prepare('INSERT INTO x VALUES (?)').run(a);
    database.afterCommit(() => due.clear());
  };
  return {
    database,
    disk,
    put: (a: number) => {
      due.add(a);
      database.putOff(write);
    },
    stored: () => {
      using reader = new DatabaseSync(file, { readOnly: true });
      return reader
        .prepare('SELECT a FROM x')
        .all()
        .map(({ a }) => a);
    },
    [Symbol.asyncDispose]: async () => {
      await database.close().catch(() => {});
      disk[Symbol.dispose]();
      rmSync(folder, { recursive: true });
    },
  };
}

describe('writes that are put off', () => {
  test('are one transaction before the next sync, and `settled` waits for them', async () => {
    await using run = rig();
    const { database, disk, put, stored } = run;
    const writes = disk.writes;
    put(1);
    put(2);
    assert.deepEqual([stored(), database.isSettled, disk.writes - writes], [[], false, 0]);
    await database.settled();
    // BEGIN, two rows, COMMIT.
    assert.deepEqual([stored(), database.isSettled, disk.writes - writes], [[1, 2], true, 4]);
  });

  test('that come while the disk syncs are written before the next sync', async () => {
    await using run = rig();
    const { database, put, stored } = run;
    put(1);
    const first = database.settled();
    await new Promise<void>((resolve) => setImmediate(resolve));
    put(2);
    await Promise.all([first, database.settled()]);
    assert.deepEqual([stored(), database.isSettled], [[1, 2], true]);
  });

  test('go with a transaction of the same turn, whether that one succeeds or not', async () => {
    await using run = rig();
    const { database, put, stored } = run;
    put(1);
    assert.throws(() =>
      database.transaction(() => {
        database.prepare('INSERT INTO x VALUES (?)').run(7);
        throw new Error('no');
      }),
    );
    await database.settled();
    assert.deepEqual(stored(), [1]);
  });

  test('that the disk refuses, at any of their writes, hold up nobody, and are written later', async () => {
    for (let at = 0; at < 4; at++) {
      await using run = rig();
      const { database, disk, put, stored } = run;
      put(1);
      put(2);
      disk.failAfter(at, { staysFull: true });
      await database.settled();
      assert.deepEqual([stored(), database.fault?.code], [[], 'storage'], `write ${at}`);
      assert.equal(disk.mend(), true);
      put(3);
      await database.settled();
      assert.deepEqual(stored(), [1, 2, 3], `write ${at}`);
    }
  });

  test('are written when the file is closed, though nobody waited for them', async () => {
    await using run = rig();
    run.put(1);
    await run.database.close();
    assert.deepEqual(run.stored(), [1]);
  });

  test('are written at once where there is no file', async () => {
    await using database = openDatabase(':memory:', schema);
    database.putOff(() => database.prepare('INSERT INTO x VALUES (1)').run());
    assert.equal(database.prepare('SELECT count(*) AS n FROM x').get()?.n, 1);
  });
});
