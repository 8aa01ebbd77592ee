import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { systemEntropy } from '../../../../src/base/entropy.ts';
import { PosternError } from '../../../../src/base/errors.ts';
import { Blockwise } from '../../../../src/wire/coap/blockwise.ts';
import { call } from '../../../../src/wire/coap/blockwise-client.ts';
import {
  type CoapMessage,
  decode,
  encode,
  Malformed,
  noBytes,
  Type,
} from '../../../../src/wire/coap/codec.ts';
import { Code, codeText } from '../../../../src/wire/coap/codes.ts';
import { type Handler, reply } from '../../../../src/wire/coap/message.ts';
import { Observable } from '../../../../src/wire/coap/observe.ts';
import { Option, opaque, optionValue, text, uint, uintOption } from '../../../../src/wire/coap/options.ts';
import { OscoreKeys } from '../../../../src/wire/secure/oscore/keys.ts';
import {
  hasOscore,
  headerOf,
  openResponse,
  protectRequest,
} from '../../../../src/wire/secure/oscore/messages.ts';
import { pivOf, readHeader, sequenceOf, writeHeader } from '../../../../src/wire/secure/oscore/option.ts';
import { reservedBlock } from '../../../../src/wire/secure/oscore/sequence.ts';
import { type Datagram, ofDevice, ofGateway, Party, pair, turn, type Wire } from './party.ts';

const read = (bytes: Buffer): CoapMessage => {
  const message = decode(bytes);
  assert.ok(!(message instanceof Malformed));
  return message;
};
const textOf = (payload: Uint8Array) => Buffer.from(payload).toString();

/** Sends a request from one party to the other, and returns its answer, or the code of the error. */
async function ask(from: Party, to: Party, payload = 'x', options = [text(Option.UriPath, 'secret-path')]) {
  const asked = from.endpoint
    .request(to.address, 5683, { code: Code.POST, options, payload: Buffer.from(payload), timeout: 20_000 })
    .then(
      ({ code, payload: said }) => `${codeText(code)} ${textOf(said)}`,
      (thrown: PosternError) => thrown.code as string,
    );
  await from.wire.settle();
  return await Promise.race([asked, turn().then(() => undefined)]);
}

/** Datagrams that hold a protected message, by their Partial IV and sender. */
const numbersOf = (sent: readonly Datagram[]) =>
  sent.flatMap(({ from, bytes }) => {
    const value = optionValue(read(bytes).options, Option.Oscore);
    const piv = value && readHeader(value)?.piv;
    return piv ? [`${from.address} ${sequenceOf(piv)}`] : [];
  });

