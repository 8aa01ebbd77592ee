import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, statSync, symlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { openDatabase } from '../../src/base/open-database.ts';
import { restoreState } from '../../src/base/restore-state.ts';
import { backUp } from '../../src/base/state-copies.ts';
import { freshState } from '../state-files.ts';
import { smallSchema } from './small-schema.ts';

const program = fileURLToPath(new URL('holding-open.ts', import.meta.url));
const schema = smallSchema(4);

/** A process that has a state file open. */
async function holder(t: TestContext, file: string, name: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, [program, file, name], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  await once(child.stdout!, 'data');
  return child;
}

const namesOf = (file: string): unknown[] => {
  const database = openDatabase(file, schema);
  const names = database.prepare('SELECT name FROM thing ORDER BY name').all();
  database.close();
  return names.map(({ name }) => name);
};

describe('two programs on one state file', () => {
  test('the second refuses and names the process of the first; a crash of the first frees the file', async (t) => {
    const file = freshState(t);
    // The first process has nothing to write into the lock.
    openDatabase(file, schema).close();
    const first = await holder(t, file, 'a');
    assert.throws(() => openDatabase(file, schema), {
      code: 'configuration',
      message: new RegExp(`process ${first.pid} \\(.*holding-open.* uses it: stop that process first`),
    });
    first.kill('SIGKILL');
    await once(first, 'exit');
    assert.deepEqual(namesOf(file), ['a']);
    assert.equal(statSync(`${file}.lock`).mode & 0o777, 0o600);
  });

  test('a symbolic link to a state file is the same state', async (t) => {
    const file = freshState(t);
    const elsewhere = freshState(t);
    openDatabase(file, schema).close();
    symlinkSync(file, elsewhere);
    {
      await using database = openDatabase(elsewhere, schema);
      assert.throws(() => openDatabase(file, schema), { message: /uses it: stop that process first/ });
      database.prepare("INSERT INTO thing (name) VALUES ('a')").run();
      await database.settled();
      await backUp(elsewhere, `${file}.backup`);
    }
    assert.equal(restoreState(`${file}.backup`, elsewhere, [schema]).aside, `${file}.replaced-1`);
    assert.deepEqual([namesOf(file), namesOf(elsewhere)], [['a'], ['a']]);
    assert.deepEqual(readdirSync(dirname(elsewhere)), ['state.db']);
  });

  test('a second opening in the same process is refused too, and the first keeps its lock', async (t) => {
    const file = freshState(t);
    await using database = openDatabase(file, schema);
    for (let round = 0; round < 2; round++)
      assert.throws(() => openDatabase(file, schema), {
        message: new RegExp(`process ${process.pid} .*uses it`),
      });
    database.prepare("INSERT INTO thing (name) VALUES ('a')").run();
    await database.settled();
    await backUp(file, `${file}.backup`);
  });
});

describe('backup and restore', () => {
  test('a backup of a running party is consistent, and is not restored while the party runs', async (t) => {
    const file = freshState(t);
    const first = await holder(t, file, 'a');
    await backUp(file, `${file}.backup`);
    await assert.rejects(backUp(file, `${file}.backup`), { code: 'conflict' });
    assert.throws(() => restoreState(`${file}.backup`, file, [schema]), {
      code: 'configuration',
      message: new RegExp(`process ${first.pid} `),
    });
    first.kill('SIGKILL');
    await once(first, 'exit');
    (await holder(t, file, 'b')).kill('SIGKILL');
    const { aside } = restoreOnceFree(file);
    assert.deepEqual(namesOf(file), ['a']);
    assert.deepEqual(namesOf(aside ?? ''), ['a', 'b'], 'the state before is kept, with its write-ahead log');
  });

  test('what is damaged, of a later version, of another party or no state at all is refused, and nothing changes', async (t) => {
    const file = freshState(t);
    openDatabase(file, schema).close();
    const other = freshState(t);
    const gadget = { ...schema, party: 'gadget', applicationId: 0x47616467 };
    openDatabase(other, gadget).close();
    for (const [from, schemas, reason] of [
      [other, [schema, gadget], /that of another party/],
      [other, [schema], /not the state of a gateway/],
      [`${file}.nothing`, [schema], /no such file/],
    ] as const)
      assert.throws(() => restoreState(from, file, schemas), { code: 'configuration', message: reason });
    const copy = freshState(t);
    await backUp(file, copy);
    assert.throws(() => restoreState(copy, file, [smallSchema(1)]), { message: /of version 4.* knows 1/ });
    assert.deepEqual(namesOf(file), []);
  });
});

/** The kernel frees the lock when the killed process is gone, which may be a moment later. */
function restoreOnceFree(file: string): { aside?: string } {
  for (;;)
    try {
      return restoreState(`${file}.backup`, file, [schema]);
    } catch (thrown) {
      if (!/uses it/.test((thrown as Error).message)) throw thrown;
    }
}
