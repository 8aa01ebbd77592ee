import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { PosternError } from '../../src/base/errors.ts';
import { Site } from '../journeys/site.ts';
import { fuzzAdminApi, fuzzHeadendApi } from './apis.ts';
import { dtlsTargets, fuzzDtls } from './dtls.ts';
import { fuzzEndpoint } from './endpoint.ts';
import { fuzz, type Run } from './run.ts';
import { targets } from './targets.ts';

const seed = Number(process.env.FUZZ_SEED ?? Date.now() & 0x7fff_ffff);
const inputs = 20_000;

// conforms: REP-18
describe(`a short run, seed ${seed}`, () => {
  for (const [at, target] of [...targets, ...dtlsTargets].entries())
    test(target.name, (t) => {
      const run = fuzz(target, seed + at, inputs, Number.POSITIVE_INFINITY);
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
    check(t, await fuzzEndpoint(seed, inputs, Number.POSITIVE_INFINITY)));
  test('datagrams of a DTLS client, copied, changed and repeated', async (t) =>
    check(t, await fuzzDtls(seed, inputs, Number.POSITIVE_INFINITY)));
  test('requests to the API of the head-end', async (t) =>
    check(t, await fuzzHeadendApi(seed, inputs / 4, Number.POSITIVE_INFINITY)));
  test('requests to the admin API', async (t) => {
    await using site = new Site('mqtt://127.0.0.1:1');
    check(t, await fuzzAdminApi(seed, inputs / 4, Number.POSITIVE_INFINITY, site));
  });
});

test('the fuzzer reports foreign errors and slow inputs, and no PosternError', () => {
  const throws = {
    name: 'x',
    corpus: [Buffer.from('abcdef')],
    decode: () => assert.fail('not of the codec'),
  };
  assert.match(fuzz(throws, 1, 10, Number.POSITIVE_INFINITY).findings[0]?.what ?? '', /not of the codec/);
  const refuses = {
    ...throws,
    decode: () => {
      throw new PosternError('malformed', 'no');
    },
  };
  assert.deepEqual(fuzz(refuses, 1, 10, Number.POSITIVE_INFINITY).findings, []);
  const slow = {
    ...throws,
    decode: () => {
      for (const end = performance.now() + 60; performance.now() < end; );
    },
  };
  assert.match(fuzz(slow, 1, 1, Number.POSITIVE_INFINITY).findings[0]?.what ?? '', /took \d+ ms/);
});
