import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { SystemClock } from '../../src/base/clock.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import { noEvents } from '../../src/base/events.ts';
import { type CoapAnswer, type CoapCall, call } from '../../src/wire/coap/blockwise-client.ts';
import { Code, codeText } from '../../src/wire/coap/codes.ts';
import { CoapEndpoint } from '../../src/wire/coap/endpoint.ts';
import { type Handler, refusal } from '../../src/wire/coap/message.ts';

/** A CoAP endpoint on a socket of its own, for tests that send single requests to the gateway. */
export class CoapPeer implements AsyncDisposable {
  readonly socket: Socket = createSocket('udp4');
  readonly endpoint: CoapEndpoint;

  private constructor(handler: Handler) {
    this.endpoint = new CoapEndpoint({
      clock: new SystemClock(),
      entropy: systemEntropy,
      events: noEvents,
      handler,
      send: (datagram, port, address) => this.socket.send(datagram, port, address),
    });
    this.socket.on('message', (datagram, { address, port }) =>
      this.endpoint.receive(datagram, address, port),
    );
  }

  static async open(
    handler: Handler = () => refusal(Code.NotFound, ''),
    address = '127.0.0.1',
  ): Promise<CoapPeer> {
    const peer = new CoapPeer(handler);
    peer.socket.bind(0, address);
    await once(peer.socket, 'listening');
    return peer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.endpoint.stop();
    this.socket.close();
    await once(this.socket, 'close');
  }

  /** Sends a request to a port of this machine. The response also has its payload as text and its code as `2.05`. */
  async call(
    port: number,
    request: Omit<CoapCall, 'timeout'>,
  ): Promise<CoapAnswer & { text: string; name: string }> {
    const answer = await call(this.endpoint, systemEntropy, '127.0.0.1', port, {
      timeout: 10_000,
      ...request,
    });
    return { ...answer, text: Buffer.from(answer.payload).toString(), name: codeText(answer.code) };
  }
}
