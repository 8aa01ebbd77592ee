// Before all that it stands in front of.
import '../faults/failing-storage.ts';

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  watch as watchFolder,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Database } from '../../src/base/database.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { watchState } from '../../src/base/watch-state.ts';
import { EventRecorder } from '../event-recorder.ts';
import { unwatch, watch } from '../faults/failing-storage.ts';
import { HandClock } from '../hand-clock.ts';
import { SmallDisk } from '../peers/small-disk.ts';
import { smallDisk } from '../small-disk.ts';
import { smallSchema } from './small-schema.ts';

const probe = SmallDisk.mount(1);
const skip = probe ? false : 'file systems cannot be mounted here';
probe?.[Symbol.dispose]();

const schema = smallSchema(4);
const program = fileURLToPath(new URL('migrating.ts', import.meta.url));

const add = (database: Database, name: string) =>
  database.prepare('INSERT INTO thing (name) VALUES (?)').run(name);
const sizesOf = (database: Database) => database.prepare('SELECT size FROM thing ORDER BY name').all();
const namesOf = (database: Database): unknown[] =>
  database
    .prepare('SELECT name FROM thing ORDER BY name')
    .all()
    .map(({ name }) => name);
const versionOf = (file: string): unknown => {
  using database = new DatabaseSync(file, { readOnly: true });
  return database.prepare('PRAGMA user_version').get()?.user_version;
};

