import { PosternError } from '../../base/errors.ts';

/** One web link (RFC 6690). Attribute values are as meant, without quotes; `true` is an attribute without a value. */
export interface Link {
  readonly target: string;
  readonly attributes: Readonly<Record<string, string | true>>;
}

const quoted = (value: string): string => `"${value.replace(/["\\]/g, '\\$&')}"`;

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

/** @throws {PosternError} `malformed` */
export function parseLinks(text: string): Link[] {
  const links: Link[] = [];
  const bad = (at: number) => new PosternError('malformed', `no link format at character ${at}`);
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
  while (text.slice(at).trim() !== '') {
    const link = take(linkAt);
    if (!link) throw bad(at);
    const attributes: Record<string, string | true> = {};
    for (let found = take(attributeAt); found; found = take(attributeAt))
      attributes[found[1]!] ??= found[2]?.replace(/\\(.)/g, '$1') ?? found[3] ?? true;
    links.push({ target: link[1]!, attributes });
    if (text.slice(at).trim() !== '' && !take(commaAt)) throw bad(at);
  }
  return links;
}

/** Attributes that hold several values, separated by spaces (RFC 6690 section 4.1). */
const multiValued = new Set(['rt', 'if', 'rel', 'ct']);

const matches = (value: string, pattern: string): boolean =>
  pattern.endsWith('*') ? value.startsWith(pattern.slice(0, -1)) : value === pattern;

/** The links that a query `name=pattern` asks for (RFC 6690 section 4.1); every part of the query must match. */
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
