import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type CoapMessage, decode, encode, Malformed } from '../../../../src/wire/coap/codec.ts';
import {
  authenticatedData,
  derivationInfo,
  OscoreKeys,
  type OscoreParameters,
} from '../../../../src/wire/secure/oscore/keys.ts';
import {
  type Content,
  headerOf,
  openRequest,
  openResponse,
  protectRequest,
  protectResponse,
} from '../../../../src/wire/secure/oscore/messages.ts';
import { pivOf } from '../../../../src/wire/secure/oscore/option.ts';

const bytes = (hex: string): Buffer => Buffer.from(hex, 'hex');
const hex = (octets: Uint8Array): string => Buffer.from(octets).toString('hex');

const masterSecret = bytes('0102030405060708090a0b0c0d0e0f10');
const masterSalt = bytes('9e7ca92223786340');
const idContext = bytes('37cbf3210017a2d3');
const none = bytes('');

/** The party at the other end. */
const mirrored = (parameters: OscoreParameters): OscoreParameters => ({
  ...parameters,
  senderId: parameters.recipientId,
  recipientId: parameters.senderId,
});

const read = (message: string): CoapMessage => {
  const decoded = decode(bytes(message));
  assert.ok(!(decoded instanceof Malformed));
  return decoded;
};

/** A message of which OSCORE has replaced what it protects. */
const written = (header: CoapMessage, content: Content): string => hex(encode({ ...header, ...content }));

// RFC 8613 appendix C.1 to C.3. Each has a client, and a server whose values are those of the client the other way round.
const derivations = {
  'C.1, with a Master Salt': {
    client: { masterSecret, masterSalt, senderId: none, recipientId: bytes('01') },
    info: ['8540f60a634b657910', '854101f60a634b657910', '8540f60a6249560d'],
    keys: ['f0910ed7295e6ad4b54fc793154302ff', 'ffb14e093c94c9cac9471648b4f98710'],
    iv: '4622d4dd6d944168eefb54987c',
    nonces: ['4622d4dd6d944168eefb54987c', '4722d4dd6d944169eefb54987c'],
  },
  'C.2, without a Master Salt': {
    client: { masterSecret, senderId: bytes('00'), recipientId: bytes('01') },
    info: ['854100f60a634b657910', '854101f60a634b657910', '8540f60a6249560d'],
    keys: ['321b26943253c7ffb6003b0b64d74041', 'e57b5635815177cd679ab4bcec9d7dda'],
    iv: 'be35ae297d2dace910c52e99f9',
    nonces: ['bf35ae297d2dace910c52e99f9', 'bf35ae297d2dace810c52e99f9'],
  },
  'C.3, with an ID Context': {
    client: { masterSecret, masterSalt, idContext, senderId: none, recipientId: bytes('01') },
    info: [
      '85404837cbf3210017a2d30a634b657910',
      '8541014837cbf3210017a2d30a634b657910',
      '85404837cbf3210017a2d30a6249560d',
    ],
    keys: ['af2a1300a5e95788b356336eeecd2b92', 'e39a0c7c77b43f03b4b39ab9a268699f'],
    iv: '2ca58fb85ff1b81c0b7181b85e',
    nonces: ['2ca58fb85ff1b81c0b7181b85e', '2da58fb85ff1b81d0b7181b85e'],
  },
};

