import assert from 'node:assert/strict';
import { networkInterfaces } from 'node:os';
import { test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { CoapNetwork } from '../../../src/gateway/southbound/coap-network.ts';
import { addressTowards, localAddresses } from '../../../src/gateway/southbound/interfaces.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { reply } from '../../../src/wire/coap/message.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { CoapPeer } from '../../peers/coap-peer.ts';

const loopback = (networkInterfaces().lo ?? []).filter(({ family }) => family === 'IPv4');
const at = (address: string): ReturnType<typeof networkInterfaces> => ({
  lab0: loopback.map((entry) => ({ ...entry, address, cidr: `${address}/8` })),
});

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

test('requests to a peer leave by the socket that heard it, as long as that socket is bound', async () => {
  const both = [...(at('127.0.0.1').lab0 ?? []), ...(at('127.0.0.2').lab0 ?? [])];
  let now = { lab0: both };
  const network = new CoapNetwork({
    port: 0,
    interfaces: ['lab0'],
    multicast: false,
    clock: new HandClock(),
    entropy: seededEntropy(1),
    events: new EventRecorder(),
    listInterfaces: () => now,
  });
  await network.start(
    ({ bound }) =>
      () =>
        reply(Code.Content, { payload: bound }),
  );
  const [first, second] = network.endpoints;
  assert.equal(network.towards('127.0.0.9'), first);
  assert.equal(network.towards('127.0.0.9', '127.0.0.2'), second);
  assert.match(network.uriTowards('127.0.0.9', '/dm', '127.0.0.2'), /^coap:\/\/127\.0\.0\.2:\d+\/dm$/);
  now = { lab0: both.slice(0, 1) };
  await network.refresh();
  assert.equal(network.towards('127.0.0.9', '127.0.0.2'), first, 'another one is better than none');
  await network[Symbol.asyncDispose]();
});

test('the local address for a remote address is on its link, or else of its family', () => {
  const locals = localAddresses([], () => ({
    eth0: [
      { address: '192.0.2.1', netmask: '', family: 'IPv4', mac: '', internal: false, cidr: '192.0.2.1/24' },
    ],
    eth1: [
      {
        address: '198.51.100.1',
        netmask: '',
        family: 'IPv4',
        mac: '',
        internal: false,
        cidr: '198.51.100.1/24',
      },
      {
        address: 'fe80::1',
        netmask: '',
        family: 'IPv6',
        mac: '',
        internal: false,
        cidr: 'fe80::1/64',
        scopeid: 3,
      },
    ],
  }));
  const towards = (remote: string) => addressTowards(locals, remote)?.address;
  assert.equal(towards('198.51.100.77'), '198.51.100.1');
  assert.equal(towards('203.0.113.5'), '192.0.2.1');
  assert.equal(towards('fe80::9%eth1'), 'fe80::1%eth1');
});
