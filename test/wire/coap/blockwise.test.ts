import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { Blockwise, packBlock, unpackBlock } from '../../../src/wire/coap/blockwise.ts';
import { call } from '../../../src/wire/coap/blockwise-client.ts';
import type { CoapMessage } from '../../../src/wire/coap/codec.ts';
import { Code, codeText } from '../../../src/wire/coap/codes.ts';
import { CoapRequest, type Handler, type Reply, reply } from '../../../src/wire/coap/message.ts';
import { Option, text, uint, uintOption } from '../../../src/wire/coap/options.ts';
import { blockwiseDefaults } from '../../../src/wire/coap/transfers.ts';
import { HandClock } from '../../hand-clock.ts';
import { account, messageOf, rig } from './wire.ts';

const echoBody: Handler = ({ payload, method }) =>
  method === Code.GET
    ? reply(Code.Content, { payload: 'x'.repeat(2500) })
    : reply(Code.Changed, { payload: String(payload.length) });

function server(handler: Handler = echoBody, limits = blockwiseDefaults) {
  const clock = new HandClock();
  const blockwise = new Blockwise(handler, clock, limits);
  const ask = (fields: Partial<CoapMessage>, peer = 'a', allowance = Number.POSITIVE_INFINITY): Reply => {
    const remote = { address: peer, port: 1, key: peer };
    const message = messageOf(fields);
    return blockwise.handle(
      new CoapRequest(remote, message, false, message.payload, account(allowance)),
    ) as Reply;
  };
  const put = (number: number, more: boolean, payload: Buffer, exponent = 2, peer = 'a') =>
    ask(
      { code: Code.PUT, options: [uint(Option.Block1, packBlock({ number, more, exponent }))], payload },
      peer,
    );
  const get = (number: number, exponent = 6, allowance = Number.POSITIVE_INFINITY) =>
    ask({ options: [uint(Option.Block2, packBlock({ number, more: false, exponent }))] }, 'a', allowance);
  return { clock, blockwise, ask, put, get };
}

const blockOf = (answer: Reply, which: typeof Option.Block1 | typeof Option.Block2) =>
  unpackBlock(uintOption(answer.options, which));
const nameOf = ({ code }: Reply) => codeText(code);
const block = Buffer.alloc(64, 'b');

describe('a request body in blocks', () => {
  test('reaches the handler when its last block has arrived, and not before', () => {
    const bodies: number[] = [];
    const { put, blockwise } = server(({ payload }) => {
      bodies.push(payload.length);
      return reply(Code.Changed);
    });
    assert.equal(nameOf(put(0, true, block)), '2.31');
    assert.equal(nameOf(put(1, true, block)), '2.31');
    assert.deepEqual(bodies, []);
    const last = put(2, false, Buffer.alloc(10));
    assert.deepEqual([nameOf(last), blockOf(last, Option.Block1)?.number, bodies], ['2.04', 2, [138]]);
    assert.deepEqual(blockwise.footprint, { incoming: 0, outgoing: 0, bytes: 0 });
  });

  test('with a missing first or middle block is 4.08', () => {
    const { put } = server();
    assert.equal(nameOf(put(1, true, block)), '4.08');
    put(0, true, block);
    assert.equal(nameOf(put(2, true, block)), '4.08');
    assert.equal(nameOf(put(1, false, block)), '4.08', 'the earlier blocks were dropped');
  });

  test('of too many bytes is 4.13, by its announced or its actual size', () => {
    const { ask, put } = server(echoBody, { ...blockwiseDefaults, bodyBytes: 100 });
    const announced = ask({
      code: Code.PUT,
      options: [
        uint(Option.Block1, packBlock({ number: 0, more: true, exponent: 2 })),
        uint(Option.Size1, 101),
      ],
      payload: block,
    });
    assert.deepEqual([nameOf(announced), uintOption(announced.options, Option.Size1)], ['4.13', 100]);
    put(0, true, block);
    assert.equal(nameOf(put(1, true, block)), '4.13');
  });

  test('with a payload of the wrong length, or with the reserved block size, is 4.00', () => {
    const { put } = server();
    assert.equal(nameOf(put(0, true, Buffer.alloc(63))), '4.00');
    assert.equal(nameOf(put(0, true, block, 7)), '4.00');
  });

  test('bounds: transfers of one peer, bytes of all transfers, and idle time', () => {
    const { ask, clock, blockwise } = server(echoBody, {
      ...blockwiseDefaults,
      transfersPerPeer: 2,
      totalBytes: 3 * 1024,
    });
    const begin = (path: string, peer: string) =>
      nameOf(
        ask(
          {
            code: Code.PUT,
            options: [
              { number: 11, value: Buffer.from(path) },
              uint(Option.Block1, packBlock({ number: 0, more: true, exponent: 2 })),
            ],
            payload: block,
          },
          peer,
        ),
      );
    assert.deepEqual([begin('1', 'a'), begin('2', 'a'), begin('3', 'a')], ['2.31', '2.31', '5.03']);
    assert.deepEqual([begin('1', 'b'), begin('1', 'c')], ['2.31', '5.03']);
    clock.advance(blockwiseDefaults.idle);
    assert.equal(begin('3', 'a'), '2.31');
    assert.equal(blockwise.footprint.incoming, 1);
  });
});

