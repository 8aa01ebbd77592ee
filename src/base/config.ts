import { readFileSync } from 'node:fs';
import { parse as parseToml, TomlError } from 'smol-toml';
import * as v from 'valibot';
import { PosternError } from './errors.ts';

/** Adds a description to the schema of a configuration value. docs/configuration.md is made from these descriptions. */
export const described = <S extends v.GenericSchema>(schema: S, description: string) =>
  v.pipe(schema, v.description(description));

const textRule = 'a text of 1 to 255 characters';
/** Schema of a text of 1 to 255 characters. */
export const text = v.pipe(v.string(), v.minLength(1, textRule), v.maxLength(255, textRule));
/**
 * What a file that a configuration names holds: PEM certificates of authorities, a PEM certificate of this party, its private
 * key, a PEM public key, or anything.
 */
export type FileKind = 'authorities' | 'certificate' | 'private-key' | 'public-key' | 'any';
/** Schema of the path of a file. `--check` reads the file and checks that it holds what the kind says (`checkFiles`). */
export const fileOf = (kind: FileKind) => v.pipe(text, v.metadata({ file: kind }));
/** Schema of a shared secret: 8 to 255 characters. */
export const secret = v.pipe(
  v.string(),
  v.minLength(8, 'a secret of at least 8 characters'),
  v.maxLength(255, 'a secret of at most 255 characters'),
);
/** Schema of an identifier of a party: 1 to 64 letters, digits and `. _ : -`. */
export const identifier = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9._:-]{1,64}$/, 'an identifier: 1 to 64 of A-Z a-z 0-9 . _ : -'),
);
/** Schema of an integer from `min` to `max`, both included. */
export const integerBetween = (min: number, max: number) =>
  v.pipe(
    v.number(),
    v.integer(`a whole number from ${min} to ${max}`),
    v.minValue(min, `a whole number from ${min} to ${max}`),
    v.maxValue(max, `a whole number from ${min} to ${max}`),
  );
/** Schema of a UDP or TCP port. 0 lets the system choose one. */
export const port = integerBetween(0, 65535);
/** A list of authentication schemes (OMA DM security 1.2.1, section 5.3), the preferred one first. */
const schemes = v.pipe(
  v.array(v.picklist(['basic', 'md5', 'mac'], '"basic", "md5" or "mac"')),
  v.minLength(1, 'at least one of "basic", "md5", "mac"'),
);
/** Schema of the authentication schemes that a party may use. The default is md5 alone. */
export const authSchemes = (description: string) => described(v.optional(schemes, ['md5']), description);
const urlRule = 'a URL such as mqtt://broker.example:1883 or mqtts://broker.example:8883';
/** Whether a text is a URL, and its user name and password can be read. */
function isUrl(value: string): boolean {
  try {
    const { username, password } = new URL(value);
    return decodeURIComponent(username + password) !== undefined;
  } catch {
    return false;
  }
}
const mqttUrl = v.pipe(
  v.string(),
  v.regex(/^(mqtt|mqtts|tcp|ssl|ws|wss):\/\/[^\s/]+/, urlRule),
  v.check(isUrl, urlRule),
);

/** Schema of the table `mqtt`: how a party reaches its MQTT broker. */
export const mqttSection = v.strictObject({
  url: described(mqttUrl, 'Address of the broker: `mqtt://host:1883`, or `mqtts://host:8883` with TLS'),
  protocol: described(
    v.optional(v.picklist(['auto', '3.1.1', '5'], '"auto", "3.1.1" or "5"'), 'auto'),
    'MQTT version; `auto` tries 5 first',
  ),
  username: described(v.optional(text), 'User name at the broker'),
  password: described(v.optional(text), 'Password at the broker'),
  keepalive: described(
    v.optional(integerBetween(1, 3600), 30),
    'Seconds of silence after which a keep-alive is sent. More costs fewer octets; a lost connection is then noticed later',
  ),
  ca: described(
    v.optional(fileOf('authorities')),
    'PEM file of the CA certificates that the broker certificate is checked against',
  ),
  cert: described(v.optional(fileOf('certificate')), 'PEM file of the client certificate'),
  key: described(v.optional(fileOf('private-key')), 'PEM file of the client key'),
  'max-packet': described(
    v.optional(integerBetween(1024, 268_435_455)),
    'Largest MQTT packet that the broker takes, in bytes, if the broker does not say so itself (MQTT 3.1.1). Without this key the limit is learned when the broker ends a connection',
  ),
});

/** Schema of the table `log`. */
export const logSection = v.optional(
  v.strictObject({
    level: described(
      v.optional(
        v.picklist(
          ['debug', 'info', 'warn', 'error', 'silent'],
          '"debug", "info", "warn", "error" or "silent"',
        ),
        'info',
      ),
      'Lowest severity of events that are logged',
    ),
  }),
  {},
);

/** A wrong value, or its kind, in an error message. */
const shown = (value: unknown): string => {
  if (value === undefined) return 'nothing';
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'a list' : 'a table';
  // What is wrong may be the URL itself, so all before the last @ may be a password.
  return JSON.stringify(value).replace(/(:\/\/).*@/s, '$1…@');
};

/** Error messages never show the values of these keys. */
const secretKey = /secret|password/;

/** The error message for one fault: `file: key: expected this, found that`. */
function complaint(file: string, issue: v.BaseIssue<unknown>): string {
  const keys = (issue.path ?? []).map(({ key }) => String(key));
  const key = keys.reduce(
    (joined, next) =>
      /^\d+$/.test(next) ? `${joined}[${next}]` : joined === '' ? next : `${joined}.${next}`,
    '',
  );
  const missing = issue.input === undefined;
  if (issue.type === 'strict_object' && issue.expected === 'never') return `${file}: ${key}: unknown key`;
  const known = issue.kind === 'validation' || issue.type === 'picklist';
  const expected = known ? issue.message : (names[issue.expected ?? ''] ?? issue.expected ?? 'another value');
  const found = secretKey.test(keys.at(-1) ?? '') && !missing ? 'another value' : shown(issue.input);
  return `${file}: ${key || 'the file'}: expected ${expected}, found ${found}`;
}

/** Types in the words of the error messages, by valibot's names for them. */
const names: Readonly<Record<string, string>> = {
  string: 'a text',
  number: 'a number',
  boolean: 'true or false',
  Object: 'a table',
  Array: 'a list',
};

/**
 * Checks a parsed configuration against its schema. Returns it with the defaults filled in.
 * @param file name of the file, for the error messages
 * @throws {PosternError} `configuration`, with one line for each fault
 */
export function checkConfig<S extends v.GenericSchema>(
  schema: S,
  value: unknown,
  file: string,
): v.InferOutput<S> {
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  throw new PosternError('configuration', result.issues.map((issue) => complaint(file, issue)).join('\n'));
}

/**
 * Reads a TOML file and checks it against a schema.
 * @throws {PosternError} `configuration` when the file does not exist, is not TOML, or does not match the schema
 */
export function loadConfig<S extends v.GenericSchema>(schema: S, file: string): v.InferOutput<S> {
  let value: unknown;
  try {
    value = parseToml(readFileSync(file, 'utf8'));
  } catch (cause) {
    const why =
      cause instanceof TomlError
        ? `line ${cause.line}, column ${cause.column}: not valid TOML: ${cause.message.split('\n')[0]}`
        : (cause as NodeJS.ErrnoException).code === 'ENOENT'
          ? 'there is no such file'
          : String(cause);
    throw new PosternError('configuration', `${file}: ${why}`, { cause });
  }
  return checkConfig(schema, value, file);
}
