import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { LwM2mDevice } from '../../src/device/lwm2m-device.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import { type CoapRequest, reply } from '../../src/wire/coap/message.ts';
import { EventRecorder } from '../event-recorder.ts';
import { LeapClock } from '../leap-clock.ts';
import { freePair } from '../peers/free-pair.ts';
import { Nat } from '../peers/nat.ts';
import { factory, gatewayOf, id, opens, Party } from './lwm2m-party.ts';
import { clientConfig } from './site.ts';

const limit = { timeout: 60_000 };
/** How many times faster than the machine's the clocks run, where nobody moves them. */
const rate = 8;
/** Requests of the first bootstrap: Discover, two Writes, Finish. */
const requests = [1, 2, 3, 4] as const;
/** Accounts of a client that has been bootstrapped before. */
const former = '</0/0>,</0/1>;ssid=1,</1/0>;ssid=1,</3/0>,</33000/0>';
const name = (at: number) => `urn:dev:lwm2m:cut${at}`;
const key = Buffer.from('sesame-sesame-16');
const clients = { lwm2m: { device: requests.map((at) => ({ id: name(at), 'bootstrap-key': `${key}` })) } };
/** Content type of records with application data, in both directions. */
const isData = (datagram: Buffer) => datagram[0] === 23 || datagram[0] === 25;

/**
 * A client that asks for its bootstrap through a NAT, and registers directly.
 * @param at number of the request of its bootstrap that `cut` is for
 * @param isOutward whether that is the answer to the request
 * @param cut called with the port of the client for this datagram, before it is passed on
 */
