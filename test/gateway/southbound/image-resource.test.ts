import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import {
  imagePath,
  imageResource,
  type ServedImage,
  versionPath,
} from '../../../src/gateway/southbound/image-resource.ts';
import { Blockwise } from '../../../src/wire/coap/blockwise.ts';
import { Code, codeText } from '../../../src/wire/coap/codes.ts';
import { CoapRequest, type Reply } from '../../../src/wire/coap/message.ts';
import { Option, opaque, optionValue, text, uint, uintOption } from '../../../src/wire/coap/options.ts';
import { Router } from '../../../src/wire/coap/router.ts';
import { HandClock } from '../../hand-clock.ts';
import { account, messageOf } from '../../wire/coap/wire.ts';

const data = randomBytes(2500);
const hash = 'ab'.repeat(32);

function rig() {
  const reads: [number, number][] = [];
  const image = {
    size: data.length,
    hash,
    read: (from: number, length: number) => {
      reads.push([from, length]);
      return data.subarray(from, from + length);
    },
  };
  const blocks = Buffer.from('the index');
  const index = {
    size: blocks.length,
    hash,
    read: (from: number, length: number) => blocks.subarray(from, from + length),
  };
  const images: Record<string, ServedImage> = {
    fw: { ...image, index: async () => index },
    own: image,
    'own.blocks': image,
  };
  const resource = imageResource(
    (name) => images[name],
    ({ remote }) => remote.port === 1,
  );
  const blockwise = new Blockwise(new Router([resource]).handle, new HandClock());
  const get = async (
    block: number,
    options: { port?: number; name?: string; v?: string; etag?: Uint8Array } = {},
  ) => {
    const { port = 1, name = 'fw', v, etag } = options;
    const remote = { address: '192.0.2.1', port, key: `192.0.2.1 ${port}` };
    const message = messageOf({
      code: Code.GET,
      options: [
        ...(etag ? [opaque(Option.ETag, etag)] : []),
        text(Option.UriPath, 'img'),
        text(Option.UriPath, name),
        ...(v === undefined ? [] : [text(Option.UriQuery, `v=${v}`)]),
        uint(Option.Block2, block * 16 + 6),
      ],
    });
    const request = new CoapRequest(remote, message, false, new Uint8Array(), account());
    return (await blockwise.handle(request)) as Reply;
  };
  return { get, reads, blockwise };
}

// conforms: GW-18
test('any block of an image is served by itself with the ETag of its version, and no transfer state is kept', async () => {
  const { get, reads, blockwise } = rig();
  const first = await get(0);
  assert.deepEqual([codeText(first.code), first.payload], ['2.05', data.subarray(0, 1024)]);
  assert.equal(uintOption(first.options, Option.Size2), data.length);
  assert.equal(uintOption(first.options, Option.Block2), 0 * 16 + 8 + 6);
  const last = await get(2);
  assert.deepEqual(last.payload, data.subarray(2048));
  assert.equal(uintOption(last.options, Option.Block2), 2 * 16 + 6);
  assert.deepEqual(reads, [
    [0, 1024],
    [2048, 452],
  ]);
  const etag = optionValue(first.options, Option.ETag) ?? new Uint8Array();
  assert.deepEqual(optionValue(last.options, Option.ETag), etag);
  assert.equal(codeText((await get(0, { etag })).code), '2.03', 'who has it already is told so');
  assert.equal(codeText((await get(3)).code), '4.00');
  assert.deepEqual(blockwise.footprint, { incoming: 0, outgoing: 0, bytes: 0 });
});

// conforms: GW-18
test('images are served to proven devices only; another version or name gets 4.04', async () => {
  const { get, reads } = rig();
  const codes = async (options: Parameters<typeof get>[1]) => codeText((await get(0, options)).code);
  assert.equal(await codes({ port: 2 }), '4.01');
  assert.equal(await codes({ port: 2, etag: Buffer.from(hash, 'hex').subarray(0, 8) }), '4.01');
  assert.equal(await codes({ name: 'other' }), '4.04');
  assert.equal(await codes({ v: 'cdcd' }), '4.04');
  assert.deepEqual(reads, []);
  assert.equal(await codes({ v: hash.slice(0, 16) }), '2.05');
  assert.deepEqual([imagePath('a b'), versionPath('a', hash)], ['/img/a%20b', '/img/a?v=abababababababab']);
});

test('the index of an image is at its path with `.blocks`, for the same devices and the same version', async () => {
  const { get } = rig();
  const answer = await get(0, { name: 'fw.blocks', v: hash.slice(0, 16) });
  assert.deepEqual([codeText(answer.code), Buffer.from(answer.payload).toString()], ['2.05', 'the index']);
  const codes = async (options: Parameters<typeof get>[1]) => codeText((await get(0, options)).code);
  assert.equal(await codes({ port: 2, name: 'fw.blocks' }), '4.01');
  assert.equal(await codes({ name: 'fw.blocks', v: 'cdcd' }), '4.04');
  assert.equal(await codes({ name: 'other.blocks' }), '4.04');
  assert.equal(await codes({ name: '.blocks' }), '4.04');
  // A name that an image has is that of the image. And not every image has an index.
  assert.deepEqual((await get(0, { name: 'own.blocks' })).payload, data.subarray(0, 1024));
  assert.equal(await codes({ name: 'own.blocks.blocks' }), '4.04');
});
