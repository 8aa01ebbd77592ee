// Bounds of the table "CoAP" in docs/architecture.md, each met with its default.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Blockwise, packBlock } from '../../../src/wire/coap/blockwise.ts';
import { Type } from '../../../src/wire/coap/codec.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { endpointDefaults } from '../../../src/wire/coap/endpoint-limits.ts';
import { type Handler, reply } from '../../../src/wire/coap/message.ts';
import { Observable } from '../../../src/wire/coap/observe.ts';
import { Option, text, uint } from '../../../src/wire/coap/options.ts';
import { remoteKey } from '../../../src/wire/coap/peer.ts';
import { transmissionDefaults } from '../../../src/wire/coap/transmission.ts';
import { HandClock } from '../../hand-clock.ts';
import { hello, rig, turn } from './wire.ts';

const host = (at: number) => `10.${(at >> 8) & 255}.${at & 255}.1`;
const remoteOf = (address: string, port = 1) => ({ address, port, key: remoteKey(address, port) });
const never: Handler = () => new Promise(() => {});
const get = { code: Code.GET, timeout: 100_000, options: [] };

describe('requests in work', () => {
  test('1024 of proven peers; beyond that 5.03', () => {
    const { endpoint, receive, take } = rig(never);
    for (let at = 0; at < 1025; at++) {
      endpoint.vouch(remoteOf(host(at)));
      receive({}, host(at));
    }
    assert.deepEqual([endpoint.footprint.working, take()], [1024, ['ACK 5.03']]);
  });

  test('512 of known addresses, beside those of proven peers', () => {
    const { endpoint, receive, take } = rig(never);
    for (let at = 0; at < 513; at++) {
      endpoint.vouch(remoteOf(host(at)));
      receive({}, host(at), 2);
    }
    assert.deepEqual([endpoint.footprint.working, take()], [512, ['ACK 5.03']]);
    receive({}, host(0), 1);
    assert.equal(endpoint.footprint.working, 513);
  });
});

describe('confirmable responses on their way', () => {
  for (const [what, port, most] of [
    ['1024 of proven peers', 1, 1024],
    ['512 of known addresses', 2, 512],
  ] as const)
    test(`${what}; beyond that a response is sent once`, async () => {
      const { concurrentRequests } = endpointDefaults;
      const slow: (() => void)[] = [];
      const handler: Handler = () =>
        new Promise((resolve) => slow.push(() => resolve(reply(Code.Content, { payload: 'x' }))));
      // Short, so that no response is given up meanwhile.
      const piggybackWithin = 100;
      const { endpoint, receive, clock, take } = rig(handler, { piggybackWithin });
      for (let at = 0; at < concurrentRequests + 1; at++) {
        endpoint.vouch(remoteOf(host(at)));
        receive({ token: Buffer.from('t') }, host(at), port);
        if (at % 256 !== 255 && at < concurrentRequests) continue;
        clock.advance(piggybackWithin);
        take();
        for (const settle of slow.splice(0)) settle();
        await turn();
        // Nothing is acknowledged, so nothing makes room.
        const expected = at < most ? Array(256).fill('CON 2.05') : 'NON 2.05';
        if (at < most) assert.deepEqual(take(), expected);
        else assert.equal(take()[0], expected);
      }
      assert.equal(endpoint.footprint.separateResponses, most);
      endpoint.stop();
    });
});

test('messages of our own: 1024 requests wait for a response, and 16 for one peer behind the one on the wire', async () => {
  const { endpoint, sent } = rig(hello);
  const outcomes: Promise<unknown>[] = [];
  const ask = (address: string) => {
    const outcome = endpoint.request(address, 1, get);
    outcome.catch(() => {});
    outcomes.push(outcome);
    return outcome;
  };
  for (let at = 0; at < 1 + transmissionDefaults.waitingPerPeer; at++) ask(host(0));
  await assert.rejects(ask(host(0)), { code: 'full' });
  for (let at = 1; at < 1024 - transmissionDefaults.waitingPerPeer; at++) ask(host(at));
  assert.deepEqual([endpoint.footprint.pendingRequests, sent.length], [1024, 1024 - 16]);
  await assert.rejects(ask(host(2000)), { code: 'full' });
  assert.equal(endpoint.footprint.peers, 1024 - 16, 'nothing is left of the one that was refused');
  endpoint.stop();
  await Promise.allSettled(outcomes);
});

test('block-wise transfers: 4 of one peer and 1024 of proven peers; the one that waits longest gives way', () => {
  const blockwise = new Blockwise(hello, new HandClock());
  const { endpoint, receive, take } = rig(blockwise.handle);
  const first = (address: string, name: string, messageId: number) =>
    receive(
      {
        code: Code.PUT,
        messageId,
        options: [
          text(Option.UriPath, name),
          uint(Option.Block1, packBlock({ number: 0, more: true, exponent: 0 })),
        ],
        payload: Buffer.alloc(16),
      },
      address,
    );
  endpoint.vouch(remoteOf(host(0)));
  for (let at = 0; at < 5; at++) first(host(0), `${at}`, at);
  assert.deepEqual(take(), [...Array(4).fill('ACK 2.31'), 'ACK 5.03']);
  for (let at = 1; at <= 1100; at++) {
    endpoint.vouch(remoteOf(host(at)));
    first(host(at), 'x', 1);
  }
  assert.equal(blockwise.footprint.incoming, 1024);
});

describe('observers of a resource', () => {
  async function observed(peers: readonly (readonly [string, number, string, boolean])[]) {
    const far = rig((request) => observable.handle(request));
    const observable: Observable = new Observable(far.endpoint, far.clock, hello);
    for (const [address, port, token, isProven] of peers) {
      if (isProven) far.endpoint.vouch(remoteOf(address, port));
      const messageId = Number(token);
      const options = [uint(Option.Observe, 0)];
      far.receive({ type: Type.CON, messageId, token: Buffer.from(token), options }, address, port);
    }
    await turn();
    return observable.size;
  }

  test('8 of one proven peer, and 1024 of all', async () => {
    const one = Array.from({ length: 12 }, (_, at) => [host(0), 1, `${at}`, true] as const);
    assert.equal(await observed(one), 8);
    const many = Array.from({ length: 1030 }, (_, at) => [host(at), 1, '1', true] as const);
    assert.equal(await observed(many), 1024);
  });

  test('16 of one address, 64 of one prefix and 256 of all others', async () => {
    const one = Array.from({ length: 20 }, (_, at) => [host(0), 1 + at, '1', false] as const);
    assert.equal(await observed(one), 16);
    const near = Array.from({ length: 100 }, (_, at) => [`192.0.2.${at}`, 1, '1', false] as const);
    assert.equal(await observed(near), 64);
    const many = Array.from({ length: 300 }, (_, at) => [host(at), 1, '1', false] as const);
    assert.equal(await observed(many), 256);
  });
});
