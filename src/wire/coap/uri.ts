import { PosternError } from '../../base/errors.ts';
import { uriHost } from '../../base/uri-host.ts';

/** Default port of CoAP over UDP (RFC 7252 section 6.1). */
export const coapPort = 5683;

/**
 * Makes a URI such as `coap://192.0.2.1:5683/dm` or `coap://[2001:db8::1]:5683/dm`. The zone of an IPv6 address is left
 * out, since it has no meaning on another host.
 */
export function coapUri(address: string, port: number, path = ''): string {
  const plain = address.split('%')[0]!;
  return `coap://${uriHost(plain)}:${port}${path}`;
}

/** The parts of a coap URI. */
export interface CoapUri {
  /** Host name or address; an IPv6 address is without brackets. */
  readonly host: string;
  readonly port: number;
  /** Path segments, percent-decoded. */
  readonly path: readonly string[];
  /** Without the question mark, still percent-encoded. */
  readonly query?: string;
}

/**
 * Reads a coap URI (RFC 7252 section 6.1). The port defaults to 5683.
 * @throws {PosternError} `malformed`
 */
export function parseCoapUri(text: string): CoapUri {
  const url = URL.parse(text);
  if (url?.protocol !== 'coap:' || url.hostname === '')
    throw new PosternError('malformed', `'${text}' is not a coap URI such as coap://192.0.2.1:5683`);
  const path = url.pathname.split('/').filter((segment) => segment !== '');
  return {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? coapPort : Number(url.port),
    path: path.map(decodeURIComponent),
    ...(url.search !== '' && { query: url.search.slice(1) }),
  };
}