describe('requests and responses', () => {
  test('go protected both ways, and the handler hears who asks', async () => {
    const { wire, gateway, device } = pair();
    assert.equal(await ask(device, gateway), '2.05 for device');
    assert.equal(await ask(gateway, device), '2.05 for gateway');
    for (const { bytes } of wire.sent) {
      const { code, options, payload } = read(bytes);
      assert.ok(code === Code.POST || code === Code.Changed);
      assert.deepEqual(
        options.map(({ number }) => number),
        [Option.Oscore.number],
      );
      assert.doesNotMatch(textOf(payload), /secret-path|for device/);
    }
    assert.ok(
      gateway.endpoint.isProven({ address: device.address, port: 5683, key: `${device.address}|5683` }),
    );
  });

  test('a request that is not protected is handled as before', async () => {
    const { wire, gateway } = pair();
    const stranger = new Party(wire, '192.0.2.3', {});
    assert.equal(await ask(stranger, gateway), '2.05 for undefined');
  });

  test('a slow response comes separately, by the nonce of its request, once', async () => {
    const { wire, gateway, device } = pair();
    await ask(device, gateway);
    const { promise, resolve } = Promise.withResolvers<void>();
    gateway.handler = async () => {
      await promise;
      return reply(Code.Content, { payload: 'late' });
    };
    wire.sent.length = 0;
    const answer = ask(device, gateway);
    await answer;
    wire.clock.advance(1500);
    await wire.settle();
    const request = device.endpoint;
    assert.ok(request);
    resolve();
    await wire.settle();
    const separate = wire.sent.find(({ from, bytes }) => from === gateway && read(bytes).type === Type.CON);
    assert.ok(separate);
    assert.equal(headerOf(read(separate.bytes))?.piv, undefined);
  });

  test('an Echo that a resource wants is for the caller', async () => {
    const { wire, gateway, device } = pair();
    await ask(device, gateway);
    let handled = 0;
    gateway.handler = () => {
      handled++;
      return reply(Code.Unauthorized, { options: [opaque(Option.Echo, Buffer.alloc(18))] });
    };
    wire.sent.length = 0;
    assert.equal(await ask(device, gateway), '4.01 ');
    assert.equal(handled, 1);
  });

  test('an error of the handler, and an option that is critical and unknown, are answered under protection', async () => {
    const { wire, gateway, device } = pair();
    gateway.handler = () => {
      throw new PosternError('notFound', 'a secret reason');
    };
    assert.equal(await ask(device, gateway), '4.04 a secret reason');
    gateway.handler = async () => {
      throw new Error('an error of the program');
    };
    assert.equal(await ask(device, gateway), '5.00 ');
    assert.equal(
      await ask(device, gateway, 'x', [opaque({ number: 2049 }, Buffer.of(1))]),
      '4.02 option 2049',
    );
    for (const { bytes } of wire.sent) assert.doesNotMatch(textOf(bytes), /secret|program|option/);
  });

  test('bodies go in blocks inside, both ways', async () => {
    const { wire, gateway, device } = pair();
    const large = 'y'.repeat(5000);
    gateway.handler = new Blockwise(
      ({ payload }) => reply(Code.Content, { payload: `${textOf(payload)}!` }),
      wire.clock,
    ).handle;
    const done = call(device.endpoint, systemEntropy, gateway.address, 5683, {
      method: Code.POST,
      path: ['body'],
      payload: Buffer.from(large),
      timeout: 20_000,
    });
    await wire.settle();
    const { payload } = await done;
    assert.equal(textOf(payload), `${large}!`);
    for (const { bytes } of wire.sent)
      assert.deepEqual(
        read(bytes).options.map(({ number }) => number),
        [9],
      );
  });
});

test('a block without protection from the same address does not get into a protected body', async () => {
  const { wire, gateway, device } = pair();
  await ask(device, gateway);
  const heard: string[] = [];
  gateway.handler = new Blockwise(({ payload }) => {
    heard.push(textOf(payload));
    return reply(Code.Changed);
  }, wire.clock).handle;
  const block = (number: number, more: boolean) => [
    text(Option.UriPath, 'body'),
    uint(Option.Block1, number * 16 + (more ? 8 : 0)),
  ];
  assert.equal(await ask(device, gateway, 'a'.repeat(16), block(0, true)), '2.31 ');
  const forged = { type: Type.NON, code: Code.POST, messageId: 60_000, token: noBytes };
  gateway.endpoint.receive(
    encode({ ...forged, options: block(1, false), payload: Buffer.from('forged') }),
    device.address,
    5683,
  );
  assert.deepEqual(heard, []);
  assert.equal(await ask(device, gateway, 'b', block(1, false)), '2.04 ');
  assert.deepEqual(heard, [`${'a'.repeat(16)}b`]);
});

