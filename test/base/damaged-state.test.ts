import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, type TestContext, test } from 'node:test';
import { seededEntropy } from '../../src/base/entropy.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { backUp, copyTimes } from '../../src/base/state-copies.ts';
import { watchState } from '../../src/base/watch-state.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';
import { freshState, shapeOf } from '../state-files.ts';
import { smallSchema } from './small-schema.ts';

const schema = smallSchema(4);

async function add(file: string, ...names: string[]): Promise<void> {
  await using database = openDatabase(file, schema);
  for (const name of names) database.prepare('INSERT INTO thing (name) VALUES (?)').run(name);
}

/** Opens a file; returns its names, and what was done at the opening. */
async function namesIn(file: string) {
  await using database = openDatabase(file, schema);
  const names = database.prepare('SELECT name FROM thing ORDER BY name').all();
  return { names: names.map(({ name }) => String(name)), recovery: database.file?.recovery };
}

/** A state of several pages with the thing `a`, a copy of it, and the thing `b` that the copy does not have. */
async function stateWithCopy(t: TestContext): Promise<string> {
  const file = freshState(t);
  const many = Array.from({ length: 400 }, (_, at) => `${at} ${'x'.repeat(80)}`);
  await add(file, 'a', ...many);
  await backUp(file, `${file}.copy-1`);
  const earlier = new Date(Date.now() - 60_000);
  utimesSync(`${file}.copy-1`, earlier, earlier);
  await add(file, 'b');
  return file;
}

const kinds: Record<string, (file: string, seed: number) => void> = {
  'random bytes in the middle': (file, seed) => {
    const content = readFileSync(file);
    const at = Math.floor(content.length / 2 / 4096) * 4096;
    content.set(seededEntropy(seed).bytes(8192), at);
    writeFileSync(file, content);
  },
  'random bytes at the beginning': (file, seed) => {
    const content = readFileSync(file);
    content.set(seededEntropy(seed).bytes(4096), 0);
    writeFileSync(file, content);
  },
  'cut off': (file) => truncateSync(file, Math.floor(statSync(file).size / 2)),
  'of zero length': (file) => truncateSync(file, 0),
  gone: (file) => rmSync(file),
};

for (const [kind, damage] of Object.entries(kinds))
  describe(`a state file that is ${kind}`, () => {
    test('is set aside, and the last good copy takes its place', async (t) => {
      const seed = Math.floor(Math.random() * 2 ** 31);
      t.diagnostic(`seed ${seed}`);
      const file = await stateWithCopy(t);
      damage(file, seed);
      const damaged = existsSync(file) ? readFileSync(file) : Buffer.alloc(0);
      const { names, recovery } = await namesIn(file);
      assert.equal(names.includes('a'), true);
      assert.equal(names.includes('b'), false, 'the copy is older');
      assert.equal(recovery?.used, `${file}.copy-1`);
      assert.equal(recovery?.since, statSync(`${file}.copy-1`).mtime.toISOString());
      if (damaged.length > 0) assert.deepEqual(readFileSync(recovery?.aside ?? ''), damaged);
      const again = await namesIn(file);
      assert.deepEqual([again.names, again.recovery], [names, undefined], 'it is told once');
    });

    test('gives way to a new state where there is no copy', async (t) => {
      const file = await stateWithCopy(t);
      rmSync(`${file}.copy-1`);
      damage(file, 7);
      const { names, recovery } = await namesIn(file);
      assert.deepEqual([names, recovery?.used], [[], undefined]);
      assert.ok(recovery);
    });
  });

test('a damaged copy is passed over for the one before', async (t) => {
  const file = await stateWithCopy(t);
  copyFileSync(`${file}.copy-1`, `${file}.copy-2`);
  kinds['random bytes in the middle']?.(`${file}.copy-1`, 3);
  kinds['random bytes in the middle']?.(file, 4);
  const { recovery } = await namesIn(file);
  assert.equal(recovery?.used, `${file}.copy-2`);
});

test('a write-ahead log that a killed process left for another file is set aside, and the file is used', async (t) => {
  const file = await stateWithCopy(t);
  const other = freshState(t);
  {
    using foreign = new DatabaseSync(other);
    foreign.exec(
      'PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE x (a); CREATE INDEX y ON x (a)',
    );
    for (let at = 0; at < 200; at++) foreign.exec(`INSERT INTO x VALUES (${at} || hex(randomblob(60)))`);
    copyFileSync(`${other}-wal`, `${file}-wal`);
  }
  const before = readFileSync(file);
  const { names, recovery } = await namesIn(file);
  assert.ok(names.includes('b'), 'nothing is lost');
  assert.equal(recovery?.used, `${file} without its write-ahead log`);
  assert.ok(existsSync(`${file}.corrupt-1-wal`));
  assert.deepEqual(readFileSync(file), before, 'the log was not moved into the file');
});

