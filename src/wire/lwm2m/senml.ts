import { fromCbor, toCbor } from '../../base/cbor.ts';
import { cborLimits, lwm2mProfile } from '../../base/cbor-profile.ts';
import { PosternError } from '../../base/errors.ts';
import { parseJson } from '../../base/json.ts';
import { ContentFormat } from '../coap/content-formats.ts';
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

/**
 * One record, with the names of SenML JSON (RFC 8428 section 4). `vlo` is from LwM2M core 1.1, section 7.4.4. Units, sums and update
 * times are not read: LwM2M knows the unit of a resource.
 */
interface SenmlRecord {
  readonly bver?: unknown;
  readonly bn?: unknown;
  readonly bt?: unknown;
  readonly bv?: unknown;
  readonly n?: unknown;
  readonly t?: unknown;
  readonly v?: unknown;
  readonly vs?: unknown;
  readonly vb?: unknown;
  readonly vd?: unknown;
  readonly vlo?: unknown;
}

/** Names by the labels of SenML CBOR (RFC 8428 section 6). */
const labels = new Map<unknown, keyof SenmlRecord>([
  [-5, 'bv'],
  [-3, 'bt'],
  [-2, 'bn'],
  [-1, 'bver'],
  [0, 'n'],
  [2, 'v'],
  [3, 'vs'],
  [4, 'vb'],
  [6, 't'],
  [8, 'vd'],
  ['vlo', 'vlo'],
]);
const labelOf = new Map([...labels].map(([label, name]) => [name, label]));

/** The version of SenML that RFC 8428 defines (section 4.4). */
const version = 10;
/** Times below this are relative to the time of arrival (section 4.5.3). Seconds. */
const firstAbsolute = 2 ** 28;
/** Times beyond this are none: some 3,000 years. Seconds. */
const lastTime = 1e11;

/** TypeScript does not know it yet. */
const { rawJSON: rawJson } = JSON as unknown as { readonly rawJSON: (text: string) => unknown };

const bad = (why: string, cause?: unknown) => new PosternError('malformed', `SenML: ${why}`, { cause });

/**
 * Time of an entry in milliseconds since 1970.
 * @param now of the arrival, to which some times are relative and which holds for entries without one
 */
export const timeOf = ({ time = 0 }: Entry, now: number): number =>
  Math.round(time < firstAbsolute ? now + time * 1000 : time * 1000);

/**
 * Reads SenML JSON (RFC 8428). Records without a value are ignored.
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export const decodeSenmlJson = (body: Uint8Array): Entry[] =>
  readRecords(jsonRecords(body), (octets) => Buffer.from(String(octets), 'base64url'));

/**
 * Reads SenML CBOR (RFC 8428). Records without a value, and unknown labels, are ignored.
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export const decodeSenmlCbor = (body: Uint8Array): Entry[] => readRecords(cborRecords(body), octetsIn);

/**
 * Reads the paths of a Read-Composite or Observe-Composite (LwM2M core 1.1, section 6.3.8): SenML with names alone.
 * @throws {PosternError} `malformed`, `unsupportedFormat`, `tooLarge`
 */
export function decodePaths(format: number | undefined, body: Uint8Array): Path[] {
  if (format !== ContentFormat.SenmlCbor && format !== ContentFormat.SenmlJson)
    throw new PosternError('unsupportedFormat', 'a list of paths must be SenML');
  const records = format === ContentFormat.SenmlCbor ? cborRecords(body) : jsonRecords(body);
  let base = '';
  return records.map(({ bn, n }) => {
    if (bn !== undefined) base = String(bn);
    return parsePath(`${base}${String(n ?? '')}`);
  });
}

/** Writes such a list of paths as SenML CBOR. */
export const encodePaths = (paths: readonly Path[]): Uint8Array =>
  toCbor(paths.map((path) => new Map([[labelOf.get('n'), pathText(path)]])));

