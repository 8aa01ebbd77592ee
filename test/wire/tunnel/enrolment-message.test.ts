import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toCbor } from '../../../src/base/cbor.ts';
import {
  decodeEnrolmentAnswer,
  decodeEnrolmentGrant,
  decodeEnrolmentRequest,
  type EnrolmentAnswer,
  encodeEnrolmentAnswer,
  encodeEnrolmentGrant,
  encodeEnrolmentRequest,
  enrolmentBytes,
} from '../../../src/wire/tunnel/enrolment-message.ts';
import { parseEnrolmentTopic } from '../../../src/wire/tunnel/topics.ts';

const octets = (...bytes: number[]) => Buffer.from(bytes);

test('requests, answers and grants are read as they were written', () => {
  for (const request of [
    { request: octets(1, 2) },
    { request: octets(), code: 'c', serial: 's', server: 'dm.example' },
  ])
    assert.deepEqual(decodeEnrolmentRequest(encodeEnrolmentRequest(request)), request);
  const answers: EnrolmentAnswer[] = [
    { state: 'granted', sealed: octets(3) },
    { state: 'waiting', reason: 'r', again: 60 },
    { state: 'refused', reason: 'r', again: 0 },
  ];
  for (const answer of answers)
    assert.deepEqual(decodeEnrolmentAnswer(encodeEnrolmentAnswer(answer)), answer);
  const grant = {
    gateway: 'gw-1',
    chain: [octets(1), octets(2)],
    server: 'dm.example',
    clientSecret: 'a',
    serverSecret: 'b',
    topics: { state: 's', up: 'u', down: 'd' },
  };
  assert.deepEqual(decodeEnrolmentGrant(encodeEnrolmentGrant(grant)), grant);
});

test('keys of later versions are ignored; another version, missing and wrong values are malformed', () => {
  const map = (...entries: [number, unknown][]) => toCbor(new Map([[1, 1], ...entries]));
  assert.deepEqual(decodeEnrolmentRequest(map([2, octets(1)], [99, 'x'])), { request: octets(1) });
  const refused = { code: 'malformed' };
  assert.throws(() => decodeEnrolmentRequest(toCbor(new Map([[1, 2]]))), refused);
  assert.throws(() => decodeEnrolmentRequest(octets(0xff)), refused);
  for (const wrong of [
    map(),
    map([2, 'x']),
    map([2, octets()], [3, '']),
    map([2, octets()], [4, 'x'.repeat(256)]),
  ])
    assert.throws(() => decodeEnrolmentRequest(wrong), refused);
  for (const wrong of [map([2, 3]), map([2, 0]), map([2, 1]), map([2, 1], [4, 'r'], [5, -1]), map([2, '0'])])
    assert.throws(() => decodeEnrolmentAnswer(wrong), refused);
  assert.throws(() => decodeEnrolmentGrant(map([2, 'gw-1'], [3, []])), refused);
  const large = encodeEnrolmentRequest({ request: Buffer.alloc(enrolmentBytes) });
  assert.throws(() => decodeEnrolmentRequest(large), { code: 'tooLarge' });
});

test('only topics of requests are read as such', () => {
  assert.deepEqual(parseEnrolmentTopic('enrol/claim/key/up'), { claim: 'claim', client: 'key' });
  for (const other of [
    'enrol/claim/key/down',
    'enrol/claim/up',
    'enrol//key/up',
    'dm/claim/key/up',
    'enrol/a b/key/up',
  ])
    assert.equal(parseEnrolmentTopic(other), undefined, other);
  assert.equal(parseEnrolmentTopic('enrol/claim/key/up/x'), undefined);
});
