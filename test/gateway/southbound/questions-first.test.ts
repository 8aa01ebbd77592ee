import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Jobs } from '../../../src/dm/jobs.ts';
import {
  type Operation,
  type OperationOutcome,
  operationsPerPackage,
  placeOf,
} from '../../../src/dm/server-session.ts';
import { questionsFirst } from '../../../src/gateway/southbound/questions-first.ts';

const device = 'urn:dev:1';
const questions: readonly Operation[] = [
  { name: 'Get', uri: './DevDetail/FwV' },
  { name: 'Get', uri: './DevDetail/DevTyp' },
];
const replace = (uri: string): Operation => ({ name: 'Replace', uri, data: 'x' });

/** A session with a device that has orders waiting. `answered` gets what the questions brought. */
function session(jobs: Jobs, isTogether = true, answered = (_: readonly OperationOutcome[]) => true) {
  const early = isTogether ? jobs.early(device) : undefined;
  const work = questionsFirst({ questions, answered, work: () => jobs.work(device), early });
  let round: readonly Operation[] = [];
  return {
    /** Answers the last round, each operation with a status, and returns what the next one asks; undefined at the end. */
    next: async (status = 200) => {
      const { value, done } = await work.next(round.map((operation) => ({ operation, status, results: [] })));
      round = value ?? [];
      return done ? undefined : round.map(placeOf);
    },
    breaks: () => work.return(),
  };
}
const statuses = (outcomes: readonly OperationOutcome[]) => outcomes.map(({ status }) => status);

test('orders for a known device go in the package of the questions, and get the outcomes that are theirs', async () => {
  const jobs = new Jobs();
  const first = jobs.run(device, [replace('./a'), replace('./b')]);
  const second = jobs.run(device, [replace('./c')]);
  let answers = 0;
  const { next } = session(jobs, true, (all) => {
    answers = all.length;
    return true;
  });
  assert.deepEqual(await next(), ['./DevDetail/FwV', './DevDetail/DevTyp', './a', './b']);
  assert.deepEqual(await next(), ['./c']);
  assert.deepEqual([answers, statuses(await first)], [2, [200, 200]]);
  assert.equal(await next(404), undefined);
  assert.deepEqual(statuses(await second), [404]);
});

test('a device that is new gets no order before it has answered', async () => {
  const jobs = new Jobs();
  const order = jobs.run(device, [replace('./a')]);
  const { next } = session(jobs, false);
  assert.deepEqual(await next(), ['./DevDetail/FwV', './DevDetail/DevTyp']);
  assert.deepEqual(await next(), ['./a']);
  assert.equal(await next(), undefined);
  assert.deepEqual(statuses(await order), [200]);
});

test('an order with an Exec waits for the answers, and so do the orders behind it', async () => {
  const jobs = new Jobs();
  const isLate = true;
  const done: string[] = [];
  const order = (uri: string, isSuch: boolean) =>
    jobs.perform(
      device,
      async function* () {
        yield [replace(uri)];
        done.push(uri);
      },
      undefined,
      isSuch,
    );
  const orders = [order('./a', false), order('./exec', isLate), order('./b', false)];
  const { next } = session(jobs);
  assert.deepEqual(await next(), ['./DevDetail/FwV', './DevDetail/DevTyp', './a']);
  assert.deepEqual(await next(), ['./exec']);
  assert.deepEqual(await next(), ['./b']);
  assert.equal(await next(), undefined);
  await Promise.all(orders);
  assert.deepEqual(done, ['./a', './exec', './b']);
});

test('a first package that is lost takes no order with an Exec along: it waits for the next session', async () => {
  const jobs = new Jobs();
  let begun = 0;
  const order = jobs.perform(
    device,
    async function* () {
      begun++;
      yield [replace('./exec')];
    },
    undefined,
    true,
  );
  const lost = session(jobs);
  assert.equal((await lost.next())?.length, questions.length);
  await lost.breaks();
  assert.deepEqual([begun, jobs.count(device)], [0, 1]);
  const { next } = session(jobs);
  assert.equal((await next())?.length, questions.length);
  assert.deepEqual(await next(), ['./exec']);
  assert.equal(await next(), undefined);
  await order;
  assert.equal(begun, 1);
});

test('orders that do not fit beside the questions follow them', async () => {
  const jobs = new Jobs();
  const many = Array.from({ length: operationsPerPackage - 1 }, (_, at) => replace(`./${at}`));
  const order = jobs.run(device, many);
  const { next } = session(jobs);
  assert.equal((await next())?.length, questions.length);
  assert.equal((await next())?.length, many.length);
  assert.equal(await next(), undefined);
  assert.equal((await order).length, many.length);
});

test('an order that comes while the device answers runs in the same session', async () => {
  const jobs = new Jobs();
  const { next } = session(jobs);
  assert.equal((await next())?.length, questions.length);
  const order = jobs.run(device, [replace('./late')]);
  assert.deepEqual(await next(), ['./late']);
  assert.equal(await next(), undefined);
  assert.deepEqual(statuses(await order), [200]);
});

test('an order fails when its session breaks, or when the device executes nothing of its package; later ones wait', async () => {
  for (const end of ['breaks', 'executes nothing']) {
    const jobs = new Jobs();
    const order = jobs.run(device, [replace('./a')]);
    jobs.run(device, [replace('./b')]).catch(() => {});
    const { next, breaks } = session(jobs);
    await next();
    if (end === 'breaks') await breaks();
    else assert.equal(await next(215), undefined);
    await assert.rejects(order, { code: 'unavailable' }, end);
    assert.equal(jobs.count(device), 1, end);
  }
});

test('what a device has done counts, whether its record can be written or not', async () => {
  const jobs = new Jobs();
  const order = jobs.run(device, [replace('./a')]);
  const { next } = session(jobs, true, () => {
    throw new Error('the disk is full');
  });
  await next();
  await assert.rejects(next(), /disk is full/);
  assert.deepEqual(statuses(await order), [200]);
});

test('a device that was removed in its session gets no further order', async () => {
  const jobs = new Jobs();
  const order = jobs.run(device, [replace('./a')]);
  const waiting = jobs.run(device, [replace('./b')]);
  waiting.catch(() => {});
  const { next } = session(jobs, true, () => false);
  await next();
  assert.equal(await next(), undefined);
  assert.deepEqual(statuses(await order), [200]);
  // The second order had begun when the first one ended.
  await assert.rejects(waiting, { code: 'unavailable' });
});
