import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { createServer, type ObserveWriteStream } from 'coap';
import { SystemClock } from '../../../src/base/clock.ts';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { packBlock } from '../../../src/wire/coap/blockwise.ts';
import { type CoapCall, call } from '../../../src/wire/coap/blockwise-client.ts';
import { type CoapMessage, type CoapOption, Type } from '../../../src/wire/coap/codec.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { reply } from '../../../src/wire/coap/message.ts';
import { Observation } from '../../../src/wire/coap/observation.ts';
import { Observable } from '../../../src/wire/coap/observe.ts';
import { hasOption, Option, uint, uintOption } from '../../../src/wire/coap/options.ts';
import { CoapPeer } from '../../peers/coap-peer.ts';
import { hello, nameOf, rig, turn } from './wire.ts';

const token = Buffer.from('the-token').subarray(0, 8);

/** What an observation was told. */
function observer(own: Uint8Array = token) {
  const heard: string[] = [];
  const observation = new Observation({
    token: own,
    notified: ({ payload }) => heard.push(Buffer.from(payload).toString()),
    ended: (answer) => heard.push(`ended ${answer ? nameOf(answer) : ''}`.trim()),
  });
  return { heard, observation };
}

/** An endpoint that observes a resource of peer `a`, which has answered with the number 10. */
async function observing(limits = {}, call1: Partial<CoapCall> = {}, own: Uint8Array = token) {
  const made = rig(hello, limits);
  const { endpoint, sent, receive } = made;
  const { heard, observation } = observer(own);
  const answered = call(endpoint, seededEntropy(1), 'a', 1, {
    method: Code.GET,
    path: ['3303', '0', '5700'],
    timeout: 20_000,
    observation,
    ...call1,
  });
  answered.catch(() => {});
  await turn();
  const asked = sent.splice(0)[0]!.message;
  const respond = (fields: Partial<CoapMessage> = {}) =>
    receive({ type: Type.ACK, code: Code.Content, messageId: asked.messageId, token, ...fields });
  let messageId = 100;
  const notify = (number: number, text: string, fields: Partial<CoapMessage> = {}, from = 'a', port = 1) =>
    receive(
      {
        type: Type.NON,
        code: Code.Content,
        messageId: messageId++,
        token,
        options: [uint(Option.Observe, number)],
        payload: Buffer.from(text),
        ...fields,
      },
      from,
      port,
    );
  return { ...made, heard, observation, answered, asked, respond, notify };
}
const first: Partial<CoapMessage> = { options: [uint(Option.Observe, 10)], payload: Buffer.from('first') };

/** The same, once the peer has answered. */
async function begun(limits = {}) {
  const made = await observing(limits);
  made.respond(first);
  await made.answered;
  made.take();
  return made;
}