test('a rollback journal beside the file keeps nobody from starting: one that is valid is played back, other octets are deleted', async (t) => {
  for (const kind of ['random octets', 'a journal of a tool that was killed']) {
    const file = freshState(t);
    await add(file, 'a');
    if (kind === 'random octets') writeFileSync(`${file}-journal`, seededEntropy(7).bytes(20_000));
    else {
      const tool = `const { DatabaseSync } = require('node:sqlite');
        const database = new DatabaseSync(process.argv[1]);
        database.exec("PRAGMA journal_mode = DELETE; PRAGMA cache_size = 1; BEGIN; UPDATE thing SET name = 'lost'");
        database.exec("CREATE TABLE large (octets BLOB); INSERT INTO large VALUES (randomblob(3000000))");
        process.kill(process.pid, 'SIGKILL');`;
      assert.equal(spawnSync(process.execPath, ['-e', tool, file]).signal, 'SIGKILL');
      assert.ok(statSync(`${file}-journal`).size > 0);
    }
    assert.deepEqual(await namesIn(file), { names: ['a'], recovery: undefined }, kind);
    assert.equal(existsSync(`${file}-journal`), false);
  }
});

test('a pipe in the place of a file is refused, and waited for by nobody', async (t) => {
  for (const end of ['', '-journal', '.lock']) {
    const file = freshState(t);
    await add(file, 'a');
    rmSync(file + end, { force: true });
    execFileSync('mkfifo', [file + end]);
    assert.throws(() => openDatabase(file, schema), /is a pipe, not a file/);
  }
});

test('at most two damaged files are kept', async (t) => {
  const file = await stateWithCopy(t);
  for (let round = 0; round < 4; round++) {
    kinds['random bytes in the middle']?.(file, round + 1);
    assert.ok((await namesIn(file)).recovery);
  }
  const names = readdirSync(dirname(file)).filter((name) => name.includes('corrupt'));
  assert.deepEqual(names.sort(), ['state.db.corrupt-1', 'state.db.corrupt-2']);
});

test('a file that was never a state of Postern is refused and not moved', (t) => {
  const file = freshState(t);
  writeFileSync(file, 'x'.repeat(5000));
  assert.throws(() => openDatabase(file, schema), { code: 'configuration' });
  assert.throws(() => openDatabase(file, schema), { code: 'configuration' }, 'also the second time');
  assert.equal(readFileSync(file, 'utf8'), 'x'.repeat(5000));
});

describe('periodic copies', () => {
  test('are made when something changed, a few times a day, and two are kept', async (t) => {
    const file = freshState(t);
    const clock = new HandClock();
    const events = new EventRecorder();
    await using database = openDatabase(file, schema);
    watchState(database, file, clock, events);
    const put = (name: string) => database.prepare('INSERT INTO thing (name) VALUES (?)').run(name);
    const copied = () => database.file?.copies?.underWay;
    const namesOf = (copy: string) => {
      using opened = new DatabaseSync(join(dirname(file), copy), { readOnly: true });
      return opened
        .prepare('SELECT name FROM thing ORDER BY name')
        .all()
        .map(({ name }) => name);
    };
    put('a');
    clock.advance(copyTimes.first);
    await copied();
    assert.deepEqual(namesOf('state.db.copy-1'), ['a']);
    clock.advance(copyTimes.every);
    assert.equal(copied(), undefined, 'nothing changed');
    for (const name of ['b', 'c']) {
      put(name);
      clock.advance(copyTimes.every);
      await copied();
    }
    assert.deepEqual(namesOf('state.db.copy-1'), ['a', 'b', 'c']);
    assert.deepEqual(namesOf('state.db.copy-2'), ['a', 'b']);
    assert.equal(statSync(`${file}.copy-1`).mode & 0o777, 0o600);
    assert.equal(events.count('state.copy-failed'), 0);
    assert.equal(shapeOf(`${file}.copy-1`).integrity, 'ok');
  });

  test('a state that was damaged while it was open is not copied over the good copy, and that is told', async (t) => {
    const file = await stateWithCopy(t);
    const good = readFileSync(`${file}.copy-1`);
    const clock = new HandClock();
    const events = new EventRecorder();
    await using database = openDatabase(file, schema);
    watchState(database, file, clock, events);
    kinds['random bytes in the middle']?.(file, 5);
    const earlier = new Date(Date.now() - 10 * copyTimes.every);
    utimesSync(`${file}.copy-1`, earlier, earlier);
    clock.advance(copyTimes.first);
    await database.file?.copies?.underWay;
    const { fields } = await events.until('state.copy-failed');
    assert.match(String(fields.reason), /damaged|malformed/);
    assert.deepEqual(readFileSync(`${file}.copy-1`), good);
  });
});
