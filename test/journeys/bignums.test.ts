import assert from 'node:assert/strict';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { test } from 'node:test';
import { Code } from '../../src/wire/coap/codes.ts';
import { contentFormatOf } from '../../src/wire/coap/content-formats.ts';
import { MediaType } from '../../src/wire/syncml/codec.ts';
import { startAedes } from '../peers/brokers.ts';
import { CoapPeer } from '../peers/coap-peer.ts';
import { Site } from './site.ts';

/** A CBOR bignum (RFC 8949, section 3.4.3) of this many bytes. Decoding one takes quadratic time. */
function bignum(bytes: number): Buffer {
  const head = Buffer.from('c25a00000000', 'hex');
  head.writeUInt32BE(bytes, 2);
  return Buffer.concat([head, Buffer.alloc(bytes, 0xff)]);
}

test('a bignum in a session, over HTTP and through the tunnel to the head-end: refused, and nothing stalls', {
  timeout: 60_000,
}, async () => {
  await using broker = await startAedes();
  await using site = new Site(broker.url);
  await site.headend(['urn:dev:1']);
  const gateway = await site.gateway([], { http: { port: 0 } });
  await using peer = await CoapPeer.open();
  const contentFormat = contentFormatOf(MediaType.Cbor)!;
  const overCoap = async (path: readonly string[]) =>
    (
      await peer.call(gateway.coapPort, {
        method: Code.POST,
        path: [...path],
        query: ['id=urn:dev:1'],
        contentFormat,
        payload: bignum(60_000),
      })
    ).name;
  const overHttp = async (path: string) => {
    const headers = { 'content-type': MediaType.Cbor };
    const answer = await fetch(`${gateway.httpUrl}${path}`, {
      method: 'POST',
      headers,
      body: bignum(250_000),
    });
    await answer.arrayBuffer();
    return answer.status;
  };
  // All parties are in this process, so the delay of its event loop is that of each of them.
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  const outcomes = [
    await overCoap(['dm']),
    await overCoap(['dm', 't', 'dm.example']),
    await overHttp('/dm'),
    await overHttp('/dm/t/dm.example?id=urn:dev:1'),
  ];
  delay.disable();
  for (const outcome of outcomes)
    assert.ok(String(outcome).startsWith('4') || String(outcome).startsWith('5'), outcomes.join());
  assert.ok(delay.max < 300e6, `the loop stood still for ${Math.round(delay.max / 1e6)} ms`);
});
