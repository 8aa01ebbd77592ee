import { PosternError } from '../../base/errors.ts';
import type { CoapOption } from './codec.ts';
import { Code } from './codes.ts';
import { ContentFormat } from './content-formats.ts';
import { filterLinks, formatLinks, type Link } from './link-format.ts';
import type { CoapRequest, Handler, Reply } from './message.ts';
import { refusal, reply } from './message.ts';
import { Option, opaqueOptions, optionValue } from './options.ts';
import { PathTree } from './path-tree.ts';
import type { Workload } from './workload.ts';

/** One resource, or a subtree of resources, that a router serves. */
export interface Resource {
  /** Such as `/dm/bs`. */
  readonly path: string;
  /** True when the resource serves the paths below `path`, and not `path` itself. */
  readonly subtree?: boolean;
  /** The links of the resource in `/.well-known/core`. Without it the resource is not listed there. */
  readonly links?: () => readonly Link[];
  /** An option for a client that asks for the link of this resource alone, by unicast: what its first request needs. */
  readonly offer?: (request: CoapRequest) => CoapOption;
  /** Handlers by method. Any other method gets 4.05. */
  readonly methods: Readonly<Partial<Record<'GET' | 'POST' | 'PUT' | 'DELETE', Handler>>>;
  /** Bound of the requests of this resource that are in work at one time. Further requests get 5.03 with a Max-Age. */
  readonly workload?: Workload;
  /** ETag of the current state, with which If-Match and ETag of a request are compared. */
  readonly etag?: (request: CoapRequest) => Uint8Array | undefined;
}

const methodNames = new Map<number, keyof Resource['methods']>([
  [Code.GET, 'GET'],
  [Code.POST, 'POST'],
  [Code.PUT, 'PUT'],
  [Code.DELETE, 'DELETE'],
]);

/** Passes each request to the handler of its resource. Also serves `/.well-known/core` for its resources (RFC 6690). */
export class Router {
  readonly #resources = new PathTree<Resource>();

  /** @throws {PosternError} `internal` when two resources have the same path */
  constructor(resources: readonly Resource[]) {
    for (const resource of [this.#core(resources), ...resources])
      if (!this.#resources.add(resource.path, resource, resource.subtree ? 'below' : 'own'))
        throw new PosternError('internal', `two resources at ${resource.path}`);
  }

  readonly handle: Handler = (request) => {
    const { options } = request.message;
    if (optionValue(options, Option.ProxyUri) || optionValue(options, Option.ProxyScheme))
      return refusal(Code.ProxyingNotSupported, 'this endpoint is not a proxy');
    const resource = this.#resources.find(options);
    if (!resource) return refusal(Code.NotFound, 'no such resource');
    const name = methodNames.get(request.method);
    const handler = name && resource.methods[name];
    if (!handler) return refusal(Code.MethodNotAllowed, 'method not allowed here');
    const refused = hasConditions(options) ? conditional(request, resource) : undefined;
    return refused ?? bounded(request, handler, resource.workload);
  };

  #core(resources: readonly Resource[]): Resource {
    const get = (request: CoapRequest): Reply | undefined => {
      if (request.accept !== undefined && request.accept !== ContentFormat.LinkFormat)
        return refusal(Code.NotAcceptable, 'only application/link-format');
      const links = filterLinks(
        resources.flatMap((resource) => resource.links?.() ?? []),
        request.query,
      );
      // A multicast request that matches no link gets no response (RFC 7252 section 8.2).
      if (request.multicast && links.length === 0) return undefined;
      const payload = formatLinks(links);
      const [only] = links.length === 1 && !request.multicast ? links : [];
      const offered =
        only && resources.find(({ path, offer }) => offer && path === only.target)?.offer?.(request);
      return reply(Code.Content, {
        payload,
        contentFormat: ContentFormat.LinkFormat,
        // What makes the response longer than one datagram of this peer would cost more than it saves.
        ...(offered && sizeWith(request, payload, offered) <= request.allowance && { options: [offered] }),
      });
    };
    return { path: '/.well-known/core', methods: { GET: get } };
  }
}

/** Most bytes of a response with this payload and one more option: header, token, Content-Format, option, marker, payload. */
const sizeWith = (
  { message: { token } }: CoapRequest,
  payload: string | Uint8Array,
  { value }: CoapOption,
): number => 4 + token.length + 3 + 5 + value.length + 1 + Buffer.byteLength(payload);

/** Max-Age of a 5.03 in seconds. */
const overloadMaxAge = 5;

/** Handles a request if the resource has room for it. */
function bounded(
  request: CoapRequest,
  handler: Handler,
  workload: Workload | undefined,
): ReturnType<Handler> {
  if (!workload) return handler(request);
  const { standing, remote } = request;
  if (!workload.hasRoom(standing, remote.address))
    return refusal(Code.ServiceUnavailable, 'too many requests', { maxAge: overloadMaxAge });
  const outcome = handler(request);
  return outcome instanceof Promise ? outcome.finally(workload.begin(standing, remote.address)) : outcome;
}

/**
 * Evaluates If-Match, If-None-Match and ETag of a request (RFC 7252 sections 5.6.2, 5.10.6 and 5.10.8). Returns 4.12 or
 * 2.03, or `undefined` when the handler should run.
 */
function conditional(request: CoapRequest, { etag }: Resource): Reply | undefined {
  const { options } = request.message;
  const current = etag?.(request);
  const isCurrent = (tag: Uint8Array) => current !== undefined && Buffer.compare(tag, current) === 0;
  const wanted = opaqueOptions(options, Option.IfMatch);
  // An empty If-Match requires that the resource exists, If-None-Match that it does not. Here it exists.
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

function hasConditions(options: readonly CoapOption[]): boolean {
  for (const { number } of options) if (conditions.has(number)) return true;
  return false;
}
