import { toJsonSchema, toJsonSchemaDefs } from '@valibot/to-json-schema';
import type * as v from 'valibot';
import { softwareVersion } from '../base/version.ts';
import { failureAnswer, outcomeAnswer } from './api-answers.ts';
import type { Route } from './api-route.ts';
import { routes } from './api-routes.ts';

/** JSON Schema of what the API accepts, before defaults and transformations. */
const schemaOf = (schema: v.GenericSchema) => {
  const { $schema: _, ...rest } = toJsonSchema(schema, { typeMode: 'input', errorMode: 'ignore' });
  return rest;
};

/** Schemas that other schemas refer to, by name. */
const shared = { Outcome: outcomeAnswer, Failure: failureAnswer };

/** JSON Schema of what the API answers. It refers to the shared schemas where they stand in the document. */
function answerSchema(schema: v.GenericSchema): object {
  const made = toJsonSchema(schema, { typeMode: 'input', errorMode: 'ignore', definitions: shared });
  const { $schema: _, $defs: __, ...rest } = made;
  return inPlace(rest);
}

const inPlace = <T extends object>(schema: T): T =>
  JSON.parse(JSON.stringify(schema).replaceAll('"#/$defs/', '"#/components/schemas/')) as T;

/** The shared schemas themselves. */
const sharedSchemas = (): object =>
  inPlace(toJsonSchemaDefs(shared, { typeMode: 'input', errorMode: 'ignore' }));

/** The Response Object of every error. */
const failure = () => ({
  description: 'What was wrong',
  content: { 'application/json': { schema: answerSchema(failureAnswer) } },
});

/** The OpenAPI Operation Object of a route. */
function operation({ path, summary, body, query, status, answers, later }: Route): object {
  const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }));
  const { properties = {}, required = [] } = query ? schemaOf(query) : {};
  const inQuery = Object.entries(properties).map(([name, schema]) => ({
    name,
    in: 'query',
    required: required.includes(name),
    schema,
  }));
  return {
    summary,
    parameters: [...inPath, ...inQuery],
    ...(body && {
      requestBody: { required: true, content: { 'application/json': { schema: schemaOf(body) } } },
    }),
    responses: {
      [status]: {
        description:
          status === 202
            ? 'The gateway has taken it. A GET of the same path, with its name, has the state'
            : 'Done',
        content: { 'application/json': { schema: answerSchema(answers) } },
      },
      ...(later && {
        202: {
          description: 'The work goes on. GET /orders/{correlator} has the state',
          content: { 'application/json': { schema: answerSchema(later) } },
        },
      }),
      default: failure(),
    },
  };
}

/** Returns the OpenAPI 3.1 document of the API, made from its routes. */
export function openApi(): object {
  const paths = Map.groupBy(routes, ({ path }) => path);
  return {
    openapi: '3.1.0',
    info: { title: 'Postern head-end', version: softwareVersion, license: { name: 'Apache-2.0' } },
    components: {
      schemas: sharedSchemas(),
      securitySchemes: {
        token: {
          type: 'http',
          scheme: 'bearer',
          description:
            'The token that the head-end made at its first start. `curl -H @FILE` takes it from its file, by default the state file with `.token` behind its name',
        },
      },
    },
    security: [{ token: [] }],
    paths: Object.fromEntries(
      [...paths].map(([path, own]) => [
        path,
        Object.fromEntries(own.map((route) => [route.method.toLowerCase(), operation(route)])),
      ]),
    ),
  };
}
