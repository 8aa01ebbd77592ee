import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { SystemClock } from '../../src/base/clock.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import type { Association, Place } from '../../src/wire/secure/dtls/association.ts';
import type { ServedCertificates } from '../../src/wire/secure/dtls/client-handshake.ts';
import { DtlsEndpoint } from '../../src/wire/secure/dtls/endpoint.ts';
import { certificateSuites, pskSuites } from '../../src/wire/secure/dtls/suites.ts';

export const key = Buffer.from('sesame-sesame-16');
/** One suite for each kind of credential, as constrained devices have it: both with AES-128-CCM-8. */
const ccm8 = [pskSuites[0]!, certificateSuites[0]!];

/** A confirmable GET of /time, with a token of its own. */
function getOf(id: number): Buffer {
  const datagram = Buffer.from([0x44, 0x01, 0, 0, 0x70, 0x73, 0, 0, 0xb4, 0x74, 0x69, 0x6d, 0x65]);
  datagram.writeUInt16BE(id, 2);
  datagram.writeUInt16BE(id, 6);
  return datagram;
}

/** Milliseconds after which a device repeats its request for the first time, and how often it sends it (RFC 7252 section 4.8). */
const repetition = { least: 2000, most: 3000, transmissions: 5 } as const;

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
      received: (association, content) => this.#take(association, content),
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
      const datagram = getOf(id);
      waiting.set(id, datagram);
      this.#dtls.send(association, datagram);
    };
    this.#received = (content) => {
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

  /**
   * Sends one GET of /time, and repeats it as devices do: after 2 to 3 s, and each time after twice as long. Returns how often it
   * was sent until the answer came, or undefined when none came.
   */
  async ask(association: Association, id: number): Promise<number | undefined> {
    const request = getOf(id);
    const { promise, resolve } = Promise.withResolvers<true>();
    this.#received = (content) => {
      if (!content.subarray(4, 8).equals(request.subarray(4, 8))) return;
      // A board that took long sends its response as a message of its own, which wants an acknowledgement.
      if ((content[0]! & 0x30) === 0)
        this.#dtls.send(association, Buffer.from([0x60, 0, content[2]!, content[3]!]));
      resolve(true);
    };
    const { least, most, transmissions } = repetition;
    let wait = least + Math.random() * (most - least);
    for (let sent = 1; sent <= transmissions; sent++, wait *= 2) {
      this.#dtls.send(association, request);
      const over = new AbortController();
      const late = pause(wait, false, { signal: over.signal }).catch(() => false);
      const isAnswered = await Promise.race([promise, late]);
      over.abort();
      if (isAnswered) return sent;
    }
    return undefined;
  }

  #take(association: Association, content: Buffer): void {
    // A ping, by which a gateway finds out whether a device is there, is answered by a Reset.
    if (content.length === 4 && content[0] === 0x40 && content[1] === 0)
      this.#dtls.send(association, Buffer.from([0x70, 0, content[2]!, content[3]!]));
    else this.#received(content);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#again);
    this.#dtls.stop();
    this.#socket.close();
    await once(this.#socket, 'close');
  }
}
