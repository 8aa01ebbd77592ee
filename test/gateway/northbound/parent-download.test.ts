import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { PosternError } from '../../../src/base/errors.ts';
import type { DownloadRequest } from '../../../src/gateway/northbound/download.ts';
import { downloadFromParent } from '../../../src/gateway/northbound/parent-download.ts';
import { type Block, blockSize, packBlock } from '../../../src/wire/coap/blockwise.ts';
import type { CoapAnswer } from '../../../src/wire/coap/blockwise-client.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { Option, opaque, uint } from '../../../src/wire/coap/options.ts';
import { HandClock } from '../../hand-clock.ts';

const file = randomBytes(10_000);
const [v1, v2] = [Buffer.alloc(8, 1), Buffer.alloc(8, 2)];
const tagOf = (etag: Buffer) => `"${etag.toString('hex')}"`;

/** A parent with one file. `change` alters its answer to the request with this number, from 0. */
function rig(change: (answer: CoapAnswer, request: number, block: Block) => CoapAnswer = (answer) => answer) {
  const clock = new HandClock();
  const asked: { path: readonly string[]; query: readonly string[]; block: Block }[] = [];
  const state = { etag: v1, largest: 6 };
  const parent = {
    block: async (path: readonly string[], query: readonly string[], block: Block): Promise<CoapAnswer> => {
      const request = asked.push({ path, query, block }) - 1;
      const from = block.number * blockSize(block.exponent);
      const exponent = Math.min(block.exponent, state.largest);
      const to = from + blockSize(exponent);
      const none = { code: Code.BadRequest, options: [], payload: new Uint8Array() };
      if (from >= file.length) return change(none, request, block);
      const part = { number: from / blockSize(exponent), more: to < file.length, exponent };
      const options = [
        opaque(Option.ETag, state.etag),
        uint(Option.Block2, packBlock(part)),
        ...(from === 0 ? [uint(Option.Size2, file.length)] : []),
      ];
      return change({ code: Code.Content, options, payload: file.subarray(from, to) }, request, block);
    },
  };
  const never = () => Promise.reject(new Error('asked elsewhere'));
  const download = downloadFromParent(parent, never);
  const get = async (wanted: Partial<DownloadRequest> = {}) => {
    const url = 'coaps://192.0.2.1:5684/img/fw%201?v=ab&t=cd';
    const found = await download({ url, from: 0, clock, signal: AbortSignal.timeout(10_000), ...wanted });
    const chunks: Uint8Array[] = [];
    for await (const chunk of found.body) chunks.push(chunk);
    return { ...found, body: Buffer.concat(chunks) };
  };
  return { get, asked, state, clock };
}

const without = ({ options, ...rest }: CoapAnswer, number: number): CoapAnswer => ({
  ...rest,
  options: options.filter((option) => option.number !== number),
});

