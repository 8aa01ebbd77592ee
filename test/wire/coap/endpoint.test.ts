import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Blockwise } from '../../../src/wire/coap/blockwise.ts';
import { noBytes, Type } from '../../../src/wire/coap/codec.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { deduplicationDefaults } from '../../../src/wire/coap/deduplication.ts';
import { endpointDefaults } from '../../../src/wire/coap/endpoint-limits.ts';
import { refusal, reply } from '../../../src/wire/coap/message.ts';
import { Option, text, uint } from '../../../src/wire/coap/options.ts';
import { HandClock } from '../../hand-clock.ts';
import { hello, messageOf, rig, turn } from './wire.ts';

const get = { code: Code.GET, timeout: 100_000, options: [] };

const nothing = {
  peers: 0,
  exchanges: 0,
  replyBytes: 0,
  pendingRequests: 0,
  observations: 0,
  working: 0,
  separateResponses: 0,
  multicastResponses: 0,
  provenPeers: 0,
};

describe('incoming requests', () => {
  test('a CON is answered on its ACK with its message ID, a NON by a NON; both have the token of the request', () => {
    const { receive, sent } = rig(hello);
    receive({ messageId: 7, token: Buffer.from('ab') });
    receive({ type: Type.NON, messageId: 8, token: Buffer.from('cd') });
    const [ack, non] = sent.map(({ message }) => message);
    assert.deepEqual(
      [ack?.type, ack?.messageId, String(ack?.token), String(ack?.payload)],
      [Type.ACK, 7, 'ab', 'hello'],
    );
    assert.deepEqual([non?.type, String(non?.token)], [Type.NON, 'cd']);
  });

  test('a repeated CON gets the same datagram, and its handler runs once', () => {
    let calls = 0;
    const { receive, sent } = rig(() => reply(Code.Content, { payload: String(++calls) }));
    for (let i = 0; i < 3; i++) receive({ messageId: 7 });
    receive({ messageId: 7 }, 'b');
    assert.equal(calls, 2, 'another peer may use the same message ID');
    assert.deepEqual(sent[0]?.datagram, sent[2]?.datagram);
  });

  test('after EXCHANGE_LIFETIME nothing about a message is kept', () => {
    const { receive, clock, endpoint } = rig(hello);
    receive({ messageId: 7 });
    clock.advance(deduplicationDefaults.lifetime - 1);
    assert.equal(endpoint.footprint.exchanges, 1);
    clock.advance(2000);
    assert.deepEqual(endpoint.footprint, nothing);
    assert.equal(clock.timers, 0);
  });

  test('a slow response is sent separately, and again until it is acknowledged', async () => {
    const slow = Promise.withResolvers<ReturnType<typeof reply>>();
    const { receive, clock, sent, take } = rig(() => slow.promise);
    receive({ messageId: 7, token: Buffer.from('t') });
    assert.deepEqual(take(), []);
    clock.advance(endpointDefaults.piggybackWithin);
    assert.deepEqual(take(), ['ACK 0.00']);
    receive({ messageId: 7, token: Buffer.from('t') });
    assert.deepEqual(take(), ['ACK 0.00'], 'the repeated request is acknowledged again');
    slow.resolve(reply(Code.Content, { payload: 'late' }));
    await turn();
    const separate = sent[0]!.message;
    assert.deepEqual([separate.type, separate.code, String(separate.token)], [Type.CON, Code.Content, 't']);
    clock.advance(3000);
    assert.deepEqual(take(), ['CON 2.05', 'CON 2.05']);
    receive({ type: Type.ACK, code: Code.Empty, messageId: separate.messageId });
    clock.advance(100_000);
    assert.deepEqual(take(), []);
  });

  test('an unknown critical option: 4.02 for a CON, silence for a NON; an elective one is ignored', () => {
    const { receive, take } = rig(hello);
    const odd = [{ number: 9, value: noBytes }];
    receive({ messageId: 1, options: odd });
    receive({ messageId: 2, type: Type.NON, options: odd });
    receive({ messageId: 3, options: [{ number: 10, value: noBytes }] });
    assert.deepEqual(take(), ['ACK 4.02', 'ACK 2.05']);
  });

  test('a critical option that is too long or repeated is 4.02', () => {
    const { receive, take } = rig(hello);
    receive({ messageId: 1, options: [text(Option.UriHost, 'x'.repeat(256))] });
    receive({ messageId: 2, options: [uint(Option.Accept, 1), uint(Option.Accept, 2)] });
    assert.deepEqual(take(), ['ACK 4.02', 'ACK 4.02']);
  });

  test('a handler that throws an unknown error is 5.00 without a diagnostic payload', () => {
    const { receive, sent } = rig(() => {
      throw new Error('inner workings');
    });
    receive({});
    assert.deepEqual([sent[0]?.message.code, sent[0]?.message.payload.length], [Code.InternalServerError, 0]);
  });

  test('beyond the bound of concurrent requests: 5.03 with Max-Age', () => {
    const { receive, sent } = rig(() => new Promise(() => {}), { concurrentRequests: 1 });
    receive({ messageId: 1 });
    receive({ messageId: 2 });
    assert.deepEqual(
      [sent[0]?.message.code, sent[0]?.message.options[0]?.number],
      [Code.ServiceUnavailable, Option.MaxAge.number],
    );
  });
});

