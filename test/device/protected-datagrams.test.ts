import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemEntropy } from '../../src/base/entropy.ts';
import { call } from '../../src/wire/coap/blockwise-client.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { reply } from '../../src/wire/coap/message.ts';
import { OscoreRig } from './oscore-rig.ts';

const limit = { timeout: 60_000 };

test(
  'bodies of any size go both ways, and the memory of the gateway is lost at each place of an upload',
  limit,
  async (t) => {
    const rig = await new OscoreRig(t).open();
    rig.handler = ({ payload }) => reply(Code.Content, { payload: `${payload.length} ${'z'.repeat(3000)}` });
    const body = 'b'.repeat(2000);
    const expected = `2.05 2000 ${'z'.repeat(3000)}`;
    assert.equal(await rig.ask(body), expected);
    // The gateway forgets the blocks before, and says so; the device begins anew, as it does without OSCORE.
    for (let place = 1; place <= 3; place++) {
      let count = 0;
      rig.passes = (_, isOutward) => {
        if (isOutward && ++count === place) rig.start();
        return true;
      };
      const first = await rig.ask(body);
      rig.passes = () => true;
      assert.ok(first === expected || first.startsWith('4.08'), first.slice(0, 40));
      assert.equal(await rig.ask(body), expected, 'the next one succeeds');
    }
  },
);

test(
  'a lost request, a lost response and a doubled datagram are as without OSCORE: each request is handled once',
  limit,
  async (t) => {
    const rig = await new OscoreRig(t).open();
    const heard: string[] = [];
    rig.handler = ({ payload }) => {
      heard.push(Buffer.from(payload).toString());
      return reply(Code.Content, { payload: `to ${Buffer.from(payload)}` });
    };
    assert.equal(await rig.ask('first'), '2.05 to first');
    for (const lost of [true, false]) {
      let isLost = false;
      rig.passes = (_, isOutward) => {
        if (isLost || isOutward !== lost) return true;
        isLost = true;
        return false;
      };
      assert.equal(await rig.ask(`lost ${lost}`), `2.05 to lost ${lost}`);
    }
    rig.passes = (datagram, isOutward) => {
      if (isOutward) setImmediate(() => rig.endpoint.receive(datagram, '127.0.0.1', 9));
      return true;
    };
    assert.equal(await rig.ask('doubled'), '2.05 to doubled');
    assert.deepEqual(heard, ['first', 'lost true', 'lost false', 'doubled']);
  },
);

test(
  'a request of the gateway reaches the device protected, also when the gateway begins and the device knows nothing',
  limit,
  async (t) => {
    const rig = await new OscoreRig(t).open();
    await rig.ask('where the device is');
    const { address, port } = rig.contexts.get('device')!.place!;
    rig.start();
    const send = (path: string, payload: Uint8Array) =>
      call(rig.endpoint, systemEntropy, address, port, {
        method: Code.POST,
        path: [path],
        payload,
        timeout: 20_000,
      });
    const { code, payload } = await send('one', Buffer.from('short'));
    assert.deepEqual([code, Buffer.from(payload).toString()], [Code.Changed, 'short']);
    // The first is lost on its way back, and its repetition is answered without being handled again.
    let isLost = false;
    rig.passes = (_, isOutward) => {
      if (isLost || !isOutward) return true;
      isLost = true;
      return false;
    };
    await send('two', Buffer.from('again'));
    assert.deepEqual(rig.answered, ['/one', '/two']);
  },
);

test('what is not protected is not served by the device, and not believed', limit, async (t) => {
  const rig = await new OscoreRig(t).open();
  await rig.ask('where the device is');
  const { address, port } = rig.contexts.get('device')!.place!;
  rig.contexts.remove('device');
  await assert.rejects(rig.endpoint.request(address, port, { code: Code.POST, options: [], timeout: 300 }), {
    code: 'timeout',
  });
  assert.deepEqual(rig.answered, []);
  assert.equal((await rig.ask('now')).slice(0, 4), '0.00');
  await rig.events.until('oscore.unanswered');
});
