// What leaves an endpoint: each datagram is a message of its own, or it is counted in the account of a peer that is not proven.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { encode, encodeEmpty, Type } from '../../../src/wire/coap/codec.ts';
import { Code, isRequestCode } from '../../../src/wire/coap/codes.ts';
import { endpointDefaults } from '../../../src/wire/coap/endpoint-limits.ts';
import { amplification, type Handler, reply } from '../../../src/wire/coap/message.ts';
import { Observable } from '../../../src/wire/coap/observe.ts';
import { Option, opaque, optionValue, text, uint } from '../../../src/wire/coap/options.ts';
import { remoteKey } from '../../../src/wire/coap/peer.ts';
import { messageOf, nameOf, rig, type Sent, turn } from './wire.ts';

const address = '192.0.2.1';
const remoteOf = (host: string, port = 1) => ({ address: host, port, key: remoteKey(host, port) });
const get = { code: Code.GET, timeout: 1000, options: [] };

/** An endpoint with an observable resource at /gw/status; at /fill, a response takes all the bytes that its peer may get. */
function served() {
  let state = 'online';
  const fill: Handler = ({ allowance, message }) => {
    const free = Math.min(allowance, 1200) - 5 - message.token.length;
    return reply(Code.Content, { payload: Buffer.alloc(Math.max(0, free), 'f') });
  };
  const far = rig((request) => (request.path[0] === 'gw' ? observable.handle(request) : fill(request)));
  const observable: Observable = new Observable(far.endpoint, far.clock, () =>
    reply(Code.Content, { payload: state }),
  );
  const account = { received: 0 };
  const receive = (fields: Parameters<typeof messageOf>[0], from = address) => {
    const datagram = encode(messageOf(fields));
    if (from === address) account.received += datagram.length;
    far.endpoint.receive(datagram, from, 1);
  };
  const observe = async (fields: Parameters<typeof messageOf>[0] = {}, from = address) => {
    const path = ['gw', 'status'].map((segment) => text(Option.UriPath, segment));
    const options = [uint(Option.Observe, 0), ...path, ...(fields.options ?? [])];
    receive({ token: Buffer.from('t'), ...fields, options }, from);
    await turn();
  };
  const become = async (next: string) => {
    state = next;
    observable.changed();
    await turn();
  };
  return { ...far, account, observable, receive, observe, become };
}

/** Bytes of what was sent because of the peer's datagrams. Requests and pings of our own are not. */
const caused = (sent: readonly Sent[], to = address): number =>
  sent
    .filter((one) => one.address === to)
    .filter(({ message }) => message.type !== Type.CON || !isOwn(message.code))
    .reduce((sum, { datagram }) => sum + datagram.length, 0);
const isOwn = (code: number) => code === Code.Empty || isRequestCode(code);