describe('a download from the parent gateway', () => {
  test('of the whole file asks for each block once, by the path and the query of its URI', async () => {
    const { get, asked } = rig();
    const { from, total, validator, body } = await get({ validator: tagOf(v2) });
    assert.deepEqual([from, total, validator], [0, file.length, tagOf(v1)]);
    assert.ok(body.equals(file));
    assert.deepEqual(
      asked.map(({ block }) => block.number),
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    );
    assert.deepEqual(
      [asked[0]!.path, asked[0]!.query],
      [
        ['img', 'fw 1'],
        ['v=ab', 't=cd'],
      ],
    );
  });

  for (const [from, to] of [
    [0, 0],
    [0, 1023],
    [1, 1024],
    [1023, 1024],
    [4096, 8191],
    [9999, 9999],
    [96, 9999],
  ] as const)
    for (const largest of [6, 3, 0])
      test(`of the range ${from} to ${to}, in blocks of exponent ${largest}, has these bytes exactly`, async () => {
        const { get, state } = rig();
        state.largest = largest;
        const found = await get({ from, to, validator: tagOf(v1) });
        assert.equal(found.from, from);
        assert.ok(found.body.equals(file.subarray(from, to + 1)));
      });

  test('of the rest goes on with the same version, and begins anew with another one or behind the end', async () => {
    const { get, state } = rig();
    const rest = await get({ from: 5001, validator: tagOf(v1), total: file.length });
    assert.deepEqual([rest.from, rest.total, rest.anew], [5001, file.length, undefined]);
    assert.ok(rest.body.equals(file.subarray(5001)));
    const beyond = await get({ from: 20_000, validator: tagOf(v1) });
    assert.deepEqual([beyond.from, beyond.anew], [0, 'the file ends before that position']);
    assert.ok(beyond.body.equals(file));
    state.etag = v2;
    const anew = await get({ from: 5001, validator: tagOf(v1) });
    assert.deepEqual(
      [anew.from, anew.validator, anew.anew],
      [0, tagOf(v2), 'the parent gateway has another version'],
    );
    assert.ok(anew.body.equals(file));
  });

  const answers = (code: number) => () => ({ code, options: [], payload: new Uint8Array() });
  for (const [what, wanted, change, code] of [
    ['a range behind the end', { from: 10_240, to: 10_300 }, undefined, 'conflict'],
    ['a range across the end', { from: 9000, to: 10_300 }, undefined, 'conflict'],
    ['a range of another version', { from: 0, to: 100, validator: tagOf(v2) }, undefined, 'conflict'],
    ['another resource', { url: 'coaps://192.0.2.1/.well-known/core' }, undefined, 'malformed'],
    ['no path', { url: 'coap://192.0.2.1' }, undefined, 'malformed'],
    ['4.04', {}, answers(Code.NotFound), 'notFound'],
    ['4.03', {}, answers(Code.Forbidden), 'forbidden'],
    // The parent has started anew, and this gateway attaches again.
    ['4.01', {}, answers(Code.Unauthorized), 'unavailable'],
    ['5.03', {}, answers(Code.ServiceUnavailable), 'unavailable'],
    ['4.00 to the first block', {}, answers(Code.BadRequest), 'malformed'],
  ] as const)
    test(`${what} ends with ${code}`, async () => {
      await assert.rejects(rig(change).get(wanted), { code });
    });

  for (const [what, lie] of [
    ['another block', (answer: CoapAnswer) => withBlock(answer, { number: 3, more: true, exponent: 6 })],
    ['a larger block', (answer: CoapAnswer) => withBlock(answer, { number: 0, more: true, exponent: 7 })],
    ['no number of a block', (answer: CoapAnswer) => without(answer, Option.Block2.number)],
    ['a block that is cut', (answer: CoapAnswer) => ({ ...answer, payload: answer.payload.subarray(1) })],
    [
      'a last block that is too long',
      (answer: CoapAnswer) =>
        withBlock({ ...answer, payload: Buffer.alloc(1025) }, { number: 0, more: false, exponent: 6 }),
    ],
  ] as const)
    test(`a parent that sends ${what} is asked again later`, async () => {
      for (const at of [0, 4])
        await assert.rejects(rig((answer, request) => (request === at ? lie(answer) : answer)).get(), {
          code: 'unavailable',
        });
    });

  test('a version that changes in the middle, or has no ETag any more, is not mixed', async () => {
    const made = rig((answer, request) => {
      if (request === 3) made.state.etag = v2;
      return answer;
    });
    await assert.rejects(made.get(), { code: 'unavailable' });
    const tagless = rig((answer, request) => (request > 3 ? without(answer, Option.ETag.number) : answer));
    await assert.rejects(tagless.get(), { code: 'unavailable' });
  });

  test('a parent that sends less than the pace is given up, and a slow one is not', async () => {
    const slow = (milliseconds: number) => {
      const made = rig((answer) => {
        made.clock.advance(milliseconds);
        return answer;
      });
      return made.get({ pace: 4000 });
    };
    await assert.rejects(slow(16_000), { code: 'timeout' });
    assert.ok((await slow(7000)).body.equals(file));
  });

  test('too many requests on their way to the parent pass', async () => {
    const full = downloadFromParent(
      { block: () => Promise.reject(new PosternError('full', 'too many')) },
      () => Promise.reject(new Error('asked elsewhere')),
    );
    const wanted = { url: 'coap://h/img/x', from: 0, clock: new HandClock(), signal: AbortSignal.abort() };
    await assert.rejects(full(wanted), { code: 'unavailable' });
  });

  test('any other URL is downloaded as before', async () => {
    const urls: string[] = [];
    const download = downloadFromParent(
      { block: () => Promise.reject(new Error('asked')) },
      async ({ url }) => {
        urls.push(url);
        throw new PosternError('notFound', 'none');
      },
    );
    for (const url of ['https://h/img/x', 'ftp://h/img/x'])
      await assert.rejects(
        download({ url, from: 0, clock: new HandClock(), signal: AbortSignal.timeout(1000) }),
      );
    assert.deepEqual(urls, ['https://h/img/x', 'ftp://h/img/x']);
  });
});

function withBlock(answer: CoapAnswer, block: Block): CoapAnswer {
  const rest = without(answer, Option.Block2.number);
  return { ...rest, options: [...rest.options, uint(Option.Block2, packBlock(block))] };
}
