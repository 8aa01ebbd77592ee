import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';
import { CoapStack } from '../../src/device/coap-stack.ts';
import { decode, encode, Malformed, Type } from '../../src/wire/coap/codec.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { HandClock } from '../hand-clock.ts';

test('an ACK that comes again is ignored: a Reset would be one more datagram for a server that is slow already', async (t) => {
  const server = createSocket('udp4');
  t.after(() => server.close());
  const types: number[] = [];
  server.on('message', (datagram, from) => {
    const message = decode(datagram);
    if (message instanceof Malformed) return;
    types.push(message.type);
    if (message.type !== Type.CON) return;
    const { messageId, token } = message;
    const ack = encode({
      type: Type.ACK,
      code: Code.Content,
      messageId,
      token,
      options: [],
      payload: Buffer.from('x'),
    });
    for (let copy = 0; copy < 2; copy++) server.send(ack, from.port, from.address);
  });
  server.bind(0, '127.0.0.1');
  await once(server, 'listening');
  const stack = new CoapStack(new HandClock(), '127.0.0.1', () => ({ code: '4.04' }));
  await stack.open();
  t.after(() => stack[Symbol.asyncDispose]());
  const base = `coap://127.0.0.1:${server.address().port}`;
  // What the device sends for the first repetition comes before its third request.
  for (let number = 0; number < 3; number++)
    assert.equal((await stack.request({ method: 'GET', base, path: '/x', timeout: 5000 })).code, '2.05');
  assert.deepEqual(types, [Type.CON, Type.CON, Type.CON]);
});