describe('an observation (RFC 7641), client side', () => {
  test('asks with Observe 0, and takes the first response and the notifications after it', async () => {
    const { asked, respond, answered, heard, notify, observation, take, endpoint } = await observing();
    assert.equal(uintOption(asked.options, Option.Observe), 0);
    assert.deepEqual(asked.token, token);
    respond(first);
    // Before the caller has its answer.
    notify(11, 'second');
    assert.deepEqual(heard, ['first', 'second']);
    assert.equal((await answered).code, Code.Content);
    assert.equal(observation.isActive, true);
    assert.equal(endpoint.footprint.observations, 1);
    assert.deepEqual(take(), []);
  });

  test('its token may be any octets, and not only a Buffer', async () => {
    const { respond, answered, heard, notify } = await observing({}, {}, Uint8Array.from(token));
    respond(first);
    await answered;
    notify(11, 'second');
    assert.deepEqual(heard, ['first', 'second']);
  });

  test('a confirmable notification is acknowledged, repeated or not, and counts once', async () => {
    const { heard, notify, take } = await begun();
    notify(11, 'x', { type: Type.CON, messageId: 7 });
    notify(11, 'x', { type: Type.CON, messageId: 7 });
    assert.deepEqual(take(), ['ACK 0.00', 'ACK 0.00']);
    assert.deepEqual(heard, ['first', 'x']);
  });

  test('numbers say which is newer, around their end too; an old one is acknowledged and dropped', async () => {
    const { heard, notify, take } = await begun();
    for (const [number, text] of [
      [12, 'newer'],
      [11, 'older'],
      [12, 'the same'],
      [12 + 2 ** 23 - 1, 'just newer'],
      [2 ** 24 - 1, 'newer again'],
      [2, 'around the end'],
      [2 ** 24 - 1, 'before the end'],
    ] as const)
      notify(number, text, { type: Type.CON });
    assert.deepEqual(heard, ['first', 'newer', 'just newer', 'newer again', 'around the end']);
    assert.deepEqual(take(), Array(7).fill('ACK 0.00'));
  });

  test('after 128 s any number is newer', async () => {
    const { heard, notify, clock } = await begun();
    clock.advance(128_000);
    notify(9, 'too early');
    clock.advance(1);
    notify(9, 'late');
    assert.deepEqual(heard, ['first', 'late']);
  });

  test('a response without Observe is only a response', async () => {
    const { heard, observation, respond, answered, notify, take } = await observing();
    respond({ payload: Buffer.from('plain') });
    assert.equal(Buffer.from((await answered).payload).toString(), 'plain');
    assert.equal(observation.isActive, false);
    notify(11, 'x');
    assert.deepEqual(heard, []);
    assert.deepEqual(take(), ['RST 0.00']);
  });

  for (const [what, fields] of [
    ['an error', { code: Code.NotFound, options: [uint(Option.Observe, 12)] }],
    ['a response without Observe', { options: [] }],
  ] as const)
    test(`${what} in place of a notification ends it`, async () => {
      const { heard, observation, notify, take, endpoint } = await begun();
      notify(12, '', { type: Type.CON, ...fields });
      assert.deepEqual(take(), ['ACK 0.00']);
      assert.deepEqual(heard.slice(1), [`ended CON ${fields.code ? '4.04' : '2.05'}`]);
      assert.equal(observation.isActive, false);
      notify(13, 'x');
      assert.deepEqual(take(), ['RST 0.00']);
      assert.equal(endpoint.footprint.observations, 0);
    });

  test('after its end each notification gets a Reset, whether it is confirmable or not', async () => {
    const { observation, notify, take, heard } = await begun();
    observation.end();
    notify(11, 'x');
    notify(12, 'x', { type: Type.CON });
    assert.deepEqual(take(), ['RST 0.00', 'RST 0.00']);
    assert.deepEqual(heard, ['first']);
  });

  test('a notification with an unknown token, or from another address or port, gets a Reset and says nothing', async () => {
    const { heard, notify, take } = await begun();
    notify(11, 'x', { token: Buffer.from('unknown!') });
    notify(11, 'x', {}, 'b');
    notify(11, 'x', { type: Type.CON }, 'a', 2);
    assert.deepEqual(take(), ['RST 0.00', 'RST 0.00', 'RST 0.00']);
    assert.deepEqual(heard, ['first']);
    notify(11, 'true');
    assert.deepEqual(heard, ['first', 'true']);
  });

  test('one with a critical option that is unknown is rejected, and ends it', async () => {
    const { heard, notify, take } = await begun();
    const critical: CoapOption = { number: 9999, value: Buffer.of(1) };
    notify(11, 'x', { options: [uint(Option.Observe, 11), critical] });
    assert.deepEqual(take(), ['RST 0.00']);
    assert.deepEqual(heard, ['first', 'ended']);
  });

  test('two at once have their own notifications', async () => {
    const { endpoint, heard, notify, sent, receive } = await begun();
    const other = observer(Buffer.from('another!'));
    const path = ['3', '0', '9'];
    void call(endpoint, seededEntropy(2), 'a', 1, {
      method: Code.GET,
      path,
      timeout: 1000,
      observation: other.observation,
    });
    await turn();
    const { messageId } = sent.splice(0)[0]!.message;
    receive({ type: Type.ACK, code: Code.Content, messageId, token: other.observation.token, ...first });
    notify(11, 'mine');
    notify(11, 'other', { token: other.observation.token });
    assert.deepEqual(
      [heard, other.heard],
      [
        ['first', 'mine'],
        ['first', 'other'],
      ],
    );
  });

  test('beyond the bound a response is a response, and nothing follows', async () => {
    const { observation, respond, answered, heard, endpoint } = await observing({ observations: 0 });
    respond(first);
    assert.equal(Buffer.from((await answered).payload).toString(), 'first');
    assert.equal(observation.isActive, false);
    assert.deepEqual(heard, []);
    assert.equal(endpoint.footprint.observations, 0);
  });

  test('no peer is kept for non-confirmable notifications, and none for others once their exchange is forgotten', async () => {
    const { endpoint, notify, clock, heard } = await begun();
    clock.advance(300_000);
    assert.equal(endpoint.footprint.peers, 0);
    notify(11, 'x');
    assert.equal(endpoint.footprint.peers, 0);
    notify(12, 'y', { type: Type.CON });
    assert.equal(endpoint.footprint.peers, 1);
    clock.advance(300_000);
    assert.equal(endpoint.footprint.peers, 0);
    assert.deepEqual(heard, ['first', 'x', 'y']);
  });

  test('the end of the endpoint ends it', async () => {
    const { endpoint, heard, observation } = await begun();
    endpoint.stop();
    assert.deepEqual(heard, ['first', 'ended']);
    assert.equal(observation.isActive, false);
  });

  test('a repetition of an acknowledged notification is not the answer to the cancellation with its token', async () => {
    const { endpoint, notify, sent, observation, receive } = await begun();
    notify(11, 'x', { type: Type.CON, messageId: 7 });
    observation.end();
    sent.length = 0;
    const options = [uint(Option.Observe, 1)];
    const cancelled = call(endpoint, seededEntropy(3), 'a', 1, {
      method: Code.GET,
      path: ['x'],
      options,
      token,
      timeout: 9000,
    });
    await turn();
    const [asked] = sent.splice(0);
    assert.deepEqual(asked!.message.token, token);
    notify(11, 'x', { type: Type.CON, messageId: 7 });
    assert.deepEqual(
      sent.splice(0).map(({ message }) => nameOf(message)),
      ['ACK 0.00'],
    );
    receive({
      type: Type.ACK,
      code: Code.Content,
      messageId: asked!.message.messageId,
      token,
      payload: Buffer.from('last'),
    });
    assert.equal(Buffer.from((await cancelled).payload).toString(), 'last');
  });
});

