import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, get } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { sendImage } from '../../../src/gateway/southbound/http-image.ts';

const bytes = randomBytes(300_000);
const hash = createHash('sha256').update(bytes).digest('hex');

/** A server of the image. `failing` is what reading throws from the second chunk on. */
async function served(t: TestContext, failing?: Error) {
  const ended: Promise<void>[] = [];
  const image = {
    size: bytes.length,
    hash,
    read: (from: number, length: number) => {
      if (failing && from > 0) throw failing;
      return bytes.subarray(from, from + length);
    },
  };
  const server = createServer((request, response) => {
    const sent = sendImage(request, response, image);
    sent.catch(() => {});
    ended.push(sent);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/img/fw`, ended };
}

const fetched = async (url: string, headers: Record<string, string> = {}, method = 'GET') => {
  const response = await fetch(url, { method, headers });
  const body = Buffer.from(await response.arrayBuffer());
  return { status: response.status, body, of: (name: string) => response.headers.get(name) };
};

test('an image is served whole, and HEAD tells its size', async (t) => {
  const { url } = await served(t);
  const { status, body, of } = await fetched(url);
  assert.equal(status, 200);
  assert.ok(body.equals(bytes));
  assert.equal(of('etag'), `"${hash}"`);
  assert.equal(of('accept-ranges'), 'bytes');
  const head = await fetched(url, {}, 'HEAD');
  assert.deepEqual([head.status, head.of('content-length'), head.body.length], [200, '300000', 0]);
});

for (const [range, from, to] of [
  ['bytes=0-0', 0, 1],
  ['bytes=100000-', 100_000, 300_000],
  ['bytes=65535-65537', 65_535, 65_538],
  ['bytes=-10', 299_990, 300_000],
  ['bytes=-999999', 0, 300_000],
  ['bytes=299999-400000', 299_999, 300_000],
] as const)
  test(`${range} is served as this part`, async (t) => {
    const { url } = await served(t);
    const { status, body, of } = await fetched(url, { range });
    assert.equal(status, 206);
    assert.equal(of('content-range'), `bytes ${from}-${to - 1}/300000`);
    assert.ok(body.equals(bytes.subarray(from, to)));
  });

test('what is no range, or several, gets the whole; what is beyond the end gets 416', async (t) => {
  const { url } = await served(t);
  for (const range of ['bytes=', 'bytes=-', 'bytes=5-4', 'bytes=0-1,5-6', 'items=0-1', 'bytes=a-b'])
    assert.deepEqual([range, (await fetched(url, { range })).status], [range, 200]);
  for (const range of ['bytes=300000-', 'bytes=300000-300001', 'bytes=-0']) {
    const { status, of, body } = await fetched(url, { range });
    assert.deepEqual([status, of('content-range'), body.length], [416, 'bytes */300000', 0]);
  }
});

test('a part of another version is not joined: If-Range gets the whole', async (t) => {
  const { url } = await served(t);
  const range = 'bytes=100-';
  assert.equal((await fetched(url, { range, 'if-range': `"${hash}"` })).status, 206);
  for (const other of ['"old"', `W/"${hash}"`, new Date().toUTCString()])
    assert.equal((await fetched(url, { range, 'if-range': other })).status, 200);
});

test('a client that leaves is no error, and goes on where it was', async (t) => {
  const { url, ended } = await served(t);
  const [response] = await once(get(url), 'response');
  const [first] = await once(response, 'data');
  response.destroy();
  while (ended.length === 0) await once(response, 'close');
  await ended[0];
  const { status, body } = await fetched(url, { range: `bytes=${first.length}-` });
  assert.equal(status, 206);
  assert.ok(Buffer.concat([first, body]).equals(bytes));
});

test('an image that cannot be read any more ends the response, and is told', async (t) => {
  const failing = new Error('EIO');
  const { url, ended } = await served(t, failing);
  await assert.rejects(fetched(url));
  await assert.rejects(ended[0]!, failing);
});
