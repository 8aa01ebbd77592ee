import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Database } from '../../src/base/database.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { watchState } from '../../src/base/watch-state.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';
import { SmallDisk } from '../peers/small-disk.ts';
import { smallSchema } from './small-schema.ts';

const probe = SmallDisk.mount(1);
const skip = probe ? false : 'file systems cannot be mounted here';
probe?.[Symbol.dispose]();

const schema = smallSchema(4);
const program = fileURLToPath(new URL('holding-open.ts', import.meta.url));

/** A process that has a state file open and has added a name to it. */
async function holder(file: string, name: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, [program, file, name], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout!, 'data');
  return child;
}

async function kill(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL');
  await once(child, 'exit');
}

const add = (database: Database, name: string) =>
  database.prepare('INSERT INTO thing (name) VALUES (?)').run(name);
const namesOf = (database: Database): unknown[] =>
  database
    .prepare('SELECT name FROM thing ORDER BY name')
    .all()
    .map(({ name }) => name);

/** A state with the name `a`, on a disk of its own. */
async function disk(t: TestContext) {
  const small = SmallDisk.mount(8)!;
  t.after(() => small[Symbol.dispose]());
  const file = join(small.folder, 'state.db');
  {
    await using database = openDatabase(file, schema);
    add(database, 'a');
  }
  return { small, file };
}

/** What stands in the folders where a copy may be made. */
const copies = () => readdirSync('/dev/shm').filter((name) => name.startsWith('postern-state-'));

