import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { packBlock } from '../../../src/wire/coap/blockwise.ts';
import { call as fetchAll } from '../../../src/wire/coap/blockwise-client.ts';
import { Type } from '../../../src/wire/coap/codec.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { Option, uint } from '../../../src/wire/coap/options.ts';
import { CoapPeer } from '../../peers/coap-peer.ts';
import { type Asked, blockOf, lyingCoapServer, type Said } from '../../peers/lying-coap-server.ts';
import { hello, rig, turn } from './wire.ts';

const body = randomBytes(5000);

async function get(t: TestContext, answer: (asked: Asked) => readonly Said[]) {
  const server = await lyingCoapServer(answer);
  t.after(() => server[Symbol.asyncDispose]());
  const peer = await CoapPeer.open();
  t.after(() => peer[Symbol.asyncDispose]());
  const port = Number(/:(\d+)\//.exec(server.uri)?.[1]);
  return await peer.call(port, { method: Code.GET, path: ['x'] });
}
/** The first request has no Block2: the server chooses. */
const whole = ({ number, exponent, index }: Asked, first = 6) =>
  blockOf(body, index === 0 ? { number: 0, exponent: first } : { number, exponent }, 'v1');

test('a body in blocks of any size, also when the server changes to smaller ones', async (t) => {
  for (const first of [2, 6])
    assert.deepEqual((await get(t, (asked) => [whole(asked, first)])).payload, body);
  const smaller = await get(t, (asked) => {
    const by = asked.index > 1 ? asked.exponent - 4 : 0;
    return [
      asked.index === 0
        ? whole(asked)
        : blockOf(body, { number: asked.number << by, exponent: asked.exponent - by }, 'v1'),
    ];
  });
  assert.deepEqual(smaller.payload, body);
});

for (const [what, lie, code] of [
  ['another version', (said: Said) => ({ ...said, etag: 'v2' }), 'conflict'],
  ['no version', ({ etag: _, ...said }: Said) => said, 'conflict'],
  [
    'another block',
    (said: Said) => ({ ...said, block: { number: 3, more: true, exponent: 6 } }),
    'malformed',
  ],
  [
    'the first block',
    (said: Said) => ({ ...said, block: { number: 0, more: true, exponent: 6 } }),
    'malformed',
  ],
  [
    'a larger block',
    (said: Said) => ({ ...said, block: { number: 1, more: true, exponent: 7 } }),
    'malformed',
  ],
  ['a part of a block', (said: Said) => ({ ...said, payload: randomBytes(1000) }), 'malformed'],
  ['an empty block', (said: Said) => ({ ...said, payload: Buffer.alloc(0) }), 'malformed'],
  ['no block', ({ block: _, ...said }: Said) => said, 'malformed'],
] as const)
  test(`${what} in place of the next block is ${code}`, async (t) => {
    const answering = get(t, (asked) => [asked.number === 1 ? lie(whole(asked)) : whole(asked)]);
    await assert.rejects(answering, { code });
  });

test('a body that changes while it is fetched is fetched from its beginning', async (t) => {
  const later = randomBytes(4000);
  let version = 1;
  const { payload } = await get(t, (asked) => {
    if (asked.index === 3) version = 2;
    return [
      {
        ...whole(asked),
        ...(version === 2 && blockOf(later, asked.index === 4 ? { number: 0, exponent: 6 } : asked, 'v2')),
      },
    ];
  });
  assert.deepEqual(payload, later);
});

for (const [what, block] of [
  ['in the middle', { number: 1, more: true, exponent: 6 }],
  ['of a reserved size', { number: 0, more: true, exponent: 7 }],
] as const)
  test(`a response that begins with a block ${what} is malformed`, async (t) => {
    const payload = body.subarray(0, block.exponent === 7 ? 2048 : 1024);
    await assert.rejects(
      get(t, () => [{ block, payload }]),
      { code: 'malformed' },
    );
  });

test('a server that never ends is given up: at 1 MiB, and after half an hour however slow it is', async () => {
  for (const [pause, code] of [
    [0, 'tooLarge'],
    [19_000, 'timeout'],
  ] as const) {
    const { endpoint, sent, receive, clock } = rig(hello);
    const call = fetchAll(endpoint, seededEntropy(3), 'far', 1, {
      method: Code.GET,
      path: ['x'],
      timeout: 20_000,
    });
    const outcome = assert.rejects(call, { code });
    let isOver = false;
    void outcome.finally(() => {
      isOver = true;
    });
    let blocks = 0;
    for (; !isOver; blocks++) {
      const asked = sent.splice(0).at(-1)?.message;
      clock.advance(pause);
      if (asked)
        receive(
          {
            type: Type.ACK,
            code: Code.Content,
            messageId: asked.messageId,
            token: asked.token,
            options: [uint(Option.Block2, packBlock({ number: blocks, more: true, exponent: 6 }))],
            payload: Buffer.alloc(1024),
          },
          'far',
        );
      await turn();
      assert.ok(blocks < 2000, 'the call does not end');
    }
    await outcome;
    assert.ok(clock.now() < 31 * 60_000);
  }
});