describe('a notification of several blocks', () => {
  const block = (number: number, more: boolean) =>
    uint(Option.Block2, packBlock({ number, more, exponent: 0 }));
  const part = (text: string) => Buffer.from(text.padEnd(16, '.'));

  test('is fetched whole, without Observe, and a FETCH with its body', async () => {
    for (const method of [Code.GET, Code.FETCH]) {
      const payload = method === Code.FETCH ? Buffer.from('paths') : Buffer.alloc(0);
      const { heard, notify, sent, respond, receive, answered } = await observing({}, { method, payload });
      respond({ options: [uint(Option.Observe, 10), block(0, true)], payload: part('one') });
      await answered;
      await turn();
      const answer = async (number: number, text: string) => {
        const { message } = sent.splice(0).find(({ message: { type } }) => type === Type.CON)!;
        assert.equal(hasOption(message.options, Option.Observe), false);
        assert.deepEqual(Buffer.from(message.payload), payload);
        const { messageId, token: own } = message;
        receive({
          type: Type.ACK,
          code: Code.Content,
          messageId,
          token: own,
          options: [block(number, false)],
          payload: Buffer.from(text),
        });
        await turn();
      };
      await answer(1, 'two');
      assert.deepEqual(heard, [`${part('one')}two`]);
      notify(11, '', { options: [uint(Option.Observe, 11), block(0, true)], payload: part('three') });
      await turn();
      await answer(1, 'four');
      assert.deepEqual(heard.slice(1), [`${part('three')}four`]);
    }
  });

  test('is fetched one at a time, however many come', async () => {
    const { heard, notify, sent, receive } = await begun();
    for (let number = 11; number < 60; number++) {
      const options = [uint(Option.Observe, number), block(0, true)];
      notify(number, '', { options, payload: part(`v${number}`) });
      await turn();
    }
    for (const [number, count] of [
      [11, 1],
      [59, 1],
    ] as const) {
      const asked = sent.splice(0).filter(({ message: { type } }) => type === Type.CON);
      assert.equal(asked.length, count, `${number}`);
      const { messageId, token: own } = asked[0]!.message;
      const options = [block(1, false)];
      receive({
        type: Type.ACK,
        code: Code.Content,
        messageId,
        token: own,
        options,
        payload: Buffer.from('.'),
      });
      await turn();
    }
    assert.deepEqual(heard, ['first', `${part('v59')}.`]);
    assert.deepEqual(sent, []);
  });

  test('is given up for a newer one, and ends it when its rest does not come', async () => {
    const { heard, notify, clock } = await begun();
    notify(11, '', { options: [uint(Option.Observe, 11), block(0, true)], payload: part('old') });
    await turn();
    notify(12, 'new');
    clock.advance(100_000);
    await turn();
    assert.deepEqual(heard, ['first', 'new']);
    notify(13, '', { options: [uint(Option.Observe, 13), block(0, true)], payload: part('lost') });
    await turn();
    clock.advance(100_000);
    await turn();
    assert.deepEqual(heard, ['first', 'new', 'ended']);
  });
});

