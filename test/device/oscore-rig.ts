import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { TestContext } from 'node:test';
import { SystemClock } from '../../src/base/clock.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import { CoapStack } from '../../src/device/coap-stack.ts';
import { ProtectedDatagrams, VolatileSenders } from '../../src/device/protected-datagrams.ts';
import { Blockwise } from '../../src/wire/coap/blockwise.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { CoapEndpoint } from '../../src/wire/coap/endpoint.ts';
import { type Handler, reply } from '../../src/wire/coap/message.ts';
import { OscoreContexts } from '../../src/wire/secure/oscore/contexts.ts';
import { Oscore } from '../../src/wire/secure/oscore/protection.ts';
import { EventRecorder } from '../event-recorder.ts';
import { MemorySenders, ofDevice, ofGateway } from '../wire/secure/oscore/party.ts';

const clock = new SystemClock((thrown) => {
  throw thrown;
});

/** A gateway's endpoint on a real socket, which can lose its memory, and a device's stack with the package `coap`. */
export class OscoreRig {
  readonly #t: TestContext;
  readonly events = new EventRecorder();
  readonly senders = new MemorySenders();
  handler: Handler = () => reply(Code.Content);
  /** What becomes of each datagram that arrives at the gateway or leaves it. By default it passes. */
  passes: (datagram: Buffer, isOutward: boolean) => boolean = () => true;
  endpoint!: CoapEndpoint;
  contexts!: OscoreContexts;
  #socket!: Socket;
  /** Where the device sent its last datagram from. */
  #device = { address: '', port: 0 };
  readonly answered: string[] = [];
  stack!: CoapStack;

  constructor(t: TestContext) {
    this.#t = t;
  }

  get base(): string {
    return `coap://127.0.0.1:${this.#socket.address().port}`;
  }

  async open(): Promise<this> {
    const socket = createSocket('udp4').bind(0, '127.0.0.1');
    this.#socket = socket;
    await once(socket, 'listening');
    socket.on('message', (datagram, { address, port }) => {
      this.#device = { address, port };
      if (this.passes(datagram, true)) this.toGateway(datagram);
    });
    this.start();
    const protection = new ProtectedDatagrams({
      clock,
      events: this.events,
      contextFor: () => ({ name: 'gateway', identity: '', parameters: ofDevice }),
      senders: new VolatileSenders(),
    });
    const answering = ({ url, payload }: { url: string; payload: Uint8Array }) => {
      this.answered.push(url);
      return { code: '2.04', payload };
    };
    this.stack = new CoapStack(clock, '127.0.0.1', answering, this.events, protection);
    await this.stack.open();
    this.#t.after(async () => {
      await this.stack[Symbol.asyncDispose]();
      this.endpoint.stop();
      socket.close();
    });
    return this;
  }

  /** A run of the gateway. What only the memory of the run before held is gone. */
  start(): void {
    this.endpoint?.stop();
    this.contexts = new OscoreContexts({ clock, events: this.events, store: this.senders });
    this.contexts.add('device', ofGateway);
    const blocks = new Blockwise((request) => this.handler(request), clock);
    this.endpoint = new CoapEndpoint({
      clock,
      entropy: systemEntropy,
      events: this.events,
      handler: blocks.handle,
      protection: new Oscore({ contexts: this.contexts, clock, entropy: systemEntropy, events: this.events }),
      send: (datagram, port, address) => {
        if (this.passes(datagram, false)) this.#socket.send(datagram, port, address);
      },
    });
  }

  /** Sends a datagram to the device from where the gateway is. */
  toDevice(datagram: Buffer): void {
    this.#socket.send(datagram, this.#device.port, this.#device.address);
  }

  /** Lets a datagram arrive at the gateway as from the device. */
  toGateway(datagram: Buffer): void {
    this.endpoint.receive(datagram, this.#device.address, this.#device.port);
  }

  async ask(payload: string) {
    const answer = await this.stack.request({
      method: 'POST',
      base: this.base,
      path: '/x',
      payload: Buffer.from(payload),
      timeout: 30_000,
    });
    return `${answer.code} ${Buffer.from(answer.payload).toString()}`;
  }
}
