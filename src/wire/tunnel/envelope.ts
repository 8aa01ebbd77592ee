import { fromCbor } from '../../base/cbor.ts';
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
  /**
   * IP address and port from which the gateway heard the device, or the child gateway. No proof of who sent the package. With the
   * word `plain` behind it when a DTLS association has this place, and the package did not come through it.
   */
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

/** Fields in the order of their keys. */
const fields = Object.keys(key).slice(2) as readonly Exclude<keyof typeof key, 'version' | 'kind'>[];

/**
 * Writes an envelope in deterministic CBOR (RFC 8949 section 4.2): shortest forms, keys in order. It writes by itself,
 * because each package of each device comes through here, and the general encoder takes several times as long.
 */
export function encodeEnvelope(envelope: Envelope): Buffer {
  const writer = new EnvelopeWriter(envelope);
  const present = fields.filter((name) => envelope[name] !== undefined);
  writer.head(Major.Map, present.length + 2);
  writer.field('version', envelopeVersion);
  writer.field('kind', envelope.kind);
  for (const name of present) writer.field(name, envelope[name]!);
  return writer.written;
}

const Major = { Unsigned: 0, Octets: 2, Text: 3, Map: 5 } as const;
/** Bytes of a head of CBOR at most, of the sizes that an envelope has. */
const headBytes = 9;

class EnvelopeWriter {
  readonly #octets: Buffer;
  #at = 0;

  constructor(envelope: Envelope) {
    const { headers, body } = envelope;
    let bytes = (body?.length ?? 0) + 16 * headBytes;
    const addText = (value: string) => {
      bytes += value.length * 3 + headBytes;
    };
    for (const name of fields) {
      const value = envelope[name];
      if (typeof value === 'string') addText(value);
    }
    for (const name in headers) {
      addText(name);
      addText(headers[name]!);
    }
    this.#octets = Buffer.allocUnsafe(bytes);
  }

  get written(): Buffer {
    return this.#octets.subarray(0, this.#at);
  }

  field(
    name: keyof typeof key,
    value: number | string | Uint8Array | Readonly<Record<string, string>>,
  ): void {
    this.head(Major.Unsigned, key[name]);
    if (typeof value === 'number') this.head(Major.Unsigned, value);
    else if (typeof value === 'string') this.#text(value);
    else if (value instanceof Uint8Array) {
      this.head(Major.Octets, value.length);
      this.#octets.set(value, this.#at);
      this.#at += value.length;
    } else this.#headers(value);
  }

  /** The head of an item: major type and argument (RFC 8949 section 3). */
  head(major: number, argument: number): void {
    const octets = this.#octets;
    const first = major << 5;
    if (argument < 24) this.#at = octets.writeUInt8(first | argument, this.#at);
    else if (argument < 0x100) this.#at = octets.writeUInt16BE(((first | 24) << 8) | argument, this.#at);
    else if (argument < 0x1_0000)
      this.#at = octets.writeUInt16BE(argument, octets.writeUInt8(first | 25, this.#at));
    else if (argument < 0x1_0000_0000)
      this.#at = octets.writeUInt32BE(argument, octets.writeUInt8(first | 26, this.#at));
    else this.#at = octets.writeBigUInt64BE(BigInt(argument), octets.writeUInt8(first | 27, this.#at));
  }

  #text(value: string): void {
    this.head(Major.Text, Buffer.byteLength(value));
    this.#at += this.#octets.write(value, this.#at);
  }

  /** In the order of their encodings, as deterministic CBOR requires. A shorter text has a smaller head. */
  #headers(headers: Readonly<Record<string, string>>): void {
    const sorted = Object.entries(headers)
      .map(([name, value]) => [Buffer.from(name), value] as const)
      .toSorted(([a], [b]) => a.length - b.length || Buffer.compare(a, b));
    this.head(Major.Map, sorted.length);
    for (const [name, value] of sorted) {
      this.#text(name.toString());
      this.#text(value);
    }
  }
}

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
  const envelope: Record<string, unknown> = { kind, correlation };
  for (const name of fields) {
    if (!map.has(key[name])) continue;
    const value = readers[name](map, name);
    if (value !== undefined) envelope[name] = value;
  }
  return envelope as unknown as Envelope;
}

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

/** Reads and checks each field. */
const readers: Readonly<Record<(typeof fields)[number], (map: Fields, name: keyof typeof key) => unknown>> = {
  correlation: octets,
  device: text,
  server: text,
  contentType: text,
  timeToLive: unsigned,
  headers: headersOf,
  body: octets,
  status: unsigned,
  reason: text,
  route: text,
  via: text,
  peer: text,
};

function headersOf(map: Fields): Record<string, string> | undefined {
  const value = map.get(key.headers);
  if (value === undefined) return undefined;
  if (!(value instanceof Map) || value.size > 16) throw wrong('headers', 'a map of at most 16 entries');
  for (const entry of value)
    if (entry.some((one) => typeof one !== 'string')) throw wrong('headers', 'a map of texts');
  return Object.fromEntries(value);
}
