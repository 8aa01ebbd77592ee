import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { PosternError } from '../../src/base/errors.ts';
import { fuzzAdminApi, fuzzHeadendApi } from './apis.ts';
import { chunk, playChunks } from './chunks.ts';
import { dtlsTargets, fuzzDtls } from './dtls.ts';
import { fuzzEndpoint } from './endpoint.ts';
import { Dice } from './mutate.ts';
import { fuzzOscore, oscoreTargets } from './oscore.ts';
import { fuzz, type Run } from './run.ts';
import { targets } from './targets.ts';

const seed = Number(process.env.FUZZ_SEED ?? Date.now() & 0x7fff_ffff);
const inputs = 20_000;

// conforms: REP-18
describe(`a short run, seed ${seed}`, () => {
  for (const [at, target] of [...targets, ...dtlsTargets, ...oscoreTargets].entries())
    test(target.name, (t) => {
      const run = fuzz(target, new Dice(seed, at), inputs, Number.POSITIVE_INFINITY);
      t.diagnostic(`${run.inputs} inputs, ${run.accepted} read, slowest ${run.slowest.toFixed(1)} ms`);
      assert.deepEqual(run.findings, []);
      assert.ok(run.accepted > 0 && run.accepted < run.inputs, 'some are read, and some are not');
    });
});

describe(`a short run of sequences and requests, seed ${seed}`, () => {
  const check = (t: TestContext, { inputs: done, accepted, slowest, findings }: Run) => {
    t.diagnostic(`${done} inputs, ${accepted} answered, slowest ${slowest.toFixed(1)} ms`);
    assert.deepEqual(findings, []);
    assert.ok(accepted > 0);
  };
  test('datagrams of several peers to a whole CoAP endpoint', async (t) =>
    check(t, await fuzzEndpoint(new Dice(seed), inputs, Number.POSITIVE_INFINITY)));
  test('datagrams of a DTLS client, copied, changed and repeated', async (t) =>
    check(t, await fuzzDtls(new Dice(seed), inputs, Number.POSITIVE_INFINITY)));
  test('datagrams of an OSCORE client, copied, changed and repeated, and restarts', async (t) =>
    check(t, await fuzzOscore(new Dice(seed), inputs, Number.POSITIVE_INFINITY)));
  test('requests to the API of the head-end', async (t) =>
    check(t, await fuzzHeadendApi(new Dice(seed), inputs / 4, Number.POSITIVE_INFINITY)));
  test('requests to the admin API', async (t) =>
    check(t, await fuzzAdminApi(new Dice(seed), inputs / 4, Number.POSITIVE_INFINITY)));
});

test('the fuzzer reports foreign errors and slow inputs, and no PosternError', () => {
  const throws = {
    name: 'x',
    corpus: [Buffer.from('abcdef')],
    decode: () => assert.fail('not of the codec'),
  };
  assert.match(
    fuzz(throws, new Dice(1), 10, Number.POSITIVE_INFINITY).findings[0]?.what ?? '',
    /not of the codec/,
  );
  const refuses = {
    ...throws,
    decode: () => {
      throw new PosternError('malformed', 'no');
    },
  };
  assert.deepEqual(fuzz(refuses, new Dice(1), 10, Number.POSITIVE_INFINITY).findings, []);
  const slow = {
    ...throws,
    decode: () => {
      for (const before = process.threadCpuUsage(); process.threadCpuUsage(before).user < 60_000; );
    },
  };
  assert.match(fuzz(slow, new Dice(1), 1, Number.POSITIVE_INFINITY).findings[0]?.what ?? '', /took \d+ ms/);
});

test('a run that goes on where another one ended plays what one run would have played', async () => {
  const rolls: number[] = [];
  const play = {
    name: 'x',
    play: (dice: Dice, inputs: number) => {
      rolls.push(inputs, dice.roll(2 ** 31));
      return { inputs, accepted: 0, slowest: 0, findings: [] };
    },
  };
  const told: number[] = [];
  const run = (from: number, inputs: number) =>
    playChunks(play, { seed, from, inputs, until: Number.POSITIVE_INFINITY }, (done) => told.push(done));
  assert.equal((await run(0, 2.5 * chunk)).inputs, 2.5 * chunk);
  assert.deepEqual(told.splice(0), [chunk, 2 * chunk, 2.5 * chunk]);
  const whole = rolls.splice(0);
  await run(0, chunk);
  await run(chunk, 1.5 * chunk);
  assert.deepEqual(rolls, whole, `seed ${seed}`);
  assert.equal(new Set(whole.filter((_, at) => at % 2 === 1)).size, 3, 'each chunk has its own numbers');
});
