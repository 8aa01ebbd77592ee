import type { CoapOption } from '../../coap/codec.ts';
import { hasOption, Option, sorted, text, writeUint } from '../../coap/options.ts';
import { parseCoapUri } from '../../coap/uri.ts';

/** RFC 8768. */
const hopLimit = 16;

/**
 * The options of class U: a proxy reads them, and they stay outside (RFC 8613 section 4.1). All others are of class E, unknown ones
 * too. Observe, Max-Age, the options of blocks, No-Response, Echo and Request-Tag are of both classes: what is inside is the word of the
 * peer, and what is outside is for proxies and is dropped. No option is of class I.
 */
const outer: ReadonlySet<number> = new Set([
  Option.UriHost.number,
  Option.UriPort.number,
  Option.Oscore.number,
  hopLimit,
  Option.ProxyUri.number,
  Option.ProxyScheme.number,
]);

/** The options of a message that are protected, and those that are not. */
export interface SplitOptions {
  readonly inner: readonly CoapOption[];
  readonly outer: readonly CoapOption[];
}

/**
 * Splits the options of a message that is to be protected. A Proxy-Uri is taken apart, since its path and query are protected
 * (section 4.1.3.3).
 * @throws {PosternError} `malformed` for a Proxy-Uri that is not a coap URI
 */
export function splitOptions(options: readonly CoapOption[]): SplitOptions {
  const whole = hasOption(options, Option.ProxyUri)
    ? sorted(
        options.flatMap((option) => (option.number === Option.ProxyUri.number ? apart(option) : [option])),
      )
    : options;
  return {
    inner: whole.filter(({ number }) => !outer.has(number)),
    outer: whole.filter(({ number }) => outer.has(number)),
  };
}

/** The options of an opened message: those from inside, and from outside only those of class U. */
export function joinOptions(
  inner: readonly CoapOption[],
  outside: readonly CoapOption[],
): readonly CoapOption[] {
  const kept = outside.filter(({ number }) => outer.has(number) && number !== Option.Oscore.number);
  return kept.length === 0 ? inner : sorted([...kept, ...inner]);
}

function apart({ value }: CoapOption): CoapOption[] {
  const { host, port, path, query } = parseCoapUri(Buffer.from(value).toString());
  return [
    text(Option.UriHost, host),
    { number: Option.UriPort.number, value: writeUint(port) },
    text(Option.ProxyScheme, 'coap'),
    ...path.map((segment) => text(Option.UriPath, segment)),
    ...(query === undefined
      ? []
      : query.split('&').map((part) => text(Option.UriQuery, decodeURIComponent(part)))),
  ];
}