describe('messages that are not requests', () => {
  test('a ping and a malformed CON get a Reset, a malformed NON gets nothing', () => {
    const { receive, take, endpoint } = rig(hello);
    receive({ code: Code.Empty, messageId: 9 });
    endpoint.receive(Buffer.from('49010001010203040506070809', 'hex'), 'a', 1);
    endpoint.receive(Buffer.from('59010001010203040506070809', 'hex'), 'a', 1);
    assert.deepEqual(take(), ['RST 0.00', 'RST 0.00']);
  });

  test('an unexpected response gets a Reset if it is a CON, and leaves no state', () => {
    const { receive, take, endpoint } = rig(hello);
    receive({ code: Code.Content });
    receive({ code: Code.Content, type: Type.NON, messageId: 2 });
    receive({ code: Code.Content, type: Type.ACK, messageId: 3 });
    assert.deepEqual(take(), ['RST 0.00']);
    assert.equal(endpoint.footprint.peers, 0);
  });

  test('any octets cause at most one answer and one exchange, and no exception', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), fc.boolean(), (octets, multicast) => {
        const { endpoint, sent } = rig(() => refusal(Code.NotFound, ''));
        endpoint.receive(Buffer.from(octets), 'a', 1, multicast);
        assert.ok(sent.length <= 1);
        assert.ok(endpoint.footprint.exchanges <= 1);
      }),
      { numRuns: 2000 },
    );
  });

  test('malformed datagrams from 10,000 addresses leave no state', () => {
    const { endpoint } = rig(hello);
    for (let i = 0; i < 10_000; i++) endpoint.receive(Buffer.from([0x40, 0x01, i >> 8, i, 0xff]), `h${i}`, i);
    assert.deepEqual(endpoint.footprint, nothing);
  });
});

describe('multicast (section 8)', () => {
  const leisure = 5000;

  test('a response is sent as a NON within the leisure; an error and a request as CON get none', () => {
    const { receive, clock, take } = rig(({ path }) =>
      path.length > 0 ? refusal(Code.NotFound, '') : reply(Code.Content),
    );
    receive({ type: Type.NON, messageId: 1 }, 'a', 1, true);
    receive({ type: Type.NON, messageId: 2, options: [text(Option.UriPath, 'x')] }, 'a', 1, true);
    receive({ type: Type.CON, messageId: 3 }, 'a', 1, true);
    assert.deepEqual(take(), []);
    clock.advance(leisure);
    assert.deepEqual(take(), ['NON 2.05']);
  });

  test('an unknown critical option, a malformed datagram or a ping to the group gets nothing', () => {
    const { receive, clock, endpoint, take } = rig(hello);
    receive({ type: Type.NON, options: [{ number: 9, value: noBytes }] }, 'a', 1, true);
    receive({ code: Code.Empty }, 'a', 1, true);
    endpoint.receive(Buffer.from('4f010001', 'hex'), 'a', 1, true);
    clock.advance(leisure);
    assert.deepEqual(take(), []);
  });
});