/** A process that opens a state file, says whether it waits, and migrates it when it is written to. */
function migrating(t: TestContext, file: string) {
  const child = spawn(process.execPath, [program, file], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  return child;
}

/** A state of the first version with the name `a` and as many long names, on a disk of its own that is then filled. */
async function earlier(t: TestContext, mebibytes: number, names = 0) {
  const small = SmallDisk.mount(mebibytes)!;
  t.after(() => small[Symbol.dispose]());
  const file = join(small.folder, 'state.db');
  {
    await using database = openDatabase(file, smallSchema(1));
    add(database, 'a');
    database.transaction(() => {
      for (let number = 0; number < names; number++) add(database, `${number}`.padStart(1000, 'b'));
    });
  }
  small.fill();
  return { small, file };
}

describe('a state file of an earlier version on a full disk', { skip, timeout: 60_000 }, () => {
  test('is read as migrated, says once that it waits, and is migrated with its way back when there is room', async (t) => {
    const { small, file } = await earlier(t, 4);
    const database = openDatabase(file, schema);
    const [events, clock] = [new EventRecorder(), new HandClock()];
    watchState(database, file, clock, events);
    assert.deepEqual({ ...sizesOf(database)[0] }, { size: 0 }, 'a column of the last version');
    for (let time = 0; time < 2; time++) assert.throws(() => add(database, 'c'), { code: 'storage' });
    clock.advance(600_000);
    assert.match(
      database.fault?.message ?? '',
      /^the state cannot be migrated until 1 MB are free on its disk: database or disk is full/,
    );
    assert.equal(events.count('state.failing'), 1, 'it is said once');
    assert.equal(readFileSync(file).readUInt32BE(60), 1, 'the version in the file');
    assert.deepEqual(
      readdirSync(small.folder).filter((name) => name.endsWith('.part')),
      [],
      'what could not be written leaves no room taken',
    );
    assert.throws(() => openDatabase(file, schema), { message: /uses it/ }, 'it is locked meanwhile');

    small.clear();
    clock.advance(5000);
    assert.deepEqual([events.count('state.writable'), database.fault, versionOf(file)], [1, undefined, 4]);
    add(database, 'c');
    await database.settled();
    assert.deepEqual(namesOf(database), ['a', 'c']);
    assert.ok(existsSync(`${file}.version-1`), 'the way back');
    assert.throws(() => openDatabase(file, schema), { message: /uses it/ }, 'the lock is still held');
    await database.close();
    await using again = openDatabase(file, schema);
    assert.deepEqual(namesOf(again), ['a', 'c']);
  });

  test('loses nothing when the process is killed while it waits, and when there is room only after that', async (t) => {
    const { small, file } = await earlier(t, 4);
    const child = migrating(t, file);
    const [said] = await once(child.stdout, 'data');
    assert.equal(String(said), 'waits\n');
    child.kill('SIGKILL');
    await once(child, 'exit');
    {
      await using waits = openDatabase(file, schema);
      assert.deepEqual([namesOf(waits), waits.isReadOnly], [['a'], true]);
    }
    small.clear();
    await using database = openDatabase(file, schema);
    assert.deepEqual([namesOf(database), versionOf(file)], [['a'], 4]);
  });

  for (const seen of ['state.db.version-1.part', 'state.db.version-1'])
    test(`loses nothing when the process is killed in the middle of the migration: at ${seen}`, async (t) => {
      const { small, file } = await earlier(t, 64, 3000);
      const child = migrating(t, file);
      await once(child.stdout, 'data');
      small.clear();
      const exit = once(child, 'exit');
      const watcher = watchFolder(small.folder, (_, name) => {
        if (name === seen) child.kill('SIGKILL');
      });
      child.stdin.write('now\n');
      await exit;
      watcher.close();
      await using database = openDatabase(file, schema);
      assert.deepEqual([namesOf(database).length, versionOf(file)], [3001, 4]);
      assert.ok(existsSync(`${file}.version-1`));
      assert.ok(!existsSync(`${file}.version-1.part`));
    });

  test('is not copied again and again where the disk refuses a copy that would fit: the pause doubles', async (t) => {
    const { small, file } = await earlier(t, 4);
    await using database = openDatabase(file, schema);
    const [events, clock] = [new EventRecorder(), new HandClock()];
    watchState(database, file, clock, events);
    small.clear();
    const watched = watch(file);
    t.after(() => unwatch(file));
    watched.refuses = /^VACUUM/;
    clock.advance(3_600_000);
    const attempts = watched.places.filter((place) => place.startsWith('VACUUM')).length;
    assert.ok(attempts > 5 && attempts < 20, `${attempts} attempts in an hour`);
    assert.equal(events.count('state.failing'), 1, 'it is said once');
    watched.refuses = undefined;
    clock.advance(64 * 5000);
    assert.equal(versionOf(file), 4);
  });

  test('that cannot be migrated for another reason says it once', async (t) => {
    const { small, file } = await earlier(t, 4);
    await using database = openDatabase(file, schema);
    const [events, clock] = [new EventRecorder(), new HandClock()];
    watchState(database, file, clock, events);
    small.clear();
    // A folder stands in the way: an error of this file, which is not a full disk.
    mkdirSync(`${file}.version-1.part`);
    clock.advance(3_600_000);
    assert.equal(events.count('state.failing'), 2, 'each cause is said once');
    assert.equal(versionOf(file), 1);
    assert.deepEqual(namesOf(database), ['a']);
  });

  test('of another journal mode, as after the way back, is opened too', async (t) => {
    const small = SmallDisk.mount(4)!;
    t.after(() => small[Symbol.dispose]());
    const file = join(small.folder, 'state.db');
    await openDatabase(file, schema).close();
    {
      using database = new DatabaseSync(file);
      database.exec("INSERT INTO thing (name) VALUES ('a'); PRAGMA journal_mode = DELETE");
    }
    small.fill();
    await using database = openDatabase(file, schema);
    assert.deepEqual([namesOf(database), database.isReadOnly], [['a'], true]);
    small.clear();
    database.reopen();
    add(database, 'c');
    await database.settled();
    assert.deepEqual([namesOf(database), database.fault], [['a', 'c'], undefined]);
  });

  test('on a disk that was read-only and is full when it takes writes waits on', async (t) => {
    const { small, file } = await earlier(t, 4);
    small.setReadOnly(true);
    await using database = openDatabase(file, schema);
    const [events, clock] = [new EventRecorder(), new HandClock()];
    watchState(database, file, clock, events);
    assert.equal(database.fault?.message, 'the disk of the state is read-only');
    small.setReadOnly(false);
    clock.advance(5000);
    assert.match(database.fault?.message ?? '', /^the state cannot be migrated until/);
    assert.throws(() => add(database, 'c'), { code: 'storage' });
    small.clear();
    clock.advance(5000);
    add(database, 'c');
    assert.deepEqual([namesOf(database), versionOf(file)], [['a', 'c'], 4]);
    assert.deepEqual([events.count('state.failing'), events.count('state.writable')], [2, 1]);
  });

  test('that is damaged is replaced by its earlier copy, which waits: both are told', async (t) => {
    const { small, file } = await earlier(t, 4);
    small.clear();
    {
      using good = new DatabaseSync(file);
      good.exec(`VACUUM INTO '${file}.copy-1'`);
    }
    writeFileSync(file, Buffer.alloc(8192, 'x'));
    small.fill();
    await using database = openDatabase(file, schema);
    assert.deepEqual([namesOf(database), database.isReadOnly], [['a'], true]);
    assert.equal(database.file?.recovery?.aside, `${file}.corrupt-1`);
    small.clear();
    database.reopen();
    assert.equal(database.isReadOnly, false);
    assert.equal(database.file?.recovery?.aside, `${file}.corrupt-1`);
  });

  test('without a free inode the state is read, also of this version', async (t) => {
    const folder = smallDisk(t, 4, 'ext4');
    if (folder === undefined) return;
    const file = join(folder, 'state.db');
    {
      await using database = openDatabase(file, schema);
      add(database, 'a');
    }
    const others = join(folder, 'others');
    mkdirSync(others);
    let count = 0;
    try {
      for (; ; count++) writeFileSync(join(others, `${count}`), '');
    } catch (thrown) {
      assert.equal((thrown as NodeJS.ErrnoException).code, 'ENOSPC');
    }
    await using database = openDatabase(file, schema);
    assert.deepEqual([namesOf(database), database.isReadOnly], [['a'], true]);
  });
});
