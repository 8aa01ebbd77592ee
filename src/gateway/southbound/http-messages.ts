import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { PosternError } from '../../base/errors.ts';
import { addressOf } from '../../base/http-connections.ts';
import { hmacHeader } from '../../dm/hmac-header.ts';
import type { Remote } from '../../wire/coap/message.ts';
import { decodeMessage, isSupported } from '../../wire/syncml/codec.ts';

/** Name of a connection, which nobody else can send on. */
export function connectionOf(socket: Socket): string {
  const name = connections.get(socket) ?? `connection ${++connectionCount}`;
  connections.set(socket, name);
  return name;
}
const connections = new WeakMap<Socket, string>();
let connectionCount = 0;

/** ServerID in the path of the tunnel; undefined for other paths. */
export function serverIn(pathname: string, tunnelPath: string): string | undefined {
  if (!pathname.startsWith(`${tunnelPath}/`)) return undefined;
  try {
    return decodeURIComponent(pathname.slice(tunnelPath.length + 1));
  } catch {
    return undefined;
  }
}

/** The sender of a request. Its key has no port, because a device may use a new connection for each request. */
export function remoteOf({ socket }: IncomingMessage): Remote {
  // A link-local address has a zone here, which a URI has no place for.
  const address = addressOf(socket).replace(/%.*$/, '');
  return { address, port: socket.remotePort ?? 0, key: `http ${address}` };
}

/** @throws {PosternError} `unsupportedFormat` */
export function packageType({ headers }: IncomingMessage): string {
  const [mediaType = ''] = (headers['content-type'] ?? '').toLowerCase().split(';');
  const found = mediaType.trim();
  if (!isSupported(found))
    throw new PosternError(
      'unsupportedFormat',
      'the content type must be one of DM, such as application/vnd.syncml.dm+xml',
    );
  return found;
}

/** Value of `x-syncml-hmac`. */
export function hmacOf({ headers }: IncomingMessage): string | undefined {
  const value = headers[hmacHeader];
  return typeof value === 'string' ? value : undefined;
}

/**
 * Device ID in the package itself, for clients that cannot put it into the URL. Undefined for an unreadable package.
 */
export function sourceOf(body: Uint8Array, mediaType: string): string | undefined {
  try {
    return decodeMessage(body, mediaType).header.source.locUri;
  } catch {
    return undefined;
  }
}

/** Answers with a package. */
export function send(
  response: ServerResponse,
  body: Uint8Array,
  contentType: string,
  hmac: string | undefined,
): void {
  response.writeHead(200, {
    'content-type': contentType,
    'content-length': body.length,
    'cache-control': 'no-store',
    ...(hmac !== undefined && { [hmacHeader]: hmac }),
  });
  response.end(body);
}

/** Answers with an error, unless an answer has begun. */
export function refuse(response: ServerResponse, status: number, why: string): void {
  if (response.headersSent) return;
  const text = `${why}\n`;
  response.writeHead(status, {
    'content-type': 'text/plain; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    // The rest of a body that was refused is not read.
    ...(!response.req.complete && { connection: 'close' }),
  });
  response.end(text);
}