describe('bounds of deduplication', () => {
  const limits = { lifetime: 247_000, entries: 10, entriesPerPeer: 4, bytes: 200 };

  test('exchanges of one peer and of all peers', () => {
    const { receive, endpoint } = rig(() => reply(Code.Valid), { deduplication: limits });
    for (let messageId = 0; messageId < 20; messageId++) receive({ messageId });
    assert.equal(endpoint.footprint.exchanges, 4);
    for (let peer = 0; peer < 50; peer++) receive({}, `p${peer}`);
    assert.deepEqual([endpoint.footprint.exchanges, endpoint.footprint.peers], [5, 5], 'strangers have half');
    for (let peer = 0; peer < 50; peer++) {
      endpoint.vouch({ address: `q${peer}`, port: 1, key: `q${peer}|1` });
      receive({}, `q${peer}`);
    }
    assert.deepEqual([endpoint.footprint.exchanges, endpoint.footprint.peers], [15, 15]);
  });

  test('bytes of kept replies', () => {
    const { receive, endpoint } = rig(() => reply(Code.Content, { payload: 'x'.repeat(90) }), {
      deduplication: limits,
    });
    for (let peer = 0; peer < 50; peer++) receive({}, `p${peer}`);
    assert.ok(endpoint.footprint.replyBytes <= 200, `${endpoint.footprint.replyBytes}`);
  });
});

describe('outgoing requests', () => {
  test('3000 requests to a peer have different message IDs, although the peer is forgotten after each response', async () => {
    const { endpoint, receive, sent } = rig(hello);
    const seen = new Set<number>();
    for (let i = 0; i < 3000; i++) {
      const outcome = endpoint.request('a', 1, get);
      const { messageId, token } = sent.pop()!.message;
      assert.ok(!seen.has(messageId), `${messageId} after ${seen.size}`);
      seen.add(messageId);
      receive({ type: Type.ACK, code: Code.Content, messageId, token });
      await outcome;
      assert.equal(endpoint.footprint.peers, 0);
    }
    endpoint.stop();
  });

  test('the time between retransmissions is random at first and then doubles; after MAX_RETRANSMIT the request fails', async () => {
    const { clock, endpoint, sent } = rig(hello);
    const times: number[] = [];
    const outcome = endpoint.request('a', 1, get);
    outcome.catch(() => {});
    let seen = 0;
    for (let elapsed = 0; elapsed <= 100_000; elapsed += 10, clock.advance(10))
      if (sent.length > seen) {
        seen = sent.length;
        times.push(elapsed);
      }
    assert.equal(times.length, 5);
    const first = times[1]! - times[0]!;
    assert.ok(first >= 2000 && first <= 3020, `${first}`);
    for (let i = 2; i < times.length; i++)
      assert.ok(Math.abs((times[i]! - times[i - 1]!) / (times[i - 1]! - times[i - 2]!) - 2) < 0.02);
    await assert.rejects(outcome, { code: 'timeout' });
    assert.equal(endpoint.footprint.peers, 0);
  });

  test('a piggybacked response, a separate response that is repeated, and a Reset', async () => {
    const { endpoint, receive, sent, take } = rig(hello);
    const one = endpoint.request('a', 1, get);
    const { messageId, token } = sent[0]!.message;
    receive({ type: Type.ACK, code: Code.Content, messageId, token });
    assert.equal((await one).code, Code.Content);
    take();
    const two = endpoint.request('a', 1, get);
    const second = sent[0]!.message;
    receive({ type: Type.ACK, code: Code.Empty, messageId: second.messageId });
    assert.equal(endpoint.footprint.peers, 1, 'the peer is kept while a response is awaited');
    take();
    for (let i = 0; i < 2; i++) receive({ code: Code.Changed, messageId: 99, token: second.token });
    assert.equal((await two).code, Code.Changed);
    assert.deepEqual(take(), ['ACK 0.00', 'ACK 0.00']);
    const three = endpoint.request('a', 1, get);
    receive({ type: Type.RST, code: Code.Empty, messageId: sent[0]!.message.messageId });
    await assert.rejects(three, { code: 'unavailable' });
  });

  test('a response from another address or with another token is ignored', async () => {
    const { endpoint, receive, sent, clock } = rig(hello);
    const outcome = endpoint.request('a', 1, { ...get, timeout: 1000 });
    outcome.catch(() => {});
    const { messageId, token } = sent[0]!.message;
    receive({ type: Type.ACK, code: Code.Content, messageId, token }, 'evil');
    receive({ code: Code.Content, messageId: 5, token: Buffer.from('guess') });
    clock.advance(1000);
    await assert.rejects(outcome, { code: 'timeout' });
  });

  test('one request at a time is on the wire to a peer (NSTART), and the waiting ones have a bound', async () => {
    const { endpoint, sent, receive } = rig(hello);
    const outcomes = Array.from({ length: 20 }, () => endpoint.request('a', 1, get));
    for (const outcome of outcomes) outcome.catch(() => {});
    assert.equal(sent.length, 1);
    await assert.rejects(outcomes[19]!, { code: 'full' });
    const { messageId, token } = sent[0]!.message;
    receive({ type: Type.ACK, code: Code.Content, messageId, token });
    assert.equal(sent.length, 2);
    endpoint.request('b', 1, get).catch(() => {});
    assert.equal(sent.length, 3, 'a request to another peer does not wait');
    endpoint.stop();
  });

  test('a request that is cancelled by its signal, or by a stop of the endpoint, is rejected and leaves no state', async () => {
    const { endpoint, clock } = rig(hello);
    const cancel = new AbortController();
    const one = endpoint.request('a', 1, { ...get, signal: cancel.signal });
    cancel.abort();
    await assert.rejects(one, { code: 'unavailable' });
    assert.equal(endpoint.footprint.pendingRequests, 0);
    const two = endpoint.request('a', 1, get);
    endpoint.stop();
    await assert.rejects(two, { code: 'unavailable' });
    assert.equal(clock.timers, 0);
    await assert.rejects(endpoint.request('a', 1, get), { code: 'unavailable' });
  });

  test('a stopped endpoint sends nothing: neither the ACK of a request in work, nor a ping, nor a notification', async () => {
    const slow = Promise.withResolvers<ReturnType<typeof reply>>();
    const { endpoint, receive, sent, clock } = rig(() => slow.promise);
    receive({ messageId: 7 });
    endpoint.stop();
    const remote = { address: 'a', port: 1, key: 'a:1' };
    const fates = [true, false].map(
      (confirmable) => endpoint.notify(remote, noBytes, reply(Code.Content), confirmable).fate,
    );
    await assert.rejects(endpoint.ping('a', 1, 1000), { code: 'unavailable' });
    assert.equal((await Promise.all(fates))[0], 'lost');
    clock.advance(1_000_000);
    slow.resolve(reply(Code.Content));
    await turn();
    assert.deepEqual(sent, []);
    assert.equal(clock.timers, 0);
  });

  test('a ping is true after a Reset, and false after its timeout', async () => {
    const { endpoint, sent, receive, clock } = rig(hello);
    const alive = endpoint.ping('a', 1, 2000);
    assert.deepEqual([sent[0]?.message.type, sent[0]?.message.code], [Type.CON, Code.Empty]);
    receive({ type: Type.RST, code: Code.Empty, messageId: sent[0]!.message.messageId });
    assert.equal(await alive, true);
    const silent = endpoint.ping('a', 1, 2000);
    clock.advance(2000);
    assert.equal(await silent, false);
    assert.deepEqual([clock.timers, endpoint.footprint.peers], [0, 0]);
  });
});

