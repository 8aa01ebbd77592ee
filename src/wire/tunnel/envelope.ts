import { fromCbor, toCbor } from '../../base/cbor.ts';
import { plainProfile } from '../../base/cbor-profile.ts';
import { PosternError } from '../../base/errors.ts';

/** Kinds of envelopes, by their number on the wire. A notification carries Package #0. */
export const EnvelopeKind = { Request: 0, Response: 1, Notification: 2, Error: 3 } as const;
export type EnvelopeKind = (typeof EnvelopeKind)[keyof typeof EnvelopeKind];

/**
 * Payload of an MQTT message of the tunnel (docs/bindings.md): a DM package, byte for byte, and what gateway and
 * head-end need in order to deliver it.
 */
export interface Envelope {
  readonly kind: EnvelopeKind;
  /** 8 to 16 octets, unique per request. The answer repeats them. */
  readonly correlation: Uint8Array;
  /** DevId. Absent for the gateway's own packages. */
  readonly device?: string;
  /** ServerID. */
  readonly server?: string;
  /** Media type of the body. */
  readonly contentType?: string;
  /** Seconds, counted from receipt. */
  readonly timeToLive?: number;
  /** Transport headers that DM needs, by lower-case name. At most 16. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** For an error: a DM status. */
  readonly status?: number;
  /** For an error: one line for a person. */
  readonly reason?: string;
  /** Topic level to which the gateway publishes later packages of the session. */
  readonly route?: string;
  /** The child gateway nearest to the device, when the device is behind one. */
  readonly via?: string;
  /** IP address from which the gateway heard the device, or the child gateway. No proof of who sent the package. */
  readonly peer?: string;
}

/** Version of the envelope's format. */
export const envelopeVersion = 1;
/** Most bytes of one envelope. */
const envelopeBytes = 512 * 1024;

const key = {
  version: 1,
  kind: 2,
  correlation: 3,
  device: 4,
  server: 5,
  contentType: 6,
  timeToLive: 7,
  headers: 8,
  body: 9,
  status: 10,
  reason: 11,
  route: 12,
  via: 13,
  peer: 14,
} as const;

/** Writes an envelope in deterministic CBOR (RFC 8949 section 4.2): shortest forms, keys in order. */
export function encodeEnvelope(envelope: Envelope): Buffer {
  const { headers, body, correlation, ...rest } = envelope;
  const map = new Map<number, unknown>([
    [key.version, envelopeVersion],
    [key.correlation, Buffer.from(correlation)],
  ]);
  for (const [name, value] of Object.entries(rest)) map.set(key[name as keyof typeof rest], value);
  if (headers)
    map.set(key.headers, new Map(Object.entries(headers).toSorted(([a], [b]) => byEncoding(a, b))));
  if (body) map.set(key.body, Buffer.from(body));
  return toCbor(new Map([...map].toSorted(([a], [b]) => a - b)));
}

/** Compares map keys by their encodings, as deterministic CBOR requires. A shorter text has a smaller head. */
const byEncoding = (a: string, b: string): number => Buffer.compare(toCbor(a), toCbor(b));

/**
 * Reads an envelope. Unknown keys are ignored.
 * @throws {PosternError} `malformed`, `tooLarge`, `unsupportedVersion`
 */
export function decodeEnvelope(payload: Uint8Array): Envelope {
  if (payload.length > envelopeBytes) throw new PosternError('tooLarge', 'envelope too large');
  const map = fromCbor(payload, plainProfile, 'envelope');
  if (!(map instanceof Map)) throw new PosternError('malformed', 'envelope is not a map');
  const version = map.get(key.version);
  if (version !== envelopeVersion)
    throw new PosternError('unsupportedVersion', `envelope version ${String(version)} is not supported`);
  const kind = map.get(key.kind);
  const correlation = octets(map, 'correlation');
  if (kind !== 0 && kind !== 1 && kind !== 2 && kind !== 3)
    throw new PosternError('malformed', 'unknown kind of envelope');
  if (!correlation || correlation.length < 8 || correlation.length > 16)
    throw new PosternError('malformed', 'envelope without a correlation of 8 to 16 bytes');
  return {
    kind,
    correlation,
    ...defined('device', text(map, 'device')),
    ...defined('server', text(map, 'server')),
    ...defined('contentType', text(map, 'contentType')),
    ...defined('timeToLive', unsigned(map, 'timeToLive')),
    ...defined('headers', headersOf(map)),
    ...defined('body', octets(map, 'body')),
    ...defined('status', unsigned(map, 'status')),
    ...defined('reason', text(map, 'reason')),
    ...defined('route', text(map, 'route')),
    ...defined('via', text(map, 'via')),
    ...defined('peer', text(map, 'peer')),
  };
}

const defined = <K extends string, V>(name: K, value: V | undefined): { [P in K]?: V } =>
  value === undefined ? {} : ({ [name]: value } as { [P in K]?: V });

type Fields = ReadonlyMap<unknown, unknown>;
const wrong = (name: string, expected: string) =>
  new PosternError('malformed', `${name} of the envelope must be ${expected}`);

function text(map: Fields, name: keyof typeof key): string | undefined {
  const value = map.get(key[name]);
  if (value !== undefined && (typeof value !== 'string' || value.length > 255))
    throw wrong(name, 'a text of at most 255 characters');
  return value;
}

function unsigned(map: Fields, name: keyof typeof key): number | undefined {
  const value = map.get(key[name]);
  if (value !== undefined && !(Number.isSafeInteger(value) && (value as number) >= 0))
    throw wrong(name, 'an unsigned number');
  return value as number | undefined;
}

function octets(map: Fields, name: keyof typeof key): Uint8Array | undefined {
  const value = map.get(key[name]);
  if (value !== undefined && !(value instanceof Uint8Array)) throw wrong(name, 'a byte string');
  return value;
}

function headersOf(map: Fields): Record<string, string> | undefined {
  const value = map.get(key.headers);
  if (value === undefined) return undefined;
  if (!(value instanceof Map) || value.size > 16) throw wrong('headers', 'a map of at most 16 entries');
  for (const entry of value)
    if (entry.some((one) => typeof one !== 'string')) throw wrong('headers', 'a map of texts');
  return Object.fromEntries(value);
}
