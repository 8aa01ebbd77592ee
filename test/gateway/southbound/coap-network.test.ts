import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { describe, test } from 'node:test';
import { Admission } from '../../../src/base/admission.ts';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { CoapNetwork } from '../../../src/gateway/southbound/coap-network.ts';
import { boundSocket } from '../../../src/gateway/southbound/udp-socket.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { reply } from '../../../src/wire/coap/message.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { CoapPeer } from '../../peers/coap-peer.ts';
import { rawSockets } from '../../peers/raw-sockets.ts';
import { turn } from '../../wire/coap/wire.ts';

const loopback = (networkInterfaces().lo ?? []).filter(({ family }) => family === 'IPv4');
const at = (address: string): ReturnType<typeof networkInterfaces> => ({
  lab0: loopback.map((entry) => ({ ...entry, address, cidr: `${address}/8` })),
});

const machine = (events: EventRecorder, listInterfaces: typeof networkInterfaces) => ({
  port: 0,
  interfaces: [],
  multicast: false,
  clock: new HandClock(),
  entropy: seededEntropy(1),
  events,
  listInterfaces,
});

/** Lets what is under way go on until a condition holds. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await turn();
}

test('the network follows an interface that appears, changes its address and disappears', async () => {
  let now: ReturnType<typeof networkInterfaces> = {};
  const events = new EventRecorder();
  const network = new CoapNetwork({
    port: 0,
    interfaces: ['lab0'],
    multicast: false,
    clock: new HandClock(),
    entropy: seededEntropy(1),
    events,
    listInterfaces: () => now,
  });
  await network.start(
    ({ address }) =>
      () =>
        reply(Code.Content, { payload: address }),
  );
  await events.until('coap.no-interface');
  await using peer = await CoapPeer.open();
  const ask = async () => (await peer.call(network.port, { method: Code.GET, path: [] })).text;
  now = at('127.0.0.1');
  await network.refresh();
  const { port } = network;
  assert.equal(await ask(), '127.0.0.1');
  now = at('127.0.0.2');
  await network.refresh();
  await events.until('coap.address-gone', { address: '127.0.0.1' });
  assert.deepEqual([network.port, network.addresses.map(({ address }) => address)], [port, ['127.0.0.2']]);
  now = {};
  await network.refresh();
  assert.equal(network.endpoints.length, 0);
  await network[Symbol.asyncDispose]();
});

test('a new address is found by a periodic check', async () => {
  let now: ReturnType<typeof networkInterfaces> = {};
  const clock = new HandClock();
  const events = new EventRecorder();
  const network = new CoapNetwork({
    port: 0,
    interfaces: [],
    multicast: false,
    clock,
    entropy: seededEntropy(1),
    events,
    listInterfaces: () => now,
  });
  await network.start(() => () => reply(Code.Content));
  now = at('127.0.0.1');
  clock.advance(5000);
  await events.until('coap.listening');
  await network[Symbol.asyncDispose]();
  assert.equal(network.addresses.length, 0);
});

test('one local address is preferred where the remote one was heard, if it still exists', async () => {
  const network = new CoapNetwork({
    ...machine(new EventRecorder(), () => ({ lab0: [...at('127.0.0.1').lab0!, ...at('127.0.0.2').lab0!] })),
  });
  await network.start(() => () => reply(Code.Content));
  const [first, second] = network.endpoints;
  assert.equal(network.towards('127.0.0.9'), first);
  assert.equal(network.towards('127.0.0.9', '127.0.0.2'), second);
  assert.equal(network.towards('127.0.0.9', '127.0.0.3'), first, 'an address that is gone');
  assert.equal(network.towards('203.0.113.5', '127.0.0.2'), undefined, 'never by loopback');
  assert.match(network.uriTowards('127.0.0.9', '/dm', '127.0.0.2'), /^coap:\/\/127\.0\.0\.2:\d+\/dm$/);
  await network[Symbol.asyncDispose]();
});

describe('a check of the interfaces that fails', () => {
  test('is reported once for each reason, ends nothing, and the next one serves again', async () => {
    const clock = new HandClock();
    const events = new EventRecorder();
    let now: () => ReturnType<typeof networkInterfaces> = () => at('127.0.0.1');
    const network = new CoapNetwork({ ...machine(events, () => now()), clock });
    await network.start(() => () => reply(Code.Content));
    const checked = async () => {
      clock.advance(5000);
      await until(() => clock.timers > 0);
    };
    for (const reason of ['no memory', 'no memory', 'no files', 'no files']) {
      now = () => {
        throw new Error(reason);
      };
      await checked();
    }
    assert.deepEqual(
      events.all.filter(({ name }) => name === 'background.failed').map(({ fields }) => fields.reason),
      ['no memory', 'no files'],
    );
    assert.equal(network.endpoints.length, 1, 'what was served is served on');
    now = () => at('127.0.0.2');
    await checked();
    assert.deepEqual(
      network.addresses.map(({ address }) => address),
      ['127.0.0.2'],
    );
    await network[Symbol.asyncDispose]();
    assert.equal(clock.timers, 0);
  });

  test('so do a listener and a composition that throw', async () => {
    const clock = new HandClock();
    const events = new EventRecorder();
    let now = {};
    const network = new CoapNetwork({ ...machine(events, () => now), clock });
    let isBroken = true;
    await network.start(() => {
      if (isBroken) throw new Error('no handler');
      return () => reply(Code.Content);
    });
    network.onChange(() => {
      throw new Error('no listener');
    });
    const checked = async () => {
      clock.advance(5000);
      await until(() => clock.timers > 0);
    };
    now = at('127.0.0.1');
    await checked();
    await checked();
    assert.deepEqual([network.endpoints.length, events.count('coap.bind-failed')], [0, 1], 'said once');
    isBroken = false;
    await checked();
    assert.equal(network.endpoints.length, 1);
    assert.equal(events.all.at(-1)?.fields.reason, 'no listener');
    await network[Symbol.asyncDispose]();
  });

  test('an address whose port another program has is bound when the port is free again', async () => {
    const clock = new HandClock();
    const events = new EventRecorder();
    let now = at('127.0.0.1');
    const network = new CoapNetwork({ ...machine(events, () => now), clock });
    await network.start(() => () => reply(Code.Content));
    const other = await boundSocket({ family: 4, address: '127.0.0.2', port: network.port });
    now = { lab0: [...at('127.0.0.1').lab0!, ...at('127.0.0.2').lab0!] };
    for (let times = 0; times < 3; times++) {
      clock.advance(5000);
      await until(() => clock.timers > 0);
    }
    assert.equal(events.count('coap.bind-failed'), 1);
    const closed = once(other, 'close');
    other.close();
    await closed;
    clock.advance(5000);
    await events.until('coap.listening', { address: '127.0.0.2' });
    await network[Symbol.asyncDispose]();
  });

  test('two checks at once, and a stop in the middle of one, bind nothing twice and leave nothing open', async () => {
    const events = new EventRecorder();
    let now = {};
    const network = new CoapNetwork(machine(events, () => now));
    await network.start(() => () => reply(Code.Content));
    now = at('127.0.0.1');
    await Promise.all([network.refresh(), network.refresh(), network.refresh()]);
    assert.deepEqual([events.count('coap.listening'), events.count('coap.bind-failed')], [1, 0]);
    const { port } = network;
    now = at('127.0.0.2');
    const checking = network.refresh();
    await Promise.all([checking, network[Symbol.asyncDispose]()]);
    assert.equal(network.endpoints.length, 0);
    for (const address of ['127.0.0.1', '127.0.0.2'])
      (await boundSocket({ family: 4, address, port })).close();
  });
});

/** Bytes that the kernel keeps for a socket at most. */
const socketBytes = Number(readFileSync('/proc/sys/net/core/rmem_max', 'utf8'));

