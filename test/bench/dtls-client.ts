import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { SystemClock } from '../../src/base/clock.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import type { Association, Place } from '../../src/wire/secure/dtls/association.ts';
import type { ServedCertificates } from '../../src/wire/secure/dtls/client-handshake.ts';
import { DtlsEndpoint } from '../../src/wire/secure/dtls/endpoint.ts';
import { certificateSuites, pskSuites } from '../../src/wire/secure/dtls/suites.ts';

export const key = Buffer.from('sesame-sesame-16');
/** One suite for each kind of credential, as constrained devices have it: both with AES-128-CCM-8. */
const ccm8 = [pskSuites[0]!, certificateSuites[0]!];

/** A client of DTLS on a socket of its own. */
export class BenchClient implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #dtls: DtlsEndpoint;
  readonly #server: Place;
  readonly #wantsCid: boolean;
  #again: NodeJS.Timeout | undefined;
  #received: (content: Buffer) => void = () => {};

  private constructor(socket: Socket, server: Place, wantsCid: boolean) {
    this.#socket = socket;
    this.#wantsCid = wantsCid;
    this.#server = server;
    this.#dtls = new DtlsEndpoint({
      clock: new SystemClock(),
      entropy: systemEntropy,
      suites: ccm8,
      send: (datagram, place) => socket.send(datagram, place.port, place.address),
      received: (_, content) => this.#received(content),
    });
    socket.on('message', (datagram) => this.#dtls.receive(datagram, this.#server));
  }

  static async open(
    port: number,
    address = '127.0.0.1',
    from = '127.0.0.1',
    { wantsCid = false } = {},
  ): Promise<BenchClient> {
    const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 });
    socket.bind(0, from);
    await once(socket, 'listening');
    return new BenchClient(socket, { address, port, local: '' }, wantsCid);
  }

  async connect(identity = 'bench'): Promise<Association> {
    return (await this.#dtls.connect(this.#server, { identity, key, wantsCid: this.#wantsCid })).association;
  }

  /** Shakes hands with certificates in the place of the pre-shared key. */
  async connectCertified(certificates: ServedCertificates): Promise<Association> {
    const credentials = { identity: 'bench', certificates, wantsCid: this.#wantsCid };
    return (await this.#dtls.connect(this.#server, credentials)).association;
  }

  close(association: Association): void {
    this.#dtls.close(association);
  }

  /** Sends `count` GETs of /time, `outstanding` at a time. Returns the seconds taken. A lost one is sent again after a second. */
  async load(association: Association, count: number, outstanding: number): Promise<number> {
    const waiting = new Map<number, Buffer>();
    let sent = 0;
    let answered = 0;
    const { promise, resolve } = Promise.withResolvers<void>();
    const send = () => {
      const id = sent++ & 0xffff;
      const datagram = Buffer.from([0x44, 0x01, 0, 0, 0x70, 0x73, 0, 0, 0xb4, 0x74, 0x69, 0x6d, 0x65]);
      datagram.writeUInt16BE(id, 2);
      datagram.writeUInt16BE(id, 6);
      waiting.set(id, datagram);
      this.#dtls.send(association, datagram);
    };
    this.#received = (content) => {
      // A ping, by which a gateway finds out whether a device is there, is answered by a Reset.
      if (content.length === 4 && content[0] === 0x40 && content[1] === 0) {
        this.#dtls.send(association, Buffer.from([0x70, 0, content[2]!, content[3]!]));
        return;
      }
      if (!waiting.delete(content.readUInt16BE(2))) return;
      answered++;
      if (sent < count) send();
      else if (answered === count) resolve();
    };
    this.#again = setInterval(() => {
      for (const datagram of waiting.values()) this.#dtls.send(association, datagram);
    }, 1000);
    const began = performance.now();
    for (let each = 0; each < outstanding; each++) send();
    await promise;
    clearInterval(this.#again);
    return (performance.now() - began) / 1000;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#again);
    this.#dtls.stop();
    this.#socket.close();
    await once(this.#socket, 'close');
  }
}