describe('a proxy', () => {
  /** Sends the content of a request in blocks outside, and fetches its response so. */
  async function byProxy(size: number) {
    const { wire, gateway, device } = pair();
    await ask(device, gateway);
    gateway.handler = ({ payload }) =>
      reply(Code.Content, { payload: `${payload.length} ${'z'.repeat(300)}` });
    const keys = new OscoreKeys(ofDevice);
    const { request, message } = protectRequest(keys, pivOf(5000), {
      code: Code.POST,
      options: [],
      payload: Buffer.alloc(size, 1),
    });
    const proxy = new Party(wire, '192.0.2.9', {});
    const block = 64;
    const send = async (options: CoapMessage['options'], payload: Uint8Array) => {
      const answer = proxy.endpoint.request(gateway.address, 5683, {
        ...message,
        options,
        payload,
        timeout: 20_000,
      });
      await wire.settle();
      return await answer;
    };
    let answer: CoapMessage | undefined;
    for (let at = 0; at < message.payload.length; at += block) {
      const more = at + block < message.payload.length;
      const value = (at / block) * 16 + (more ? 8 : 0) + 2;
      const part = message.payload.subarray(at, at + block);
      answer = await send([...message.options, uint(Option.Block2, 2), uint(Option.Block1, value)], part);
      if (answer.code !== Code.Continue) break;
    }
    assert.ok(answer);
    const parts = [answer.payload];
    for (
      let number = 1;
      answer.code === Code.Changed && (uintOption(answer.options, Option.Block2)! & 8) !== 0;
      number++
    ) {
      answer = await send([...message.options, uint(Option.Block2, number * 16 + 2)], noBytes);
      parts.push(answer.payload);
    }
    return { answer, opened: openResponse(keys, request, { ...answer, payload: Buffer.concat(parts) }) };
  }

  test('may divide a request and its response', async () => {
    const { opened } = await byProxy(1000);
    assert.equal(textOf(opened!.payload), `1000 ${'z'.repeat(300)}`);
  });

  for (const [what, size, expected] of [
    ['may divide what comes to our own request', 2000, `2.05 ${'z'.repeat(2000)}`],
    ['gets no further than the bound of a protected message', 5000, 'tooLarge'],
  ] as const)
    test(what, async () => {
      const { wire, gateway, device } = pair();
      gateway.handler = () => reply(Code.Content, { payload: 'z'.repeat(size) });
      const proxy = new Party(wire, '192.0.2.9', {});
      let parts = 0;
      const forwarded: Handler = async ({ message, payload }) => {
        const { code, options } = message;
        const outgoing = { code, options, payload, timeout: 20_000 };
        return { ...(await proxy.endpoint.request(gateway.address, 5683, outgoing)) };
      };
      const divided = new Blockwise(forwarded, wire.clock);
      proxy.unprotected((request) => {
        parts++;
        return divided.handle(request);
      });
      device.find('gateway', proxy);
      assert.equal(await ask(device, proxy), expected);
      assert.ok(parts > 2, `${parts}`);
    });

  test('may not send more than a protected message holds', async () => {
    const { answer } = await byProxy(5000);
    assert.equal(codeText(answer.code), '4.13');
  });
});

