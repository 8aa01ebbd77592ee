import { toJsonSchema } from '@valibot/to-json-schema';
import type * as v from 'valibot';
import { softwareVersion } from '../base/version.ts';
import type { Route } from './api-route.ts';
import { routes } from './api-routes.ts';

/** JSON Schema of what the API accepts, before defaults and transformations. */
const schemaOf = (schema: v.GenericSchema) => {
  const { $schema: _, ...rest } = toJsonSchema(schema, { typeMode: 'input', errorMode: 'ignore' });
  return rest;
};

/** The Response Object of every error. */
const failure = {
  description: 'What was wrong: the code to go by, and a line for a person',
  content: {
    'application/json': {
      schema: {
        type: 'object',
        required: ['error', 'message'],
        properties: { error: { type: 'string' }, message: { type: 'string' } },
      },
    },
  },
};

/** The OpenAPI Operation Object of a route. */
function operation({ path, summary, body, query, status }: Route): object {
  const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }));
  const inQuery = Object.entries((query && schemaOf(query).properties) ?? {}).map(([name, schema]) => ({
    name,
    in: 'query',
    required: false,
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
        description: status === 202 ? 'It is under way' : 'Done',
        content: { 'application/json': { schema: {} } },
      },
      default: failure,
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
