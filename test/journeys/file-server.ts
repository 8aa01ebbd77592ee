import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

/**
 * Starts an HTTP server for one file, with ranges.
 * @param breaks bytes after which the first responses break off, one number for each response
 * @returns `requests` are the Range headers of all requests
 */
export async function fileServer(file: Buffer, breaks: readonly number[] = [], etag = '"v1"') {
  const requests: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    // There is no index of blocks.
    if (request.url?.endsWith('.blocks')) return response.writeHead(404).end();
    const { range } = request.headers;
    const cut = breaks[requests.length];
    requests.push(range);
    const from = Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0);
    const isPart = range !== undefined && request.headers['if-range'] === etag;
    const body = file.subarray(isPart ? from : 0);
    response.writeHead(isPart ? 206 : 200, {
      etag,
      'content-length': body.length,
      ...(isPart && { 'content-range': `bytes ${from}-${file.length - 1}/${file.length}` }),
    });
    if (cut === undefined) response.end(body);
    else response.write(body.subarray(0, cut), () => response.destroy());
    return response;
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/fw.bin`,
    requests,
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}
