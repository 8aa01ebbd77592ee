import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { describe, type TestContext, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Block2Body, parseBlock2 } from '../../src/device/block2-body.ts';
import { CoapStack } from '../../src/device/coap-stack.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { HandClock } from '../hand-clock.ts';
import { Site } from '../journeys/site.ts';
import { startAedes } from '../peers/brokers.ts';
import { type Asked, blockOf, lyingCoapServer, type Said } from '../peers/lying-coap-server.ts';

const [v1, v2] = [randomBytes(10_000), randomBytes(10_000)];
const blocks = Math.ceil(v1.length / 1024);
const sha = (data: Uint8Array) => createHash('sha256').update(data).digest('hex');

async function rig(t: TestContext, answer: (asked: Asked) => readonly Said[]) {
  const server = await lyingCoapServer(answer);
  t.after(() => server[Symbol.asyncDispose]());
  const clock = new HandClock();
  const stack = new CoapStack(clock, '127.0.0.1', () => ({ code: '4.04' }));
  await stack.open();
  t.after(() => stack[Symbol.asyncDispose]());
  const numbers = () => server.asked.map(({ number }) => number);
  return { ...server, clock, stack, numbers, load: async () => sha(await stack.download(server.uri)) };
}

/** Block numbers from one to another. */
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, at) => from + at);

describe('a download in blocks', { timeout: 30_000 }, () => {
  test('begins anew when the body changes in the middle', async (t) => {
    const { load, numbers } = await rig(t, (asked) => [
      blockOf(asked.index < 4 ? v1 : v2, asked, asked.index < 4 ? 'v1' : 'v2'),
    ]);
    assert.equal(await load(), sha(v2));
    assert.deepEqual(numbers(), [...range(0, 5), ...range(0, blocks)]);
  });

  test('begins anew after one block of another version, or a whole body in the middle', async (t) => {
    for (const odd of [
      (asked: Asked) => blockOf(v2, asked, 'v2'),
      () => ({ payload: v2.subarray(0, 500), etag: 'v2' }),
    ]) {
      const { load, numbers } = await rig(t, (asked) => [
        asked.index === 4 ? odd(asked) : blockOf(v1, asked, 'v1'),
      ]);
      assert.equal(await load(), sha(v1));
      assert.deepEqual(numbers(), [...range(0, 5), ...range(0, blocks)]);
    }
  });

  test('fails when the body changes again and again', async (t) => {
    const { stack, uri, asked } = await rig(t, (each) => [
      blockOf(v1, each, each.number === 2 ? `x${each.index}` : 'v1'),
    ]);
    await assert.rejects(stack.download(uri), { code: 'conflict' });
    assert.equal(asked.length, 5 * 3);
  });

  test('takes smaller blocks, from the start or from the middle', async (t) => {
    for (const from of [0, 3]) {
      const { load, asked } = await rig(t, ({ number, exponent, index }) => {
        const small = index < from ? exponent : Math.min(exponent, 5);
        return [blockOf(v1, { number: number << (exponent - small), exponent: small }, 'v1')];
      });
      assert.equal(await load(), sha(v1));
      assert.deepEqual(asked.at(-1), { index: asked.length - 1, number: 19, exponent: 5 });
    }
  });

  test('fails after five answers with a wrong block number, and keeps nothing of them', async (t) => {
    for (const wrong of [0, 1, 5, 100]) {
      const { stack, uri, asked } = await rig(t, (each) => [
        {
          ...blockOf(v1, each, 'v1'),
          ...(each.number === 2 && { block: { number: wrong, more: true, exponent: 6 } }),
        },
      ]);
      await assert.rejects(stack.download(uri), { code: 'unavailable', message: /was not requested/ });
      assert.deepEqual(
        asked.map(({ number }) => number),
        [0, 1, 2, 2, 2, 2, 2],
        `block ${wrong} instead of 2`,
      );
    }
  });

  test('goes on after one wrong block with the block that it lacks', async (t) => {
    const { load, numbers } = await rig(t, (asked) => [
      blockOf(v1, asked.index === 4 ? { ...asked, number: 7 } : asked, 'v1'),
    ]);
    assert.equal(await load(), sha(v1));
    assert.deepEqual(numbers(), [...range(0, 5), ...range(4, blocks)]);
  });

  test('does not take a block twice, and acknowledges the repetition', async (t) => {
    const { load, acknowledged, numbers } = await rig(t, (asked) => [
      ...(asked.number > 1
        ? [{ ...blockOf(v1, { ...asked, number: asked.number - 1 }, 'v1'), isSeparate: true }]
        : []),
      { ...blockOf(v1, asked, 'v1'), isSeparate: asked.number % 2 === 0 },
    ]);
    assert.equal(await load(), sha(v1));
    assert.deepEqual(numbers(), range(0, blocks));
    while (acknowledged.length < blocks - 2) await turn();
  });

  test('refuses blocks that are shorter or longer than they say', async (t) => {
    for (const length of [1000, 1200]) {
      const { stack, uri } = await rig(t, (asked) => [
        { ...blockOf(v1, asked, 'v1'), ...(asked.number === 2 && { payload: randomBytes(length) }) },
      ]);
      await assert.rejects(stack.download(uri), {
        code: 'unavailable',
        message: `a block of ${length} bytes instead of 1024`,
      });
    }
  });

  test('goes on after a server was overloaded, and ends when the image is gone', async (t) => {
    const busy = await rig(t, (asked) => [
      asked.index === 4 ? { code: Code.ServiceUnavailable } : blockOf(v1, asked, 'v1'),
    ]);
    assert.equal(await busy.load(), sha(v1));
    assert.deepEqual(busy.numbers(), [...range(0, 5), ...range(4, blocks)]);
    const gone = await rig(t, (asked) => [
      asked.index === 4 ? { code: Code.NotFound } : blockOf(v1, asked, 'v1'),
    ]);
    await assert.rejects(gone.stack.download(gone.uri), { code: 'notFound' });
  });

  test('without an ETag begins anew after it broke off', async (t) => {
    const { load, numbers } = await rig(t, (asked) => [
      asked.index === 4 ? { code: Code.ServiceUnavailable } : blockOf(asked.index < 4 ? v2 : v1, asked),
    ]);
    assert.equal(await load(), sha(v1));
    assert.deepEqual(numbers(), [...range(0, 5), ...range(0, blocks)]);
  });

  test('that broke off begins anew when the body has changed since', async (t) => {
    const { load, numbers } = await rig(t, (asked) => {
      if (asked.index === 4) return [{ code: Code.ServiceUnavailable }];
      return [asked.index < 4 ? blockOf(v1, asked, 'v1') : blockOf(v2, asked, 'v2')];
    });
    assert.equal(await load(), sha(v2));
    assert.deepEqual(numbers(), [...range(0, 5), 4, ...range(0, blocks)]);
  });
});

