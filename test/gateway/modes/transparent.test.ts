import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { PosternError } from '../../../src/base/errors.ts';
import { noEvents } from '../../../src/base/events.ts';
import { TransparentMode } from '../../../src/gateway/modes/transparent.ts';
import { TunnelPolicy } from '../../../src/gateway/modes/tunnel-policy.ts';
import { DeviceAddresses } from '../../../src/gateway/southbound/device-addresses.ts';
import { Code, codeText } from '../../../src/wire/coap/codes.ts';
import { CoapRequest, type Reply } from '../../../src/wire/coap/message.ts';
import { Option, text, uint, uintOption } from '../../../src/wire/coap/options.ts';
import type { Envelope } from '../../../src/wire/tunnel/envelope.ts';
import { HandClock } from '../../hand-clock.ts';
import { messageOf } from '../../wire/coap/wire.ts';

const openPolicy = () =>
  new TunnelPolicy({
    isKnown: () => true,
    devices: () => ({ patterns: ['*'], rate: 600 }),
    clock: new HandClock(),
    events: noEvents,
  });
const remote = { address: '192.0.2.7', port: 1, key: '192.0.2.7 1' };

function ask(device: string, via?: string, from = remote): CoapRequest {
  const options = [
    ...['dm', 't', 'dm.example'].map((segment) => text(Option.UriPath, segment)),
    uint(Option.ContentFormat, 65001),
    text(Option.UriQuery, `id=${device}`),
    ...(via === undefined ? [] : [text(Option.UriQuery, `via=${via}`)]),
  ];
  return new CoapRequest(from, messageOf({ code: Code.POST, options }), false, Buffer.from('x'), 1000);
}

test('a fifth concurrent package of one device gets 5.03; other devices, and later packages, are not affected', async () => {
  const waiting: ((answer: Envelope) => void)[] = [];
  const mode = new TransparentMode({
    gatewayId: 'gw',
    childOf: () => undefined,
    servers: ['dm.example'],
    upstream: { request: () => new Promise((resolve) => waiting.push(resolve)) },
    addresses: new DeviceAddresses(),
    policy: openPolicy(),
    childAt: () => 'b',
    towards: () => undefined,
    settled: async () => {},
    entropy: seededEntropy(1),
    events: noEvents,
  });
  const post = mode.resource().methods.POST!;
  const codeOf = async (outcome: ReturnType<typeof post>) => codeText(((await outcome) as Reply).code);
  const first = Array.from({ length: 4 }, () => post(ask('a')));
  assert.equal(await codeOf(post(ask('a'))), '5.03');
  const other = post(ask('b'));
  // Anyone may send packages in the name of the device. From elsewhere they take none of its places.
  const elsewhere = post(ask('a', undefined, { ...remote, address: '192.0.2.66', key: '192.0.2.66 1' }));
  const answer: Envelope = { kind: 1, correlation: Buffer.alloc(8), body: Buffer.from('y') };
  for (const resolve of waiting) resolve(answer);
  for (const outcome of [...first, other, elsewhere]) assert.equal(await codeOf(outcome), '2.04');
  const again = post(ask('a'));
  waiting.at(-1)?.(answer);
  assert.equal(await codeOf(again), '2.04');
});

test('what the uplink refuses is 503 with the time to try again; a full queue with its own reason', async () => {
  let error = new PosternError('full', 'too many packages wait for the DM server');
  const mode = new TransparentMode({
    gatewayId: 'gw',
    childOf: () => undefined,
    servers: ['dm.example'],
    upstream: { request: () => Promise.reject(error) },
    addresses: new DeviceAddresses(),
    policy: openPolicy(),
    childAt: () => 'b',
    towards: () => undefined,
    settled: async () => {},
    entropy: seededEntropy(1),
    events: noEvents,
  });
  const up = {
    server: 'dm.example',
    device: 'a',
    via: undefined,
    contentType: 'application/vnd.syncml.dm+xml',
    body: Buffer.from('x'),
    hmac: undefined,
    address: '192.0.2.7',
  };
  assert.deepEqual(await mode.forward(up), {
    kind: 'refused',
    status: 503,
    reason: 'too many packages wait for the DM server',
    retryAfter: 5,
  });
  const overCoap = (await mode.resource().methods.POST!(ask('a'))) as Reply;
  assert.deepEqual([codeText(overCoap.code), uintOption(overCoap.options ?? [], Option.MaxAge)], ['5.03', 5]);
  error = new PosternError('unavailable', 'connect ECONNREFUSED 192.0.2.1:1883');
  assert.deepEqual(await mode.forward(up), {
    kind: 'refused',
    status: 503,
    reason: 'the uplink is down',
    retryAfter: 30,
  });
});

test('Package #0 for a device that was never heard is refused as notFound', async () => {
  const mode = new TransparentMode({
    gatewayId: 'gw',
    childOf: () => undefined,
    servers: [],
    upstream: { request: () => Promise.reject(new Error('not asked')) },
    addresses: new DeviceAddresses(),
    policy: openPolicy(),
    childAt: () => 'b',
    towards: () => undefined,
    settled: async () => {},
    entropy: seededEntropy(1),
    events: noEvents,
  });
  await assert.rejects(mode.deliver('a', 'dm.example', new Uint8Array()), {
    code: 'notFound',
  });
});

// conforms: GW-22
test('a package that already passed this gateway, or too many gateways, gets 5.08 and is not sent upstream', async () => {
  const vias: (string | undefined)[] = [];
  const mode = new TransparentMode({
    gatewayId: 'gw',
    childOf: () => undefined,
    servers: ['dm.example'],
    upstream: {
      request: async ({ via }) => {
        vias.push(via);
        return { kind: 1, correlation: Buffer.alloc(8), body: Buffer.from('y') };
      },
    },
    addresses: new DeviceAddresses(),
    policy: openPolicy(),
    childAt: () => 'b',
    towards: () => undefined,
    settled: async () => {},
    entropy: seededEntropy(1),
    events: noEvents,
  });
  const post = mode.resource().methods.POST!;
  for (const [via, code] of [
    ['a/gw', '5.08'],
    ['a/b/c/d/e', '5.08'],
    ['a/b', '2.04'],
  ] as const)
    assert.equal(codeText(((await post(ask('x', via))) as Reply).code), code);
  assert.deepEqual(vias, ['a/b']);
});
