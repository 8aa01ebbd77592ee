import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Jobs } from '../../src/dm/jobs.ts';
import { placeOf } from '../../src/dm/server-session.ts';

describe('jobs', () => {
  test('run in order, each with its own outcome; a failed job does not affect the others', async () => {
    const jobs = new Jobs();
    const first = jobs.run('d', [{ name: 'Get', uri: './a' }]);
    const failing = jobs.perform('d', async function* () {
      yield [];
      throw new Error('no');
    });
    failing.catch(() => {});
    const last = jobs.run('d', [{ name: 'Get', uri: './b' }]);
    const work = jobs.work('d');
    const asked: string[] = [];
    for (let step = await work.next([]); !step.done; ) {
      asked.push(step.value[0] ? placeOf(step.value[0]) : '-');
      step = await work.next(step.value.map((operation) => ({ operation, status: 200, results: [] })));
    }
    assert.deepEqual(asked, ['./a', '-', './b']);
    assert.equal(placeOf((await first)[0]!.operation), './a');
    assert.equal(placeOf((await last)[0]!.operation), './b');
    await assert.rejects(failing, { code: 'internal' });
  });

  test('when a session breaks, its current job fails', async () => {
    const jobs = new Jobs();
    const running = jobs.run('d', [{ name: 'Get', uri: './a' }]);
    const work = jobs.work('d');
    await work.next([]);
    await work.return();
    await assert.rejects(running, { code: 'unavailable' });
  });

  test('a cancelled job is removed; a job beyond the bound is refused', async () => {
    const jobs = new Jobs();
    const giveUp = new AbortController();
    const gone = jobs.run('d', [], giveUp.signal);
    giveUp.abort(new Error('enough'));
    await assert.rejects(gone, /enough/);
    assert.equal(jobs.count('d'), 0);
    for (let i = 0; i < 64; i++) jobs.run('d', []).catch(() => {});
    await assert.rejects(jobs.run('d', []), { code: 'full' });
  });
});
