import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { SessionLanes, sessionLanes } from '../../../src/gateway/northbound/session-lanes.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { turn } from '../../wire/coap/wire.ts';

const own = 'gw-parent';
const turns = async () => {
  for (let count = 0; count < 8; count++) await turn();
};

/** Lanes whose sessions end when the test says so. */
function rig() {
  const clock = new HandClock();
  const events = new EventRecorder();
  const due = new Set<string>();
  /** Sessions under way, by server. */
  const open = new Map<string, PromiseWithResolvers<boolean>>();
  const begun: string[] = [];
  const is = { called: new Set<string>(), urgent: false, broken: false };
  const lanes = new SessionLanes({
    ...{ clock, events, own, entropy: seededEntropy(7) },
    due: () => {
      if (is.broken) throw new Error('the disk');
      return new Set(due);
    },
    mayHaveOthers: () => [...due].some((server) => server !== own),
    isCalled: (server) => is.called.has(server),
    isUrgent: () => is.urgent,
    run: (server) => {
      assert.ok(!open.has(server), `two sessions with ${server} at once`);
      begun.push(server);
      const session = Promise.withResolvers<boolean>();
      open.set(server, session);
      return session.promise;
    },
  });
  /** Lets the session with a server end. `more`: something is due again. */
  const end = async (server: string, { hasFailed = false, more = false } = {}) => {
    if (!more) due.delete(server);
    open.get(server)?.resolve(hasFailed);
    open.delete(server);
    await turns();
  };
  const wake = async (...servers: string[]) => {
    for (const server of servers) due.add(server);
    lanes.wake();
    await turns();
  };
  return { clock, events, due, open, begun, is, lanes, end, wake };
}

test('a server that hangs keeps nothing back from the others, and has one session however often there is more', async () => {
  const { clock, lanes, begun, end, wake } = rig();
  await wake('hung', own);
  assert.deepEqual(begun, ['hung', own]);
  await end(own);
  for (let alerts = 0; alerts < 5; alerts++) await wake('hung', own);
  // The first at once; what comes then is gathered.
  clock.advance(250);
  await turns();
  assert.deepEqual(begun, ['hung', own, own]);
  await end(own);
  await end('hung');
  await lanes[Symbol.asyncDispose]();
});

test('a server that fails pauses by itself; its pause ends when it asks, and that of the own one does not', async () => {
  const { clock, lanes, begun, end, wake, is } = rig();
  await wake('failing', own);
  await end('failing', { hasFailed: true, more: true });
  await end(own, { hasFailed: true, more: true });
  assert.equal(begun.length, 2);
  is.called.add('failing');
  await wake();
  assert.deepEqual(begun.slice(2), ['failing']);
  is.called.clear();
  await end('failing', { hasFailed: true, more: true });
  clock.advance(1500);
  await turns();
  assert.ok(begun.slice(3).includes(own), 'after its pause');
  await end('failing');
  await end(own);
  await lanes[Symbol.asyncDispose]();
});

test(`${sessionLanes} servers have a place; the own one has one besides, and a further one waits for a place`, async () => {
  const { lanes, begun, open, end, wake } = rig();
  const hung = Array.from({ length: sessionLanes + 2 }, (_, at) => `hung ${at}`);
  await wake(...hung);
  assert.deepEqual(begun, hung.slice(0, sessionLanes));
  await wake(own);
  assert.deepEqual(begun.at(-1), own);
  assert.equal(open.size, sessionLanes + 1);
  await end(own);
  assert.equal(open.size, sessionLanes, 'the place of the own one is for nobody else');
  await end(hung[3]!);
  assert.deepEqual(begun.at(-1), hung[sessionLanes]);
  await end(hung[0]!, { hasFailed: true, more: true });
  assert.equal(open.size, sessionLanes - 1, 'one that pauses after a failure keeps its place');
  for (const server of hung) await end(server);
  const disposed = lanes[Symbol.asyncDispose]();
  for (const server of [...open.keys()]) await end(server);
  await disposed;
});

test('a state that cannot be read for a while loses no wake', async () => {
  const { clock, events, lanes, begun, is, end, wake } = rig();
  is.broken = true;
  await wake('other', own);
  assert.deepEqual(begun, []);
  assert.ok(events.count('background.failed') > 0);
  is.broken = false;
  clock.advance(2000);
  await turns();
  assert.deepEqual(begun, ['other', own]);
  await end('other');
  await end(own);
  await lanes[Symbol.asyncDispose]();
});

test('a stop ends pauses, waits for the sessions under way, and begins none', async () => {
  const { lanes, begun, end, wake } = rig();
  await wake('failing', 'hung');
  await end('failing', { hasFailed: true, more: true });
  let isOver = false;
  const stopped = lanes[Symbol.asyncDispose]().then(() => {
    isOver = true;
  });
  await wake('late');
  assert.deepEqual([isOver, begun], [false, ['failing', 'hung']]);
  await end('hung', { more: true });
  await stopped;
  assert.equal(begun.length, 2);
});