describe('errors', () => {
  /** Sends a message as it is, and returns the answer with its text. */
  async function raw(gateway: Party, wire: Wire, message: Partial<CoapMessage>) {
    const stranger =
      wire.parties.find(({ address }) => address === '192.0.2.3') ?? new Party(wire, '192.0.2.3', {});
    const asked = stranger.endpoint.request(gateway.address, 5683, {
      code: Code.POST,
      options: [],
      timeout: 20_000,
      ...message,
    });
    await wire.settle();
    const { code, options, payload } = await asked;
    assert.equal(uintOption(options, Option.MaxAge), 0, 'nobody keeps the error');
    assert.equal(optionValue(options, Option.Oscore), undefined);
    return `${codeText(code)} ${textOf(payload)}`;
  }
  const oscore = (header: string) => [opaque(Option.Oscore, Buffer.from(header, 'hex'))];

  test('each has its code and text', async () => {
    const { wire, gateway, device } = pair();
    await ask(device, gateway);
    const payload = Buffer.alloc(20);
    assert.equal(await raw(gateway, wire, { options: oscore('20'), payload }), '4.02 Failed to decode COSE');
    assert.equal(await raw(gateway, wire, { options: oscore(''), payload }), '4.02 Failed to decode COSE');
    assert.equal(
      await raw(gateway, wire, { options: oscore('0105'), payload }),
      '4.02 Failed to decode COSE',
    );
    assert.equal(await raw(gateway, wire, { options: oscore('090501') }), '4.02 Failed to decode COSE');
    assert.equal(
      await raw(gateway, wire, { options: oscore('090507'), payload }),
      '4.01 Security context not found',
    );
    assert.equal(
      await raw(gateway, wire, { options: oscore('1905013701'), payload }),
      '4.01 Security context not found',
    );
    assert.equal(
      await raw(gateway, wire, { options: oscore('0a999901'), payload }),
      '4.00 Decryption failed',
    );
    const sent = wire.sent.findLast(({ from }) => from === device)!;
    const { options, payload: sealed } = read(sent.bytes);
    assert.equal(await raw(gateway, wire, { options, payload: sealed }), '4.01 Replay detected');
    assert.equal(gateway.said.filter((name) => name === 'oscore.refused').length, 8);
  });

  test('a request with one changed octet changes nothing, and the right one counts afterwards', async () => {
    const { wire, gateway, device } = pair();
    await ask(device, gateway);
    let handled = 0;
    gateway.handler = () => {
      handled++;
      return reply(Code.Content);
    };
    wire.pass = () => [];
    void ask(device, gateway);
    await wire.settle();
    const { bytes } = wire.sent.at(-1)!;
    wire.pass = (datagram) => (datagram.from === gateway ? [] : [datagram.bytes]);
    const { options, payload } = read(bytes);
    const at = bytes.length - payload.length;
    for (let place = at; place < bytes.length; place++) {
      const changed = Buffer.from(bytes);
      changed[place]! ^= 0x40;
      changed.writeUInt16BE(place, 2);
      gateway.endpoint.receive(changed, device.address, 5683);
    }
    assert.equal(handled, 0);
    assert.ok(options);
    gateway.endpoint.receive(bytes, device.address, 5683);
    assert.equal(handled, 1);
  });

  test('an answer that is not protected, does not verify, or belongs to another request, is dropped, and the right one counts', async () => {
    const answers: ((message: CoapMessage, before: CoapMessage) => Partial<CoapMessage>)[] = [
      () => ({ code: Code.Content, options: [], payload: Buffer.from('forged') }),
      ({ payload }) => ({ payload: payload.map((byte, at) => (at === 3 ? byte ^ 1 : byte)) }),
      (_, { payload, options }) => ({ payload, options }),
      ({ payload }) => ({ type: Type.CON, messageId: 9, payload: payload.subarray(1) }),
      (_, { payload, options }) => ({ type: Type.NON, messageId: 9, payload, options }),
    ];
    for (const [at, change] of answers.entries()) {
      const { wire, gateway, device } = pair();
      await ask(device, gateway);
      const before = read(wire.sent.at(-1)!.bytes);
      wire.pass = ({ from, bytes }) =>
        from === gateway ? [encode({ ...read(bytes), ...change(read(bytes), before) })] : [bytes];
      const answer = device.endpoint.request(gateway.address, 5683, {
        code: Code.POST,
        options: [],
        timeout: 20_000,
      });
      await wire.settle();
      wire.pass = ({ bytes }) => [bytes];
      const sent = wire.sent.length;
      wire.clock.advance(3000);
      assert.equal(wire.sent.length, sent + 1, `${at}: a forged answer acknowledges nothing`);
      await wire.settle();
      assert.equal(textOf((await answer).payload), 'for device', `${at}`);
    }
  });

  test('an error that is not protected ends the request', async () => {
    const { wire, gateway, device } = pair();
    await ask(device, gateway);
    const said = { code: Code.Unauthorized, options: [], payload: Buffer.from('Security context not found') };
    wire.pass = ({ from, bytes }) => (from === gateway ? [encode({ ...read(bytes), ...said })] : [bytes]);
    assert.equal(await ask(device, gateway), 'unavailable');
  });

  test('a replayed datagram reaches no handler, from its address or another one, also after its exchange is forgotten', async () => {
    const { wire, gateway, device } = pair();
    await ask(device, gateway);
    let handled = 0;
    gateway.handler = () => {
      handled++;
      return reply(Code.Content);
    };
    await ask(device, gateway);
    const { bytes } = wire.sent.findLast(({ from }) => from === device)!;
    assert.equal(handled, 1);
    gateway.endpoint.receive(bytes, device.address, 5683);
    gateway.endpoint.receive(bytes, '192.0.2.77', 5683);
    wire.clock.advance(300_000);
    gateway.endpoint.receive(bytes, device.address, 5683);
    assert.equal(handled, 1);
    assert.equal(gateway.contexts.get('device')?.place?.address, device.address);
  });

  test('numbers out of order are taken within 32, each once', async () => {
    const { wire, gateway, device } = pair();
    await ask(device, gateway);
    const heard: number[] = [];
    gateway.handler = ({ payload }) => {
      heard.push(payload[0]!);
      return reply(Code.Content);
    };
    const keys = new OscoreKeys(ofDevice);
    const arrive = (sequence: number, messageId: number) => {
      const plain = { code: Code.POST, options: [], payload: Buffer.of(sequence) };
      const { message } = protectRequest(keys, pivOf(10_000 + sequence), plain);
      gateway.endpoint.receive(
        encode({ ...message, type: Type.NON, messageId, token: noBytes }),
        device.address,
        5683,
      );
    };
    for (const [at, sequence] of [40, 9, 8, 20, 20, 39, 40, 41, 9, 10].entries())
      arrive(sequence, 20_000 + at);
    await wire.settle();
    assert.deepEqual(heard, [40, 9, 20, 39, 41, 10]);
  });
});

