import { createSocket, type Socket } from 'node:dgram';
import { isIPv6 } from 'node:net';
import type { Clock } from '../../base/clock.ts';
import { decode, encode, Malformed, noBytes, Type } from '../../wire/coap/codec.ts';
import { Code, codeText } from '../../wire/coap/codes.ts';
import { uriOptions } from '../../wire/coap/options.ts';

/** Milliseconds within which the gateway must answer, and addresses that are asked. */
const limits = { time: 10_000, addresses: 8 } as const;

/**
 * Checks that the gateway answers devices: sends `GET /.well-known/core` through a socket to its own CoAP port, at all
 * addresses that it serves. One good answer is enough. Returns why there was none, or undefined on success.
 * @param addresses local addresses that are bound now, a link-local one with its zone
 */
export async function probeCoap(
  addresses: readonly string[],
  port: number,
  clock: Clock,
): Promise<string | undefined> {
  const asked = addresses.slice(0, limits.addresses);
  if (asked.length === 0) return 'CoAP is served at no address';
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  const complaints: string[] = [];
  const complain = (complaint: string) => {
    if (complaints.push(complaint) === asked.length) resolve(complaint);
  };
  const timer = clock.after(limits.time, () => resolve('CoAP does not answer'));
  const sockets: Socket[] = [];
  try {
    for (const address of asked)
      sockets.push(ask(address, port, (complaint) => (complaint ? complain(complaint) : resolve(undefined))));
    return await promise;
  } catch (thrown) {
    return `no CoAP request can be sent: ${String(thrown)}`;
  } finally {
    timer.cancel();
    for (const socket of sockets) socket.close();
  }
}

/** Sends the request to one address. `answered` gets why the answer is not good, or undefined when it is. */
function ask(address: string, port: number, answered: (complaint: string | undefined) => void): Socket {
  const family = isIPv6(address) ? 6 : 4;
  const socket = createSocket({ type: `udp${family}`, lookup: (host, _, done) => done(null, host, family) });
  const messageId = Math.floor(Math.random() * 0x10000);
  const token = Buffer.from([messageId >> 8, messageId & 0xff]);
  socket.on('message', (datagram) => {
    const answer = decode(datagram);
    if (answer instanceof Malformed || !Buffer.from(answer.token).equals(token)) return;
    answered(answer.code === Code.Content ? undefined : `CoAP answers with ${codeText(answer.code)}`);
  });
  socket.on('error', (error) => answered(`no CoAP request can be sent: ${error.message}`));
  const request = encode({
    type: Type.CON,
    code: Code.GET,
    messageId,
    token,
    options: uriOptions(['.well-known', 'core']),
    payload: noBytes,
  });
  socket.send(request, port, address);
  return socket;
}
