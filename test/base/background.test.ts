import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { background, failed, failuresOf, guarded, persistently, works } from '../../src/base/background.ts';
import { SystemClock } from '../../src/base/clock.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
const never = new AbortController().signal;
const broken = (message = 'broken') => {
  throw new Error(message);
};
const told = (events: EventRecorder) =>
  events.all.map(({ name, fields }) => [name, fields.work, fields.reason, fields.failures]);

test('each failure is counted; the first, tenth, hundredth … with the same reason is told, with its stack', () => {
  const events = new EventRecorder();
  for (let time = 0; time < 1000; time++) failed(events, 'image', new Error('disk full'));
  failed(events, 'image', 'no error');
  failed(events, 'package', new Error('disk full'));
  assert.deepEqual(told(events), [
    ['background.failed', 'image', 'disk full', 1],
    ['background.failed', 'image', 'disk full', 10],
    ['background.failed', 'image', 'disk full', 100],
    ['background.failed', 'image', 'disk full', 1000],
    ['background.failed', 'image', 'no error', 1],
    ['background.failed', 'package', 'disk full', 1],
  ]);
  assert.match(String(events.all[0]?.fields.stack), /background\.test\.ts/);
  assert.deepEqual(
    failuresOf(events).map(({ work, failures }) => [work, failures]),
    [
      ['image', 1000],
      ['image', 1],
      ['package', 1],
    ],
  );
});

test('reasons are bounded in number and length, for each kind of work', () => {
  const events = new EventRecorder();
  for (const work of works)
    for (let reason = 0; reason < 50; reason++)
      failed(events, work, new Error(`${'x'.repeat(1000)} ${reason}`));
  for (let reason = 0; reason < 50; reason++) failed(events, 'image', new Error(`another reason ${reason}`));
  const known = failuresOf(events);
  assert.equal(known.length <= works.length * 9, true);
  assert.ok(known.every(({ reason }) => reason.length <= 300));
  const ofImages = known.filter(({ work }) => work === 'image');
  assert.equal(
    ofImages.reduce((sum, { failures }) => sum + failures, 0),
    100,
    'none is lost',
  );
});

test('an event that cannot be emitted is no further failure', () => {
  const events = new EventRecorder();
  events.breakAt('background.failed');
  failed(events, 'image', new Error('x'));
  assert.equal(failuresOf(events)[0]?.failures, 1);
});

describe('a throw in each kind of callback is caught and named', () => {
  const cases: Readonly<Record<string, (events: EventRecorder) => unknown>> = {
    'work that throws at once': (events) => background(events, 'session-end', broken),
    'work that rejects': (events) => background(events, 'session-end', async () => broken()),
    'a callback of a socket': (events) => guarded(events, 'session-end', broken)(),
    'an asynchronous callback': (events) => guarded(events, 'session-end', async () => broken())(),
    'a timer': (events) => {
      new SystemClock((thrown) => failed(events, 'session-end', thrown)).after(1, broken);
    },
    'what follows a commit': (events) => {
      const database = openDatabase(':memory:', {
        party: 'test',
        applicationId: 1,
        steps: ['CREATE TABLE t (n)'],
      });
      database.onStepFailed((thrown) => failed(events, 'session-end', thrown));
      let isDone = false;
      database.transaction(() => {
        database.afterCommit(broken);
        database.afterCommit(() => {
          isDone = true;
        });
      });
      assert.ok(isDone, 'the other steps run, and the caller is not affected');
    },
    'what takes memory back': (events) => {
      const database = openDatabase(':memory:', {
        party: 'test',
        applicationId: 1,
        steps: ['CREATE TABLE t (n)'],
      });
      database.onStepFailed((thrown) => failed(events, 'session-end', thrown));
      let isDone = false;
      const work = () => {
        database.onRollback(() => {
          isDone = true;
        });
        database.onRollback(() => broken());
        return broken('the work');
      };
      assert.throws(() => database.transaction(work), /the work/);
      assert.ok(isDone);
      database.prepare('INSERT INTO t VALUES (1)').run();
    },
  };
  for (const [what, provoke] of Object.entries(cases))
    test(what, async () => {
      const events = new EventRecorder();
      await provoke(events);
      await events.until('background.failed', { work: 'session-end', reason: 'broken' });
    });
});

test('work that was meant to end is no failure', async () => {
  const events = new EventRecorder();
  const stop = new AbortController();
  stop.abort();
  await background(events, 'image', broken, stop.signal);
  assert.deepEqual(events.all, []);
});