async function clientBehind(
  gatewayPort: () => number,
  at: number,
  isOutward: boolean,
  cut: (nat: Nat) => void,
) {
  const stack = new AsyncDisposableStack();
  const nat = stack.use(await Nat.open());
  const clock = new LeapClock(rate);
  stack.defer(() => clock.stop());
  // Before them a link is asked for, and the bootstrap.
  let left = at + 2;
  nat.tap = (datagram, outward) => {
    nat.leadTo({ coapPort: gatewayPort() });
    if (outward === isOutward && isData(datagram) && --left === 0) cut(nat);
  };
  const events = new EventRecorder();
  const config = clientConfig(
    name(at),
    { coapPort: 0 },
    { 'bootstrap-key': `${key}` },
    {},
    {
      network: { gateway: `coaps://127.0.0.1:${nat.coapPort}`, interface: '127.0.0.1' },
    },
  );
  const client = stack.use(new LwM2mDevice(config, { events, clock }));
  return { nat, client, events, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

function stateIn(t: TestContext, ports = {}): { gateway: object } {
  const folder = mkdtempSync(join(tmpdir(), 'postern-lwm2m-faults-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return { gateway: { id: 'gw-1', state: join(folder, 'gw.db') }, ...ports };
}

/** The keys that the gateway has for a client. */
const identities = ({ keys }: Awaited<ReturnType<typeof gatewayOf>>, of: string) =>
  keys.of(of).map(({ identity }) => identity);

/** A client that answers some requests of a bootstrap alone. `silent` says which it does not answer. */
async function picky(port: number, silent: (request: CoapRequest) => boolean) {
  const party = await Party.open(port, factory);
  const asked = new EventRecorder();
  const kept: { identity: string; key: Uint8Array }[] = [];
  party.end.handler = async (request) => {
    asked.emit('device.written', { device: id, path: `${request.method} ${request.path.join('/')}` });
    if (silent(request)) await new Promise(() => {});
    party.end.coap.vouch(request.remote, 'gateway');
    const links = { payload: Buffer.from(former), contentFormat: ContentFormat.LinkFormat };
    return request.method === Code.GET ? reply(Code.Content, links) : reply(Code.Changed);
  };
  return { party, asked, kept, [Symbol.asyncDispose]: () => party[Symbol.asyncDispose]() };
}

describe('the answer to each request of a bootstrap', limit, () => {
  for (const isForGood of [false, true])
    test(`is lost ${isForGood ? 'with all that comes after it, and the client begins again' : 'once'}`, async () => {
      const clock = new LeapClock(rate);
      const lone = await gatewayOf(clients, { clock });
      await using _gateway = lone.gateway;
      const { events, keys, port } = lone;
      await Promise.all(
        requests.map(async (at) => {
          await using behind = await clientBehind(
            () => port,
            at,
            true,
            (nat) => {
              const [inside] = nat.insidePorts.slice(-1);
              nat.lost.add(inside!);
              // Only this datagram, which is passed on after this.
              if (!isForGood) setImmediate(() => nat.lost.clear());
            },
          );
          await behind.client.start();
          if (isForGood) await events.until('lwm2m.bootstrap-failed', { device: name(at) });
          behind.nat.lost.clear();
          await behind.client.attached;
          await events.until('device.attached', { device: name(at) });
          const opened = events.all.findLast(
            ({ name: event, fields }) =>
              event === 'dtls.opened' && fields.device === name(at) && /^gw:/.test(String(fields.identity)),
          );
          assert.deepEqual(identities(lone, name(at)), [opened?.fields.identity], `request ${at}`);
          assert.equal(keys.of(name(at))[0]?.deviceId, name(at));
          if (!isForGood) assert.equal(behind.events.count('device.attach-failed'), 0, `request ${at}`);
        }),
      );
      if (!isForGood) assert.equal(events.count('lwm2m.bootstrap-failed'), 0);
      clock.stop();
    });
});

for (const at of requests)
  test(
    `the gateway is restarted at request ${at} of a bootstrap: the client begins again, and has one key`,
    limit,
    async (t) => {
      const port = await freePair();
      const changes = { ...clients, ...stateIn(t), coap: { port, leisure: 50 }, coaps: { port: port + 1 } };
      const before = await gatewayOf(changes);
      const reached = Promise.withResolvers<void>();
      await using behind = await clientBehind(
        () => port + 1,
        at,
        false,
        (nat) => {
          nat.lost.add(nat.insidePorts.at(-1)!);
          reached.resolve();
        },
      );
      await behind.client.start();
      await reached.promise;
      await before.gateway[Symbol.asyncDispose]();
      const stored = identities(before, name(at));
      const after = await gatewayOf(changes);
      await using _gateway = after.gateway;
      assert.deepEqual(identities(after, name(at)), stored);
      // Before its Finish a bootstrap gives no key.
      assert.equal(stored.length, at === 4 ? 1 : 0);
      behind.nat.lost.clear();
      await behind.client.attached;
      await after.events.until('device.attached', { device: name(at) });
      assert.equal(identities(after, name(at)).length, 1);
      assert.notDeepEqual(identities(after, name(at)), stored);
    },
  );

test('a bootstrap that is broken off takes away no key that its client may have', limit, async () => {
  const clock = new LeapClock();
  const lone = await gatewayOf({}, { clock });
  await using _gateway = lone.gateway;
  const { events, port } = lone;
  const packed = async () => {
    await using blank = await Party.open(port, factory);
    return await blank.pack();
  };
  const used = await packed();
  assert.ok(await opens(port, used));
  // The client has this one too, and has not used it yet.
  const fresh = await packed();
  for (const request of ['4 0/1', '4 1/0', '3 0/1', '3 1/0']) {
    await using client = await picky(port, ({ method, path }) => `${method} ${path.join('/')}` === request);
    assert.equal((await client.party.ask(Code.POST, '/bs', [`ep=${id}`])).code, '2.04');
    await client.asked.until('device.written', { path: request });
    const failed = events.next('lwm2m.bootstrap-failed', { device: id });
    await clock.leap(21_000);
    await failed;
    assert.deepEqual(identities(lone, id), [used.identity, fresh.identity], request);
  }
  // It has been asked to finish, and the gateway cannot know whether it has: the newest key of its former ones gives way.
  await using client = await picky(port, (request) => request.path.join('/') === 'bs');
  assert.equal((await client.party.ask(Code.POST, '/bs', [`ep=${id}`])).code, '2.04');
  await client.asked.until('device.written', { path: `${Code.POST} bs` });
  const failed = events.next('lwm2m.bootstrap-failed', { device: id });
  await clock.leap(21_000);
  await failed;
  const [first, second] = identities(lone, id);
  assert.equal(first, used.identity);
  assert.notEqual(second, fresh.identity);
  assert.ok(await opens(port, used));
  clock.stop();
});

test('a request for a bootstrap that is replayed begins none', limit, async () => {
  const lone = await gatewayOf();
  await using _gateway = lone.gateway;
  const { events, port } = lone;
  await using client = await picky(port, () => false);
  const from = client.party.end.captured.length;
  assert.equal((await client.party.ask(Code.POST, '/bs', [`ep=${id}`])).code, '2.04');
  const request = client.party.end.captured.slice(from).find(({ to }) => to.port === port)!;
  await events.until('lwm2m.bootstrapped', { device: id });
  const stored = identities(lone, id);
  await using stranger = await Party.open(port, { identity: stored[0]!, key: lone.keys.at(stored[0]!)!.key });
  for (const end of [client.party.end, stranger.end]) end.sendPlain(request.bytes, port);
  // The gateway takes datagrams in their order.
  assert.equal((await client.party.ask(Code.GET, '/.well-known/core')).code, '2.05');
  assert.equal(await stranger.register(), '2.01');
  assert.equal(events.count('lwm2m.bootstrapped'), 1);
  // Besides those of a first one, a Delete of both instances of its former account.
  assert.equal(client.asked.all.length, requests.length + 2);
  assert.deepEqual(identities(lone, id), stored);
});

test(
  'two bootstraps of one client at once: the later one waits until the other has ended, and one key is left',
  limit,
  async () => {
    const clock = new LeapClock();
    const lone = await gatewayOf({}, { clock });
    await using _gateway = lone.gateway;
    const { events, port } = lone;
    // Its power is cut in the middle. It comes back with another port.
    const first = await picky(port, ({ method, path }) => method === Code.PUT && path.join('/') === '0/1');
    await using _first = first;
    assert.equal((await first.party.ask(Code.POST, '/bs', [`ep=${id}`])).code, '2.04');
    await first.asked.until('device.written', { path: `${Code.PUT} 0/1` });
    await using second = await picky(port, () => false);
    assert.equal((await second.party.ask(Code.POST, '/bs', [`ep=${id}`])).code, '5.03');
    const failed = events.next('lwm2m.bootstrap-failed', { device: id });
    await clock.leap(21_000);
    await failed;
    assert.equal((await second.party.ask(Code.POST, '/bs', [`ep=${id}`])).code, '2.04');
    // A repetition by the client itself is part of the one that runs.
    assert.equal((await second.party.ask(Code.POST, '/bs', [`ep=${id}`])).code, '2.04');
    await events.until('lwm2m.bootstrapped', { device: id });
    assert.equal(identities(lone, id).length, 1);
    clock.stop();
  },
);
