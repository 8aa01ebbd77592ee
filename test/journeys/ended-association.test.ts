import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encode, Type } from '../../src/wire/coap/codec.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { uriOptions } from '../../src/wire/coap/options.ts';
import { factory, gatewayOf, id, Party } from './lwm2m-party.ts';

test('requests that wait while the key of their sender ends are not handled', {
  timeout: 60_000,
}, async () => {
  const { gateway, events, port, parts } = await gatewayOf();
  await using _gateway = gateway;
  await using blank = await Party.open(port, factory);
  const issued = await blank.pack();
  await using client = await Party.open(port, issued);
  const { dtls } = client.end;
  const association = dtls.at('127.0.0.1', port)!;
  const sent = client.end.captured.length;
  const all = 500;
  for (let count = 0; count < all; count++) {
    const options = uriOptions(['rd'], [`ep=${id}`, 'lwm2m=1.1', 'lt=300']);
    const message = {
      type: Type.NON,
      code: Code.POST,
      messageId: count,
      token: Buffer.from([count & 255]),
      options,
    };
    dtls.send(association, encode({ ...message, payload: new Uint8Array() }));
  }
  // All in one turn of the event loop, so most of them wait for later ones.
  for (const { bytes } of client.end.captured.slice(sent))
    parts.transport!.receive(bytes, '127.0.0.1', client.end.port, '127.0.0.1');
  const handled = () => events.count('registration.taken') + events.count('registration.refused');
  parts.transport!.revoke(issued.identity);
  await events.until('dtls.closed', { identity: issued.identity });
  const before = handled();
  assert.ok(before < all, `${before} were handled at once`);
  // What comes after them is handled.
  await using other = await Party.open(port, factory);
  assert.match(await other.register(), /^4/);
  assert.ok(handled() <= before + 1, `${handled() - before} more were handled afterwards`);
});