describe('key derivation, RFC 8613 appendix C', () => {
  for (const [name, { client, info, keys, iv, nonces }] of Object.entries(derivations))
    test(name, () => {
      const { senderId, recipientId, idContext: context } = client as OscoreParameters;
      assert.deepEqual(
        [
          hex(derivationInfo(senderId, context, 'Key', 16)),
          hex(derivationInfo(recipientId, context, 'Key', 16)),
          hex(derivationInfo(none, context, 'IV', 13)),
        ],
        info,
      );
      const ofClient = new OscoreKeys(client);
      const ofServer = new OscoreKeys(mirrored(client));
      assert.deepEqual([hex(ofClient.senderKey), hex(ofClient.recipientKey)], keys);
      assert.deepEqual([hex(ofServer.recipientKey), hex(ofServer.senderKey)], keys);
      assert.deepEqual([hex(ofClient.commonIv), hex(ofServer.commonIv)], [iv, iv]);
      assert.deepEqual(
        [senderId, recipientId].map((id) => hex(ofClient.nonce(id, pivOf(0)))),
        nonces,
      );
      assert.deepEqual(
        [senderId, recipientId].map((id) => hex(ofServer.nonce(id, pivOf(0)))),
        nonces,
      );
    });
});

const { 'C.1, with a Master Salt': first, 'C.2, without a Master Salt': second } = derivations;
const requests = {
  'C.4': {
    client: first.client,
    plain: '44015d1f00003974396c6f63616c686f737483747631',
    nonce: '4622d4dd6d944168eefb549868',
    data: '8368456e63727970743040488501810a40411440',
    sealed: '44025d1f00003974396c6f63616c686f7374620914ff612f1092f1776f1c1668b3825e',
  },
  'C.5': {
    client: second.client,
    plain: '440171c30000b932396c6f63616c686f737483747631',
    nonce: 'bf35ae297d2dace910c52e99ed',
    data: '8368456e63727970743040498501810a4100411440',
    sealed: '440271c30000b932396c6f63616c686f737463091400ff4ed339a5a379b0b8bc731fffb0',
  },
  'C.6': {
    client: derivations['C.3, with an ID Context'].client,
    plain: '44012f8eef9bbf7a396c6f63616c686f737483747631',
    nonce: '2ca58fb85ff1b81c0b7181b84a',
    data: '8368456e63727970743040488501810a40411440',
    sealed: '44022f8eef9bbf7a396c6f63616c686f73746b19140837cbf3210017a2d3ff72cd7273fd331ac45cffbe55c3',
  },
};
const piv = pivOf(20);

describe('messages, RFC 8613 appendix C', () => {
  for (const [name, { client, plain, nonce, data, sealed }] of Object.entries(requests))
    test(`request ${name}`, () => {
      const keys = new OscoreKeys(client);
      const message = read(plain);
      const { request, message: content } = protectRequest(keys, piv, message);
      assert.equal(hex(keys.nonce(request.kid, request.piv)), nonce);
      assert.equal(hex(authenticatedData(request)), data);
      assert.equal(written(message, content), sealed);

      const arrived = read(sealed);
      const header = headerOf(arrived);
      assert.ok(header?.kid && header.piv);
      const opened = openRequest(
        new OscoreKeys(mirrored(client)),
        { kid: header.kid, piv: header.piv },
        arrived,
      );
      assert.ok(opened);
      assert.equal(written(arrived, opened.content), plain);
    });

  const plain = '64455d1f00003974ff48656c6c6f20576f726c6421';
  for (const [name, own, sealed] of [
    [
      'C.7, with the nonce of the request',
      undefined,
      '64445d1f0000397490ffdbaad1e9a7e7b2a813d3c31524378303cdafae119106',
    ],
    [
      'C.8, with a Partial IV',
      pivOf(0),
      '64445d1f00003974920100ff4d4c13669384b67354b2b6175ff4b8658c666a6cf88e',
    ],
  ] as const)
    test(`response ${name}`, () => {
      const keys = new OscoreKeys(first.client);
      const asked = protectRequest(keys, piv, read(requests['C.4'].plain));
      const server = new OscoreKeys(mirrored(first.client));
      const arrived = openRequest(server, { kid: none, piv }, asked.message);
      assert.ok(arrived);
      const response = read(plain);
      assert.equal(written(response, protectResponse(server, arrived.request, own, response)), sealed);
      const opened = openResponse(keys, asked.request, read(sealed));
      assert.ok(opened);
      assert.equal(written(response, opened), plain);
    });
});
