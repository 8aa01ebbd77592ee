import { isUtf8 } from 'node:buffer';
import { PosternError } from '../../base/errors.ts';
import { fitsXml } from '../../base/presentable.ts';
import type { Path } from './path.ts';
import {
  type Entry,
  isWhole,
  linkOf,
  narrowed,
  type ResourceType,
  type TypeOf,
  type Value,
} from './resource.ts';

/** Type of an element: bits 7 and 6 of its first octet (LwM2M core 1.1, section 7.4.3). */
const Kind = { ObjectInstance: 0, ResourceInstance: 1, MultipleResource: 2, Resource: 3 } as const;

/** Most resources and resource instances in one body. */
export const tlvLimits = { entries: 4096 } as const;

const utf8 = new TextDecoder('utf-8', { fatal: true });

/**
 * Reads a body in TLV (LwM2M core 1.1, section 7.4.3). Values whose type is not known are left as octets.
 * @param base path that was read or written, to which the IDs in the body are relative
 * @param isTold as in `decodeContent`
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export function decodeTlv(octets: Uint8Array, base: Path, typeOf: TypeOf, isTold = false): Entry[] {
  const found: Entry[] = [];
  const read = (path: Path, value: Uint8Array): Value => {
    try {
      return decodeValue(typeOf(path), value);
    } catch (thrown) {
      if (!isTold) throw thrown;
      return value;
    }
  };
  walk(octets, base, (path, value) => {
    if (found.length >= tlvLimits.entries)
      throw new PosternError('tooLarge', `more than ${tlvLimits.entries} resources`);
    found.push({ path, value: read(path, value) });
  });
  return found;
}

/** @param isInside whether the octets are the content of an object instance, which has no object instances */
function walk(
  octets: Uint8Array,
  base: Path,
  leaf: (path: Path, value: Uint8Array) => void,
  isInside = false,
): void {
  const [object = 0, instance = 0, resource = 0] = base;
  for (let at = 0; at < octets.length; ) {
    const { kind, id, value, next } = elementAt(octets, at);
    at = next;
    if (kind === Kind.ObjectInstance) {
      if (base.length > 2 || isInside)
        throw new PosternError(
          'malformed',
          'TLV: an object instance inside a resource or an object instance',
        );
      walk(value, [object, id], leaf, true);
    } else if (kind === Kind.Resource) leaf([object, instance, id], value);
    else if (kind === Kind.MultipleResource) {
      if (base.length > 3) throw new PosternError('malformed', 'TLV: a resource inside a multiple resource');
      walk(value, [object, instance, id, 0], leaf);
    } else if (base.length < 3)
      throw new PosternError('malformed', 'TLV: an instance of a resource outside of a resource');
    else leaf([object, instance, resource, id], value);
  }
}

/**
 * IDs of the object instances in the body of a Create. Instances without resources are included.
 * @throws {PosternError} `malformed`
 */
export function instancesIn(octets: Uint8Array): number[] {
  const found: number[] = [];
  for (let at = 0; at < octets.length; ) {
    const { kind, id, next } = elementAt(octets, at);
    if (kind === Kind.ObjectInstance) found.push(id);
    at = next;
  }
  return found;
}

function elementAt(octets: Uint8Array, at: number) {
  const head = octets[at] ?? 0;
  const idBytes = head & 0x20 ? 2 : 1;
  const lengthBytes = (head >> 3) & 3;
  const start = at + 1 + idBytes + lengthBytes;
  if (start > octets.length) throw new PosternError('malformed', 'TLV ends inside the head of an element');
  const uint = (from: number, bytes: number) =>
    octets.subarray(from, from + bytes).reduce((sum, octet) => sum * 256 + octet, 0);
  const length = lengthBytes === 0 ? head & 7 : uint(at + 1 + idBytes, lengthBytes);
  if (start + length > octets.length) throw new PosternError('malformed', 'TLV ends inside a value');
  return {
    kind: head >> 6,
    id: uint(at + 1, idBytes),
    value: octets.subarray(start, start + length),
    next: start + length,
  };
}

function isText(octets: Uint8Array): boolean {
  return isUtf8(octets) && fitsXml(Buffer.from(octets).toString());
}

