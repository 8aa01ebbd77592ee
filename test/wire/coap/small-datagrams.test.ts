import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { Blockwise } from '../../../src/wire/coap/blockwise.ts';
import { call } from '../../../src/wire/coap/blockwise-client.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { CoapEndpoint } from '../../../src/wire/coap/endpoint.ts';
import { type Handler, reply } from '../../../src/wire/coap/message.ts';
import { Option, opaque, uint, uriOptions } from '../../../src/wire/coap/options.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';

/** Two endpoints. Neither takes a datagram of more than `most` bytes from the other one. */
function pair(most: number, handler: Handler, isKnown = true) {
  const [clock, events] = [new HandClock(), new EventRecorder()];
  const sizes: number[] = [];
  const make = (port: number, peer: () => CoapEndpoint, handle: Handler) =>
    new CoapEndpoint({
      ...{ clock, events, entropy: seededEntropy(port), handler: handle },
      send: (datagram) => {
        sizes.push(datagram.length);
        if (datagram.length <= most) queueMicrotask(() => peer().receive(datagram, '192.0.2.1', port));
      },
      remoteOf: (address, at) => ({
        ...{ address, port: at, key: `${address} ${at}` },
        ...(isKnown && { datagramBytes: most }),
      }),
    });
  const client: CoapEndpoint = make(
    1,
    () => server,
    () => reply(Code.NotFound),
  );
  const server: CoapEndpoint = make(2, () => client, new Blockwise(handler, clock).handle);
  // Each takes the other one for proven, so nothing else limits a response.
  server.vouch({ address: '192.0.2.1', port: 1, key: '192.0.2.1 1' });
  const ask = (payload: Uint8Array) =>
    call(client, seededEntropy(3), '192.0.2.1', 2, {
      ...{ method: Code.POST, path: ['path', 'of', 'it'], query: ['id=1'], payload, timeout: 1000 },
    });
  return { ask, client, sizes, clock };
}

const echo: Handler = ({ payload }) =>
  reply(Code.Content, {
    payload,
    options: [opaque(Option.ETag, Buffer.alloc(8, 7)), uint(Option.ContentFormat, 42)],
  });

test('bodies of any size go both ways through what a peer takes in one datagram', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 80, max: 1300 }),
      fc.integer({ min: 0, max: 4000 }),
      async (most, bytes) => {
        const { ask, sizes } = pair(most, echo);
        const body = Buffer.alloc(bytes, 'block');
        const { code, payload } = await ask(body);
        assert.equal(code, Code.Content);
        assert.ok(body.equals(payload));
        assert.ok(Math.max(...sizes) <= most);
      },
    ),
    { numRuns: 200 },
  );
});

test('the blocks are as large as fit, and a body that fits is not divided', async () => {
  for (const [most, bytes, exchanges] of [
    [1100, 1024, 1],
    [600, 500, 1],
    [600, 512, 1],
    [600, 1024, 2],
    [512, 512, 2],
  ] as const) {
    const { ask, sizes } = pair(most, () => reply(Code.Content, { payload: Buffer.alloc(bytes) }));
    assert.equal((await ask(new Uint8Array())).payload.length, bytes);
    assert.equal(sizes.length, 2 * exchanges, `${bytes} bytes in datagrams of ${most}`);
  }
});

test('where nothing says what the peer takes, the request ends by its time, as before', async () => {
  const { ask, clock } = pair(300, echo, false);
  const outcome = assert.rejects(ask(Buffer.alloc(900)), { code: 'timeout' });
  for (let tenth = 0; tenth < 20; tenth++) {
    clock.advance(100);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await outcome;
});

test('a peer that asks for larger blocks than it takes gets an error that it can take', async () => {
  const { client, sizes } = pair(200, () => reply(Code.Content, { payload: Buffer.alloc(4000) }));
  const options = (block: number) => [...uriOptions(['path']), uint(Option.Block2, block)];
  const ask = (block: number) =>
    client.request('192.0.2.1', 2, {
      ...{ code: Code.GET, options: options(block), payload: new Uint8Array(), timeout: 1000 },
    });
  // The third block of 1024 bytes, after a first one that was smaller than it wished.
  const first = await ask(6);
  assert.equal(first.payload.length, 128);
  const third = await ask(2 * 16 + 6);
  assert.equal(third.code, Code.BadRequest);
  assert.ok(Math.max(...sizes) <= 200);
});
