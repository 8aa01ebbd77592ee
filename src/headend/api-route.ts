import * as v from 'valibot';
import { complaintOf } from '../base/config-words.ts';
import { PosternError } from '../base/errors.ts';
import type { Headend } from './headend.ts';

/** Path, method and schemas of one function of the API. The OpenAPI document is made from these. */
interface RouteDescription<
  Path extends string,
  Query extends v.GenericSchema,
  Body extends v.GenericSchema,
  Answer extends v.GenericSchema,
> {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  /** Path with the names of its parameters in braces: `/devices/{id}/sessions`. */
  readonly path: Path;
  readonly summary: string;
  /** Schema of the query parameters, whose values are strings. Without it the query is ignored. */
  readonly query?: Query;
  /** Schema of the JSON body. Without it the body is not read. */
  readonly body?: Body;
  /** HTTP status of success: 202 when a gateway goes on with the work after the answer. */
  readonly status: 200 | 202;
  /** Schema of the JSON body of the answer. */
  readonly answers: Answer;
  /** Schema of the answer 202 of a route with status 200, where the work goes on after the answer: see `Later`. */
  readonly later?: v.GenericSchema;
}

/** What a handler returns in place of its answer when the work goes on after it. */
export class Later {
  readonly body: unknown;

  constructor(body: unknown) {
    this.body = body;
  }
}

/** One function of the API. */
export interface Route extends RouteDescription<string, v.GenericSchema, v.GenericSchema, v.GenericSchema> {
  /**
   * Checks the parts of a request by the route's schemas, calls the handler and returns its result, which becomes the
   * JSON body of the answer.
   * @throws {PosternError} `malformed` for a query or body that does not fit its schema, or an error of the handler
   */
  readonly answer: (headend: Headend, request: RouteRequest) => Promise<unknown>;
}

/** A request before it is checked. */
interface RouteRequest {
  /** Decoded path parameters by name. */
  readonly parameters: Readonly<Record<string, string>>;
  readonly query: Readonly<Record<string, string>>;
  readonly readBody: () => Promise<unknown>;
}

type ParameterName<Path extends string> = Path extends `${string}{${infer Name}}${infer Rest}`
  ? Name | ParameterName<Rest>
  : never;

/** A request after the check: what a handler receives. */
interface CheckedRequest<Path extends string, Query extends v.GenericSchema, Body extends v.GenericSchema> {
  readonly parameters: Readonly<Record<ParameterName<Path>, string>>;
  readonly query: v.InferOutput<Query>;
  readonly body: v.InferOutput<Body>;
}

/** Of a route that declares no query or no body. */
type Undeclared = v.UndefinedSchema<undefined>;

/**
 * Declares a route. `handle` receives path parameters, query and body with the types that path and schemas declare, and
 * returns a value of the type that `answers` declares.
 */
export function route<
  const Path extends string,
  Query extends v.GenericSchema = Undeclared,
  Body extends v.GenericSchema = Undeclared,
  Answer extends v.GenericSchema = v.GenericSchema,
>(
  declaration: RouteDescription<Path, Query, Body, Answer> & {
    readonly handle: (
      headend: Headend,
      request: CheckedRequest<Path, Query, Body>,
    ) => NoInfer<v.InferInput<Answer>> | Promise<NoInfer<v.InferInput<Answer>> | Later>;
  },
): Route;
export function route({
  handle,
  ...description
}: RouteDescription<string, v.GenericSchema, v.GenericSchema, v.GenericSchema> & {
  readonly handle: (
    headend: Headend,
    request: { readonly parameters: Readonly<Record<string, string>>; query: unknown; body: unknown },
  ) => unknown;
}): Route {
  const { query, body } = description;
  return {
    ...description,
    answer: async (headend, request) =>
      await handle(headend, {
        parameters: request.parameters,
        query: query && checked(query, request.query),
        body: body && checked(body, await request.readBody()),
      }),
  };
}

/** @throws {PosternError} `malformed` */
function checked<S extends v.GenericSchema>(schema: S, value: unknown): v.InferOutput<S> {
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw new PosternError('malformed', complaintOf(schema, issue, 'the body'));
}

/**
 * Returns the path parameters of a URL's path, by name. Undefined when the URL's path does not fit the route's path.
 * @throws {PosternError} `malformed` for wrong percent-encoding
 */
export function matchPath(path: string, pathname: string): Record<string, string> | undefined {
  const expected = path.split('/');
  const given = pathname.split('/');
  if (expected.length !== given.length) return undefined;
  const parameters: Record<string, string> = {};
  for (const [at, part] of expected.entries()) {
    const segment = given[at] ?? '';
    if (part.startsWith('{')) parameters[part.slice(1, -1)] = decoded(segment);
    else if (part !== segment) return undefined;
  }
  return parameters;
}

/** @throws {PosternError} `malformed` */
function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch (cause) {
    throw new PosternError('malformed', `no percent-encoding: ${segment}`, { cause });
  }
}
