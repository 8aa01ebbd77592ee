import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type CoapOption, noBytes } from '../../../../src/wire/coap/codec.ts';
import { Code } from '../../../../src/wire/coap/codes.ts';
import { Option, opaque, text, uint } from '../../../../src/wire/coap/options.ts';
import { splitOptions } from '../../../../src/wire/secure/oscore/classes.ts';
import { OscoreKeys } from '../../../../src/wire/secure/oscore/keys.ts';
import {
  type Content,
  headerOf,
  openRequest,
  openResponse,
  protectRequest,
  protectResponse,
} from '../../../../src/wire/secure/oscore/messages.ts';
import { pivOf, readHeader, sequenceOf, writeHeader } from '../../../../src/wire/secure/oscore/option.ts';

const masterSecret = Buffer.from('a master secret of sufficient length');
const [left, right] = [Buffer.of(1), Buffer.of(2)];
const client = new OscoreKeys({ masterSecret, senderId: left, recipientId: right });
const server = new OscoreKeys({ masterSecret, senderId: right, recipientId: left });
const numbers = (options: readonly CoapOption[]) => options.map(({ number }) => number);
const get = (...options: CoapOption[]): Content => ({ code: Code.GET, options, payload: noBytes });

describe('the OSCORE option', () => {
  test('is read as it is written', () => {
    for (const piv of [undefined, 0, 1, 255, 256, 65_536, 2 ** 40 - 1])
      for (const kid of [undefined, '', '01', '01020304050607'])
        for (const kidContext of [undefined, '', '37cb', 'ab'.repeat(64)]) {
          const header = {
            piv: piv === undefined ? undefined : pivOf(piv),
            kid: kid === undefined ? undefined : Buffer.from(kid, 'hex'),
            kidContext: kidContext === undefined ? undefined : Buffer.from(kidContext, 'hex'),
          };
          const read = readHeader(writeHeader(header));
          assert.ok(read);
          for (const part of ['piv', 'kid', 'kidContext'] as const)
            assert.deepEqual(read[part] && Buffer.from(read[part]), header[part], part);
          if (header.piv) assert.equal(sequenceOf(header.piv), piv);
        }
  });

  test('that is not of its form is refused', () => {
    for (const value of [
      '00', // no flag: it must be empty
      '20', // a reserved bit
      '80',
      '0601020304050607', // reserved lengths of a Partial IV
      '0701020304050607',
      '0a05',
      '020014', // leading zero
      '0114ff', // octets that no flag announces
      '10', // no length of the ID Context
      '1905', // it ends in the middle
      '19050337cb',
    ])
      assert.equal(readHeader(Buffer.from(value, 'hex')), undefined, value);
  });
});

describe('options', () => {
  test('those of class U stay outside, all others go inside, unknown ones too', () => {
    const unknown = { number: 2053, value: Buffer.of(1) };
    const { inner, outer } = splitOptions([
      text(Option.UriHost, 'host'),
      uint(Option.UriPort, 5683),
      text(Option.UriPath, 'path'),
      { number: 16, value: Buffer.of(3) },
      text(Option.UriQuery, 'q=1'),
      uint(Option.Block1, 14),
      text(Option.ProxyScheme, 'coap'),
      opaque(Option.Echo, Buffer.of(1)),
      opaque(Option.RequestTag, Buffer.of(1)),
      unknown,
    ]);
    assert.deepEqual(numbers(outer), [3, 7, 16, 39]);
    assert.deepEqual(numbers(inner), [11, 15, 27, 252, 292, 2053]);
  });

  test('a Proxy-Uri is taken apart: path and query are protected', () => {
    const { inner, outer } = splitOptions([text(Option.ProxyUri, 'coap://host:61616/a%20b/c?x=1&y=2')]);
    const said = (options: readonly CoapOption[]) =>
      options.map(
        ({ number, value }) => `${number} ${Buffer.from(value).toString(number === 7 ? 'hex' : 'utf8')}`,
      );
    assert.deepEqual(said(outer), ['3 host', '7 f0b0', '39 coap']);
    assert.deepEqual(said(inner), ['11 a b', '11 c', '15 x=1', '15 y=2']);
    assert.throws(() => splitOptions([text(Option.ProxyUri, 'http://host/')]), { code: 'malformed' });
  });

  test('of class E that a proxy adds outside are dropped, those of class U are kept', () => {
    const { message, request } = protectRequest(client, pivOf(3), get(text(Option.UriPath, 'a')));
    const added = [
      text(Option.UriHost, 'proxied'),
      opaque(Option.ETag, Buffer.of(1)),
      ...message.options,
      text(Option.UriPath, 'other'),
      uint(Option.MaxAge, 9),
    ];
    const opened = openRequest(server, request, { ...message, options: added });
    assert.deepEqual(numbers(opened?.content.options ?? []), [3, 11]);
    assert.equal(Buffer.from(opened?.content.options[1]?.value ?? []).toString(), 'a');
  });
});

