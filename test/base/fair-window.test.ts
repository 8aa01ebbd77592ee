import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PosternError } from '../../src/base/errors.ts';
import { FairWindow, type FairWindowBounds } from '../../src/base/fair-window.ts';

/** A window whose tasks the test ends by hand. */
function windowOf(bounds: Partial<FairWindowBounds> = {}) {
  const window = new FairWindow({ width: 1, waiting: 8, bytes: 1000, ...bounds });
  const started: string[] = [];
  const refused: string[] = [];
  const ends = new Map<string, () => void>();
  const add = (name: string, bytes = 1) => {
    const flow = name.slice(0, 1);
    const task = () => {
      started.push(name);
      const { promise, resolve } = Promise.withResolvers<void>();
      ends.set(name, resolve);
      return promise;
    };
    return window.run(flow, bytes, task).catch((thrown: PosternError) => {
      refused.push(`${name} ${thrown.code}`);
    });
  };
  /** Ends a task and lets the next one start. */
  const end = async (name: string) => {
    ends.get(name)!();
    await new Promise(setImmediate);
  };
  return { window, started, refused, add, end };
}

test('flows take turns, and the order within a flow stays', async () => {
  const { started, add, end } = windowOf();
  for (const name of ['a1', 'a2', 'a3', 'b1', 'c1', 'b2']) void add(name);
  for (const name of ['a1', 'a2', 'b1', 'c1', 'a3', 'b2']) await end(name);
  assert.deepEqual(started, ['a1', 'a2', 'b1', 'c1', 'a3', 'b2']);
});

test('the window bounds what runs, follows its size, and lets nothing run at 0', async () => {
  const { window, started, add, end } = windowOf({ width: 3 });
  for (const name of ['a1', 'b1', 'c1', 'd1', 'e1']) void add(name);
  assert.deepEqual([started.length, window.waiting, window.isOpen], [3, 2, false]);
  window.resize(1);
  for (const name of ['a1', 'b1']) await end(name);
  assert.deepEqual(started, ['a1', 'b1', 'c1'], 'one runs, as many as the window allows now');
  window.resize(0);
  await end('c1');
  assert.equal(started.length, 3);
  window.resize(99);
  await new Promise(setImmediate);
  assert.deepEqual(started, ['a1', 'b1', 'c1', 'd1', 'e1'], 'not wider than its bound');
  assert.equal(window.waiting, 0);
});

test('at the bound the longest flow loses its latest task; without a longer flow the newcomer is refused', async () => {
  const { refused, started, add, end } = windowOf({ waiting: 4 });
  for (const name of ['a0', 'a1', 'a2', 'a3', 'a4']) void add(name);
  await add('a5');
  void add('b1');
  void add('b2');
  await add('b3');
  await new Promise(setImmediate);
  assert.deepEqual(refused, ['a5 full', 'a4 full', 'a3 full', 'b3 full']);
  for (const name of ['a0', 'a1', 'b1', 'a2', 'b2']) await end(name);
  assert.deepEqual(started, ['a0', 'a1', 'b1', 'a2', 'b2']);
});

test('bytes are bounded as well, and free again when tasks start', async () => {
  const { refused, add, end } = windowOf({ bytes: 100 });
  void add('a0', 500);
  void add('a1', 60);
  await add('a2', 60);
  assert.deepEqual(refused, ['a2 full'], 'the flow itself is the longest');
  await end('a0');
  void add('b1', 100);
  await new Promise(setImmediate);
  assert.equal(refused.length, 1);
});

test('what waits can be refused; a task that fails makes room', async () => {
  const { window, refused, started, add, end } = windowOf();
  void add('a1');
  void add('b1');
  void add('b2');
  window.refuseWaiting(new PosternError('unavailable', 'gone'));
  await new Promise(setImmediate);
  assert.deepEqual([refused, window.waiting], [['b1 unavailable', 'b2 unavailable'], 0]);
  await end('a1');
  await assert.rejects(
    window.run('c', 1, () => Promise.reject(new Error('broken'))),
    /broken/,
  );
  void add('d1');
  assert.deepEqual(started, ['a1', 'd1']);
});

test('whatever comes: bounds hold, each task runs once or is refused, and the window ends empty', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ flow: fc.constantFrom('a', 'b', 'c'), bytes: fc.integer({ min: 1, max: 60 }) }), {
        maxLength: 60,
      }),
      fc.integer({ min: 1, max: 4 }),
      async (tasks, width) => {
        const window = new FairWindow({ width, waiting: 8, bytes: 200 });
        let running = 0;
        let outcomes = 0;
        const all = tasks.map(({ flow, bytes }) =>
          window
            .run(flow, bytes, async () => {
              running++;
              assert.ok(running <= width);
              assert.ok(window.waiting <= 8);
              await new Promise(setImmediate);
              running--;
            })
            .catch((thrown: PosternError) => assert.equal(thrown.code, 'full'))
            .finally(() => outcomes++),
        );
        await Promise.all(all);
        assert.deepEqual([outcomes, running, window.waiting, window.isOpen], [tasks.length, 0, 0, true]);
      },
    ),
    { numRuns: 200 },
  );
});
