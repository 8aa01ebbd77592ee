import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { PosternError } from '../../../src/base/errors.ts';
import { noEvents } from '../../../src/base/events.ts';
import { statusOf } from '../../../src/dm/replies.ts';
import { TransparentMode } from '../../../src/gateway/modes/transparent.ts';
import { TunnelPolicy } from '../../../src/gateway/modes/tunnel-policy.ts';
import type { UpRequest } from '../../../src/gateway/northbound/uplink.ts';
import { ChildScope } from '../../../src/gateway/rights/child-scope.ts';
import { DeviceAddresses } from '../../../src/gateway/southbound/device-addresses.ts';
import { Code, codeText } from '../../../src/wire/coap/codes.ts';
import { CoapRequest, type Reply } from '../../../src/wire/coap/message.ts';
import { Option, text, uint, uintOption } from '../../../src/wire/coap/options.ts';
import { encodeMessage, MediaType } from '../../../src/wire/syncml/codec.ts';
import type { Envelope } from '../../../src/wire/tunnel/envelope.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { account, messageOf } from '../../wire/coap/wire.ts';

const openPolicy = () =>
  new TunnelPolicy({
    knownDevices: () => 1,
    isKnown: () => true,
    devices: () => ({ patterns: ['*'], rate: 600 }),
    clock: new HandClock(),
    events: noEvents,
  });
/** Who may do what: a server in `tunnel.servers`, and these gateways behind children. */
const rights = (behind: Readonly<Record<string, string>> = {}) => ({
  authorisation: {
    tunnelServers: ['dm.example'],
    may: (server: string, act: string) => act === 'get-packages' && server === 'dm.example',
  },
  scope: new ChildScope({
    gatewayId: 'gw',
    recordOf: (id) => (behind[id] === undefined ? undefined : { via: behind[id], isGateway: true }),
    judge: () => {},
  }),
});
const remote = { address: '192.0.2.7', port: 1, key: '192.0.2.7 1' };

function ask(device: string, via?: string, from = remote): CoapRequest {
  const options = [
    ...['dm', 't', 'dm.example'].map((segment) => text(Option.UriPath, segment)),
    uint(Option.ContentFormat, 65001),
    text(Option.UriQuery, `id=${device}`),
    ...(via === undefined ? [] : [text(Option.UriQuery, `via=${via}`)]),
  ];
  return new CoapRequest(from, messageOf({ code: Code.POST, options }), false, Buffer.from('x'), account());
}

