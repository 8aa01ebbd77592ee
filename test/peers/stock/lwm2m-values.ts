import { Encoder } from 'cbor-x';

const settings = { mapsAsObjects: false, useTag259ForMaps: false, useRecords: false };
const cbor = new Encoder(settings);

/** A value of a resource as a client keeps it. */
export interface Held {
  readonly type: 'string' | 'integer' | 'float' | 'boolean' | 'opaque' | 'time' | 'objlnk';
  readonly value: string | bigint | number | boolean | Buffer;
}

/** Values by the path, such as `3/0/9`, or `3/0/6/0` for one of several. */
export type Values = ReadonlyMap<string, Held>;
export type Format = 'tlv' | 'senml-json' | 'senml-cbor' | 'old-json' | 'text' | 'opaque';

export const numbers: Readonly<Record<Format, number>> = {
  text: 0,
  opaque: 42,
  'senml-json': 110,
  'senml-cbor': 112,
  tlv: 11542,
  'old-json': 11543,
};

/** A value as an operator reads it. */
export const shown = ({ value }: Held): string =>
  Buffer.isBuffer(value) ? value.toString('base64') : String(value);

function octetsOf({ type, value }: Held, isWide: boolean): Buffer {
  if (Buffer.isBuffer(value)) return value;
  if (typeof value === 'string') {
    const link = type === 'objlnk' ? value.split(':').map(Number) : undefined;
    if (!link) return Buffer.from(value);
    const octets = Buffer.alloc(4);
    octets.writeUInt16BE(link[0] ?? 0);
    octets.writeUInt16BE(link[1] ?? 0, 2);
    return octets;
  }
  if (typeof value === 'boolean') return Buffer.from([value ? 1 : 0]);
  const octets = Buffer.alloc(8);
  if (type === 'float') {
    octets.writeDoubleBE(Number(value));
    return octets;
  }
  octets.writeBigInt64BE(BigInt(value));
  const least = [1, 2, 4].find((size) => BigInt.asIntN(size * 8, BigInt(value)) === BigInt(value)) ?? 8;
  return isWide ? octets : octets.subarray(8 - least);
}

function element(kind: number, id: number, content: Buffer): Buffer {
  const { length } = content;
  const sizes = length < 8 ? [] : length < 256 ? [length] : [length >> 8, length & 255];
  const head = (kind << 6) | (id > 255 ? 0x20 : 0) | (length < 8 ? length : sizes.length << 3);
  return Buffer.concat([Buffer.from([head, ...(id > 255 ? [id >> 8, id & 255] : [id]), ...sizes]), content]);
}

/** The values at and below a path in TLV (LwM2M core 1.1, section 7.4.3). */
function tlv(values: Values, base: readonly number[], isWide: boolean): Buffer {
  const tree = new Map<number, Map<number, Held | Map<number, Held>>>();
  for (const [path, held] of values) {
    const [, instance = 0, resource = 0, place] = path.split('/').map(Number);
    const resources = tree.get(instance) ?? new Map<number, Held | Map<number, Held>>();
    tree.set(instance, resources);
    if (place === undefined) resources.set(resource, held);
    else {
      const several = (resources.get(resource) as Map<number, Held> | undefined) ?? new Map<number, Held>();
      resources.set(resource, several.set(place, held));
    }
  }
  const resourcesIn = (resources: ReadonlyMap<number, Held | Map<number, Held>>) =>
    Buffer.concat(
      [...resources].map(([id, held]) =>
        held instanceof Map
          ? element(
              2,
              id,
              Buffer.concat([...held].map(([at, each]) => element(1, at, octetsOf(each, isWide)))),
            )
          : element(3, id, octetsOf(held, isWide)),
      ),
    );
  const instances = [...tree];
  if (base.length > 1) return Buffer.concat(instances.map(([, resources]) => resourcesIn(resources)));
  return Buffer.concat(instances.map(([id, resources]) => element(0, id, resourcesIn(resources))));
}

const rawJson = (JSON as unknown as { rawJSON: (text: string) => unknown }).rawJSON;