function jsonRecords(body: Uint8Array): readonly SenmlRecord[] {
  return recordsIn(fromJson(body), (record) => {
    if (typeof record !== 'object' || record === null || Array.isArray(record)) return {};
    for (const name of Object.keys(record)) demandKnown(name);
    return record;
  });
}

function cborRecords(body: Uint8Array): readonly SenmlRecord[] {
  return recordsIn(fromCbor(body, lwm2mProfile, 'SenML'), (record) => {
    if (!(record instanceof Map)) throw bad('a record is not a map');
    return Object.fromEntries(
      [...record].flatMap(([label, value]) => {
        demandKnown(label);
        const name = labels.get(label);
        return name === undefined ? [] : [[name, value]];
      }),
    );
  });
}

function recordsIn(pack: unknown, read: (record: unknown) => SenmlRecord): readonly SenmlRecord[] {
  if (!Array.isArray(pack)) throw bad('not an array of records');
  if (pack.length > cborLimits.items) throw new PosternError('tooLarge', 'SenML: too many records');
  return pack.map(read);
}

/** @throws {PosternError} `malformed` for a name that only who understands it may pass over (section 4.4) */
function demandKnown(name: unknown): void {
  if (typeof name === 'string' && name.endsWith('_')) throw bad(`${name.slice(0, 32)} is not understood`);
}

/**
 * Reads the value of one resource in CBOR, with its type (LwM2M core 1.2, section 7.5.2).
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export const decodeCbor = (body: Uint8Array): Required<Pick<Entry, 'value' | 'type'>> =>
  readValue(fromCbor(body, lwm2mProfile, 'CBOR'));

/** Writes the value of one resource in CBOR, as `decodeCbor` reads it. */
export function encodeCbor(entry: Entry, typeOf: TypeOf): Uint8Array {
  const { v, vs, vb, vd, vlo } = recordOf(entry, typeOf, (octets) => octets);
  return toCbor(v ?? vs ?? vb ?? vd ?? vlo);
}

/**
 * A value of LwM2M that stands alone in CBOR, with its type.
 * @throws {PosternError} `malformed`
 */
export function readValue(v: unknown): Required<Pick<Entry, 'value' | 'type'>> {
  const value = valueIn({ v, vs: v, vb: v, vd: v }, octetsIn);
  return { value, type: typeof v === 'bigint' ? 'integer' : typeIn(value) };
}

function octetsIn(octets: unknown): Uint8Array {
  if (!(octets instanceof Uint8Array)) throw bad('not a byte string');
  return octets;
}

/**
 * Reads the JSON format of LwM2M 1.0 (section 6.4.4), which is older than SenML: a base name `bn`, a base time `bt` and elements
 * `e`. Without a base name the elements are relative to `base`.
 * @throws {PosternError} `malformed`
 */
export function decodeOldJson(body: Uint8Array, base: Path): Entry[] {
  const { bn, bt, e } = (fromJson(body) ?? {}) as { bn?: unknown; bt?: unknown; e?: unknown };
  if (!Array.isArray(e) || (bn !== undefined && typeof bn !== 'string'))
    throw bad('base name bn or elements e missing or of a wrong type');
  const start = bn ?? pathText(base);
  const baseTime = bt === undefined ? undefined : secondsIn(bt);
  return e.map((element: unknown): Entry => {
    const { n, v, sv, bv, ov, t } = (element ?? {}) as Record<string, unknown>;
    // Some clients write the base name without the slash at its end.
    const name = typeof n === 'string' && n !== '' ? `${start}/${n}` : start;
    const value = valueIn({ v, vs: sv ?? ov, vb: bv }, () => new Uint8Array());
    return { path: parsePath(name), value, ...timeIn(baseTime, t) };
  });
}

/** Writes SenML JSON (RFC 8428): resolved records, so without base names and base times (section 4.6). */
export const encodeSenmlJson = (entries: readonly Entry[], typeOf: TypeOf): Uint8Array =>
  Buffer.from(
    JSON.stringify(
      entries.map((entry) => recordOf(entry, typeOf, (octets) => Buffer.from(octets).toString('base64url'))),
      // JSON.stringify takes no bigint.
      (_key, value) => (typeof value === 'bigint' ? rawJson(String(value)) : value),
    ),
  );

