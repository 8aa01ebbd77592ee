import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { SystemClock } from '../../../../src/base/clock.ts';
import { systemEntropy } from '../../../../src/base/entropy.ts';
import { CoapEndpoint } from '../../../../src/wire/coap/endpoint.ts';
import { type Handler, reply } from '../../../../src/wire/coap/message.ts';
import { remoteKey } from '../../../../src/wire/coap/peer.ts';
import type { Association } from '../../../../src/wire/secure/dtls/association.ts';
import { DtlsEndpoint } from '../../../../src/wire/secure/dtls/endpoint.ts';
import type { DtlsParts } from '../../../../src/wire/secure/dtls/endpoint-parts.ts';
import { EventRecorder } from '../../../event-recorder.ts';
import type { Captured } from './capture.ts';

export const identity = 'id';
export const key = Buffer.from('sesame-sesame-16');

/** A DTLS endpoint of ours with a socket on the loopback interface, and CoAP above it. It keeps all datagrams. */
export class SocketEnd implements AsyncDisposable {
  readonly dtls: DtlsEndpoint;
  readonly coap: CoapEndpoint;
  readonly captured: Captured[] = [];
  readonly keyLog: string[] = [];
  readonly associations: Association[] = [];
  readonly closings: string[] = [];
  /** Answers requests. */
  handler: Handler = () => reply(0x45, { payload: 'hello over DTLS' });
  readonly #socket: Socket;
  #told = Promise.withResolvers<void>();

  private constructor(socket: Socket, parts: Partial<DtlsParts>) {
    const clock = new SystemClock();
    const own = socket.address();
    this.#socket = socket;
    this.dtls = new DtlsEndpoint({
      clock,
      entropy: systemEntropy,
      send: (bytes, { address, port }) => {
        this.captured.push({ from: own, to: { address, port }, bytes });
        socket.send(bytes, port, address);
      },
      received: ({ place }, content) => this.coap.receive(content, place.address, place.port),
      opened: (association) => {
        this.associations.push(association);
        const { address, port } = association.place;
        this.coap.vouch({ address, port, key: remoteKey(address, port) });
        this.#tell();
      },
      closed: (_, reason) => {
        this.closings.push(reason);
        this.#tell();
      },
      keyLog: (line) => this.keyLog.push(line),
      ...parts,
    });
    this.coap = new CoapEndpoint({
      clock,
      entropy: systemEntropy,
      events: new EventRecorder(),
      handler: (request) => this.handler(request),
      send: (content, port, address) => {
        const association = this.dtls.at(address, port);
        if (association) this.dtls.send(association, content);
      },
    });
    socket.on('message', (bytes, { address, port }) => {
      this.captured.push({ from: { address, port }, to: own, bytes: Buffer.from(bytes) });
      this.dtls.receive(bytes, { address, port, local: '' });
    });
  }

  /** @param parts by default a server with one identity, or what replaces this */
  static async open(parts: Partial<DtlsParts> = {}): Promise<SocketEnd> {
    const socket = createSocket('udp4');
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    return new SocketEnd(socket, {
      server: { keyOf: (name) => (name === identity ? key : undefined) },
      ...parts,
    });
  }

  /** Resolves with the next datagram. */
  async heard(): Promise<void> {
    await once(this.#socket, 'message');
  }

  /** Sends a datagram without DTLS, from the same address and port. */
  sendPlain(datagram: Buffer, port: number): void {
    this.#socket.send(datagram, port, '127.0.0.1');
  }

  get port(): number {
    return this.#socket.address().port;
  }

  /** Resolves when this many associations have been opened, and this many have ended. */
  async until(opened: number, closed = 0): Promise<void> {
    while (this.associations.length < opened || this.closings.length < closed) await this.#told.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.dtls.stop();
    this.coap.stop();
    this.#socket.close();
    await once(this.#socket, 'close');
  }

  #tell(): void {
    this.#told.resolve();
    this.#told = Promise.withResolvers();
  }
}