function decodeValue(type: ResourceType | undefined, octets: Uint8Array): Value {
  const buffer = Buffer.from(octets.buffer, octets.byteOffset, octets.length);
  const wrong = () =>
    new PosternError('malformed', `TLV: a value of type ${type} cannot have ${octets.length} octets`);
  switch (type) {
    case 'string':
      try {
        return utf8.decode(octets);
      } catch (cause) {
        throw new PosternError('malformed', 'TLV: a string is not UTF-8', { cause });
      }
    case 'text':
      return isText(octets) ? Buffer.from(octets).toString() : octets;
    case 'integer':
    case 'time':
    case 'unsigned':
      if (octets.length === 8)
        return narrowed(type === 'unsigned' ? buffer.readBigUInt64BE() : buffer.readBigInt64BE());
      if (![1, 2, 4].includes(octets.length)) throw wrong();
      return type === 'unsigned' ? buffer.readUIntBE(0, octets.length) : buffer.readIntBE(0, octets.length);
    case 'float':
      if (octets.length === 4) return buffer.readFloatBE();
      if (octets.length === 8) return buffer.readDoubleBE();
      throw wrong();
    case 'boolean':
      if (octets.length !== 1) throw wrong();
      return octets[0] !== 0;
    case 'objlnk':
      if (octets.length !== 4) throw wrong();
      return `${buffer.readUInt16BE(0)}:${buffer.readUInt16BE(2)}`;
    default:
      return octets;
  }
}

/**
 * Writes resources as TLV (LwM2M core 1.1, section 7.4.3). The form depends on `base`: for an object the body holds
 * object instances, for an object instance or a resource it holds resources.
 * @throws {PosternError} `malformed` for a value that does not fit its type
 */
export function encodeTlv(entries: readonly Entry[], base: Path, typeOf: TypeOf): Uint8Array {
  if (base.length > 1) return encodeResources(entries, typeOf);
  const instances = Map.groupBy(entries, ({ path }) => path[1] ?? 0);
  return Buffer.concat(
    [...instances].map(([id, inside]) => element(Kind.ObjectInstance, id, encodeResources(inside, typeOf))),
  );
}

/** Writes an object instance without resources, for a Create in which the client chooses all values. */
export const emptyInstance = (id: number): Uint8Array => element(Kind.ObjectInstance, id, new Uint8Array());

function encodeResources(entries: readonly Entry[], typeOf: TypeOf): Uint8Array {
  const resources = Map.groupBy(entries, ({ path }) => path[2] ?? 0);
  return Buffer.concat(
    [...resources].map(([id, [first, ...more]]) => {
      if (!first) return new Uint8Array();
      const value = ({ path, value }: Entry) => encodeValue(typeOf(path), value);
      if (first.path.length < 4) return element(Kind.Resource, id, value(first));
      const inner = [first, ...more].map((each) =>
        element(Kind.ResourceInstance, each.path[3] ?? 0, value(each)),
      );
      return element(Kind.MultipleResource, id, Buffer.concat(inner));
    }),
  );
}

function element(kind: number, id: number, value: Uint8Array): Uint8Array {
  const idBytes = id > 0xff ? 2 : 1;
  const { length } = value;
  const lengthBytes = length < 8 ? 0 : length < 0x100 ? 1 : length < 0x1_0000 ? 2 : 3;
  const head = Buffer.alloc(1 + idBytes + lengthBytes);
  head[0] = (kind << 6) | (idBytes === 2 ? 0x20 : 0) | (lengthBytes << 3) | (lengthBytes === 0 ? length : 0);
  head.writeUIntBE(id, 1, idBytes);
  if (lengthBytes > 0) head.writeUIntBE(length, 1 + idBytes, lengthBytes);
  return Buffer.concat([head, value]);
}

function encodeValue(type: ResourceType | undefined, value: Value): Uint8Array {
  if (value instanceof Uint8Array) return value;
  if (typeof value === 'boolean') return Buffer.of(value ? 1 : 0);
  if (type === 'objlnk') {
    const link = Buffer.alloc(4);
    for (const [at, id] of linkOf(value).entries()) link.writeUInt16BE(id, at * 2);
    return link;
  }
  if (isWhole(type) || (type !== 'float' && typeof value === 'number' && Number.isInteger(value)))
    return encodeInteger(BigInt(value), type === 'unsigned');
  if (typeof value === 'string') return Buffer.from(value);
  const float = Buffer.alloc(Math.fround(value) === value ? 4 : 8);
  if (float.length === 4) float.writeFloatBE(value);
  else float.writeDoubleBE(value);
  return float;
}

function encodeInteger(value: bigint, isUnsigned: boolean): Uint8Array {
  // With the sign of a signed integer, because not all clients have an unsigned one where the registry has.
  const fits = (bits: number) =>
    BigInt.asIntN(bits, value) === value ||
    (isUnsigned && bits === 64 && BigInt.asUintN(bits, value) === value);
  const bytes = [1, 2, 4, 8].find((size) => fits(size * 8));
  if (bytes === undefined) throw new PosternError('malformed', `TLV: integer of more than 64 bits: ${value}`);
  const octets = Buffer.alloc(8);
  octets.writeBigUInt64BE(BigInt.asUintN(64, value));
  return octets.subarray(8 - bytes);
}