/** The values at and below a path, as one of the formats has them. */
export function encodeValues(
  format: Format,
  values: Values,
  base: readonly number[],
  isWide: boolean,
): Buffer {
  const [only] = values.values();
  if (format === 'tlv') return tlv(values, base, isWide);
  if (format === 'opaque') return only && Buffer.isBuffer(only.value) ? only.value : Buffer.alloc(0);
  if (format === 'text')
    return Buffer.from(only ? (only.value === true ? '1' : only.value === false ? '0' : shown(only)) : '');
  const start = `/${base.join('/')}`;
  const nameOf = (path: string) => `/${path}`.slice(start.length);
  const field = ({ type, value }: Held, isCbor: boolean): readonly [string, unknown] => {
    if (Buffer.isBuffer(value)) return ['vd', isCbor ? value : value.toString('base64url')];
    if (typeof value === 'string') return [type === 'objlnk' ? 'vlo' : 'vs', value];
    if (typeof value === 'boolean') return ['vb', value];
    if (isCbor)
      return ['v', typeof value === 'bigint' && Number.isSafeInteger(Number(value)) ? Number(value) : value];
    return ['v', typeof value === 'bigint' ? rawJson(String(value)) : value];
  };
  const records = [...values].map(([path, held], at) => ({
    ...(at === 0 && { bn: start }),
    ...(nameOf(path) !== '' && { n: nameOf(path) }),
    held,
  }));
  if (format === 'senml-cbor') {
    const labels: Readonly<Record<string, unknown>> = { v: 2, vs: 3, vb: 4, vd: 8, vlo: 'vlo' };
    return cbor.encode(
      records.map(({ bn, n, held }) => {
        const [name, value] = field(held, true);
        const pairs: [unknown, unknown][] = [[labels[name], value]];
        if (n !== undefined) pairs.unshift([0, n]);
        if (bn !== undefined) pairs.unshift([-2, bn]);
        return new Map(pairs);
      }),
    );
  }
  if (format === 'senml-json')
    return Buffer.from(
      JSON.stringify(
        records.map(({ held, ...rest }) => ({ ...rest, ...Object.fromEntries([field(held, false)]) })),
      ),
    );
  const old: Readonly<Record<string, string>> = { v: 'v', vs: 'sv', vb: 'bv', vlo: 'ov', vd: 'sv' };
  const e = [...values].map(([path, held]) => {
    const [name, value] = field(held, false);
    return { n: nameOf(path).slice(1), [old[name] ?? name]: value };
  });
  return Buffer.from(JSON.stringify({ bn: start, e }));
}

/** What a write of one resource or instance says, by path: octets in TLV, else what the format tells. */
export function decodeValues(format: number, body: Buffer, path: string): ReadonlyMap<string, unknown> {
  if (format === 0) return new Map([[path, body.toString()]]);
  if (format === 42) return new Map([[path, body]]);
  if (format === 110 || format === 112) {
    const records: readonly Record<string, unknown>[] =
      format === 110
        ? JSON.parse(body.toString(), (_key, value, context?: { source?: string }) =>
            typeof value === 'number' && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? '')
              ? BigInt(context?.source ?? '')
              : value,
          )
        : (cbor.decode(body) as readonly unknown[]).map((record) => {
            const names: Readonly<Record<string, string>> = {
              '-2': 'bn',
              0: 'n',
              2: 'v',
              3: 'vs',
              4: 'vb',
              8: 'vd',
            };
            const pairs = record instanceof Map ? [...record] : Object.entries(record as object);
            return Object.fromEntries(pairs.map(([label, value]) => [names[String(label)] ?? label, value]));
          });
    let bn = '';
    return new Map(
      records.map((record) => {
        bn = String(record.bn ?? bn);
        const { v, vs, vb, vlo } = record;
        const vd = typeof record.vd === 'string' ? Buffer.from(record.vd, 'base64url') : record.vd;
        return [`${bn}${record.n ?? ''}`.replace(/^\//, ''), v ?? vs ?? vb ?? vlo ?? vd];
      }),
    );
  }
  const segments = path.split('/');
  return decodeTlv(body, segments.length > 2 ? segments.slice(0, 2) : segments);
}

/** The values of TLV by path. An instance that the message does not name is an empty segment. */
function decodeTlv(body: Buffer, base: readonly string[]): Map<string, unknown> {
  const found = new Map<string, unknown>();
  for (let at = 0; at < body.length; ) {
    const head = body[at] ?? 0;
    const idSize = head & 0x20 ? 2 : 1;
    const id = body.readUIntBE(at + 1, idSize);
    const sizes = (head >> 3) & 3;
    const from = at + 1 + idSize + sizes;
    const length = sizes === 0 ? head & 7 : body.readUIntBE(at + 1 + idSize, sizes);
    const inner = body.subarray(from, from + length);
    const isInstance = head >> 6 === 0;
    const own = [...base, ...(base.length === 1 && !isInstance ? [''] : []), String(id)];
    if (isInstance) {
      // An instance without resources is told by its path alone.
      if (length === 0) found.set(own.join('/'), undefined);
      for (const [key, value] of decodeTlv(inner, own)) found.set(key, value);
    } else found.set(own.join('/'), inner);
    at = from + length;
  }
  return found;
}

/** The value that was written, in the type of what is there. Undefined when it does not fit. */
export function heldFrom(written: unknown, { type }: Held): Held | undefined {
  const isOctets = written instanceof Uint8Array;
  const octets = isOctets ? Buffer.from(written) : undefined;
  switch (type) {
    case 'opaque':
      return octets && { type, value: octets };
    case 'string':
      return { type, value: octets ? octets.toString() : String(written) };
    case 'boolean':
      return { type, value: octets ? octets[0] === 1 : written === true || written === '1' };
    case 'float': {
      const value = octets
        ? octets.length === 4
          ? octets.readFloatBE()
          : octets.readDoubleBE()
        : Number(written);
      return { type, value };
    }
    case 'objlnk':
      return { type, value: octets ? `${octets.readUInt16BE()}:${octets.readUInt16BE(2)}` : String(written) };
    default: {
      if (octets)
        return {
          type,
          value: BigInt.asIntN(
            64,
            octets.length === 8 ? octets.readBigInt64BE() : BigInt(octets.readIntBE(0, octets.length)),
          ),
        };
      if (typeof written === 'number' && !Number.isInteger(written)) return undefined;
      return { type, value: BigInt(written as string | number | bigint) };
    }
  }
}
