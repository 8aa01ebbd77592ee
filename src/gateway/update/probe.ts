import { createSocket } from 'node:dgram';
import type { Clock } from '../../base/clock.ts';
import { decode, encode, Malformed, noBytes, Type } from '../../wire/coap/codec.ts';
import { Code, codeText } from '../../wire/coap/codes.ts';
import { uriOptions } from '../../wire/coap/options.ts';

/** Milliseconds that an answer may take. */
const patience = 10_000;

/**
 * Asks the gateway as a device does: `GET /.well-known/core` to its own CoAP port, over a socket. Resolves with why it did
 * not answer, or with nothing.
 */
export async function probeCoap(port: number, clock: Clock): Promise<string | undefined> {
  const socket = createSocket('udp4');
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  const timer = clock.after(patience, () => resolve('CoAP does not answer'));
  const messageId = Math.floor(Math.random() * 0x10000);
  const token = Buffer.from([messageId >> 8, messageId & 0xff]);
  socket.on('message', (datagram) => {
    const answer = decode(datagram);
    if (answer instanceof Malformed || !Buffer.from(answer.token).equals(token)) return;
    resolve(answer.code === Code.Content ? undefined : `CoAP answers ${codeText(answer.code)}`);
  });
  socket.on('error', (error) => resolve(`CoAP cannot be asked: ${error.message}`));
  const request = encode({
    type: Type.CON,
    code: Code.GET,
    messageId,
    token,
    options: uriOptions(['.well-known', 'core']),
    payload: noBytes,
  });
  socket.send(request, port, '127.0.0.1');
  try {
    return await promise;
  } finally {
    timer.cancel();
    socket.close();
  }
}