describe('a restart', () => {
  test('the first request after it needs an Echo; one from before it is never taken', async () => {
    const { wire, gateway, device } = pair();
    const heard: string[] = [];
    gateway.handler = ({ payload }) => {
      heard.push(textOf(payload));
      return reply(Code.Content);
    };
    await ask(device, gateway, 'one');
    const old = wire.sent.findLast(({ from }) => from === device)!.bytes;
    gateway.start();
    const answers = wire.sent.length;
    gateway.endpoint.receive(old, device.address, 5683);
    await wire.settle();
    const challenge = read(wire.sent[answers]!.bytes);
    assert.ok(headerOf(challenge)?.piv, 'the nonce of the request may have been used');
    assert.deepEqual(heard, ['one']);
    assert.equal(await ask(device, gateway, 'two'), '2.05 ');
    gateway.endpoint.receive(old, device.address, 5683);
    gateway.endpoint.receive(old, '192.0.2.99', 5683);
    await wire.settle();
    assert.deepEqual(heard, ['one', 'two']);
    assert.equal(gateway.said.filter((name) => name === 'oscore.proven').length, 2);
  });

  test('an Echo of another sender, of the run before, or too old, proves nothing', async () => {
    const { wire, gateway, device } = pair();
    const echoes: Uint8Array[] = [];
    const keys = new OscoreKeys(ofDevice);
    let sequence = 70_000;
    let heard = 0;
    gateway.handler = () => {
      heard++;
      return reply(Code.Content);
    };
    const send = async (echo: Uint8Array | undefined, address = device.address) => {
      const options = echo ? [opaque(Option.Echo, echo)] : [];
      const { request, message } = protectRequest(keys, pivOf(++sequence), {
        code: Code.GET,
        options,
        payload: noBytes,
      });
      const before = wire.sent.length;
      gateway.endpoint.receive(
        encode({ ...message, type: Type.CON, messageId: sequence & 0xffff, token: noBytes }),
        address,
        5683,
      );
      await wire.settle();
      const answer = wire.sent[before] && openResponse(keys, request, read(wire.sent[before].bytes));
      const value = answer && optionValue(answer.options, Option.Echo);
      if (value) echoes.push(value);
    };
    await send(undefined);
    await send(echoes[0], '192.0.2.50');
    wire.clock.advance(31_000);
    await send(echoes[0]);
    gateway.start();
    await send(echoes.at(-1));
    assert.equal(heard, 0);
    await send(echoes.at(-1));
    assert.equal(heard, 1);
  });

  test('two requests at once after it are both served, in whatever order they arrive', async () => {
    for (const order of [
      [0, 1],
      [1, 0],
    ]) {
      const { wire, gateway, device } = pair();
      const heard: number[] = [];
      gateway.handler = ({ payload }) => {
        heard.push(payload[0]!);
        return reply(Code.Content);
      };
      const keys = new OscoreKeys(ofDevice);
      const send = async (sequence: number, echo?: Uint8Array) => {
        const options = echo ? [opaque(Option.Echo, echo)] : [];
        const plain = { code: Code.POST, options, payload: Buffer.of(sequence) };
        const { request, message } = protectRequest(keys, pivOf(sequence), plain);
        const before = wire.sent.length;
        const datagram = { ...message, type: Type.CON, messageId: sequence, token: noBytes };
        gateway.endpoint.receive(encode(datagram), device.address, 5683);
        await wire.settle();
        return optionValue(openResponse(keys, request, read(wire.sent[before]!.bytes))!.options, Option.Echo);
      };
      const echoes = [await send(5), await send(6)];
      for (const at of order) await send(7 + at, echoes[at]);
      assert.deepEqual(
        heard,
        order.map((at) => 7 + at),
      );
      await send(7, echoes[0]).catch(() => {});
      assert.equal(heard.length, 2);
    }
  });

  test('no number is used twice: after a power cut the next block begins', async () => {
    const { wire, gateway, device } = pair();
    for (let run = 0; run < 4; run++) {
      for (let count = 0; count < 3; count++) await ask(device, gateway);
      device.start();
      device.find('gateway', gateway);
      gateway.start();
    }
    const numbers = numbersOf(wire.sent);
    assert.equal(new Set(numbers).size, numbers.length);
    assert.ok(numbers.length > 15);
  });

  test('own requests to a place are not protected where another peer has proved to be there since, also after it', async () => {
    const { wire, gateway, device } = pair();
    await ask(device, gateway);
    const remote = { address: device.address, port: 5683, key: `${device.address}|5683` };
    const isProtected = async () => {
      wire.sent.length = 0;
      await ask(gateway, device);
      return hasOscore(read(wire.sent[0]!.bytes));
    };
    assert.equal(await isProtected(), true);
    gateway.endpoint.vouch(remote, 'device');
    assert.equal(await isProtected(), true);
    gateway.endpoint.vouch(remote, 'another device');
    assert.equal(await isProtected(), false);
    gateway.start();
    assert.equal(await isProtected(), false);
    await ask(device, gateway);
    assert.equal(await isProtected(), true);
    gateway.endpoint.vouch({ ...remote, identity: 'device' }, 'device');
    assert.equal(await isProtected(), true);
  });

  test('own requests to a peer are still protected after it', async () => {
    const { wire, gateway, device } = pair();
    await ask(device, gateway);
    gateway.start();
    wire.sent.length = 0;
    assert.equal(await ask(gateway, device), '2.05 for gateway');
    for (const { bytes } of wire.sent) assert.ok(headerOf(read(bytes)));
  });
});

