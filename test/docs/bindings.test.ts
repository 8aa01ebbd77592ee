import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  derivedKey,
  factoryContext,
  factoryIdentity,
  factoryKey,
} from '../../src/wire/secure/transport-keys.ts';
import { decodeProof, encodeProof, isProof } from '../../src/wire/syncml/bootstrap-proof.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import { decodeEnvelope, encodeEnvelope } from '../../src/wire/tunnel/envelope.ts';
import { decodeState, encodeState } from '../../src/wire/tunnel/gateway-state.ts';

const page = readFileSync(new URL('../../docs/bindings.md', import.meta.url), 'utf8');
const example = (name: string) =>
  Buffer.from(new RegExp(`\`\`\`hex ${name}\n([0-9a-f]+)\n`).exec(page)![1]!, 'hex');

test('the proof in docs/bindings.md is valid, and encoding it gives the same bytes', () => {
  const proof = decodeProof(example('proof'));
  const challenge = Buffer.from('000102030405060708090a0b0c0d0e0f1011', 'hex');
  assert.equal(isProof(proof, 'factory-secret', challenge, 'urn:dev:1'), true);
  assert.equal(encodeProof(proof).toString('hex'), example('proof').toString('hex'));
});

test('the identity and the key of the factory secret in docs/bindings.md are right', () => {
  const [, identity, key] = /```psk\n(\S+)\n([0-9a-f]+)\n/.exec(page)!;
  assert.equal(factoryIdentity('urn:dev:1'), identity);
  assert.equal(factoryKey('factory-secret', 'urn:dev:1').toString('hex'), key);
});

test('the key that a DM server gives, in docs/bindings.md, is right', () => {
  const [, key] = /```derived\n(\S+)\n/.exec(page)!;
  const salt = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex');
  assert.equal(derivedKey('client secret', salt, 'gw:abcdefghijklmnop'), key);
});

test('the context of the factory secret in docs/bindings.md is right', () => {
  const [, secret, sender] = /```oscore\n([0-9a-f]+)\n([0-9a-f]+)\n/.exec(page)!;
  const { masterSecret, recipientId } = factoryContext('factory-secret', 'urn:dev:1');
  assert.deepEqual(
    [masterSecret, recipientId].map((octets) => Buffer.from(octets).toString('hex')),
    [secret, sender],
  );
});

test('the envelope in docs/bindings.md has the described content, and encoding it gives the same bytes', () => {
  const envelope = decodeEnvelope(example('envelope'));
  assert.deepEqual(
    [
      envelope.kind,
      envelope.device,
      envelope.server,
      envelope.contentType,
      envelope.timeToLive,
      envelope.headers,
      String(envelope.body),
    ],
    [0, 'urn:dev:1', 'dm.example', MediaType.Xml, 60, { 'x-syncml-hmac': 'mac' }, '<a/>'],
  );
  assert.equal(encodeEnvelope(envelope).toString('hex'), example('envelope').toString('hex'));
});

test('the gateway state in docs/bindings.md can be read, and encoding it gives the same bytes', () => {
  const state = decodeState(example('state'));
  assert.deepEqual([state.online, state.software], [true, '0.1.0']);
  assert.equal(encodeState(state).toString('hex'), example('state').toString('hex'));
});

test('the message in docs/bindings.md has the described commands and sizes', () => {
  const message = decodeMessage(example('message'), MediaType.Cbor);
  assert.deepEqual(
    message.commands.map(({ name }) => name),
    ['Alert', 'Replace'],
  );
  assert.deepEqual(Buffer.from(encodeMessage(message, MediaType.Cbor)), example('message'));
  assert.deepEqual([example('message').length, encodeMessage(message, MediaType.Xml).length], [144, 598]);
});
