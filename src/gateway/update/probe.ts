import { createSocket } from 'node:dgram';
import type { Clock } from '../../base/clock.ts';
import { decode, encode, Malformed, noBytes, Type } from '../../wire/coap/codec.ts';
import { Code, codeText } from '../../wire/coap/codes.ts';
import { uriOptions } from '../../wire/coap/options.ts';

/** Milliseconds within which the gateway must answer. */
const timeout = 10_000;

/**
 * Checks that the gateway answers devices: sends `GET /.well-known/core` to its own CoAP port at 127.0.0.1 through a
 * socket. Returns why there was no good answer, or undefined on success.
 */
export async function probeCoap(port: number, clock: Clock): Promise<string | undefined> {
  const socket = createSocket('udp4');
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  const timer = clock.after(timeout, () => resolve('CoAP does not answer'));
  const messageId = Math.floor(Math.random() * 0x10000);
  const token = Buffer.from([messageId >> 8, messageId & 0xff]);
  socket.on('message', (datagram) => {
    const answer = decode(datagram);
    if (answer instanceof Malformed || !Buffer.from(answer.token).equals(token)) return;
    resolve(answer.code === Code.Content ? undefined : `CoAP answers with ${codeText(answer.code)}`);
  });
  socket.on('error', (error) => resolve(`no CoAP request can be sent: ${error.message}`));
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