test('a response is limited to three times the request, and unlimited for a peer with a proven address', () => {
  const allowances: number[] = [];
  const { receive, endpoint } = rig((request) => {
    allowances.push(request.allowance);
    return reply(Code.Content);
  });
  receive({ messageId: 1, payload: Buffer.alloc(20) });
  endpoint.vouch({ address: 'a', port: 1, key: 'a|1' });
  receive({ messageId: 2 });
  assert.deepEqual(allowances, [75, Number.POSITIVE_INFINITY]);
  assert.equal(messageOf({}).token.length, 0);
});

test('a request that proves the address of its peer gets its own response in large blocks', async () => {
  for (const proves of [false, true]) {
    const far = rig(
      new Blockwise(async ({ remote }) => {
        await Promise.resolve();
        if (proves) far.endpoint.vouch(remote);
        return reply(Code.Changed, { payload: Buffer.alloc(900, 'x') });
      }, new HandClock()).handle,
    );
    far.receive({ messageId: 1, code: Code.POST, payload: Buffer.alloc(40) });
    while (far.sent.length === 0) await Promise.resolve();
    const datagram = far.sent[0]!.datagram;
    assert.ok(proves ? datagram.length > 900 : datagram.length <= 3 * 45, `${datagram.length} bytes`);
  }
});
