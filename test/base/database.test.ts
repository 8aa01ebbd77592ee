import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFileSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { transaction } from '../../src/base/database.ts';
import { dropCopies, openDatabase } from '../../src/base/open-database.ts';
import { freshState, shapeOf } from '../state-files.ts';
import { smallSchema } from './small-schema.ts';

const run = promisify(execFile);
const program = fileURLToPath(new URL('crashing-open.ts', import.meta.url));

/** Opens a file with a program that knows as many versions; returns the names of its things. */
function namesIn(file: string, versions: number): string[] {
  const database = openDatabase(file, smallSchema(versions));
  const names = database.prepare('SELECT name FROM thing ORDER BY name').all();
  database.close();
  return names.map(({ name }) => String(name));
}

function add(file: string, versions: number, name: string): void {
  const database = openDatabase(file, smallSchema(versions));
  database.prepare('INSERT INTO thing (name) VALUES (?)').run(name);
  database.close();
}

/** The lock, which each start makes, aside. */
const filesBeside = (file: string): string[] =>
  readdirSync(dirname(file))
    .filter((name) => name !== 'state.db.lock')
    .sort();

describe('the party of a state file', () => {
  test('a file of another party is refused and not changed', (t) => {
    const file = freshState(t);
    openDatabase(file, { ...smallSchema(2), party: 'gadget', applicationId: 0x47616467 }).close();
    const before = readFileSync(file);
    assert.throws(() => openDatabase(file, smallSchema(4)), {
      code: 'configuration',
      message: `the state file ${file} cannot be used: it is not the state of a thing but of another program`,
    });
    assert.deepEqual(readFileSync(file), before);
  });

  test('a database of another program without a version is refused and not changed', (t) => {
    const file = freshState(t);
    {
      using database = new DatabaseSync(file);
      database.exec('CREATE TABLE moz_places (id)');
    }
    const before = readFileSync(file);
    assert.throws(() => openDatabase(file, smallSchema(4)), /but of another program/);
    assert.deepEqual(readFileSync(file), before);
  });

  test('a copy of an earlier own state does not replace a later state of another party', (t) => {
    const file = freshState(t);
    openDatabase(file, { ...smallSchema(4), party: 'gadget', applicationId: 0x47616467 }).close();
    copyFileSync(file, `${file}.version-2`);
    assert.throws(() => openDatabase(file, smallSchema(2)), /but of another program/);
    assert.ok(existsSync(`${file}.version-2`));
    assert.equal(shapeOf(file).version, 4);
  });

  test('an empty file is a new state', (t) => {
    const file = freshState(t);
    writeFileSync(file, '');
    assert.deepEqual(namesIn(file, 4), []);
    const { version, applicationId } = shapeOf(file);
    assert.deepEqual([version, applicationId], [4, 0x54686e67]);
  });
});

describe('copies that migrations make', () => {
  test('a copy is readable by its owner only, and replaces an incomplete copy of an earlier start', (t) => {
    const file = freshState(t);
    add(file, 1, 'a');
    writeFileSync(`${file}.version-1.part`, 'half of a copy');
    assert.deepEqual(namesIn(file, 4), ['a']);
    assert.equal(statSync(`${file}.version-1`).mode & 0o777, 0o600);
    assert.deepEqual(filesBeside(file), ['state.db', 'state.db.version-1']);
  });

  test('all copies are deleted when the program has proved healthy', (t) => {
    const file = freshState(t);
    for (const versions of [1, 2, 4]) add(file, versions, String(versions));
    writeFileSync(`${file}.version-2.part`, 'half of a copy');
    dropCopies(file, smallSchema(4));
    assert.deepEqual(filesBeside(file), ['state.db']);
  });

  test('a later state that another process holds open is not replaced', (t) => {
    const file = freshState(t);
    add(file, 1, 'a');
    add(file, 4, 'b');
    using other = new DatabaseSync(file);
    other.prepare('SELECT * FROM thing').all();
    assert.throws(() => openDatabase(file, smallSchema(1)), /database is locked/);
    assert.deepEqual([shapeOf(file).version, existsSync(`${file}.version-1`)], [4, true]);
  });

  test('a step that fails leaves the earlier version unchanged', (t) => {
    const file = freshState(t);
    add(file, 1, 'a');
    const { steps, ...schema } = smallSchema(4);
    assert.throws(
      () => openDatabase(file, { ...schema, steps: [...steps.slice(0, 3), 'CREATE TABLE thing (x);'] }),
      { code: 'configuration', message: /table thing already exists/ },
    );
    assert.deepEqual([shapeOf(file).version, namesIn(file, 4)], [1, ['a']]);
  });
});

test('a transaction that SQLite rolled back by itself throws the original error', (t) => {
  const database = openDatabase(freshState(t), smallSchema(1));
  t.after(() => database.close());
  const insert = database.prepare("INSERT OR ROLLBACK INTO thing (name) VALUES ('a')");
  const twice = () => {
    insert.run();
    insert.run();
  };
  assert.throws(() => transaction(database, twice), /UNIQUE constraint failed/);
});

/**
 * Opens a state again and again, each time as `prepare` left it, and each time the process dies before another one of the
 * calls that can write. `check` then sees what the next start finds.
 */
async function cutEverywhere(
  t: TestContext,
  versions: number,
  prepare: (file: string) => void,
  check: (file: string) => void,
): Promise<void> {
  const open = async (cut: number) => {
    const file = freshState(t);
    prepare(file);
    const opened = run(process.execPath, [program, file, String(versions), String(cut)]);
    return { file, opened };
  };
  const { stdout } = await (await open(0)).opened;
  const calls = Number(stdout);
  assert.ok(calls > 5, stdout);
  for (let cut = 1; cut <= calls; cut++) {
    const { file, opened } = await open(cut);
    await assert.rejects(opened, { signal: 'SIGKILL' });
    check(file);
  }
}

describe('a power cut at any write of a start', { timeout: 120_000 }, () => {
  test('in the first start: the next start has a complete new state', async (t) => {
    await cutEverywhere(
      t,
      4,
      () => {},
      (file) => {
        assert.deepEqual(namesIn(file, 4), []);
        assert.deepEqual([shapeOf(file).version, filesBeside(file)], [4, ['state.db']]);
      },
    );
  });

  test('in a migration: the state is the earlier one, or the latest one with a complete copy of the earlier one', async (t) => {
    await cutEverywhere(
      t,
      4,
      (file) => add(file, 1, 'a'),
      (file) => {
        const { version } = shapeOf(file);
        assert.ok(version === 1 || version === 4, `version ${version}`);
        if (version === 4) assert.equal(shapeOf(`${file}.version-1`).integrity, 'ok');
        add(file, 4, 'b');
        assert.deepEqual(namesIn(file, 1), ['a'], 'the way back');
      },
    );
  });

  test('in a return to an earlier version: the next start has the earlier state without a copy', async (t) => {
    await cutEverywhere(
      t,
      1,
      (file) => {
        add(file, 1, 'a');
        add(file, 4, 'b');
      },
      (file) => {
        assert.deepEqual(namesIn(file, 1), ['a']);
        assert.deepEqual([shapeOf(file).integrity, filesBeside(file)], ['ok', ['state.db']]);
      },
    );
  });
});