describe('a state file on a read-only disk', { skip, timeout: 60_000 }, () => {
  test('is read with all that was committed before a kill, takes no write, and is gone over to when the disk takes writes', async (t) => {
    const { small, file } = await disk(t);
    await kill(await holder(file, 'b'));
    assert.ok(statSync(`${file}-wal`).size > 0, 'the kill left a log');
    small.setReadOnly(true);
    const before = copies();
    await using database = openDatabase(file, schema);
    assert.deepEqual(copies(), before, 'no copy is left');
    const [events, clock] = [new EventRecorder(), new HandClock()];
    watchState(database, file, clock, events);
    const insert = database.prepare('INSERT INTO thing (name) VALUES (?)');
    assert.deepEqual(namesOf(database), ['a', 'b']);
    for (let time = 0; time < 2; time++)
      assert.throws(() => database.transaction(() => insert.run('c')), { code: 'storage' });
    await database.settled();
    const put = new Set<string>();
    const write = () => {
      for (const name of put) insert.run(name);
      database.afterCommit(() => put.clear());
    };
    put.add('later');
    database.putOff(write);
    clock.advance(60_000);
    assert.equal(events.count('state.failing'), 1);
    assert.equal(database.fault?.message, 'the disk of the state is read-only');

    small.setReadOnly(false);
    clock.advance(5000);
    assert.equal(events.count('state.writable'), 1);
    assert.equal(database.fault, undefined);
    // The same statement, of the other connection.
    insert.run('c');
    await database.settled();
    assert.deepEqual(namesOf(database), ['a', 'b', 'c', 'later']);
    const copy = join(small.folder, 'backup.db');
    await database.file?.copies?.backUp(copy);
    await using again = openDatabase(copy, schema);
    assert.deepEqual(namesOf(again), ['a', 'b', 'c', 'later']);
  });

  test('is refused while another program has it; one that takes it later, when the disk takes writes, keeps it', async (t) => {
    const { small, file } = await disk(t);
    const other = await holder(file, 'b');
    assert.throws(() => openDatabase(file, schema), {
      message: new RegExp(`process ${other.pid} .*uses it: stop that process first`),
    });
    // Its files are open to be written, so the disk cannot become read-only before it ends.
    await kill(other);
    small.setReadOnly(true);
    await using database = openDatabase(file, schema);
    small.setReadOnly(false);
    const late = await holder(file, 'c');
    database.reopen();
    assert.match(database.fault?.message ?? '', /is not what it was|uses it/);
    assert.throws(() => add(database, 'd'), { code: 'storage' });
    await kill(late);
    database.reopen();
    assert.match(database.fault?.message ?? '', /is not what it was while its disk was read-only/);
    assert.deepEqual(namesOf(database), ['a', 'b']);
  });

  test('is refused while another program has it that was running when the kernel made the disk read-only', async (t) => {
    const small = SmallDisk.mountFragile(8);
    if (!small) return t.skip('no file system can be mounted here in which an error can be made');
    t.after(() => small[Symbol.dispose]());
    const file = join(small.folder, 'state.db');
    const other = await holder(file, 'a');
    small.fail();
    assert.throws(() => openDatabase(file, schema), {
      message: new RegExp(`process ${other.pid} .*uses it: stop that process first`),
    });
    await kill(other);
    await using database = openDatabase(file, schema);
    assert.deepEqual([namesOf(database), database.isReadOnly], [['a'], true]);
  });

  test('that another program changed in between is not written, and the reason is told', async (t) => {
    const { small, file } = await disk(t);
    small.setReadOnly(true);
    await using database = openDatabase(file, schema);
    const [events, clock] = [new EventRecorder(), new HandClock()];
    let outdated = 0;
    watchState(database, file, clock, events, undefined, () => outdated++);
    small.setReadOnly(false);
    writeFileSync(file, Buffer.alloc(4096));
    clock.advance(60_000);
    assert.match(database.fault?.message ?? '', /is not what it was while its disk was read-only/);
    assert.equal(outdated, 1);
    assert.equal(events.count('state.failing'), 2, 'each cause is said once');
    assert.throws(() => add(database, 'c'), { code: 'storage' });
    assert.deepEqual(namesOf(database), ['a']);
  });

  test('that is of an earlier version is migrated in the copy, and on the disk when it takes writes', async (t) => {
    const small = SmallDisk.mount(8)!;
    t.after(() => small[Symbol.dispose]());
    const file = join(small.folder, 'state.db');
    await openDatabase(file, smallSchema(1)).close();
    small.setReadOnly(true);
    await using database = openDatabase(file, schema);
    assert.deepEqual(database.prepare('SELECT name, size FROM thing').all(), []);
    small.setReadOnly(false);
    database.reopen();
    database.prepare("INSERT INTO thing (name, size) VALUES ('a', 1)").run();
    await database.settled();
    assert.deepEqual(readdirSync(small.folder).includes('state.db.version-1'), true);
  });

  test('that is damaged is read from its last good copy, and repaired when the disk takes writes', async (t) => {
    const { small, file } = await disk(t);
    copyFileSync(file, `${file}.copy-1`);
    writeFileSync(file, Buffer.concat([Buffer.alloc(8192, 'x')]));
    small.setReadOnly(true);
    await using database = openDatabase(file, schema);
    assert.equal(database.file?.recovery?.used, `${file}.copy-1`);
    assert.equal(database.file?.recovery?.aside, undefined);
    assert.deepEqual(namesOf(database), ['a']);
    small.setReadOnly(false);
    database.reopen();
    assert.equal(database.file?.recovery?.aside, `${file}.corrupt-1`);
    add(database, 'b');
    assert.deepEqual(namesOf(database), ['a', 'b']);
  });

  test('is refused with the reason where there is no state, or a damaged one without a copy', async (t) => {
    const { small, file } = await disk(t);
    writeFileSync(file, Buffer.concat([Buffer.alloc(8192, 'x')]));
    small.setReadOnly(true);
    assert.throws(() => openDatabase(file, schema), { code: 'configuration', message: /read-only.*damaged/ });
    assert.throws(() => openDatabase(join(small.folder, 'none.db'), schema), {
      code: 'configuration',
      message: /the disk is read-only, and there is no state yet/,
    });
  });
});
