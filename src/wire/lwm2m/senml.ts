import { fromCbor, toCbor } from '../../base/cbor.ts';
import { cborLimits, lwm2mProfile } from '../../base/cbor-profile.ts';
import { PosternError } from '../../base/errors.ts';
import { type Path, parsePath, pathText } from './path.ts';
import {
  type Entry,
  isWhole,
  narrowed,
  type ResourceType,
  type TypeOf,
  typeIn,
  type Value,
} from './resource.ts';

/** One record, with the names of SenML JSON (RFC 8428 section 4). `vlo` is from LwM2M core 1.1, section 7.4.4. */
interface SenmlRecord {
  readonly bn?: unknown;
  readonly n?: unknown;
  readonly v?: unknown;
  readonly vs?: unknown;
  readonly vb?: unknown;
  readonly vd?: unknown;
  readonly vlo?: unknown;
}

/** Names by the labels of SenML CBOR (RFC 8428 section 6). */
const labels = new Map<unknown, keyof SenmlRecord>([
  [-2, 'bn'],
  [0, 'n'],
  [2, 'v'],
  [3, 'vs'],
  [4, 'vb'],
  [8, 'vd'],
  ['vlo', 'vlo'],
]);
const labelOf = new Map([...labels].map(([label, name]) => [name, label]));

/** TypeScript does not know it yet. */
const { rawJSON: rawJson } = JSON as unknown as { readonly rawJSON: (text: string) => unknown };

const bad = (why: string, cause?: unknown) => new PosternError('malformed', `SenML: ${why}`, { cause });

/**
 * Reads SenML JSON (RFC 8428). Records without a value are ignored.
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export function decodeSenmlJson(body: Uint8Array): Entry[] {
  const records = fromJson(body);
  if (!Array.isArray(records)) throw bad('not an array of records');
  return readRecords(records, (octets) => Buffer.from(String(octets), 'base64url'));
}

/**
 * Reads SenML CBOR (RFC 8428). Records without a value, and unknown labels, are ignored.
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export function decodeSenmlCbor(body: Uint8Array): Entry[] {
  const records = fromCbor(body, lwm2mProfile, 'SenML');
  if (!Array.isArray(records)) throw bad('not an array of records');
  const named = records.map((record): SenmlRecord => {
    if (!(record instanceof Map)) throw bad('a record is not a map');
    return Object.fromEntries(
      [...record].flatMap(([label, value]) => {
        const name = labels.get(label);
        return name === undefined ? [] : [[name, value]];
      }),
    );
  });
  return readRecords(named, octetsIn);
}

/**
 * Reads the value of one resource in CBOR (LwM2M core 1.2, section 7.5.2).
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export function decodeCbor(body: Uint8Array): Value {
  const v = fromCbor(body, lwm2mProfile, 'CBOR');
  return valueIn({ v, vs: v, vb: v, vd: v }, octetsIn);
}

function octetsIn(octets: unknown): Uint8Array {
  if (!(octets instanceof Uint8Array)) throw bad('not a byte string');
  return octets;
}

/**
 * Reads the JSON format of LwM2M 1.0 (section 6.4.4), which is older than SenML: a base name `bn` and elements `e`.
 * Without a base name the elements are relative to `base`.
 * @throws {PosternError} `malformed`
 */
export function decodeOldJson(body: Uint8Array, base: Path): Entry[] {
  const { bn, e } = (fromJson(body) ?? {}) as { bn?: unknown; e?: unknown };
  if (!Array.isArray(e) || (bn !== undefined && typeof bn !== 'string'))
    throw bad('base name bn or elements e missing or of a wrong type');
  const start = bn ?? pathText(base);
  return e.map((element: unknown): Entry => {
    const { n, v, sv, bv, ov } = (element ?? {}) as Record<string, unknown>;
    // Some clients write the base name without the slash at its end.
    const name = typeof n === 'string' && n !== '' ? `${start}/${n}` : start;
    return { path: parsePath(name), value: valueIn({ v, vs: sv ?? ov, vb: bv }, () => new Uint8Array()) };
  });
}

/** Writes SenML JSON (RFC 8428), without base names. */
export const encodeSenmlJson = (entries: readonly Entry[], typeOf: TypeOf): Uint8Array =>
  Buffer.from(
    JSON.stringify(
      entries.map((entry) => recordOf(entry, typeOf, (octets) => Buffer.from(octets).toString('base64url'))),
      // JSON.stringify takes no bigint.
      (_key, value) => (typeof value === 'bigint' ? rawJson(String(value)) : value),
    ),
  );

/** Writes SenML CBOR (RFC 8428), without base names. */
export const encodeSenmlCbor = (entries: readonly Entry[], typeOf: TypeOf): Uint8Array =>
  toCbor(
    entries.map((entry) => {
      const record = recordOf(entry, typeOf, (octets) => octets);
      return new Map(
        Object.entries(record).map(([name, value]) => [labelOf.get(name as keyof SenmlRecord), value]),
      );
    }),
  );

/** Keeps a number of more than 53 bits whole. More than 20 digits are no integer of LwM2M, and slow to read. */
const whole = (_key: string, value: unknown, { source = '' }: { source?: string } = {}): unknown =>
  typeof value === 'number' && !Number.isSafeInteger(value) && /^-?\d{1,20}$/.test(source)
    ? BigInt(source)
    : value;

function fromJson(body: Uint8Array): unknown {
  try {
    const text = Buffer.from(body).toString();
    // To look at the digits of each number takes three times as long, and is needed where one has more than 15 alone.
    return JSON.parse(text, /\d{16}/.test(text) ? whole : undefined);
  } catch (cause) {
    throw bad('not JSON', cause);
  }
}

function readRecords(records: readonly unknown[], data: (value: unknown) => Uint8Array): Entry[] {
  if (records.length > cborLimits.items) throw new PosternError('tooLarge', 'SenML: too many records');
  let base = '';
  return records.flatMap((each) => {
    const record = (each ?? {}) as SenmlRecord;
    if (record.bn !== undefined) base = String(record.bn);
    const values = [record.v, record.vs, record.vb, record.vd, record.vlo];
    if (values.every((value) => value === undefined)) return [];
    const value = valueIn(record, data);
    const isLink = record.vlo !== undefined;
    const type: ResourceType = typeof record.v === 'bigint' ? 'integer' : isLink ? 'objlnk' : typeIn(value);
    return [{ path: parsePath(`${base}${String(record.n ?? '')}`), value, type }];
  });
}

function valueIn({ v: number, vs, vb, vd, vlo }: SenmlRecord, data: (value: unknown) => Uint8Array): Value {
  // Tags 0 and 1 of CBOR are times.
  const v = number instanceof Date ? number.getTime() / 1000 : number;
  if (typeof v === 'bigint') return narrowed(v);
  if (typeof v === 'number' && Number.isFinite(v)) return v;
  if (typeof vs === 'string') return vs;
  if (typeof vb === 'boolean') return vb;
  if (typeof vlo === 'string') return vlo;
  if (vd !== undefined) return data(vd);
  throw bad('a record without a value');
}

function recordOf(
  { path, value }: Entry,
  typeOf: TypeOf,
  data: (octets: Uint8Array) => unknown,
): SenmlRecord {
  const n = pathText(path);
  if (value instanceof Uint8Array) return { n, vd: data(value) };
  if (typeof value === 'boolean') return { n, vb: value };
  if (typeof value === 'number') return { n, v: value };
  const type = typeOf(path);
  if (isWhole(type)) return { n, v: BigInt(value) };
  return type === 'objlnk' ? { n, vlo: value } : { n, vs: value };
}