describe('the reservation of numbers', () => {
  test('that fails lets nothing be sent, and nothing is used twice afterwards', async () => {
    const { wire, gateway, device } = pair();
    device.senders.fault = new PosternError('storage', 'the disk is full');
    assert.equal(await ask(device, gateway), 'storage');
    assert.equal(wire.sent.length, 0);
    device.senders.fault = undefined;
    device.senders.settled = () => Promise.reject(new PosternError('storage', 'it is not durable'));
    assert.equal(await ask(device, gateway), 'storage');
    assert.equal(wire.sent.length, 0);
    device.senders.settled = () => Promise.resolve();
    assert.equal(await ask(device, gateway), '2.05 for device');
    const numbers = numbersOf(wire.sent);
    assert.equal(new Set(numbers).size, numbers.length);
  });

  test('of the gateway that fails answers no Echo, and the request is handled by nobody', async () => {
    const { gateway, device } = pair();
    gateway.senders.fault = new PosternError('storage', 'the disk is full');
    let handled = 0;
    gateway.handler = () => {
      handled++;
      return reply(Code.Content);
    };
    assert.equal(await ask(device, gateway), 'unavailable');
    assert.equal(handled, 0);
    gateway.senders.fault = undefined;
    assert.equal(await ask(device, gateway), '2.05 ');
  });

  test('happens once for a block, also for requests at once', async () => {
    const { device } = pair();
    const { sequence } = device.contexts.get('gateway')!;
    const before = device.senders.writes;
    const taken = await Promise.all(Array.from({ length: 2 * reservedBlock }, () => sequence.take()));
    assert.equal(new Set(taken).size, taken.length);
    assert.equal(device.senders.writes - before, 2);
  });

  test('is not lowered by the note of a new place while it is being written', async () => {
    const { gateway, device } = pair();
    const { promise, resolve } = Promise.withResolvers<void>();
    gateway.senders.settled = () => promise;
    const context = gateway.contexts.get('device')!;
    const number = context.sequence.take();
    gateway.find('device', device);
    resolve();
    const used = await number;
    gateway.start();
    assert.ok((await gateway.contexts.get('device')!.sequence.take()) > used);
  });

  test('without a record begins where the clock says', async () => {
    const { wire, gateway } = pair();
    const take = async () => await gateway.contexts.get('device')!.sequence.take();
    const wall = Date.UTC(2026, 10, 29);
    wire.clock.wall = () => wall as never;
    gateway.start();
    const first = await take();
    assert.ok(first > 10 ** 9 && first < 2 ** 40);
    gateway.senders.rows.clear();
    wire.clock.wall = () => (wall + 60_000) as never;
    gateway.start();
    const second = await take();
    assert.equal(second - first, 60 * 256);
    // A clock that goes back takes nothing back while the record is there.
    wire.clock.wall = () => 0 as never;
    gateway.start();
    assert.ok((await take()) > second);
  });

  test('ends at the last number, and nothing is sent from then on', async () => {
    const { wire, gateway, device } = pair();
    const [mark] = [...device.senders.rows.keys()];
    device.senders.rows.set(mark!, { reserved: 2 ** 40 - 1, place: undefined });
    device.start();
    device.find('gateway', gateway);
    wire.pass = ({ bytes, from }) => (from === device ? [bytes] : []);
    void ask(device, gateway);
    await wire.settle();
    const last = wire.sent.length;
    assert.equal(await ask(device, gateway), 'unavailable');
    assert.equal(wire.sent.length, last);
  });
});

