/** A JSON Schema, as far as docs/openapi.json uses it. */
interface JsonSchema {
  readonly $ref?: string;
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly anyOf?: readonly JsonSchema[];
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: boolean | JsonSchema;
  readonly items?: JsonSchema;
  readonly format?: string;
  readonly description?: string;
}

/** Keywords that are checked, or that say nothing about the value. Another one would be passed over in silence. */
const understood = new Set(
  '$ref type enum const anyOf properties required additionalProperties items format description propertyNames'.split(
    ' ',
  ),
);

const typeOf = (value: unknown): string =>
  value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value;

/** What of a value does not fit a schema, one line for each fault. `document` is what `$ref` points into. */
export function faultsOf(schema: JsonSchema, value: unknown, document: unknown, at = '$'): string[] {
  const strange = Object.keys(schema).filter((key) => !understood.has(key));
  if (strange.length > 0) return [`${at}: the check does not understand ${strange.join(', ')}`];
  if (schema.$ref !== undefined) return faultsOf(resolved(schema.$ref, document), value, document, at);
  if (schema.anyOf) {
    const fits = schema.anyOf.some((each) => faultsOf(each, value, document, at).length === 0);
    return fits ? [] : [`${at}: fits none of the alternatives`];
  }
  const type = typeOf(value);
  const wanted = schema.type === 'integer' ? 'number' : schema.type;
  if (wanted !== undefined && type !== wanted) return [`${at}: ${type} instead of ${schema.type}`];
  if (schema.type === 'integer' && !Number.isInteger(value)) return [`${at}: no integer`];
  if (schema.enum && !schema.enum.includes(value)) return [`${at}: ${String(value)} is not in the enum`];
  if (schema.format === 'date-time' && Number.isNaN(Date.parse(String(value))))
    return [`${at}: ${String(value)} is no time`];
  if (Array.isArray(value))
    return value.flatMap((item, index) => faultsOf(schema.items ?? {}, item, document, `${at}[${index}]`));
  if (type !== 'object') return [];
  const { properties = {}, required = [], additionalProperties = true } = schema;
  return [
    ...required.filter((key) => !Object.hasOwn(value as object, key)).map((key) => `${at}: no ${key}`),
    ...Object.entries(value as object).flatMap(([key, inner]) => {
      const known = Object.hasOwn(properties, key) ? properties[key] : additionalProperties;
      if (known === false) return [`${at}: ${key} is not described`];
      return known === true || known === undefined ? [] : faultsOf(known, inner, document, `${at}.${key}`);
    }),
  ];
}

function resolved(reference: string, document: unknown): JsonSchema {
  const keys = reference.replace(/^#\//, '').split('/');
  return keys.reduce((found, key) => (found as Record<string, unknown>)[key], document) as JsonSchema;
}
