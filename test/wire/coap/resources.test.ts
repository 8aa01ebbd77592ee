import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { PosternError } from '../../../src/base/errors.ts';
import { type CoapMessage, encode, Type } from '../../../src/wire/coap/codec.ts';
import { Code, codeText } from '../../../src/wire/coap/codes.ts';
import { EchoGuard } from '../../../src/wire/coap/echo.ts';
import { filterLinks, formatLinks, type Link, parseLinks } from '../../../src/wire/coap/link-format.ts';
import { CoapRequest, type Reply, reply } from '../../../src/wire/coap/message.ts';
import { Observable, observeDefaults } from '../../../src/wire/coap/observe.ts';
import { Option, opaque, text, uint, uintOption } from '../../../src/wire/coap/options.ts';
import { remoteKey } from '../../../src/wire/coap/peer.ts';
import { Router } from '../../../src/wire/coap/router.ts';
import { coapUri, parseCoapUri } from '../../../src/wire/coap/uri.ts';
import { HandClock } from '../../hand-clock.ts';
import { account, messageOf, rig, turn } from './wire.ts';

const remote = { address: 'a', port: 1, key: 'a|1' };
const request = (fields: Partial<CoapMessage>, multicast = false) => {
  const message = messageOf(fields);
  return new CoapRequest(remote, message, multicast, message.payload, account());
};
const path = (...segments: string[]) => segments.map((segment) => text(Option.UriPath, segment));

const links: Link[] = [
  { target: '/dm/bs', attributes: { rt: 'oma.dm.bs', ct: '65001 65003' } },
  { target: '/dm', attributes: { rt: 'oma.dm other', obs: true } },
  { target: '/x', attributes: { title: 'say "hi", \\ and go', sz: '12' } },
];

describe('link format (RFC 6690)', () => {
  test('links are written, and are the same when they are read', () => {
    assert.equal(
      formatLinks(links),
      '</dm/bs>;rt="oma.dm.bs";ct="65001 65003",</dm>;rt="oma.dm other";obs,</x>;title="say \\"hi\\", \\\\ and go";sz=12',
    );
    assert.deepEqual(parseLinks(formatLinks(links)), links);
  });

  const asked: [string, number[]][] = [
    ['rt=oma.dm.bs', [0]],
    ['rt=oma.dm', [1]],
    ['rt=oma.dm*', [0, 1]],
    ['rt=other', [1]],
    ['href=/dm*', [0, 1]],
    ['href=/dm', [1]],
    ['ct=65003', [0]],
    ['obs', [1]],
    ['rt=none', []],
    ['__proto__=x', []],
  ];
  for (const [query, expected] of asked)
    test(`filtered by ${query}`, () => {
      assert.deepEqual(
        filterLinks(links, [query]),
        expected.map((at) => links[at]),
      );
    });

  test('any text is read or refused by a PosternError', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'<>;=",\\ ab/'), maxLength: 40 }), (any) => {
        try {
          parseLinks(any);
        } catch (error) {
          assert.ok(error instanceof PosternError);
        }
      }),
    );
  });
});

test('what a resource offers goes with its link alone, by unicast, and only into one datagram', () => {
  const offered = opaque(Option.Echo, Buffer.alloc(18));
  const only = links[0]!;
  const router = new Router([
    { path: only.target, links: () => [only], offer: () => offered, methods: {} },
    { path: '/dm', links: () => links.slice(1), methods: {} },
  ]);
  const ask = (query: string, room = Number.POSITIVE_INFINITY, multicast = false) => {
    const message = messageOf({
      code: Code.GET,
      options: [...path('.well-known', 'core'), text(Option.UriQuery, query)],
    });
    const asked = new CoapRequest(remote, message, multicast, message.payload, { ...account(), room });
    const answer = router.handle(asked) as Reply;
    return { offers: answer.options.some(({ number }) => number === offered.number), answer };
  };
  const { offers, answer } = ask('rt=oma.dm.bs');
  assert.ok(offers);
  assert.equal(ask('rt=oma.dm*').offers, false, 'with other links');
  assert.equal(ask('rt=oma.dm').offers, false, 'of another resource');
  assert.equal(ask('rt=oma.dm.bs', undefined, true).offers, false, 'by multicast');
  const size = encode({ ...answer, type: Type.ACK, messageId: 1, token: Buffer.alloc(0) }).length;
  assert.equal(ask('rt=oma.dm.bs', size + 4).offers, true);
  assert.equal(ask('rt=oma.dm.bs', size - 1).offers, false, 'without room');
});

