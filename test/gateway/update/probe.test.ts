import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type NetworkInterfaceInfo, networkInterfaces } from 'node:os';
import { type TestContext, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { SystemClock } from '../../../src/base/clock.ts';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { noEvents } from '../../../src/base/events.ts';
import { CoapNetwork } from '../../../src/gateway/southbound/coap-network.ts';
import { probeCoap } from '../../../src/gateway/update/probe.ts';
import { decode, encode, Malformed, noBytes, Type } from '../../../src/wire/coap/codec.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { reply } from '../../../src/wire/coap/message.ts';
import { HandClock } from '../../hand-clock.ts';
import { ownInterface } from '../../own-interface.ts';

/** The gateway's own sockets, at the addresses of some interfaces. */
async function network(
  t: TestContext,
  interfaces: readonly string[],
  listInterfaces?: typeof networkInterfaces,
) {
  const made = new CoapNetwork({
    ...{ port: 0, interfaces, multicast: false, clock: new SystemClock(), entropy: seededEntropy(1) },
    events: noEvents,
    ...(listInterfaces && { listInterfaces }),
  });
  await made.start(() => () => reply(Code.Content));
  t.after(() => made[Symbol.asyncDispose]());
  return made;
}

const probe = ({ addresses, port }: CoapNetwork) =>
  probeCoap(
    addresses.map(({ address }) => address),
    port,
    new SystemClock(),
  );

test('a gateway that serves one interface, and not loopback, is healthy', async (t) => {
  const name = ownInterface(t, '198.51.100.201/32', 'fd00:7057::1/64');
  if (!name) return;
  const found = await network(t, [name]);
  assert.ok(!found.addresses.some(({ address }) => address === '127.0.0.1'));
  assert.equal(await probe(found), undefined);
  assert.equal(found.isOffline, false);
});

test('a gateway with IPv6 only is healthy', async (t) => {
  const name = ownInterface(t, 'fd00:7057::2/64');
  if (!name) return;
  assert.equal(await probe(await network(t, [name])), undefined);
});

test('a gateway with only a link-local address is healthy', async (t) => {
  const name = ownInterface(t);
  if (!name) return;
  const isLinkLocal = () => networkInterfaces()[name]?.some(({ address }) => address.startsWith('fe80:'));
  while (!isLinkLocal()) await turn();
  const found = await network(t, [name]);
  // An address can be bound when the kernel has found that nobody else has it.
  while (found.addresses.length === 0) await found.refresh();
  assert.match(found.addresses[0]?.address ?? '', /^fe80:.*%/);
  assert.equal(await probe(found), undefined);
});

test('without an address the gateway is not healthy; it is offline if the machine has no address to serve', async (t) => {
  const none = await network(t, ['nowhere0']);
  assert.equal(await probe(none), 'CoAP is served at no address');
  assert.equal(none.isOffline, true);
  // An address that this machine does not have.
  const foreign = { ...networkInterfaces().lo![0]!, address: '203.0.113.77', cidr: '203.0.113.77/32' };
  const broken = await network(t, ['lo'], () => ({ lo: [foreign as NetworkInterfaceInfo] }));
  assert.deepEqual([broken.addresses, broken.isOffline], [[], false]);
});

/** A socket that answers each request as the test says. */
async function liar(
  t: TestContext,
  answer: (token: Uint8Array, messageId: number) => Buffer | undefined,
  address = '127.0.0.1',
) {
  const socket = createSocket('udp4');
  socket.on('message', (datagram, remote) => {
    const request = decode(datagram);
    if (request instanceof Malformed) return;
    const said = answer(request.token, request.messageId);
    if (said) socket.send(said, remote.port, remote.address);
  });
  socket.bind(0, address);
  await once(socket, 'listening');
  t.after(() => socket.close());
  return socket.address().port;
}

const answering = (code: number) => (token: Uint8Array, messageId: number) =>
  encode({ type: Type.ACK, code, messageId, token, options: [], payload: noBytes }) as Buffer;

test('an answer with an error code, or with another token, is no proof of health', async (t) => {
  const clock = new SystemClock();
  const refusing = await liar(t, answering(Code.ServiceUnavailable));
  assert.equal(await probeCoap(['127.0.0.1'], refusing, clock), 'CoAP answers with 5.03');
  const hand = new HandClock();
  const lying = await liar(t, (_, messageId) => answering(Code.Content)(Buffer.from('other'), messageId));
  const asked = probeCoap(['127.0.0.1'], lying, hand);
  for (let i = 0; i < 20; i++) await turn();
  hand.advance(10_000);
  assert.equal(await asked, 'CoAP does not answer');
  assert.equal(hand.timers, 0);
});

test('one address that answers is enough, whatever becomes of the others', async (t) => {
  const port = await liar(t, answering(Code.Content), '127.0.0.2');
  assert.equal(await probeCoap(['192.0.2.255', '::1', '127.0.0.2'], port, new SystemClock()), undefined);
});