test('a fifth concurrent package of one device gets 5.03; other devices, and later packages, are not affected', async () => {
  const waiting: ((answer: Envelope) => void)[] = [];
  const mode = new TransparentMode({
    gatewayId: 'gw',
    childOf: () => undefined,
    ...rights(),
    upstream: { request: () => new Promise((resolve) => waiting.push(resolve)) },
    addresses: new DeviceAddresses(),
    policy: openPolicy(),
    childAt: () => 'b',
    isUnsure: () => false,
    towards: () => undefined,
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

test('a package without DTLS in the name of a device takes neither its places nor part in its sessions', async () => {
  const waiting: ((answer: Envelope) => void)[] = [];
  const peers: (string | undefined)[] = [];
  const mode = new TransparentMode({
    gatewayId: 'gw',
    childOf: () => undefined,
    ...rights(),
    upstream: {
      request: ({ peer }) => {
        peers.push(peer);
        return new Promise((resolve) => waiting.push(resolve));
      },
    },
    addresses: new DeviceAddresses(),
    policy: openPolicy(),
    childAt: () => undefined,
    isUnsure: ({ identity }) => identity === undefined,
    towards: () => undefined,
    entropy: seededEntropy(1),
    events: noEvents,
  });
  const post = mode.resource().methods.POST!;
  const codeOf = async (outcome: ReturnType<typeof post>) => codeText(((await outcome) as Reply).code);
  // An attacker forges address and port.
  const forged = Array.from({ length: 4 }, () => post(ask('a')));
  assert.equal(await codeOf(post(ask('a'))), '5.03');
  const own = post(ask('a', undefined, { ...remote, identity: 'a' } as typeof remote));
  const answer: Envelope = { kind: 1, correlation: Buffer.alloc(8), body: Buffer.from('y') };
  for (const resolve of waiting) resolve(answer);
  for (const outcome of [...forged, own]) assert.equal(await codeOf(outcome), '2.04');
  // The DM server tells the senders of a session apart by the peer.
  assert.equal(peers.at(-1), '192.0.2.7|1');
  assert.deepEqual(new Set(peers), new Set(['192.0.2.7|1 plain', '192.0.2.7|1']));
});

test('what the uplink refuses is 503 with the time to try again; a full queue with its own reason', async () => {
  let error = new PosternError('full', 'too many packages wait for the DM server');
  const mode = new TransparentMode({
    gatewayId: 'gw',
    childOf: () => undefined,
    ...rights(),
    upstream: { request: () => Promise.reject(error) },
    addresses: new DeviceAddresses(),
    policy: openPolicy(),
    childAt: () => 'b',
    isUnsure: () => false,
    towards: () => undefined,
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
    ...rights(),
    upstream: { request: () => Promise.reject(new Error('not asked')) },
    addresses: new DeviceAddresses(),
    policy: openPolicy(),
    childAt: () => 'b',
    isUnsure: () => false,
    towards: () => undefined,
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
    ...rights({ a: 'b' }),
    upstream: {
      request: async ({ via }) => {
        vias.push(via);
        return { kind: 1, correlation: Buffer.alloc(8), body: Buffer.from('y') };
      },
    },
    addresses: new DeviceAddresses(),
    policy: openPolicy(),
    childAt: () => 'b',
    isUnsure: () => false,
    towards: () => undefined,
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

/** A gateway with the device `known` behind the child `gw-2`, and a DM server that answers with a Status for the header. */
function tunnel(status: number, policy = openPolicy()) {
  const sent: UpRequest[] = [];
  const addresses = new DeviceAddresses();
  const events = new EventRecorder();
  const childAddress = { address: '192.0.2.20', port: 5683 };
  const mode = new TransparentMode({
    gatewayId: 'gw',
    childOf: () => undefined,
    childAt: ({ address }) => (address === childAddress.address ? 'gw-2' : undefined),
    isUnsure: () => false,
    ...rights({ 'gw-5': 'gw-2' }),
    upstream: {
      request: async (request) => {
        sent.push(request);
        const body = encodeMessage(
          {
            header: {
              ...{ verDtd: '1.2', verProto: 'DM/1.2', sessionId: '1', msgId: 1 },
              ...{ target: { locUri: 'x' }, source: { locUri: 'dm.example' } },
            },
            commands: [{ ...statusOf(1, '0', 'SyncHdr', status), cmdId: '1' }],
            final: true,
          },
          MediaType.Xml,
        );
        return { kind: 1, correlation: Buffer.alloc(8), body, contentType: MediaType.Xml };
      },
    },
    addresses,
    policy,
    towards: () => undefined,
    entropy: seededEntropy(1),
    events,
  });
  const post = async (device: string, via?: string, from = remote) =>
    codeText(((await mode.resource().methods.POST!(ask(device, via, from))) as Reply).code);
  return { post, sent, addresses, events, child: { ...childAddress, key: '192.0.2.20|5683' } };
}

test('a way by another gateway is told by that gateway alone: anyone else gets 5.03, and nothing goes up', async () => {
  const { post, sent, child, addresses } = tunnel(212);
  assert.equal(await post('any', 'gw-9'), '5.03');
  assert.equal(await post('any', 'gw-2'), '5.03', 'not from the address of that child');
  assert.equal(await post('any', 'gw-9', child), '5.03', 'a child does not speak for another gateway');
  assert.deepEqual([sent.length, addresses.get('any')], [0, undefined]);
  assert.equal(await post('any', 'gw-6/gw-2', child), '5.03', 'nor for one that is not attached behind it');
  assert.equal(sent.length, 0);
  assert.equal(await post('any', 'gw-5/gw-2', child), '2.04');
  assert.equal(sent[0]?.via, 'gw-5/gw-2');
});

test('a package in the name of the gateway itself gets 4.03, and so it cannot fail in its name', async () => {
  const { post, sent } = tunnel(401);
  for (let times = 0; times < 20; times++) assert.equal(await post('gw'), '4.03');
  assert.equal(sent.length, 0);
});

test('a device that its key proves does not share the rate of strangers, and passes where the policy admits it', async () => {
  const policy = new TunnelPolicy({
    knownDevices: () => 0,
    isKnown: () => false,
    devices: () => ({ patterns: ['urn:a:*'], rate: 1 }),
    clock: new HandClock(),
    events: noEvents,
  });
  const { post } = tunnel(401, policy);
  const codes: string[] = [];
  for (let count = 0; count < 3; count++) codes.push(await post('urn:a:1'));
  assert.equal(codes.at(-1), '5.03');
  const withKey = (identity: string) => ({ ...remote, key: `dtls ${identity}`, identity });
  for (let count = 0; count < 3; count++)
    assert.equal(await post('urn:a:2', undefined, withKey('urn:a:2')), '2.04');
  assert.equal(await post('urn:b:1', undefined, withKey('urn:b:1')), '4.03');
});

test('the address of a package leads to the device only when the DM server has accepted its proof', async () => {
  for (const [status, known] of [
    [401, undefined],
    [407, undefined],
    [212, remote.address],
    [200, remote.address],
  ] as const) {
    const { post, addresses } = tunnel(status);
    assert.equal(await post('x'), '2.04');
    assert.equal(addresses.get('x')?.address, known, String(status));
  }
});

test('a device ID with a space or a control character gets 4.00 with a clear word', async () => {
  const { post, sent } = tunnel(212);
  for (const device of ['a b', 'a\u0007', 'a\u2028', 'a\u202e', ''])
    assert.equal(await post(device), '4.00', device);
  assert.equal(sent.length, 0);
});
