import { parse as parseToml, TomlError } from 'smol-toml';
import * as v from 'valibot';
import { complaintsOf } from './config-words.ts';
import { asPosternError, PosternError } from './errors.ts';
import { readNamedFile } from './named-file.ts';

/** Adds a description to the schema of a configuration value. docs/configuration.md is made from these descriptions. */
export const described = <S extends v.GenericSchema>(schema: S, description: string) =>
  v.pipe(schema, v.description(description));

const textRule = 'a text of 1 to 255 characters';
/** Schema of a text of 1 to 255 characters. */
export const text = v.pipe(v.string(), v.minLength(1, textRule), v.maxLength(255, textRule));
/** Schema of a name, or of the beginning of names followed by `*` (`matchesDevice`). */
export const namePattern = v.pipe(
  v.string(),
  v.regex(/^[^*]{0,254}.$/s, 'a name, or the beginning of names followed by *, of 1 to 255 characters'),
);
/**
 * What a file that a configuration names holds: PEM certificates of authorities, a PEM certificate of this party, its private
 * key, a PEM public key, or anything.
 */
export type FileKind = 'authorities' | 'certificate' | 'private-key' | 'public-key' | 'any';
/** Schema of the path of a file. `--check` reads the file and checks that it holds what the kind says (`checkFiles`). */
export const fileOf = (kind: FileKind) => v.pipe(text, v.metadata({ file: kind }));
const secretRule = 'a secret of 8 to 255 characters';
/** Schema of a shared secret: 8 to 255 characters. */
export const secret = v.pipe(v.string(), v.minLength(8, secretRule), v.maxLength(255, secretRule));
/** Schema of a secret that another party has fixed, however short. `tellWeakSecrets` tells of short ones. */
export const anySecret = text;
/** Schema of an identifier of a party: 1 to 64 letters, digits and `. _ : -`. */
export const identifier = v.pipe(
  v.string(),
  v.regex(
    /^[A-Za-z0-9._:-]{1,64}$/,
    'an identifier of 1 to 64 characters of A-Z a-z 0-9 . _ : - such as gw-1',
  ),
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
  v.minLength(1, 'a list of at least one of "basic", "md5", "mac"'),
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
/** Schema of the URL of an MQTT broker. */
export const mqttUrl = v.pipe(
  v.string(),
  v.regex(/^(mqtt|mqtts|tcp|ssl|ws|wss):\/\/[^\s/]+/, urlRule),
  v.check(isUrl, urlRule),
);

/** Whether the URL of a broker is one with TLS, whose certificate is checked. */
export const hasTls = (url: string): boolean => /^(mqtts|ssl|wss):/.test(url);

/** Refuses one of two keys without the other one. */
export const together = <T>(one: string & keyof T, other: string & keyof T) =>
  v.check<T, (issue: v.CheckIssue<T>) => string>(
    (table) => (table[one] === undefined) === (table[other] === undefined),
    ({ input }) =>
      `${one} and ${other} belong together, and ${input[one] === undefined ? one : other} is missing; set both, or none`,
  );

/** Refuses a list of tables in which two have the same `id`. */
export const distinct = <T extends { readonly id: string }>() =>
  v.check<T[], (issue: v.CheckIssue<T[]>) => string>(
    (tables) => repeated(tables) === undefined,
    ({ input }) => `the id ${JSON.stringify(repeated(input))} is there twice; each id may be there once`,
  );

function repeated(tables: readonly { readonly id: string }[]): string | undefined {
  const ids = tables.map(({ id }) => id);
  return ids.length === new Set(ids).size ? undefined : ids.find((id, at) => ids.indexOf(id) !== at);
}

const mqttTable = v.strictObject({
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

/**
 * Keys of a table whose HTTP server has TLS, or is told by name to do without.
 * @param readable what anyone on the way can read without TLS
 */
export const httpTls = (readable: string) => ({
  'tls-cert': described(
    v.optional(fileOf('certificate')),
    'PEM file of the certificate; without it, HTTP without TLS',
  ),
  'tls-key': described(v.optional(fileOf('private-key')), 'PEM file of its key'),
  'insecure-plain-http': described(
    v.optional(v.boolean(), false),
    `Serve HTTP without TLS at an address other than loopback. Anyone on the way can then read ${readable}`,
  ),
});

const tlsKeys = ['ca', 'cert', 'key'] as const;
type MqttTable = v.InferOutput<typeof mqttTable>;

/** URLs without TLS, and those that take their place with TLS. */
const withTls: Readonly<Record<string, string>> = { 'mqtt:': 'mqtts', 'tcp:': 'ssl', 'ws:': 'wss' };

function tlsWithout(mqtt: MqttTable): string {
  const keys = tlsKeys.filter((key) => mqtt[key] !== undefined);
  const { protocol } = new URL(mqtt.url);
  const them = keys.length === 1 ? 'it' : 'them';
  return `${keys.join(', ')}: only a URL with TLS uses ${them}, and url has ${protocol}//; write ${withTls[protocol]}:// in its place, or remove ${them}`;
}

/** Schema of the table `mqtt`: how a party reaches its MQTT broker. */
export const mqttSection = v.pipe(
  mqttTable,
  together<MqttTable>('cert', 'key'),
  v.check<MqttTable, (issue: v.CheckIssue<MqttTable>) => string>(
    (mqtt) => hasTls(mqtt.url) || tlsKeys.every((key) => mqtt[key] === undefined),
    ({ input }) => tlsWithout(input),
  ),
  v.check(
    ({ username, password }) => password === undefined || username !== undefined,
    'password is there without username; MQTT 3.1.1 needs both',
  ),
);

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
  throw new PosternError(
    'configuration',
    complaintsOf(schema, result.issues, 'the file')
      .map((fault) => `${file}: ${fault}`)
      .join('\n'),
  );
}

/**
 * Reads a TOML file, or a pipe such as /dev/stdin, and checks it against a schema.
 * @throws {PosternError} `configuration` when the file does not exist, is not TOML, or does not match the schema
 */
export const loadConfig = <S extends v.GenericSchema>(schema: S, file: string): v.InferOutput<S> =>
  checkConfig(schema, readToml(file), file);

/**
 * Reads a TOML file.
 * @throws {PosternError} `configuration` when the file does not exist or is not TOML
 */
export function readToml(file: string): Record<string, unknown> {
  try {
    return parseToml(readNamedFile(file, { takesPipe: true }).toString());
  } catch (cause) {
    const why =
      cause instanceof TomlError
        ? `line ${cause.line}, column ${cause.column}: not valid TOML: ${cause.message.split('\n')[0]!.replace('Invalid TOML document: ', '')}`
        : /ENOENT/.test(asPosternError(cause).message)
          ? 'there is no such file (--config FILE names another one)'
          : asPosternError(cause).message;
    throw new PosternError('configuration', `${file}: ${why}`, { cause });
  }
}
