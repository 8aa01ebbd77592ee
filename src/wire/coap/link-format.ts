import { PosternError } from '../../base/errors.ts';

/** One web link (RFC 6690). Attribute values are unescaped, without quotes; `true` is an attribute without a value. */
export interface Link {
  readonly target: string;
  readonly attributes: Readonly<Record<string, string | true>>;
}

const quoted = (value: string): string => `"${value.replace(/["\\]/g, '\\$&')}"`;

/** Writes links in CoRE link format. A value of digits only is written without quotes. */
export const formatLinks = (links: readonly Link[]): string =>
  links
    .map(({ target, attributes }) =>
      [
        `<${target}>`,
        ...Object.entries(attributes).map(([name, value]) =>
          value === true ? name : `${name}=${/^\d+$/.test(value) ? value : quoted(value)}`,
        ),
      ].join(';'),
    )
    .join(',');

/** What may stand behind the last link. Clients in C write a comma behind each link, or the NUL of the string. */
const behind = ' \t\r\n,\0';

/**
 * Reads CoRE link format. Of a repeated attribute the first one counts.
 * @throws {PosternError} `malformed`, with the position of the first character that does not fit
 */
export function parseLinks(text: string): Link[] {
  const links: Link[] = [];
  const bad = (at: number) => new PosternError('malformed', `link format expected at character ${at}`);
  const linkAt = /\s*<([^>]*)>/y;
  const attributeAt = /\s*;\s*([^\s=;,"]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^;,"\s]+)))?/y;
  const commaAt = /\s*,/y;
  let at = 0;
  const take = (pattern: RegExp) => {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match) at = pattern.lastIndex;
    return match;
  };
  // The end is looked at once, and not again behind each link.
  let end = text.length;
  while (end > 0 && behind.includes(text[end - 1]!)) end--;
  while (at < end) {
    const link = take(linkAt);
    if (!link) throw bad(at);
    const attributes: Record<string, string | true> = {};
    for (let found = take(attributeAt); found; found = take(attributeAt))
      attributes[found[1]!] ??= found[2]?.replace(/\\(.)/g, '$1') ?? found[3] ?? true;
    links.push({ target: link[1]!, attributes });
    if (at < end && !take(commaAt)) throw bad(at);
  }
  return links;
}

/** Attributes that hold several values, separated by spaces (RFC 6690 section 4.1). */
const multiValued = new Set(['rt', 'if', 'rel', 'ct']);

const matches = (value: string, pattern: string): boolean =>
  pattern.endsWith('*') ? value.startsWith(pattern.slice(0, -1)) : value === pattern;

/**
 * The links that match a query (RFC 6690 section 4.1). Each part of the query is `name=pattern`, or `name` for an
 * attribute that must be present. A pattern may end in `*`. Every part must match.
 */
export function filterLinks(links: readonly Link[], query: readonly string[]): Link[] {
  return links.filter((link) =>
    query.every((part) => {
      const split = part.indexOf('=');
      if (split < 0) return Object.hasOwn(link.attributes, part);
      const name = part.slice(0, split);
      const pattern = part.slice(split + 1);
      const value = name === 'href' ? link.target : link.attributes[name];
      if (value === undefined || value === true) return false;
      return multiValued.has(name)
        ? value.split(' ').some((one) => matches(one, pattern))
        : matches(value, pattern);
    }),
  );
}