test('in all of the tree, only these files send datagrams', () => {
  const sends = /(?:socket|_sock|parts)\??\.send\(/;
  const found = readdirSync('src', { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts') && sends.test(readFileSync(`src/${file}`, 'utf8')))
    .toSorted();
  assert.deepEqual(found, [
    // The reference device rejects a message by a Reset.
    'device/checked-agent.ts',
    // What the exit of an endpoint gives it.
    'gateway/southbound/coap-network.ts',
    // The gateway asks itself whether it serves.
    'gateway/update/probe.ts',
    'wire/coap/exit.ts',
    // A peer of DTLS has proved that it receives at its address before it gets a flight.
    'wire/secure/dtls/flights.ts',
  ]);
  const exit = readFileSync('src/wire/coap/exit.ts', 'utf8');
  assert.equal(exit.split('parts.send(').length, 2, 'one place of the exit');
});

describe('notifications to a peer that is not proven', () => {
  test('stay within three times its bytes, however often the resource changes, acknowledged or not', async () => {
    for (const isAcknowledged of [true, false]) {
      const { observe, become, sent, receive, account, observable } = served();
      await observe();
      for (let times = 0; times < 100; times++) {
        await become(`state ${times}`);
        const last = sent.at(-1)!.message;
        if (isAcknowledged && last.type === Type.CON)
          receive({ type: Type.ACK, code: Code.Empty, messageId: last.messageId });
        await turn();
        assert.ok(caused(sent) <= amplification * account.received, `${caused(sent)} bytes`);
      }
      assert.equal(observable.size, isAcknowledged ? 0 : 1);
    }
  });

  test('a peer that has used up what it may get is sent nothing, and observes no more', async () => {
    const { observe, become, sent, receive, observable } = served();
    await observe();
    receive({ messageId: 2, options: [text(Option.UriPath, 'fill')] });
    const before = sent.length;
    await become('offline');
    assert.deepEqual([sent.length, observable.size], [before, 0]);
  });

  test('one that is too long is a 4.01 with an Echo, which ends the relation; who returns the Echo gets all', async () => {
    const { observe, become, sent, observable } = served();
    await observe({ payload: Buffer.alloc(10) });
    await become('x'.repeat(400));
    const challenge = sent.at(-1)!.message;
    const echo = optionValue(challenge.options, Option.Echo);
    assert.deepEqual([nameOf(challenge), observable.size], ['CON 4.01', 0]);
    await observe({ messageId: 2, options: [opaque(Option.Echo, echo!)] });
    await become('y'.repeat(400));
    assert.equal(sent.at(-1)!.message.payload.length, 400);
    assert.equal(observable.size, 1);
  });

  test('the account is kept as long as it observes, also when nothing else is known of the peer', async () => {
    const { observe, become, clock, endpoint, sent, observable } = served();
    await observe();
    clock.advance(endpointDefaults.deduplication.lifetime + 2000);
    assert.deepEqual([endpoint.footprint.exchanges, endpoint.footprint.peers], [0, 1]);
    await become('offline');
    assert.equal(nameOf(sent.at(-1)!.message), 'CON 2.05');
    clock.advance(100_000);
    await turn();
    assert.deepEqual([observable.size, endpoint.footprint.peers], [0, 0], 'it did not acknowledge');
  });

  test('no account is kept for an observer that gave way, left, registered again or proved itself', async () => {
    const { observe, clock, endpoint, observable } = served();
    for (let at = 0; at < 1000; at++) await observe({}, `10.${at >> 8}.${at & 255}.1`);
    await observe({ messageId: 2 }, '10.3.231.1');
    endpoint.vouch(remoteOf('10.3.230.1'));
    await observe({ messageId: 2 }, '10.3.230.1');
    clock.advance(endpointDefaults.deduplication.lifetime + 2000);
    assert.equal(endpoint.footprint.peers, observable.size);
    endpoint.stop();
    assert.equal(endpoint.footprint.peers, 0);
  });
});

describe('each datagram that a peer causes is counted', () => {
  const causes: [string, (far: ReturnType<typeof served>, at: number) => void][] = [
    ['Resets of pings', ({ receive }, at) => receive({ code: Code.Empty, messageId: at })],
    ['Resets of unexpected responses', ({ receive }, at) => receive({ code: Code.Content, messageId: at })],
    [
      'Resets of malformed messages',
      ({ endpoint, account }, at) => {
        account.received += 5;
        endpoint.receive(Buffer.from([0x40, Code.GET, at >> 8, at & 255, 0xff]), address, 1);
      },
    ],
    [
      'Resets of responses with a wrong token to a request of our own',
      ({ endpoint, sent, receive }, at) => {
        endpoint.request(address, 1, get).catch(() => {});
        const { messageId } = sent.at(-1)!.message;
        receive({ type: Type.ACK, code: Code.Empty, messageId });
        receive({ code: Code.Content, messageId: at, token: Buffer.from('guess') });
      },
    ],
    [
      'repetitions of a reply',
      ({ receive }) => receive({ messageId: 1, options: [text(Option.UriPath, 'x')] }),
    ],
  ];
  for (const [what, cause] of causes)
    test(what, () => {
      const far = served();
      far.receive({ messageId: 0 });
      for (let at = 1; at <= 12; at++) cause(far, at);
      far.receive({ messageId: 900, options: [text(Option.UriPath, 'fill')] });
      const allowed = amplification * far.account.received;
      const bytes = caused(far.sent);
      assert.ok(bytes <= allowed, `${bytes} bytes for ${far.account.received}`);
      assert.ok(bytes > allowed - 2, 'the last response takes all that is left');
      far.endpoint.stop();
    });

  test('any order of requests, answers, changes and messages of our own', async () => {
    const step = fc.record({
      what: fc.constantFrom('get', 'fill', 'observe', 'ping', 'answer', 'change', 'ask', 'askPing', 'wait'),
      messageId: fc.nat(5),
      size: fc.nat(40),
      isReset: fc.boolean(),
      isSeparate: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const { endpoint, sent, clock, account, receive, observe, become } = served();
        let changes = 0;
        for (const { what, messageId, size, isReset, isSeparate } of steps) {
          const last = sent.at(-1)?.message;
          const payload = Buffer.alloc(size);
          if (what === 'get') receive({ messageId, payload });
          else if (what === 'fill') receive({ messageId, options: [text(Option.UriPath, 'fill')] });
          else if (what === 'observe') await observe({ messageId });
          else if (what === 'ping') receive({ code: Code.Empty, messageId });
          else if (what === 'change') await become(`${++changes}`.repeat(1 + size));
          else if (what === 'ask') endpoint.request(address, 1, get).catch(() => {});
          else if (what === 'askPing') endpoint.ping(address, 1, 1000).catch(() => {});
          else if (what === 'wait') clock.advance(size * 200);
          else if (last && isSeparate)
            receive({ code: Code.Content, messageId, token: Buffer.from('guess') });
          else if (last) {
            account.received += 4;
            const type = isReset ? Type.RST : Type.ACK;
            endpoint.receive(encodeEmpty(type, last.messageId), address, 1);
          }
          await turn();
          const bytes = caused(sent);
          assert.ok(bytes <= amplification * account.received, `${bytes} bytes for ${account.received}`);
        }
        clock.advance(300_000);
        await turn();
        assert.ok(caused(sent) <= amplification * account.received);
        endpoint.stop();
      }),
      { numRuns: 400 },
    );
  });
});

test('who answers a request of our own with its token receives there, and is held to no rule any more', async () => {
  const { endpoint, sent, receive } = served();
  receive({ messageId: 1 });
  const answer = endpoint.request(address, 1, get);
  const { messageId, token } = sent.at(-1)!.message;
  receive({ type: Type.ACK, code: Code.Content, messageId, token });
  assert.equal((await answer).code, Code.Content);
  receive({ messageId: 2, options: [text(Option.UriPath, 'fill')] });
  assert.ok(sent.at(-1)!.datagram.length > 1000);
  endpoint.stop();
});

describe('answers to messages of our own', () => {
  /** An endpoint at which the address has no tokens left. `resets` counts the Resets that it looked at. */
  function busy() {
    const far = rig(() => reply(Code.Content));
    let resets = 0;
    far.endpoint.resetListeners.add(() => resets++);
    for (let port = 1000; port < 1100; port++) far.receive({ messageId: port }, address, port);
    const answer = (count: number) => {
      for (let at = 0; at < count; at++) far.endpoint.receive(encodeEmpty(Type.RST, 60_000 + at), address, 1);
      const seen = resets;
      resets = 0;
      return seen;
    };
    return { ...far, answer };
  }

  test('each transmission allows 4 of them', async () => {
    const { endpoint, answer, clock } = busy();
    assert.equal(answer(10), 0);
    const outcome = endpoint.request(address, 1, { ...get, timeout: 100_000 }).catch(() => {});
    assert.equal(answer(10), 4);
    clock.advance(3000);
    // The bucket of the address has filled up by three conversations meanwhile.
    assert.ok(answer(100) >= 4);
    endpoint.stop();
    await outcome;
  });

  test('one peer is never allowed more than 64 at one time', async () => {
    const { endpoint, answer } = busy();
    const pings = Array.from({ length: 30 }, (_, at) =>
      endpoint.ping(address, 1, 1000 + at).catch(() => false),
    );
    assert.equal(answer(200), 64);
    assert.equal(answer(200), 0);
    endpoint.stop();
    await Promise.all(pings);
  });
});

test('16,384 peers are remembered as proven; the oldest is forgotten, and held to the rule of three again', () => {
  const { endpoint, receive, sent } = rig(() => reply(Code.Content, { payload: 'x'.repeat(900) }));
  const host = (at: number) => `10.${at >> 16}.${(at >> 8) & 255}.${at & 255}`;
  const { provenPeers } = endpointDefaults;
  endpoint.vouch(remoteOf(host(0)));
  receive({ messageId: 1 }, host(0));
  for (let at = 1; at < provenPeers; at++) endpoint.vouch(remoteOf(host(at)));
  assert.deepEqual([endpoint.footprint.provenPeers, endpoint.isProven(remoteOf(host(0)))], [16_384, true]);
  endpoint.vouch(remoteOf(host(provenPeers)));
  assert.deepEqual([endpoint.footprint.provenPeers, endpoint.isProven(remoteOf(host(0)))], [16_384, false]);
  receive({ messageId: 2 }, host(0));
  receive({ messageId: 3 }, host(1));
  assert.deepEqual(
    sent.map(({ message }) => message.payload.length),
    [900, 0, 900],
  );
});