describe('the router', () => {
  const router = new Router([
    {
      path: '/dm',
      links: () => links.slice(0, 2),
      methods: { GET: () => reply(Code.Content), POST: () => reply(Code.Changed) },
    },
    {
      path: '/t',
      subtree: true,
      methods: { POST: ({ path: found }) => reply(Code.Changed, { payload: found.join('|') }) },
    },
  ]);
  const ask = (fields: Partial<CoapMessage>, multicast = false) =>
    router.handle(request(fields, multicast)) as Reply | undefined;
  const name = (fields: Partial<CoapMessage>) => codeText(ask(fields)!.code);

  test('finds the handler; without one it is 4.04 or 4.05, and a proxy request is 5.05', () => {
    assert.equal(name({ options: path('dm') }), '2.05');
    assert.equal(name({ code: Code.DELETE, options: path('dm') }), '4.05');
    assert.equal(name({ code: Code.FETCH, options: path('dm') }), '4.05');
    assert.equal(name({ options: path('dm', 'x') }), '4.04');
    assert.equal(String(ask({ code: Code.POST, options: path('t', 'a', 'b') })?.payload), 't|a|b');
    assert.equal(name({ code: Code.POST, options: path('t') }), '4.04');
    assert.equal(name({ options: [text(Option.ProxyUri, 'coap://x/')] }), '5.05');
  });

  test('serves /.well-known/core with filters; a multicast request that matches no link gets no response', () => {
    const core = path('.well-known', 'core');
    const all = ask({ options: core })!;
    assert.equal(uintOption(all.options, Option.ContentFormat), 40);
    assert.equal(parseLinks(String(all.payload)).length, 2);
    const none = [...core, text(Option.UriQuery, 'rt=nothing')];
    assert.equal(String(ask({ options: none })?.payload), '');
    assert.equal(ask({ options: none }, true), undefined);
    assert.equal(name({ options: [...core, uint(Option.Accept, 60)] }), '4.06');
  });
});

test('conditional requests: ETag, If-Match, If-None-Match', () => {
  const tag = Buffer.from('v1');
  const state = {
    path: '/s',
    etag: () => tag,
    methods: { GET: () => reply(Code.Content, { etag: tag }), PUT: () => reply(Code.Changed) },
  };
  const bare = { path: '/b', methods: { PUT: () => reply(Code.Changed) } };
  const router = new Router([state, bare]);
  const ask = (code: number, name: string, number: number, value: string) =>
    codeText(
      (
        router.handle(
          request({
            code,
            options: [{ number, value: Buffer.from(value) }, ...path(name)].toSorted(
              (a, b) => a.number - b.number,
            ),
          }),
        ) as Reply
      ).code,
    );
  assert.equal(ask(Code.GET, 's', Option.ETag.number, 'v1'), '2.03');
  assert.equal(ask(Code.GET, 's', Option.ETag.number, 'v0'), '2.05');
  assert.equal(ask(Code.PUT, 's', Option.IfMatch.number, 'v1'), '2.04');
  assert.equal(ask(Code.PUT, 's', Option.IfMatch.number, ''), '2.04');
  assert.equal(ask(Code.PUT, 's', Option.IfMatch.number, 'v0'), '4.12');
  assert.equal(ask(Code.PUT, 's', Option.IfNoneMatch.number, ''), '4.12');
  assert.equal(ask(Code.PUT, 'b', Option.IfMatch.number, 'v1'), '4.12');
});