describe('other exchanges of the device', { timeout: 30_000 }, () => {
  test('a response without an end stops at its bound', async (t) => {
    const block = randomBytes(1024);
    const { stack, uri, asked } = await rig(t, ({ number }) => [
      { block: { number, more: true, exponent: 6 }, payload: block },
    ]);
    const { origin } = new URL(uri.replace('coap', 'http'));
    const request = {
      method: 'GET',
      base: origin.replace('http', 'coap'),
      path: '/x',
      timeout: 20_000,
    } as const;
    await assert.rejects(stack.request(request), { code: 'tooLarge' });
    assert.equal(asked.length, 1025);
  });

  test('a server that acknowledges wrong blocks of a request ends the request, and not the device', async (t) => {
    const { stack, uri } = await rig(t, () => [
      { code: Code.Continue, acknowledged: { number: 9, more: true, exponent: 5 } },
    ]);
    const { origin } = new URL(uri.replace('coap', 'http'));
    const request = {
      method: 'POST',
      base: origin.replace('http', 'coap'),
      path: '/x',
      timeout: 20_000,
    } as const;
    await assert.rejects(stack.request({ ...request, payload: randomBytes(5000) }), /re-transfers/);
  });
});

test('a body has a bound, wherever it begins; values of Block2 are read whole', () => {
  const body = new Block2Body(3000, 2048, 'aa');
  body.take({ number: 2, more: false, exponent: 6 }, 'aa', new Uint8Array(900), true);
  assert.equal(body.bytes.length, 900);
  const other = new Block2Body(3000, 2048, 'aa');
  assert.throws(() => other.take({ number: 2, more: false, exponent: 6 }, 'aa', new Uint8Array(1000), true), {
    code: 'tooLarge',
  });
  assert.throws(() => other.take({ number: 0, more: true, exponent: 7 }, 'aa', new Uint8Array(2048), true), {
    code: 'unavailable',
  });
  assert.deepEqual(
    [[], [0x1e], [0x12, 0x36], [0x01, 0x02, 0x0d]].map((value) => parseBlock2(Uint8Array.from(value))),
    [
      { number: 0, more: false, exponent: 0 },
      { number: 1, more: true, exponent: 6 },
      { number: 0x123, more: false, exponent: 6 },
      { number: 0x1020, more: true, exponent: 5 },
    ],
  );
});

test('devices of both kinds report a package that keeps changing, and take the next', {
  timeout: 60_000,
}, async (t) => {
  let isLying = true;
  const server = await lyingCoapServer((asked) => [
    blockOf(v1, asked, isLying && asked.number === 2 ? `x${asked.index}` : 'v1'),
  ]);
  t.after(() => server[Symbol.asyncDispose]());
  await using broker = await startAedes();
  await using site = new Site(broker.url);
  const ids = { dm: 'urn:dev:dm:1', lwm2m: 'urn:dev:lwm2m:1' };
  const lwm2m = { device: [{ id: ids.lwm2m }], 'insecure-no-security': true };
  const headend = await site.headend([]);
  const gateway = await site.gateway([ids.dm], { lwm2m });
  for (const device of [site.device(ids.dm, gateway, { factory: true }), site.client(ids.lwm2m, gateway)]) {
    await device.start();
    await device.attached;
    await site.headendEvents.until('alert.device-attach', { device: device.id });
  }
  const uri = (leaf: string) => `<LocURI>./FwUpdate/DownloadAndUpdate${leaf}</LocURI>`;
  const command = `<Replace><CmdID>1</CmdID><Item><Target>${uri('/PkgURL')}</Target><Data>${server.uri}</Data></Item></Replace><Exec><CmdID>2</CmdID><Item><Target>${uri('')}</Target></Item></Exec>`;
  const update = async (name: string) => {
    const { correlator } = await headend.fanOut('gw-1', { name, command, targets: {}, returnFormat: 2 });
    await site.headendEvents.until('alert.command-fanout', { correlator });
    return headend.fanouts().find((each) => each.name === name)?.result ?? '';
  };
  assert.match(await update('lying'), /Done="0" Failed="2"/);
  isLying = false;
  assert.match(await update('honest'), /Done="2" Failed="0"/);
  for (const device of Object.values(ids)) await site.deviceEvents.until('device.updated', { device });
});
