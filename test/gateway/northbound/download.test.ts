import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { download } from '../../../src/gateway/northbound/download.ts';
import { selfSigned } from '../../peers/certificates.ts';

const file = randomBytes(100_000);
const { signal } = new AbortController();

const folder = mkdtempSync(join(tmpdir(), 'postern-download-'));
after(() => rmSync(folder, { recursive: true }));

/** A certificate for this machine, which vouches for itself. */
function certificate() {
  const files = { key: join(folder, 'key.pem'), cert: join(folder, 'cert.pem') };
  selfSigned('files', files, '-addext', 'subjectAltName=IP:127.0.0.1');
  const cert = readFileSync(files.cert);
  return { cert, key: readFileSync(files.key), ca: cert.toString() };
}

async function serve(listener: RequestListener, tls?: { cert: Buffer; key: Buffer }) {
  const server = tls ? createSecureServer(tls, listener) : createServer(listener);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  after(() => {
    server.close();
    server.closeAllConnections();
  });
  const { port } = server.address() as AddressInfo;
  return `${tls ? 'https' : 'http'}://127.0.0.1:${port}`;
}

const all = async (body: AsyncIterable<Uint8Array>) => Buffer.concat(await Array.fromAsync(body));

/** Serves the file whole, or a range of it while its tag is the one that is asked with. */
const ranged =
  (etag: string): RequestListener =>
  (request, response) => {
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? Number.NaN);
    if (from >= file.length) return response.writeHead(416).end();
    const isPart = request.headers['if-range'] === etag && from > 0;
    response.writeHead(isPart ? 206 : 200, {
      etag,
      ...(isPart
        ? { 'content-range': `bytes ${from}-${file.length - 1}/${file.length}` }
        : { 'content-length': file.length }),
    });
    response.end(isPart ? file.subarray(from) : file);
  };

describe('a download over HTTP', () => {
  test('a file is downloaded completely, from an offset, and from the start again if it has changed', async () => {
    const url = await serve(ranged('"a"'));
    const first = await download({ url, from: 0, signal });
    assert.deepEqual([first.from, first.total, first.validator], [0, file.length, '"a"']);
    assert.deepEqual(await all(first.body), file);
    const rest = await download({ url, from: 99_000, validator: '"a"', signal });
    assert.deepEqual([rest.from, rest.total], [99_000, file.length]);
    assert.deepEqual(await all(rest.body), file.subarray(99_000));
    const changed = await download({ url, from: 99_000, validator: '"old"', signal });
    assert.deepEqual([changed.from, changed.validator], [0, '"a"']);
    assert.equal((await all(changed.body)).length, file.length);
    const beyond = await download({ url, from: file.length, validator: '"a"', signal });
    assert.equal(beyond.from, 0, 'a file that is shorter now is asked for from its start');
    await all(beyond.body);
  });

  test('a weak ETag is not used for resumption', async () => {
    const url = await serve(ranged('W/"a"'));
    const { validator, body } = await download({ url, from: 0, signal });
    assert.equal(validator, undefined);
    await all(body);
  });

  test('a broken connection is reported after the bytes that arrived before it', async () => {
    const url = await serve((_, response) => {
      response.writeHead(200, { 'content-length': file.length });
      response.write(file.subarray(0, 5000), () => response.destroy());
    });
    const { body } = await download({ url, from: 0, signal });
    let bytes = 0;
    await assert.rejects(
      async () => {
        for await (const chunk of body) bytes += chunk.length;
      },
      { code: 'unavailable' },
    );
    assert.equal(bytes, 5000);
  });

  test('redirections are followed, except endless ones and those from TLS to plain HTTP', async () => {
    const plain = await serve(ranged('"a"'));
    const hop = await serve((_, response) => response.writeHead(302, { location: `${plain}/x` }).end());
    assert.equal((await all((await download({ url: hop, from: 0, signal })).body)).length, file.length);
    const loop = await serve((_, response) => response.writeHead(302, { location: '/again' }).end());
    await assert.rejects(download({ url: loop, from: 0, signal }), { code: 'unavailable' });
    const tls = certificate();
    const secure = await serve((_, response) => response.writeHead(302, { location: plain }).end(), tls);
    await assert.rejects(download({ url: secure, from: 0, signal, ca: tls.ca }), { code: 'forbidden' });
  });

  test('over TLS a server without a trusted certificate is refused', async () => {
    const tls = certificate();
    const url = await serve(ranged('"a"'), tls);
    const { body } = await download({ url, from: 0, signal, ca: tls.ca });
    assert.equal((await all(body)).length, file.length);
    await assert.rejects(download({ url, from: 0, signal }), { code: 'unavailable' });
  });

  for (const [status, code] of [
    [404, 'notFound'],
    [403, 'forbidden'],
    [500, 'unavailable'],
  ] as const)
    test(`status ${status} is reported as ${code}`, async () => {
      const url = await serve((_, response) => response.writeHead(status).end());
      await assert.rejects(download({ url, from: 0, signal }), { code });
    });

  test('a URL that is not HTTP is malformed, a server that is not there is unavailable', async () => {
    await assert.rejects(download({ url: 'file:///etc/passwd', from: 0, signal }), { code: 'malformed' });
    await assert.rejects(download({ url: 'http://127.0.0.1:1', from: 0, signal }), { code: 'unavailable' });
  });
});
