import { once } from 'node:events';
import { createServer, type IncomingMessage, type OutgoingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';

/** What a download server does with one request. */
export type Answer = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;

/** How a body ends: as it should, by a closed connection, by a reset, or not at all. */
export type Ending = 'whole' | 'closed' | 'reset' | 'silent';

/**
 * Sends head and body, all at once or in the chunked coding when the length is not in the headers.
 * @param arrived when the connection may end: a reset can overtake what was sent before
 */
export const says =
  (
    status: number,
    headers: OutgoingHttpHeaders,
    body: Uint8Array = Buffer.alloc(0),
    ending: Ending = 'whole',
    arrived: () => boolean = () => true,
  ): Answer =>
  async (_, response) => {
    response.writeHead(status, headers);
    if (ending === 'whole') {
      response.end(body);
      return;
    }
    response.write(body);
    while (!arrived()) await turn();
    if (ending === 'closed') response.socket?.destroySoon();
    if (ending === 'reset') response.socket?.resetAndDestroy();
  };

/** A file, or the rest of it while its validator is the one that the client has, as RFC 9110 has it. */
export const serves =
  (file: Uint8Array, etag: string): Answer =>
  (request, response) => {
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
    const isPart = from > 0 && from < file.length && request.headers['if-range'] === etag;
    const body = file.subarray(isPart ? from : 0);
    const range = { 'content-range': `bytes ${from}-${file.length - 1}/${file.length}` };
    says(
      isPart ? 206 : 200,
      { etag, 'content-length': body.length, ...(isPart && range) },
      body,
    )(request, response);
  };

/** The first bytes of a file, announced as the whole. `arrived` is as in `says`. */
export const breaksAt = (
  file: Uint8Array,
  bytes: number,
  headers: OutgoingHttpHeaders,
  ending: Ending = 'reset',
  arrived?: () => boolean,
) => says(200, { 'content-length': file.length, ...headers }, file.subarray(0, bytes), ending, arrived);

/**
 * A body without an end, in the chunked coding.
 * @param went asked after each chunk, with the bytes sent so far, until it says that the body may go on. What the
 *   server has written says nothing of what the client has read: the sockets between hold hundreds of kilobytes.
 * @param size of a chunk in bytes
 */
export const endless =
  (
    status: number,
    headers: OutgoingHttpHeaders,
    went: (sent: number) => boolean = () => true,
    size = 64 * 1024,
  ): Answer =>
  async (_, response) => {
    response.writeHead(status, headers);
    const chunk = Buffer.alloc(size, 7);
    const closed = new AbortController();
    response.once('close', () => closed.abort());
    // The end of the socket is known before the event that tells it.
    const isOver = () => closed.signal.aborted || response.socket?.destroyed !== false;
    for (let sent = size; !response.destroyed; sent += size) {
      if (!response.write(chunk)) await once(response, 'drain', closed).catch(() => {});
      do await turn();
      while (!isOver() && !went(sent));
    }
  };

/** A download server whose answers are a list; the last is for all requests that come after. */
export async function lyingServer(...answers: readonly Answer[]) {
  const requests: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    // There is no index of blocks.
    if (request.url?.endsWith('.blocks')) {
      response.writeHead(404).end();
      return;
    }
    const answer = answers[Math.min(requests.length, answers.length - 1)];
    requests.push(request.headers.range);
    void answer?.(request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/fw.bin`,
    /** The header field Range of each request. */
    requests,
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}
