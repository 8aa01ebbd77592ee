import { PosternError } from '../../base/errors.ts';
import { uriHost } from '../../base/uri-host.ts';

export const coapPort = 5683;

/** `coap://192.0.2.1:5683/dm` or `coap://[2001:db8::1]:5683/dm`. A zone means nothing elsewhere, so it is left out. */
export function coapUri(address: string, port: number, path = ''): string {
  const plain = address.split('%')[0]!;
  return `coap://${uriHost(plain)}:${port}${path}`;
}

export interface CoapUri {
  readonly host: string;
  readonly port: number;
  readonly path: readonly string[];
  readonly query?: string;
}

/** @throws {PosternError} `malformed` */
export function parseCoapUri(text: string): CoapUri {
  const url = URL.parse(text);
  if (url?.protocol !== 'coap:' || url.hostname === '')
    throw new PosternError('malformed', `'${text}' is no coap URI such as coap://192.0.2.1:5683`);
  const path = url.pathname.split('/').filter((segment) => segment !== '');
  return {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? coapPort : Number(url.port),
    path: path.map(decodeURIComponent),
    ...(url.search !== '' && { query: url.search.slice(1) }),
  };
}