test('work is repeated until it succeeds: after 1 s at first, then twice as long each time, up to a minute', async () => {
  const clock = new HandClock();
  const events = new EventRecorder();
  const delays: number[] = [];
  let left = 12;
  const ended = persistently(
    { clock, entropy: { uniform: () => 0.5, bytes: () => new Uint8Array() }, events },
    'image',
    async () => {
      if (left-- > 0) broken();
    },
    never,
  );
  for (await turn(); clock.timers > 0; await turn()) {
    delays.push(clock.next!);
    clock.advance(clock.next!);
  }
  assert.equal(await ended, true);
  assert.deepEqual(delays, [
    1000,
    2000,
    4000,
    8000,
    16_000,
    32_000,
    ...Array.from({ length: 6 }, () => 60_000),
  ]);
  assert.equal(failuresOf(events)[0]?.failures, 12);
});

test('a stop ends the repetition, also during a pause', async () => {
  const clock = new HandClock();
  const stop = new AbortController();
  const ended = persistently({ clock, events: new EventRecorder() }, 'image', broken, stop.signal);
  await turn();
  stop.abort();
  assert.equal(await ended, false);
  assert.equal(clock.timers, 0);
});

describe('nothing runs in the background but by these functions', () => {
  const root = fileURLToPath(new URL('../../src', import.meta.url));
  const parties = ['base', 'wire', 'dm', 'mo', 'gateway', 'headend', 'device'];
  const sources = parties.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true })
      .map((file) => join(folder, String(file)))
      .filter((file) => file.endsWith('.ts')),
  );
  /** Lines of the sources that fit, without comments, as `file: line`. */
  const found = (pattern: RegExp) =>
    sources.flatMap((file) =>
      readFileSync(join(root, file), 'utf8')
        .split('\n')
        .filter((line) => pattern.test(line) && !/^\s*(\*|\/)/.test(line))
        .map((line) => `${file}: ${line.trim()}`),
    );
  const filesOf = (lines: readonly string[]) =>
    [...new Set(lines.map((line) => line.split(':')[0]))].toSorted();

  test('a promise that nobody waits for (biome finds the others) cannot reject', () => {
    // These methods say so: they consist of `background`, `persistently`, or a catch of everything.
    const safe =
      /void (background\(|persistently\(|this\.#(store|abandon|watchOnce|notify|talk|fetch)\(|this\.#table\.end\(|this\.#worker\?\.terminate\()/;
    const loose = found(/\bvoid (this|[a-z]\w*)[.(]/).filter((line) => !safe.test(line));
    assert.deepEqual(filesOf(loose), ['base/config-files.ts'], loose.join('\n'));
  });

  test('timers are those of a clock, which catches what they throw', () => {
    assert.deepEqual(filesOf(found(/\b(setTimeout|setInterval|setImmediate|queueMicrotask|nextTick)\(/)), [
      // Only ends the thread.
      'base/checkpoint-thread.ts',
      'base/clock.ts',
      // Writes the counts of repeated events; standard output does not throw, and the process does not wait for it.
      'base/log.ts',
      'base/standard-output.ts',
      // Only ends a request of the command line.
      'gateway/console/admin-api.ts',
      // By guarded callbacks.
      'gateway/modes/few-per-turn.ts',
      'gateway/northbound/alert-deliveries.ts',
      // Passes datagrams to guarded callbacks.
      'gateway/southbound/arrival-queue.ts',
      // By a guarded callback.
      'wire/tunnel/mqtt-connection.ts',
    ]);
  });

  test('callbacks of sockets, servers and streams are guarded, or only settle a promise', () => {
    const guardedCallback =
      /^(guarded\(|this\.#callback\(|this\.#failed|failed|resolve|reject|fail\b|\(\) => (resolve|reject)\(|\(\w*\) => (failed|resolve|answered)\(|\(\) => \{\})/;
    const other = sources.flatMap((file) =>
      [
        ...readFileSync(join(root, file), 'utf8').matchAll(
          /(\w+)\.(?:on|once)\(\s*['"`/][^,)]*,\s*(.{0,60})/g,
        ),
      ]
        .filter(([, on, callback = '']) => on !== 'parser' && !guardedCallback.test(callback))
        .map(([match]) => `${file}: ${match}`),
    );
    assert.deepEqual(filesOf(other), [
      // The thread of a checkpoint: the callbacks settle a promise.
      'base/checkpoint-thread.ts',
      // Only counts.
      'base/http-connections.ts',
      // Flushes the log when the process ends, and catches everything.
      'base/standard-output.ts',
      // The observer whose response has ended is forgotten.
      'device/coap-messages.ts',
      // Catches everything, or only counts.
      'device/coap-stack.ts',
      'gateway/console/admin-socket.ts',
      'gateway/northbound/download.ts',
      'gateway/northbound/octet-counter.ts',
      'gateway/southbound/coap-network.ts',
      'gateway/southbound/multicast-groups.ts',
      'gateway/update/launcher.ts',
      'gateway/update/probe.ts',
    ]);
  });
});
