import assert from 'node:assert/strict';
import type { Events } from '../../src/base/events.ts';
import { HeadendApi } from '../../src/headend/api.ts';
import { matchPath } from '../../src/headend/api-route.ts';
import type { Headend } from '../../src/headend/headend.ts';
import { openApi } from '../../src/headend/openapi.ts';
import { EventRecorder } from '../event-recorder.ts';
import { faultsOf } from './json-schema.ts';

/** The token that `startApi` has the API take. */
export const token = 'token-of-the-tests';
export const authorization = { authorization: `Bearer ${token}` };

/** An answer of the API. */
export interface Answer {
  readonly status: number;
  readonly body: Record<string, unknown>[] & Record<string, unknown>;
}

interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, OperationObject>>>>;
}
interface OperationObject {
  readonly responses: Readonly<
    Record<string, { readonly content: Readonly<Record<string, { schema: object }>> }>
  >;
}

/** Operations of the OpenAPI document, such as `GET /devices`, whose successful answer was checked. */
export const checkedOperations = new Set<string>();
/** All operations of the OpenAPI document. */
export const describedOperations: readonly string[] = Object.entries((openApi() as Document).paths).flatMap(
  ([path, own]) => Object.keys(own).map((method) => `${method.toUpperCase()} ${path}`),
);

/** Checks an answer against the schema that the OpenAPI document has for it. */
function checkAnswer(method: string, url: string, { status, body }: Answer): void {
  const document = openApi() as Document;
  const { pathname } = new URL(url, 'http://api');
  const path = Object.keys(document.paths).find((each) => matchPath(each, pathname) !== undefined);
  const operation = path === undefined ? undefined : document.paths[path]?.[method.toLowerCase()];
  if (!operation) return;
  const response = operation.responses[status] ?? operation.responses.default;
  if (status < 300) assert.ok(operation.responses[status], `${method} ${path} does not describe ${status}`);
  const schema = response?.content['application/json']?.schema ?? {};
  assert.deepEqual(faultsOf(schema, body, document), [], `${method} ${url}: ${JSON.stringify(body)}`);
  if (status < 300) checkedOperations.add(`${method} ${path}`);
}

/** Returns a function that asks an API and checks each answer against the OpenAPI document. */
export const asker =
  (url: string) =>
  async (method: string, path: string, body?: object): Promise<Answer> => {
    const response = await fetch(`${url}${path}`, {
      method,
      headers: { ...authorization, ...(body && { 'content-type': 'application/json' }) },
      ...(body && { body: JSON.stringify(body) }),
    });
    const answer = { status: response.status, body: (await response.json()) as Answer['body'] };
    if (path !== '/openapi.json' && !path.includes('%ff')) checkAnswer(method, path, answer);
    return answer;
  };

/** Starts the API of a head-end at a free port of the loopback interface, with `token`. */
export async function startApi(headend: Headend, events: Events = new EventRecorder()): Promise<HeadendApi> {
  const api = new HeadendApi({
    headend,
    events,
    token: { accepts: (given) => given === token },
    settings: { host: '127.0.0.1', port: 0, hosts: [], origins: [] },
  });
  await api.start();
  return api;
}
