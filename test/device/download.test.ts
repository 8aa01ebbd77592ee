import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';
import { SystemClock } from '../../src/base/clock.ts';
import { seededEntropy } from '../../src/base/entropy.ts';
import { noEvents } from '../../src/base/events.ts';
import { CoapStack } from '../../src/device/coap-stack.ts';
import { imageResource } from '../../src/gateway/southbound/image-resource.ts';
import { Blockwise } from '../../src/wire/coap/blockwise.ts';
import { CoapEndpoint } from '../../src/wire/coap/endpoint.ts';
import { remoteKey } from '../../src/wire/coap/peer.ts';
import { Router } from '../../src/wire/coap/router.ts';
import { HandClock } from '../hand-clock.ts';
import { turn } from '../wire/coap/wire.ts';

const data = randomBytes(40_000);

/** A gateway's endpoint with one image. It ignores all datagrams after `state.silentAfter` reads of the image. */
async function server() {
  const reads: number[] = [];
  const state = { silentAfter: 20 };
  const image = {
    size: data.length,
    hash: 'cd'.repeat(32),
    read: (from: number, length: number) => {
      reads.push(from / 1024);
      return data.subarray(from, from + length);
    },
  };
  const socket = createSocket('udp4');
  const clock = new SystemClock();
  const endpoint = new CoapEndpoint({
    clock,
    entropy: seededEntropy(1),
    events: noEvents,
    handler: new Blockwise(
      new Router([
        imageResource(
          () => image,
          () => true,
        ),
      ]).handle,
      clock,
    ).handle,
    send: (datagram, port, address) => socket.send(datagram, port, address),
  });
  socket.on('message', (datagram, { address, port }) => {
    if (reads.length >= state.silentAfter) return;
    endpoint.vouch({ address, port, key: remoteKey(address, port) });
    endpoint.receive(datagram, address, port);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return {
    reads,
    state,
    uri: `coap://127.0.0.1:${socket.address().port}/img/x?v=cdcd`,
    [Symbol.dispose]: () => {
      endpoint.stop();
      socket.close();
    },
  };
}

// conforms: GW-18
test('a download that broke off continues with the first missing block', {
  timeout: 30_000,
}, async () => {
  using gateway = await server();
  const clock = new HandClock();
  await using stack = new CoapStack(clock, '127.0.0.1', () => ({ code: '4.04' }));
  await stack.open();
  const loading = stack.download(gateway.uri);
  while (gateway.reads.length < gateway.state.silentAfter) await turn();
  gateway.state.silentAfter = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 20; i++) await turn();
  clock.advance(30_000);
  assert.deepEqual(await loading, data);
  assert.ok(gateway.reads.filter((block) => block === 0).length === 1, 'block 0 was read again');
});

test('an image that does not exist is notFound, a gateway that does not answer is a timeout', {
  timeout: 30_000,
}, async () => {
  using gateway = await server();
  const clock = new HandClock();
  await using stack = new CoapStack(clock, '127.0.0.1', () => ({ code: '4.04' }));
  await stack.open();
  await assert.rejects(stack.download(gateway.uri.replace('cdcd', 'abab')), { code: 'notFound' });
  gateway.state.silentAfter = 0;
  const failing = assert.rejects(stack.download(gateway.uri), { code: 'timeout' });
  for (let attempt = 0; attempt < 5; attempt++) {
    while (clock.timers === 0) await turn();
    clock.advance(30_000);
    for (let i = 0; i < 5; i++) await turn();
  }
  await failing;
});
