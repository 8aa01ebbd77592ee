import assert from 'node:assert/strict';
import { test } from 'node:test';
import { demandEncodable } from '../../../src/gateway/northbound/outgoing-alerts.ts';
import { deviceAttachAlert } from '../../../src/mo/gateway-alerts.ts';
import { ownVocabulary } from '../../../src/mo/vocabulary.ts';
import { encodeMessage, MediaType } from '../../../src/wire/syncml/codec.ts';

const codings = [MediaType.Xml, MediaType.Wbxml, MediaType.Cbor];
const seed = Number(process.env.POSTERN_SEED ?? 1 + Math.floor(Math.random() * 1e6));
const alertOf = (model: string) =>
  deviceAttachAlert(ownVocabulary, {
    ...{ sequence: 1, deviceId: 'urn:dev:1', mode: 0, bootstrap: 'local', model },
  });
const withData = (data: string) => {
  const alert = alertOf('m');
  return { ...alert, items: alert.items.map((item) => ({ ...item, data })) };
};

test(`an alert that is let through without a try can be encoded in each coding (seed ${seed})`, () => {
  let state = seed;
  const pick = (count: number) => {
    state = (state * 48271) % 2147483647;
    return state % count;
  };
  for (let round = 0; round < 500; round++) {
    const text = Array.from({ length: pick(200) }, () => String.fromCharCode(0x20 + pick(0x5f))).join('');
    for (const { code, items } of [alertOf(text), withData(text)])
      for (const coding of codings) {
        demandEncodable({ code, items }, coding);
        const header = {
          ...{ verDtd: '1.2', verProto: 'DM/1.2', sessionId: '1', msgId: 1 },
          ...{ target: { locUri: 'a' }, source: { locUri: 'b' } },
        };
        encodeMessage(
          { header, commands: [{ name: 'Alert', cmdId: '1', data: code, items }], final: true },
          coding,
        );
      }
  }
});

test('an alert that a coding cannot hold is found', () => {
  const { code, items } = alertOf('m');
  const [item] = items;
  for (const locUri of ['\u001b', 'plain \ufffe', `${'x'.repeat(5000)}\u0000`])
    assert.throws(
      () => demandEncodable({ code, items: [{ ...item, source: { locUri } }] }, MediaType.Xml),
      JSON.stringify(locUri.slice(-4)),
    );
  assert.throws(() => demandEncodable({ code, items, correlator: '\u0000' }, MediaType.Xml));
});
