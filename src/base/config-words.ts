import type * as v from 'valibot';

/** The parts of a valibot schema from which messages are made. */
interface Schema {
  readonly type: string;
  readonly wrapped?: Schema;
  readonly item?: Schema;
  readonly value?: Schema;
  readonly entries?: Readonly<Record<string, Schema>>;
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

/** Error messages never show the values of these keys. */
const secretKey = /secret|password|pin$/;
/** Characters of a wrong value that a message shows. */
const shownLimit = 80;

/** A wrong value, or its kind. */
function shown(value: unknown): string {
  if (value instanceof Date) return 'a date';
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : 'a list';
  if (typeof value === 'object' && value !== null) return 'a table';
  // What is wrong may be the URL itself, so all before the last @ may be a password.
  const text = (JSON.stringify(value) ?? 'nothing').replace(/(:\/\/).*@/s, '$1…@');
  return text.length <= shownLimit
    ? text
    : `${text.slice(0, shownLimit)}… (${String(value).length} characters)`;
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
  const found = secretKey.test(last) ? 'another value' : shown(issue.input);
  return `${key}: expected ${expected}, found ${found}`;
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
