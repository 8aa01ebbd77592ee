import { PosternError } from '../../base/errors.ts';
import type { CoapOption } from './codec.ts';
import { Code } from './codes.ts';
import { ContentFormat } from './content-formats.ts';
import { filterLinks, formatLinks, type Link } from './link-format.ts';
import type { CoapRequest, Handler, Reply } from './message.ts';
import { refusal, reply } from './message.ts';
import { Option, opaqueOptions, optionValue } from './options.ts';

export interface Resource {
  /** `/dm/bs`; with `subtree`, everything below it as well. */
  readonly path: string;
  readonly subtree?: boolean;
  /** What `/.well-known/core` says of it; nothing there when absent. */
  readonly links?: () => readonly Link[];
  readonly methods: Readonly<Partial<Record<'GET' | 'POST' | 'PUT' | 'DELETE', Handler>>>;
  /** Tag of the state of now, where the resource has one: what If-Match and ETag are compared with. */
  readonly etag?: (request: CoapRequest) => Uint8Array | undefined;
}

const methodNames = new Map<number, keyof Resource['methods']>([
  [Code.GET, 'GET'],
  [Code.POST, 'POST'],
  [Code.PUT, 'PUT'],
  [Code.DELETE, 'DELETE'],
]);

/** Finds the resource of a request, and serves `/.well-known/core` (RFC 6690) of those it has. */
export class Router {
  readonly #exact = new Map<string, Resource>();
  readonly #subtrees: Resource[] = [];

  constructor(resources: readonly Resource[]) {
    for (const resource of [this.#core(resources), ...resources]) {
      const taken = resource.subtree ? this.#subtrees.some(({ path }) => path === resource.path) : false;
      if (taken || this.#exact.has(resource.path))
        throw new PosternError('internal', `two resources at ${resource.path}`);
      if (resource.subtree) this.#subtrees.push(resource);
      else this.#exact.set(resource.path, resource);
    }
  }

  readonly handle: Handler = (request) => {
    const { options } = request.message;
    if (optionValue(options, Option.ProxyUri) || optionValue(options, Option.ProxyScheme))
      return refusal(Code.ProxyingNotSupported, 'this is no CoAP proxy');
    const path = `/${request.path.join('/')}`;
    const resource =
      this.#exact.get(path) ?? this.#subtrees.find((subtree) => path.startsWith(`${subtree.path}/`));
    if (!resource) return refusal(Code.NotFound, 'no such resource');
    const name = methodNames.get(request.method);
    const handler = name && resource.methods[name];
    if (!handler) return refusal(Code.MethodNotAllowed, 'method not allowed here');
    return conditional(request, resource) ?? handler(request);
  };

  #core(resources: readonly Resource[]): Resource {
    const get = (request: CoapRequest): Reply | undefined => {
      if (request.accept !== undefined && request.accept !== ContentFormat.LinkFormat)
        return refusal(Code.NotAcceptable, 'only application/link-format');
      const links = filterLinks(
        resources.flatMap((resource) => resource.links?.() ?? []),
        request.query,
      );
      // Section 8.2 of RFC 7252: a multicast that nothing here answers is left unanswered.
      if (request.multicast && links.length === 0) return undefined;
      return reply(Code.Content, {
        payload: formatLinks(links),
        contentFormat: ContentFormat.LinkFormat,
      });
    };
    return { path: '/.well-known/core', methods: { GET: get } };
  }
}

/** What the conditions of a request come to (RFC 7252 sections 5.6.2, 5.10.6 and 5.10.8); nothing when it may go on. */
function conditional(request: CoapRequest, { etag }: Resource): Reply | undefined {
  const { options } = request.message;
  if (!hasConditions(options)) return undefined;
  const current = etag?.(request);
  const isCurrent = (tag: Uint8Array) => current !== undefined && Buffer.compare(tag, current) === 0;
  const wanted = opaqueOptions(options, Option.IfMatch);
  // An empty If-Match asks for the resource to exist, and If-None-Match for it not to; here it does.
  if (wanted.length > 0 && !wanted.some((tag) => tag.length === 0 || isCurrent(tag)))
    return refusal(Code.PreconditionFailed, 'the resource is in another state');
  if (options.some(({ number }) => number === Option.IfNoneMatch.number))
    return refusal(Code.PreconditionFailed, 'the resource exists');
  if (request.method === Code.GET && current && opaqueOptions(options, Option.ETag).some(isCurrent))
    return reply(Code.Valid, { etag: current });
  return undefined;
}

const conditions: ReadonlySet<number> = new Set([
  Option.IfMatch.number,
  Option.IfNoneMatch.number,
  Option.ETag.number,
]);

const hasConditions = (options: readonly CoapOption[]): boolean =>
  options.some(({ number }) => conditions.has(number));