test('an Echo value is fresh for its remote and its lifetime only (RFC 9175)', () => {
  const clock = new HandClock();
  const guard = new EchoGuard(clock, seededEntropy(9));
  const echo = guard.issue(remote);
  assert.equal(guard.isFresh(echo, remote), true);
  assert.equal(guard.isFresh(echo, { ...remote, key: 'b|1' }), false);
  assert.equal(guard.isFresh(echo.subarray(1), remote), false);
  for (let bit = 0; bit < echo.length * 8; bit++) {
    const changed = Buffer.from(echo);
    changed[bit >> 3]! ^= 1 << (bit & 7);
    assert.equal(guard.isFresh(changed, remote), false, `bit ${bit}`);
  }
  clock.advance(guard.lifetime + 1);
  assert.equal(guard.isFresh(echo, remote), false);
  assert.equal(
    new EchoGuard(clock, seededEntropy(8)).isFresh(guard.issue(remote), remote),
    false,
    'another key',
  );
});

describe('observe (RFC 7641)', () => {
  function observed(limits = observeDefaults) {
    let state = 'one';
    const held: { observable?: Observable } = {};
    const wire = rig((asked) => held.observable?.handle(asked));
    const observable = new Observable(
      wire.endpoint,
      wire.clock,
      () => reply(Code.Content, { payload: state }),
      limits,
    );
    held.observable = observable;
    for (const address of ['a', 'b', 'c'])
      wire.endpoint.vouch({ address, port: 1, key: remoteKey(address, 1) });
    const become = async (next: string) => {
      state = next;
      observable.changed();
      await turn();
    };
    const observe = async (value: number, messageId: number, token = 't', from = 'a') => {
      wire.receive({ messageId, token: Buffer.from(token), options: [uint(Option.Observe, value)] }, from);
      await turn();
    };
    return { ...wire, observable, become, observe };
  }

  test('changes are notified with a rising sequence number, until the observer deregisters', async () => {
    const { observe, become, sent, observable } = observed();
    await observe(0, 1);
    await become('two');
    await become('three');
    const states = sent.map(({ message }) => [
      String(message.payload),
      uintOption(message.options, Option.Observe),
    ]);
    assert.deepEqual(
      states.map(([state]) => state),
      ['one', 'two', 'three'],
    );
    assert.ok(Number(states[1]?.[1]) < Number(states[2]?.[1]));
    await observe(1, 2);
    assert.equal(observable.size, 0);
  });

  test('a Reset for a notification removes the observer', async () => {
    const { observe, become, sent, receive, observable } = observed();
    await observe(0, 1);
    await become('two');
    receive({ type: Type.RST, code: Code.Empty, messageId: sent.at(-1)!.message.messageId });
    assert.equal(observable.size, 0);
  });

  test('an observer that does not acknowledge a confirmable notification is removed', async () => {
    const { observe, become, clock, sent, observable } = observed();
    await observe(0, 1);
    clock.advance(observeDefaults.confirmEvery);
    await become('two');
    assert.equal(sent.at(-1)?.message.type, Type.CON);
    clock.advance(200_000);
    await turn();
    assert.equal(observable.size, 0);
  });

  test('beyond the bounds of observers a GET gets its response without being registered', async () => {
    const { observe, sent, observable } = observed({ ...observeDefaults, observers: 2, observersPerPeer: 1 });
    await observe(0, 1, 't1', 'a');
    await observe(0, 2, 't2', 'a');
    await observe(0, 3, 't3', 'b');
    await observe(0, 4, 't4', 'c');
    assert.equal(observable.size, 2);
    assert.deepEqual(
      sent.map(({ message }) => uintOption(message.options, Option.Observe) !== undefined),
      [true, false, true, false],
    );
  });
});

test('coap URIs are written and read; other URIs are refused', () => {
  assert.equal(coapUri('fe80::1%eth0', 5683, '/dm'), 'coap://[fe80::1]:5683/dm');
  const parts = { host: '2001:db8::1', path: ['a', 'b c'] };
  assert.deepEqual(parseCoapUri('coap://[2001:db8::1]/a/b%20c'), { scheme: 'coap', ...parts, port: 5683 });
  assert.deepEqual(parseCoapUri('coaps://[2001:db8::1]/a/b%20c'), { scheme: 'coaps', ...parts, port: 5684 });
  assert.throws(() => parseCoapUri('http://x/'), { code: 'malformed' });
  assert.throws(() => parseCoapUri('nothing'), { code: 'malformed' });
});