describe('Observe', () => {
  /** A gateway with an observable resource, and a device that observes it by hand, since an endpoint does not. */
  async function observing() {
    const { wire, gateway, device } = pair();
    await ask(device, gateway);
    let state = 0;
    const observable = new Observable(gateway.endpoint, wire.clock, () =>
      reply(Code.Content, { payload: `state ${state}` }),
    );
    gateway.handler = observable.handle;
    const keys = new OscoreKeys(ofDevice);
    const { request, message } = protectRequest(keys, pivOf(90_000), {
      code: Code.GET,
      options: [uint(Option.Observe, 0)],
      payload: noBytes,
    });
    wire.sent.length = 0;
    const token = Buffer.of(7);
    const register = encode({ ...message, type: Type.CON, messageId: 77, token });
    wire.pass = ({ bytes, from }) => (from === gateway ? [] : [bytes]);
    gateway.endpoint.receive(register, device.address, 5683);
    await wire.settle();
    const change = async () => {
      state++;
      observable.changed();
      await wire.settle();
    };
    const read1 = ({ bytes }: Datagram) => {
      const arrived = read(bytes);
      const opened = openResponse(keys, request, arrived);
      assert.ok(opened);
      return { text: textOf(opened.payload), piv: sequenceOf(headerOf(arrived)!.piv!), outer: arrived };
    };
    return { wire, gateway, device, observable, change, read: read1, keys, token };
  }

  test('each notification has a number of its own, the first one too', async () => {
    const { wire, change, read: open } = await observing();
    await change();
    await change();
    const all = wire.sent.map(open);
    assert.deepEqual(
      all.map(({ text: said }) => said),
      ['state 0', 'state 1', 'state 2'],
    );
    assert.ok(all[0]!.piv < all[1]!.piv && all[1]!.piv < all[2]!.piv);
    for (const { outer } of all) assert.equal(outer.code, Code.Content);
  });

  test('nobody ends it from the same address without protection, or by a replay', async () => {
    const { gateway, device, observable, wire, token } = await observing();
    gateway.endpoint.receive(
      encode({
        type: Type.NON,
        code: Code.GET,
        messageId: 78,
        token,
        options: [uint(Option.Observe, 1)],
        payload: noBytes,
      }),
      device.address,
      5683,
    );
    await wire.settle();
    assert.equal(observable.size, 1);
  });

  test('a notification that cannot be protected is not sent, and ends it', async () => {
    const { gateway, observable, wire, change } = await observing();
    gateway.contexts.remove('device');
    const before = wire.sent.length;
    await change();
    assert.equal(wire.sent.length, before);
    assert.equal(observable.size, 0);
  });
});