test('a burst of multicast requests that comes while the gateway is busy is kept by the kernel', {
  skip: socketBytes < 4 * 1024 * 1024 && 'the kernel has less room for a socket here (net.core.rmem_max)',
  timeout: 20_000,
}, async (t) => {
  const burst = 1000;
  const events = new EventRecorder();
  const options = machine(events, () => ({ lo: loopback }));
  const admission = new Admission(options);
  const network = new CoapNetwork({ ...options, interfaces: ['lo'], multicast: true, admission });
  t.after(() => network[Symbol.asyncDispose]());
  let heard = 0;
  await network.start(() => () => {
    heard++;
    return reply(Code.Content);
  });
  // This process is busy until the other one has sent all.
  const script = `
    const socket = require('node:dgram').createSocket('udp4');
    socket.bind(0, '127.0.0.1', () => {
      socket.setMulticastInterface('127.0.0.1');
      const send = (at) => {
        if (at === ${burst}) return socket.close();
        const question = Buffer.from([0x50, 1, at >> 8, at & 255]);
        socket.send(question, ${network.port}, '224.0.1.187', () => send(at + 1));
      };
      send(0);
    });`;
  execFileSync(process.execPath, ['-e', script]);
  await until(() => t.signal.aborted || heard + admission.footprint.refused === burst);
});

test('a datagram from port 0, to which nothing can be sent, is dropped', {
  skip: rawSockets.skip,
}, async () => {
  const network = new CoapNetwork(machine(new EventRecorder(), () => at('127.0.0.1')));
  await network.start(() => () => reply(Code.Content, { payload: 'alive' }));
  const ping = [0x40, 0, 0, 1];
  const get = [0x40, 1, 0, 2];
  for (const datagram of [ping, get, [0x40, 1]]) rawSockets.send(network.port, datagram);
  await using peer = await CoapPeer.open();
  assert.equal((await peer.call(network.port, { method: Code.GET, path: [] })).text, 'alive');
  await network[Symbol.asyncDispose]();
});
