import assert from 'node:assert/strict';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { SystemClock } from '../../src/base/clock.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import { CoapStack } from '../../src/device/coap-stack.ts';
import { ProtectedDatagrams, VolatileSenders } from '../../src/device/protected-datagrams.ts';
import { Blockwise } from '../../src/wire/coap/blockwise.ts';
import { call } from '../../src/wire/coap/blockwise-client.ts';
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
class Rig {
  readonly #t: TestContext;
  readonly events = new EventRecorder();
  readonly #senders = new MemorySenders();
  handler: Handler = () => reply(Code.Content);
  /** What becomes of each datagram that arrives at the gateway or leaves it. By default it passes. */
  passes: (datagram: Buffer, isOutward: boolean) => boolean = () => true;
  endpoint!: CoapEndpoint;
  contexts!: OscoreContexts;
  #socket!: Socket;
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
      if (this.passes(datagram, true)) this.endpoint.receive(datagram, address, port);
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
    this.contexts = new OscoreContexts({ clock, events: this.events, store: this.#senders });
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

const limit = { timeout: 60_000 };

test(
  'bodies of any size go both ways, and the memory of the gateway is lost at each place of an upload',
  limit,
  async (t) => {
    const rig = await new Rig(t).open();
    rig.handler = ({ payload }) => reply(Code.Content, { payload: `${payload.length} ${'z'.repeat(3000)}` });
    const body = 'b'.repeat(2000);
    const expected = `2.05 2000 ${'z'.repeat(3000)}`;
    assert.equal(await rig.ask(body), expected);
    // The gateway forgets the blocks before, and says so; the device begins anew, as it does without OSCORE.
    for (let place = 1; place <= 3; place++) {
      let count = 0;
      rig.passes = (_, isOutward) => {
        if (isOutward && ++count === place) rig.start();
        return true;
      };
      const first = await rig.ask(body);
      rig.passes = () => true;
      assert.ok(first === expected || first.startsWith('4.08'), first.slice(0, 40));
      assert.equal(await rig.ask(body), expected, 'the next one succeeds');
    }
  },
);

test(
  'a lost request, a lost response and a doubled datagram are as without OSCORE: each request is handled once',
  limit,
  async (t) => {
    const rig = await new Rig(t).open();
    const heard: string[] = [];
    rig.handler = ({ payload }) => {
      heard.push(Buffer.from(payload).toString());
      return reply(Code.Content, { payload: `to ${Buffer.from(payload)}` });
    };
    assert.equal(await rig.ask('first'), '2.05 to first');
    for (const lost of [true, false]) {
      let isLost = false;
      rig.passes = (_, isOutward) => {
        if (isLost || isOutward !== lost) return true;
        isLost = true;
        return false;
      };
      assert.equal(await rig.ask(`lost ${lost}`), `2.05 to lost ${lost}`);
    }
    rig.passes = (datagram, isOutward) => {
      if (isOutward) setImmediate(() => rig.endpoint.receive(datagram, '127.0.0.1', 9));
      return true;
    };
    assert.equal(await rig.ask('doubled'), '2.05 to doubled');
    assert.deepEqual(heard, ['first', 'lost true', 'lost false', 'doubled']);
  },
);

test(
  'a request of the gateway reaches the device protected, also when the gateway begins and the device knows nothing',
  limit,
  async (t) => {
    const rig = await new Rig(t).open();
    await rig.ask('where the device is');
    const { address, port } = rig.contexts.get('device')!.place!;
    rig.start();
    const send = (path: string, payload: Uint8Array) =>
      call(rig.endpoint, systemEntropy, address, port, {
        method: Code.POST,
        path: [path],
        payload,
        timeout: 20_000,
      });
    const { code, payload } = await send('one', Buffer.from('short'));
    assert.deepEqual([code, Buffer.from(payload).toString()], [Code.Changed, 'short']);
    // The first is lost on its way back, and its repetition is answered without being handled again.
    let isLost = false;
    rig.passes = (_, isOutward) => {
      if (isLost || !isOutward) return true;
      isLost = true;
      return false;
    };
    await send('two', Buffer.from('again'));
    assert.deepEqual(rig.answered, ['/one', '/two']);
  },
);

test('what is not protected is not served by the device, and not believed', limit, async (t) => {
  const rig = await new Rig(t).open();
  await rig.ask('where the device is');
  const { address, port } = rig.contexts.get('device')!.place!;
  rig.contexts.remove('device');
  await assert.rejects(rig.endpoint.request(address, port, { code: Code.POST, options: [], timeout: 300 }), {
    code: 'timeout',
  });
  assert.deepEqual(rig.answered, []);
  assert.equal((await rig.ask('now')).slice(0, 4), '0.00');
  await rig.events.until('oscore.unanswered');
});