describe('contexts', () => {
  const { contexts } = pair().gateway;

  test('that would share a nonce, or could not be told apart, are refused', () => {
    const secret = Buffer.from('another master secret');
    const other = { masterSecret: secret, senderId: Buffer.of(2), recipientId: Buffer.of(9) };
    assert.match(contexts.add('x', { ...other, recipientId: Buffer.of(2) }) ?? '', /sender ID/);
    assert.match(
      contexts.add('x', { ...ofGateway, recipientId: Buffer.of(9) }) ?? '',
      /device has the same secret/,
    );
    assert.match(contexts.add('x', { ...other, recipientId: Buffer.of(1) }) ?? '', /same recipient ID/);
    assert.equal(contexts.size, 1);
    assert.equal(
      contexts.add('x', { ...other, recipientId: Buffer.of(1), idContext: Buffer.of(5) }),
      undefined,
    );
    assert.equal(contexts.find(Buffer.of(1), Buffer.of(5))?.name, 'x');
    assert.equal(contexts.find(Buffer.of(1), Buffer.of(6)), undefined);
    assert.equal(contexts.find(Buffer.of(1), undefined)?.name, 'device');
  });

  test('a peer may leave its ID Context out where its ID is the only one', () => {
    const parameters = {
      masterSecret: Buffer.from('one more master secret'),
      senderId: Buffer.of(3),
      recipientId: Buffer.of(44),
      idContext: Buffer.of(1),
    };
    assert.equal(contexts.add('y', parameters), undefined);
    assert.equal(contexts.find(Buffer.of(44), undefined)?.name, 'y');
    assert.equal(contexts.add('z', { ...parameters, idContext: Buffer.of(2) }), undefined);
    assert.equal(contexts.find(Buffer.of(44), undefined), undefined);
    contexts.remove('z');
    assert.equal(contexts.find(Buffer.of(44), undefined)?.name, 'y');
  });

  test('a response that comes after its context was taken away says nothing', async () => {
    const { wire, gateway, device } = pair();
    await ask(device, gateway);
    const { promise, resolve } = Promise.withResolvers<void>();
    gateway.handler = async () => {
      await promise;
      return reply(Code.Content, { payload: 'a secret' });
    };
    const answer = ask(device, gateway);
    await answer;
    gateway.contexts.remove('device');
    wire.sent.length = 0;
    resolve();
    await wire.settle();
    const [said] = wire.sent;
    assert.ok(said && !hasOscore(read(said.bytes)));
    assert.doesNotMatch(textOf(said.bytes), /secret/);
  });

  test('a response that was asked for before a peer left is still protected; nothing else is', async () => {
    const { wire, gateway, device } = pair();
    await ask(device, gateway);
    const { promise, resolve } = Promise.withResolvers<void>();
    gateway.handler = async () => {
      await promise;
      return reply(Code.Content, { payload: 'goodbye' });
    };
    const answer = ask(device, gateway);
    await wire.settle();
    gateway.contexts.remove('device', true);
    wire.sent.length = 0;
    resolve();
    await answer;
    await wire.settle();
    assert.ok(wire.sent.some(({ bytes }) => hasOscore(read(bytes))));
    assert.equal(await ask(device, gateway), 'unavailable');
  });

  test('a request for one party alone is sent through a context of this party alone', async () => {
    const { wire, gateway, device } = pair();
    await ask(device, gateway);
    const askFor = (party: string) =>
      gateway.endpoint.request(device.address, 5683, { code: Code.GET, options: [], timeout: 1000, party });
    const sent = wire.sent.length;
    await assert.rejects(askFor('another'), { code: 'unavailable' });
    gateway.contexts.remove('device');
    await assert.rejects(askFor('device'), { code: 'unavailable' });
    assert.equal(wire.sent.length, sent);
  });

  test('one that was taken away opens nothing, and requests to its peer are not protected by it', async () => {
    const { gateway, device } = pair();
    await ask(device, gateway);
    gateway.contexts.remove('device');
    assert.equal(await ask(device, gateway), 'unavailable');
    assert.equal(gateway.contexts.at({ address: device.address, port: 5683 }), undefined);
  });
});

test('a context that was taken away and comes back takes no request again, nor the Echo of the request', async () => {
  const { wire, gateway, device } = pair();
  const heard: string[] = [];
  gateway.handler = ({ payload }) => {
    heard.push(textOf(payload));
    return reply(Code.Content);
  };
  gateway.start();
  await ask(device, gateway, 'with an Echo');
  const old = wire.sent.findLast(({ from }) => from === device)!.bytes;
  const { name, parameters } = gateway.contexts.get('device')!;
  gateway.contexts.remove(name);
  gateway.contexts.add(name, parameters);
  // Another message ID, as the message layer is not protected.
  old.writeUInt16BE(old.readUInt16BE(2) ^ 0x5555, 2);
  gateway.endpoint.receive(old, device.address, 5683);
  await wire.settle();
  assert.deepEqual(heard, ['with an Echo']);
  assert.equal(await ask(device, gateway, 'later'), '2.05 ');
});

test('what a multicast brings is not opened', async () => {
  const { wire, gateway, device } = pair();
  const header = writeHeader({ piv: pivOf(1), kid: Buffer.of(1) });
  gateway.endpoint.receive(
    encode({
      type: Type.NON,
      code: Code.GET,
      messageId: 3,
      token: noBytes,
      options: [opaque(Option.Oscore, header)],
      payload: Buffer.alloc(20),
    }),
    device.address,
    5683,
    true,
  );
  wire.clock.advance(10_000);
  await wire.settle();
  assert.deepEqual(wire.sent, []);
});
