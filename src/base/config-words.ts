import * as v from 'valibot';

/** The parts of a valibot schema from which messages are made. */
interface Schema {
  readonly type: string;
  readonly wrapped?: Schema;
  readonly item?: Schema;
  readonly value?: Schema;
  readonly entries?: Readonly<Record<string, Schema>>;
  readonly default?: unknown;
  readonly options?: readonly unknown[];
  readonly message?: unknown;
  readonly pipe?: readonly Schema[];
}

/** Types in the words of the messages, by valibot's names for them. */
const names: Readonly<Record<string, string>> = {
  string: 'a text',
  number: 'a number',
  boolean: 'true or false',
  strict_object: 'a table',
  record: 'a table',
  Object: 'a table',
  array: 'a list',
  Array: 'a list',
};

/** The schema inside `optional`. */
const bare = (schema: Schema): Schema => (schema.wrapped ? bare(schema.wrapped) : schema);

/** The schema of the value at a path of keys. Undefined where the schema has no such key. */
function schemaAt(schema: unknown, keys: readonly string[]): Schema | undefined {
  let at: Schema | undefined = schema as Schema;
  for (const key of keys) {
    const { entries, item, value }: Schema = bare(at);
    at = entries ? (Object.hasOwn(entries, key) ? entries[key] : undefined) : (item ?? value);
    if (!at) return undefined;
  }
  return at;
}

/** What a schema wants, in words: its first rule, or else its type. */
function wanted(schema: Schema): string | undefined {
  if (schema.wrapped) return wanted(schema.wrapped);
  if (schema.entries) return names.strict_object;
  if (schema.type === 'array') return isTable(schema.item) ? 'a list of tables' : names.array;
  if (schema.type === 'picklist' && typeof schema.message === 'string') return schema.message;
  return ruleOf(schema) ?? names[schema.type];
}

function ruleOf(schema: Schema): string | undefined {
  for (const step of schema.pipe ?? []) {
    const rule = step.pipe || step.wrapped ? ruleOf(bare(step)) : step.message;
    if (typeof rule === 'string') return rule;
  }
  return undefined;
}

const isTable = (schema: Schema | undefined): boolean =>
  schema !== undefined && bare(schema).entries !== undefined;

/** Error messages never show the values of these keys. Some of them name files, which are not shown either. */
const secretKey = /secret|password|(pin|code|key)$/;
/** Characters of a wrong value that a message shows. */
const shownLimit = 80;

/** The type of a value, in words. */
function kindOf(value: unknown): string {
  if (value instanceof Date) return 'a date';
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : 'a list';
  if (typeof value === 'object' && value !== null) return 'a table';
  if (typeof value === 'boolean') return 'a boolean';
  return typeof value === 'string' ? names.string! : names.number!;
}

/** What a message says of a value that it does not show. */
const concealed = (value: unknown): string =>
  typeof value === 'string'
    ? `a text of ${[...value].length === 1 ? '1 character' : `${[...value].length} characters`}`
    : kindOf(value);

/** A wrong value, or its kind. */
function shown(value: unknown): string {
  if (typeof value === 'object' && value !== null) return kindOf(value);
  // What is wrong may be the URL itself, so all before the last @ may be a password.
  const text = (JSON.stringify(value) ?? 'nothing').replace(/(:\/\/).*@/s, '$1…@');
  return text.length <= shownLimit
    ? text
    : `${text.slice(0, shownLimit)}… (${String(value).length} characters)`;
}

/** A value that a schema takes, as TOML: its default, the first of its alternatives, or what its rule names. */
function exampleOf(schema: Schema): string {
  const { options = [], item } = bare(schema);
  const [given] = [schema.default, ...options].filter((one) => String(one ?? '') !== '');
  if (given !== undefined && typeof given !== 'function') return JSON.stringify(given);
  const rule = wanted(schema) ?? '';
  const type = typeOf(schema);
  if (type === 'number') return /from (-?\d+)/.exec(rule)?.[1] ?? '1';
  if (type === 'boolean') return 'true';
  if (type === 'array') return `[${item ? exampleOf(item) : ''}]`;
  return JSON.stringify(/such as ([^\s,]+)/.exec(rule)?.[1] ?? '…');
}

/** The type of what a schema takes. */
function typeOf(schema: Schema): string {
  const { type } = bare(schema);
  return type === 'picklist' ? 'string' : type;
}

/** The same value in other types: as a text, without its quotes, or in brackets. */
function* otherTypes(value: unknown): Generator<readonly [unknown, string]> {
  if (typeof value !== 'string') yield [String(value), 'write it in quotes'];
  else if (value === 'true' || value === 'false') yield [value === 'true', 'write it without quotes'];
  else if (/^-?\d+(\.\d+)?$/.test(value)) yield [Number(value), 'write it without quotes'];
  yield [[value], 'write it in brackets'];
}

/**
 * How to write a value that has another type than its key wants: the value itself in quotes, without quotes or in brackets, where
 * that is enough, or else an example. Empty when the type is the right one.
 */
