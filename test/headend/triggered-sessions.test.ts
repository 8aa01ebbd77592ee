import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { openDatabase } from '../../src/base/open-database.ts';
import { Jobs } from '../../src/dm/jobs.ts';
import { headendSchema } from '../../src/headend/schema.ts';
import { TriggeredSessions, triggerLimit } from '../../src/headend/triggered-sessions.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';
import { freshState } from '../state-files.ts';

test('the sessions of a bounded number of triggers are remembered, also after a restart; those of the oldest are given up', async (t) => {
  const file = freshState(t);
  const jobs = new Jobs();
  const parts = { jobs, clock: new HandClock(), events: new EventRecorder() };
  const database = openDatabase(file, headendSchema);
  const sessions = new TriggeredSessions({ ...parts, database });
  const begin = (name: string) =>
    sessions.begin({
      gateway: 'gw-1',
      name,
      devices: [`urn:dev:${name}`],
      strangers: new Set(),
      operations: [],
      deadline: 60,
    });
  for (let number = 0; number < triggerLimit; number++) begin(`t${number}`);
  assert.equal(jobs.count('urn:dev:t0'), 1);
  begin('more');
  await turn();
  assert.equal(sessions.of('gw-1', 't0'), undefined);
  assert.equal(jobs.count('urn:dev:t0'), 0, 'its session is given up');
  assert.equal(sessions.of('gw-1', 't1')?.length, 1);
  // The same name takes its own place.
  begin('more');
  await turn();
  assert.equal(sessions.of('gw-1', 't1')?.length, 1);
  assert.equal(jobs.count('urn:dev:more'), 1);
  sessions.stop();
  await turn();
  await database.close();

  const again = openDatabase(file, headendSchema);
  const remembered = new TriggeredSessions({ ...parts, database: again });
  assert.equal(remembered.of('gw-1', 't0'), undefined);
  assert.equal(remembered.of('gw-1', 't1')?.[0]?.status, 503);
  const rows = again.prepare('SELECT count(*) AS count FROM triggered_session').get() as { count: number };
  assert.equal(rows.count, triggerLimit);
  await again.close();
});