describe('a response body in blocks', () => {
  test('comes in blocks of the requested size, with Size2 in the first one', () => {
    const { get } = server();
    const first = get(0, 4);
    assert.deepEqual(
      [first.payload.length, blockOf(first, Option.Block2)?.more, uintOption(first.options, Option.Size2)],
      [256, true, 2500],
    );
    const last = get(9, 4);
    assert.deepEqual([last.payload.length, blockOf(last, Option.Block2)?.more], [2500 - 9 * 256, false]);
    assert.equal(nameOf(get(10, 4)), '4.00');
  });

  test('of a POST is kept until its last block was fetched, and the handler runs once', () => {
    let calls = 0;
    const { ask, blockwise } = server(() => reply(Code.Changed, { payload: `${++calls}`.repeat(1500) }));
    const post = (number: number) =>
      ask({
        code: Code.POST,
        options: [uint(Option.Block2, packBlock({ number, more: false, exponent: 6 }))],
      });
    assert.equal(post(0).payload.length, 1024);
    assert.equal(post(1).payload.length, 476);
    assert.deepEqual([calls, blockwise.footprint.outgoing], [1, 0]);
    assert.equal(nameOf(post(1)), '4.08');
  });

  test('comes in smaller blocks for a peer that has not proved its address', () => {
    const { get } = server();
    const first = get(0, 6, 100);
    assert.equal(first.payload.length, 16);
    assert.equal(blockOf(first, Option.Block2)?.exponent, 0);
  });

  test('is not sent in larger later blocks to such a peer', () => {
    const { get, ask } = server();
    assert.equal(nameOf(get(1, 6, 100)), '4.00');
    assert.equal(nameOf(get(1, 0, 100)), '2.05');
    const small = ask({ code: Code.POST, payload: Buffer.alloc(10) }, 'a', 90);
    assert.equal(nameOf(small), '2.04');
  });

  test('is sent in large blocks as far as the bytes of the request body allow, all blocks counted together', () => {
    const sizes = (body: number) => {
      const { handle } = new Blockwise(
        () => reply(Code.Changed, { payload: 'y'.repeat(2000) }),
        new HandClock(),
      );
      const { receive, sent } = rig(handle);
      const block2 = (number: number, exponent: number) => [
        text(Option.UriPath, 'path'),
        uint(Option.Block2, packBlock({ number, more: false, exponent })),
      ];
      receive({ code: Code.POST, options: block2(0, 6), payload: Buffer.alloc(body) });
      const exponent = blockOf(sent[0]!.message as unknown as Reply, Option.Block2)!.exponent;
      for (let number = 1; number * 2 ** (exponent + 4) < 2000; number++)
        receive({ code: Code.POST, messageId: 1 + number, options: block2(number, exponent) });
      return sent.map(({ message }) => message.payload.length);
    };
    assert.deepEqual(sizes(700), [1024, 976]);
    for (const body of [40, 100, 600, 650, 700])
      assert.equal(
        sizes(body).reduce((sum, size) => sum + size, 0),
        2000,
        `${body} bytes`,
      );
  });
});

test('bodies of up to 20,000 bytes pass in both directions between the block-wise client and server', async () => {
  for (const size of [0, 1, 1023, 1024, 1025, 5000, 20_000]) {
    const body = randomBytes(size);
    const clock = new HandClock();
    const blockwise = new Blockwise(
      ({ payload }) => reply(Code.Changed, { payload: Buffer.from(payload).reverse() }),
      clock,
    );
    const far = rig(blockwise.handle);
    const near = rig(() => undefined);
    const pump = () => {
      for (const { datagram } of near.sent.splice(0)) far.endpoint.receive(datagram, 'near', 1);
      for (const { datagram } of far.sent.splice(0)) near.endpoint.receive(datagram, 'far', 1);
    };
    const answer = call(near.endpoint, seededEntropy(3), 'far', 1, {
      method: Code.POST,
      path: ['x'],
      payload: body,
      timeout: 1000,
    });
    let done = false;
    answer.finally(() => {
      done = true;
    });
    for (let turns = 0; !done; turns++) {
      assert.ok(turns < 100_000, 'the call does not end');
      pump();
      await Promise.resolve();
    }
    assert.deepEqual(Buffer.from((await answer).payload), Buffer.from(body).reverse(), `${size} bytes`);
  }
});