/** Writes SenML CBOR (RFC 8428), as `encodeSenmlJson`. */
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
    // To look at the digits of each number takes three times as long, and is needed where one has more than 15 alone.
    return parseJson(body, (text) => (/\d{16}/.test(text) ? whole : undefined));
  } catch (cause) {
    throw bad('not JSON', cause);
  }
}

/** Resolves base names, base times and base values (section 4.6). */
function readRecords(records: readonly SenmlRecord[], data: (value: unknown) => Uint8Array): Entry[] {
  let base = '';
  let baseTime: number | undefined;
  let baseValue: number | bigint = 0;
  return records.flatMap((record) => {
    const { bver, bn, bt, bv, n = '', t, v, vs, vb, vd, vlo } = record;
    if (bver !== undefined && !(Number(bver) <= version)) throw bad('a version above 10');
    if (bn !== undefined) base = String(bn);
    if (bt !== undefined) baseTime = secondsIn(bt);
    if (bv !== undefined) baseValue = numberIn(bv);
    if ([v, vs, vb, vd, vlo].every((value) => value === undefined)) return [];
    const value = baseValue !== 0 && v !== undefined ? sumOf(numberIn(v), baseValue) : valueIn(record, data);
    const type: ResourceType =
      typeof v === 'bigint' ? 'integer' : vlo === undefined ? typeIn(value) : 'objlnk';
    return [{ path: parsePath(`${base}${String(n)}`), value, type, ...timeIn(baseTime, t) }];
  });
}

/** The time of an entry, where its record or one before names one. */
function timeIn(base: number | undefined, t: unknown): Pick<Entry, 'time'> {
  if (t === undefined && base === undefined) return {};
  return { time: secondsIn((base ?? 0) + (t === undefined ? 0 : secondsIn(t))) };
}

function numberIn(value: unknown): number | bigint {
  const number = value instanceof Date ? value.getTime() / 1000 : value;
  if (typeof number !== 'bigint' && !Number.isFinite(number)) throw bad('not a number');
  return number as number | bigint;
}

/** The sum of two numbers. It is whole where both are. */
function sumOf(one: number | bigint, other: number | bigint): Value {
  const isExact = [one, other].every((each) => typeof each === 'bigint' || Number.isSafeInteger(each));
  return isExact ? narrowed(BigInt(one) + BigInt(other)) : Number(one) + Number(other);
}

function secondsIn(value: unknown): number {
  const seconds = Number(numberIn(value));
  if (Math.abs(seconds) > lastTime) throw bad('not a time');
  return seconds;
}

function valueIn({ v, vs, vb, vd, vlo }: SenmlRecord, data: (value: unknown) => Uint8Array): Value {
  if (typeof v === 'bigint') return narrowed(v);
  // A sensor without a value may say a float that is no number. That costs no other value.
  if (typeof v === 'number' && Math.abs(v) !== Number.POSITIVE_INFINITY) return v;
  // Tags 0 and 1 of CBOR are times.
  if (v instanceof Date && Number.isFinite(v.getTime())) return v.getTime() / 1000;
  if (typeof vs === 'string') return vs;
  if (typeof vb === 'boolean') return vb;
  if (typeof vlo === 'string') return vlo;
  if (vd !== undefined) return data(vd);
  throw bad('a record without a value');
}

function recordOf(
  { path, value, time }: Entry,
  typeOf: TypeOf,
  data: (octets: Uint8Array) => unknown,
): SenmlRecord {
  const head = { n: pathText(path), ...(time !== undefined && { t: time }) };
  if (value instanceof Uint8Array) return { ...head, vd: data(value) };
  if (typeof value === 'boolean') return { ...head, vb: value };
  if (typeof value === 'number') return { ...head, v: value };
  const type = typeOf(path);
  if (isWhole(type)) return { ...head, v: BigInt(value) };
  return type === 'objlnk' ? { ...head, vlo: value } : { ...head, vs: value };
}
