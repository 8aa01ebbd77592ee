import assert from 'node:assert/strict';
import { test } from 'node:test';
import { coapBase, coapUri, isCoapUri, parseCoapUri } from '../../../src/wire/coap/uri.ts';

test('a zone of an IPv6 address is read in both spellings, and written in that of RFC 6874', () => {
  for (const text of [
    'coap://[fe80::1%25eth0]:61616/dm/t?id=a%20b',
    'coap://[fe80::1%eth0]:61616/dm/t?id=a%20b',
    'coap://[FE80:0::0001%25eth0]:61616/dm/t?id=a%20b',
  ]) {
    const { host, port, path, query } = parseCoapUri(text);
    assert.deepEqual([host, port, path, query], ['fe80::1%eth0', 61616, ['dm', 't'], 'id=a%20b']);
    assert.equal(coapBase(host, port), 'coap://[fe80::1%25eth0]:61616');
  }
  assert.equal(parseCoapUri('coap://[fe80::1%25br-lan.2]').host, 'fe80::1%br-lan.2');
  assert.equal(parseCoapUri('coap://[fe80::1%3]').host, 'fe80::1%3');
});

test('without a zone nothing changes', () => {
  for (const [text, host, port] of [
    ['coap://192.0.2.1', '192.0.2.1', 5683],
    ['coap://[2001:DB8::1]:1', '2001:db8::1', 1],
    ['coap://gateway.example:7', 'gateway.example', 7],
  ] as const) {
    assert.deepEqual([parseCoapUri(text).host, parseCoapUri(text).port], [host, port]);
    assert.equal(parseCoapUri(`${coapBase(host, port)}/`).host, host);
  }
});

test('a URI for others has no zone', () => {
  assert.equal(coapUri('fe80::1%eth0', 5683, '/dm'), 'coap://[fe80::1]:5683/dm');
});

test('what is none is refused', () => {
  for (const text of [
    '',
    'coap://',
    'http://[fe80::1%25eth0]/',
    'coap://[fe80::1%25eth/0]',
    'coap://[fe80::1%25eth0',
    'coap://[fe80:::1%25eth0]',
    'coap://[fe80::1%25eth0]:99999',
    'coap://192.0.2.1/%zz',
  ]) {
    assert.throws(() => parseCoapUri(text), { code: 'malformed' }, text);
    assert.equal(isCoapUri(text), false);
  }
});