function advice(name: string, schema: Schema, value: unknown, isSecret: boolean): string {
  const type = typeOf(schema);
  if (type === (Array.isArray(value) ? 'array' : typeof value)) return '';
  if (schema.entries || bare(schema).entries) return `; a table begins with the line [${name}]`;
  if (!['string', 'number', 'boolean', 'array'].includes(type) || isTable(bare(schema).item)) return '';
  const key = name.slice(name.lastIndexOf('.') + 1);
  if (isSecret) return `; write a text in quotes: ${key} = "…"`;
  if (typeof value !== 'object' && String(value).length <= shownLimit)
    for (const [other, how] of otherTypes(value))
      if (v.safeParse(schema as unknown as v.GenericSchema, other).success)
        return `; ${how}: ${key} = ${JSON.stringify(other)}`;
  return `; for example: ${key} = ${exampleOf(schema)}`;
}

/** `a.b[0].c` */
const pathText = (keys: readonly string[]): string =>
  keys.reduce(
    (joined, next) =>
      /^\d+$/.test(next) ? `${joined}[${next}]` : joined === '' ? next : `${joined}.${next}`,
    '',
  );

/**
 * What is wrong with a value, what is allowed, and what was found, in one line.
 * @param schema the schema of the whole value
 * @param whole name of the whole value, for a fault that is not that of one key
 */
export function complaintOf(schema: unknown, issue: v.BaseIssue<unknown>, whole: string): string {
  const keys = (issue.path ?? []).map(({ key }) => String(key));
  const key = pathText(keys) || whole;
  const last = keys.at(-1) ?? '';
  const parent = issue.path?.at(-1)?.input;
  if (issue.type === 'strict_object' && issue.path && Array.isArray(parent)) {
    const table = pathText(keys.slice(0, -1));
    return `${table}: expected one table, [${table}], found a list, [[${table}]]`;
  }
  if (issue.type === 'strict_object' && issue.expected === 'never')
    return `${key}: unknown key${hint(last, schemaAt(schema, keys.slice(0, -1)))}`;
  const schemaHere = schemaAt(schema, keys);
  const wants =
    (schemaHere && wanted(schemaHere)) ?? names[issue.expected ?? ''] ?? alternatives(issue.expected);
  if (issue.input === undefined && isTable(schemaHere)) return `${key}: the table [${key}] is missing`;
  if (issue.input === undefined) return `${key}: this key is missing; expected ${wants}`;
  // A rule for a table as a whole is a sentence of its own.
  if (issue.type === 'check' && typeof issue.input === 'object')
    return key === whole ? issue.message : `${key}: ${issue.message}`;
  if (issue.type === 'array' && schemaHere && isTable(bare(schemaHere).item))
    return `${key}: expected a list of tables, [[${key}]], found ${shown(issue.input)}`;
  const expected = issue.kind === 'validation' || issue.type === 'picklist' ? issue.message : wants;
  const isSecret = secretKey.test(last);
  const found = isSecret ? concealed(issue.input) : shown(issue.input);
  const isNamed = key !== whole && !/^\d+$/.test(last);
  const how = isNamed && schemaHere ? advice(key, schemaHere, issue.input, isSecret) : '';
  // The value alone does not tell everybody its type.
  const wantedType = schemaHere && typeOf(schemaHere);
  const isOther = wantedType !== typeof issue.input && names[wantedType ?? ''] !== undefined;
  const type = isSecret || !isOther || typeof issue.input === 'object' ? '' : `, ${kindOf(issue.input)}`;
  return `${key}: expected ${expected}, found ${found}${type}${how}`;
}

/** What valibot expects, in words: `(("a" | "b") | "c")` is one of "a", "b", "c". */
function alternatives(expected: string | null): string | null {
  if (!expected?.includes(' | ')) return expected;
  return `one of ${expected.replace(/[()]/g, '').split(' | ').join(', ')}`;
}

/** What may be meant by an unknown key: the known one that is nearest, or all of a short list. */
function hint(key: string, table: Schema | undefined): string {
  const known = Object.keys((table && bare(table).entries) ?? {});
  const near = known
    .map((name) => ({ name, away: distance(key, name) }))
    .filter(({ name, away }) => away <= Math.max(2, name.length / 3))
    .toSorted((one, other) => one.away - other.away)[0];
  if (near) return `; is ${near.name} meant?`;
  return known.length === 0 ? '' : `; known are ${known.join(', ')}`;
}

/** Characters to be added, removed or replaced to make one short text of the other (Levenshtein). */
function distance(one: string, other: string): number {
  if (Math.abs(one.length - other.length) > 8 || one.length > 64) return Number.POSITIVE_INFINITY;
  let row = Array.from({ length: other.length + 1 }, (_, at) => at);
  for (const [i, letter] of [...one].entries()) {
    const next = [i + 1];
    for (let j = 0; j < other.length; j++)
      next.push(Math.min(row[j + 1]! + 1, next[j]! + 1, row[j]! + (letter === other[j] ? 0 : 1)));
    row = next;
  }
  return row[other.length] ?? 0;
}

/**
 * What is wrong with a value, one line for each fault. A list where a table belongs is one fault.
 * @param whole name of the whole value
 */
export const complaintsOf = (
  schema: unknown,
  issues: readonly v.BaseIssue<unknown>[],
  whole: string,
): string[] => [...new Set(issues.map((issue) => complaintOf(schema, issue, whole)))];