describe('Observe', () => {
  test('is inside and outside; inside a notification it is empty', () => {
    const asked = protectRequest(client, pivOf(3), get(uint(Option.Observe, 0), text(Option.UriPath, 'a')));
    assert.equal(asked.message.code, Code.FETCH);
    assert.deepEqual(numbers(asked.message.options), [6, 9]);
    const opened = openRequest(server, asked.request, asked.message);
    assert.deepEqual(numbers(opened?.content.options ?? []), [6, 11]);
    const notification = protectResponse(server, opened!.request, pivOf(0), {
      code: Code.Content,
      options: [uint(Option.Observe, 77)],
      payload: Buffer.from('x'),
    });
    assert.equal(notification.code, Code.Content);
    assert.deepEqual(notification.options[0], uint(Option.Observe, 77));
    assert.deepEqual(sequenceOf(headerOf(notification)!.piv!), 0);
    const read = openResponse(client, asked.request, notification);
    assert.deepEqual(read?.options, [opaque(Option.Observe, noBytes)]);
  });

  test('is not outside a response where a proxy took it away from the request', () => {
    const asked = protectRequest(client, pivOf(3), get(uint(Option.Observe, 0)));
    const bare = { ...asked.message, options: asked.message.options.filter(({ number }) => number !== 6) };
    const opened = openRequest(server, asked.request, bare);
    assert.deepEqual(numbers(opened!.content.options), [6]);
    const { code, options } = protectResponse(server, opened!.request, pivOf(0), {
      code: Code.Content,
      options: [uint(Option.Observe, 1)],
      payload: noBytes,
    });
    assert.deepEqual([code, numbers(options)], [Code.Changed, [9]]);
  });
});

test('a message with one changed octet, at any place, does not verify', () => {
  const asked = protectRequest(client, pivOf(300), {
    ...get(text(Option.UriPath, 'dm')),
    payload: Buffer.from('body'),
  });
  const answer = protectResponse(server, asked.request, undefined, {
    code: Code.Content,
    options: [uint(Option.ContentFormat, 40)],
    payload: Buffer.from('answer'),
  });
  const flips = (payload: Uint8Array) =>
    [...payload.keys()].flatMap((at) =>
      [1, 0x80].map((bit) => payload.map((byte, each) => (each === at ? byte ^ bit : byte))),
    );
  for (const payload of flips(asked.message.payload))
    assert.equal(openRequest(server, asked.request, { ...asked.message, payload }), undefined);
  for (const payload of flips(answer.payload))
    assert.equal(openResponse(client, asked.request, { ...answer, payload }), undefined);
  for (const end of asked.message.payload.keys())
    assert.equal(
      openRequest(server, asked.request, {
        ...asked.message,
        payload: asked.message.payload.subarray(0, end),
      }),
      undefined,
    );
  assert.ok(openRequest(server, asked.request, asked.message));
  assert.ok(openResponse(client, asked.request, answer));
});

test('a response belongs to its request alone', () => {
  const [one, two] = [1, 2].map((sequence) => protectRequest(client, pivOf(sequence), get()));
  for (const piv of [undefined, pivOf(5)]) {
    const answer = protectResponse(server, one!.request, piv, {
      code: Code.Content,
      options: [],
      payload: noBytes,
    });
    assert.ok(openResponse(client, one!.request, answer));
    assert.equal(openResponse(client, two!.request, answer), undefined);
  }
});

test('what holds no message, another protected message, or the wrong kind of code, is refused', () => {
  const sealed = (plaintext: string) => ({
    code: Code.POST,
    options: [opaque(Option.Oscore, writeHeader({ piv: pivOf(1), kid: left }))],
    payload: client.seal({ kid: left, piv: pivOf(1) }, pivOf(1), Buffer.from(plaintext, 'hex')),
  });
  const open = (plaintext: string) => openRequest(server, { kid: left, piv: pivOf(1) }, sealed(plaintext));
  assert.ok(open('01b3747631'));
  for (const plaintext of ['', '00', '45', '01ff', '01f0', '0190', '01910901'])
    assert.equal(open(plaintext), undefined, plaintext);
});

test('a message without a payload has no header', () => {
  const { message } = protectRequest(client, pivOf(1), get());
  assert.ok(headerOf(message));
  assert.equal(headerOf({ ...message, payload: noBytes }), undefined);
});