test('two own endpoints: a resource changes, and the end is a Reset', async (t) => {
  await using client = await CoapPeer.open();
  let state = 0;
  let observable: Observable | undefined;
  await using server: CoapPeer = await CoapPeer.open((request) => {
    server.endpoint.vouch(request.remote);
    return observable!.handle(request);
  });
  const clock = new SystemClock();
  observable = new Observable(server.endpoint, clock, () =>
    reply(Code.Content, { payload: `state ${state}` }),
  );
  const changes: (() => void)[] = [];
  const heard: string[] = [];
  const observation = new Observation({
    token,
    notified: ({ payload }) => {
      heard.push(Buffer.from(payload).toString());
      changes.shift()?.();
    },
    ended: () => {},
  });
  const { port } = server.socket.address();
  await client.call(port, { method: Code.GET, path: ['x'], observation });
  const next = () => new Promise<void>((resolve) => changes.push(resolve));
  for (state = 1; state <= 3; state++) {
    const told = next();
    observable.changed();
    await told;
  }
  assert.deepEqual(heard, ['state 0', 'state 1', 'state 2', 'state 3']);
  assert.equal(observable.size, 1);
  observation.end();
  observable.changed();
  while (observable.size > 0) {
    if (t.signal.aborted) assert.fail('the Reset did not arrive');
    await turn();
  }
});

test('a server of the package `coap` is observed', async () => {
  const server = createServer();
  const streams: ObserveWriteStream[] = [];
  server.on('request', (request, response) => {
    assert.equal(request.headers.Observe, 0);
    streams.push(response as unknown as ObserveWriteStream);
    response.write('one');
  });
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  server.listen(socket);
  const { port } = socket.address();
  await using client = await CoapPeer.open();
  const all = Promise.withResolvers<void>();
  const heard: string[] = [];
  const observation = new Observation({
    token,
    notified: ({ payload }) => {
      heard.push(Buffer.from(payload).toString());
      if (heard.length === 1) streams[0]!.write('two');
      if (heard.length === 2) streams[0]!.write('three');
      if (heard.length === 3) all.resolve();
    },
    ended: () => {},
  });
  await client.call(port, { method: Code.GET, path: ['x'], observation });
  await all.promise;
  assert.deepEqual(heard, ['one', 'two', 'three']);
  server.close();
  socket.close();
});
