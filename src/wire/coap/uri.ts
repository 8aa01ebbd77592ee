import { PosternError } from '../../base/errors.ts';
import { uriHost } from '../../base/uri-host.ts';

/** Default ports of CoAP over UDP and over DTLS (RFC 7252 sections 6.1 and 6.2). */
export const coapPort = 5683;
export const coapsPort = 5684;

/** Of plain CoAP, and of CoAP over DTLS (RFC 7252 sections 6.1 and 6.2). */
export type CoapScheme = 'coap' | 'coaps';

/**
 * Makes a URI such as `coap://192.0.2.1:5683/dm` or `coap://[2001:db8::1]:5683/dm`. The zone of an IPv6 address is left
 * out, since it has no meaning on another host.
 */
export function coapUri(address: string, port: number, path = '', scheme: CoapScheme = 'coap'): string {
  const plain = address.split('%')[0]!;
  return `${scheme}://${uriHost(plain)}:${port}${path}`;
}

/**
 * Makes the part of a coap URI before its path, for use on this machine: an IPv6 zone is kept, as in
 * `coap://[fe80::1%25eth0]:5683` (RFC 6874).
 */
export const coapBase = (host: string, port: number, scheme: CoapScheme = 'coap'): string =>
  `${scheme}://${uriHost(host).replace('%', '%25')}:${port}`;

/** The parts of a coap URI. */
export interface CoapUri {
  readonly scheme: CoapScheme;
  /** Host name or address. An IPv6 address is without brackets, and has its zone: `fe80::1%eth0`. */
  readonly host: string;
  readonly port: number;
  /** Path segments, percent-decoded. */
  readonly path: readonly string[];
  /** Without the question mark, still percent-encoded. */
  readonly query?: string;
}

/** The zone of an IPv6 address in a URI, which `URL` does not know. The percent sign may be encoded (RFC 6874) or not. */
const zoneInUri = /^(coaps?:\/\/\[[0-9a-f:.]+)%(?:25)?([A-Za-z0-9._~-]+)\]/i;

/**
 * Reads a coap or coaps URI (RFC 7252 sections 6.1 and 6.2). The port defaults to 5683 or 5684.
 * @throws {PosternError} `malformed`
 */
export function parseCoapUri(text: string): CoapUri {
  const [, before, zone] = zoneInUri.exec(text) ?? [];
  const url = URL.parse(zone === undefined ? text : text.replace(zoneInUri, `${before}]`));
  const isSecure = url?.protocol === 'coaps:';
  if (!url || (url.protocol !== 'coap:' && !isSecure) || url.hostname === '')
    throw new PosternError('malformed', `'${text}' is not a coap URI such as coap://192.0.2.1:5683`);
  const segments = url.pathname.split('/').filter((segment) => segment !== '');
  const path = segments.map((segment) => decoded(segment, text));
  const address = url.hostname.replace(/^\[|\]$/g, '');
  return {
    scheme: isSecure ? 'coaps' : 'coap',
    host: zone === undefined ? address : `${address}%${zone}`,
    port: url.port === '' ? (isSecure ? coapsPort : coapPort) : Number(url.port),
    path,
    ...(url.search !== '' && { query: url.search.slice(1) }),
  };
}

function decoded(segment: string, uri: string): string {
  try {
    return decodeURIComponent(segment);
  } catch (cause) {
    throw new PosternError('malformed', `'${uri}' has a path that cannot be decoded`, { cause });
  }
}

/** Whether `parseCoapUri` reads a text, and it is of one of these schemes. */
export function isCoapUri(text: string, schemes: readonly CoapScheme[] = ['coap']): boolean {
  try {
    const { port, scheme } = parseCoapUri(text);
    return port > 0 && schemes.includes(scheme);
  } catch {
    return false;
  }
}
