import { PosternError } from '../../base/errors.ts';
import type { Path } from './path.ts';

/**
 * Data types of resources (LwM2M core 1.1, appendix C). `none` is the type of resources that are only executed, `text` that of
 * resources that are strings or octets: nobody says which.
 */
export type ResourceType =
  | 'string'
  | 'text'
  | 'integer'
  | 'unsigned'
  | 'float'
  | 'boolean'
  | 'opaque'
  | 'time'
  | 'objlnk'
  | 'none';

/**
 * Value of a resource. A time is a number of seconds since 1970. An object link is a string such as `3303:0`. An integer
 * that a number cannot hold exactly is a string of its digits. An opaque value is a `Uint8Array`.
 */
export type Value = string | number | boolean | Uint8Array;

/** A resource or resource instance, with its value. */
export interface Entry {
  readonly path: Path;
  readonly value: Value;
  /** Type that the content itself says. Only SenML and CBOR do. A whole number may also be of type `float`. */
  readonly type?: ResourceType;
  /** Time of the value in seconds, as the content itself says it (RFC 8428 section 4.5.3): see `timeOf`. Only SenML and the JSON of LwM2M 1.0 do. */
  readonly time?: number;
}

/** Returns the type of the resource at a path, or `undefined` when it is not known. */
export type TypeOf = (path: Path) => ResourceType | undefined;

const bad = (type: ResourceType, what: string) =>
  new PosternError('malformed', `not a value of type ${type}: ${what}`);

/** A value as text (LwM2M core 1.1, section 7.4.1), which is also its form in DM. Octets are returned unchanged. */
export const textOf = (value: Value): string | Uint8Array =>
  value instanceof Uint8Array ? value : String(value);

/**
 * Reads a value of this type from text. A boolean is `1`, `0`, `true` or `false`; an opaque value is base64.
 * @throws {PosternError} `malformed`
 */
export function valueFrom(type: ResourceType, text: string): Value {
  switch (type) {
    case 'integer':
    case 'unsigned':
    case 'time': {
      if (!/^[+-]?\d{1,20}$/.test(text)) throw bad(type, text.slice(0, 32));
      const value = BigInt(text);
      const fits =
        type === 'unsigned' ? value === BigInt.asUintN(64, value) : value === BigInt.asIntN(64, value);
      if (!fits) throw bad(type, text);
      return narrowed(value);
    }
    case 'float': {
      const value = Number(text);
      if (text.trim() === '' || Number.isNaN(value)) throw bad(type, text.slice(0, 32));
      return value;
    }
    case 'boolean':
      if (text === '1' || text === 'true') return true;
      if (text === '0' || text === 'false') return false;
      throw bad(type, text.slice(0, 32));
    case 'objlnk':
      linkOf(text);
      return text;
    case 'opaque':
      return Buffer.from(text, 'base64');
    case 'string':
    case 'text':
      return text;
    case 'none':
      throw bad(type, 'the resource has no value');
  }
}

/**
 * Reads an object link such as `3303:0`. Returns object ID and instance ID.
 * @throws {PosternError} `malformed`
 */
export function linkOf(text: Value): readonly [number, number] {
  const [, object, instance] = /^(\d{1,5}):(\d{1,5})$/.exec(String(text)) ?? [];
  if (object === undefined || Number(object) > 0xffff || Number(instance) > 0xffff)
    throw bad('objlnk', String(text).slice(0, 32));
  return [Number(object), Number(instance)];
}

/** LwM2M type of a value by its JavaScript type. */
export function typeIn(value: Value): ResourceType {
  if (value instanceof Uint8Array) return 'opaque';
  if (typeof value === 'boolean') return 'boolean';
  if (typeof value !== 'number') return 'string';
  // A larger integer is a string of its digits.
  return Number.isSafeInteger(value) ? 'integer' : 'float';
}

/** Whether values of this type are integers. */
export const isWhole = (type: ResourceType | undefined): boolean =>
  type === 'integer' || type === 'unsigned' || type === 'time';

/** An integer as a number where a number holds it exactly, else as a string of its digits. */
export const narrowed = (value: bigint): number | string =>
  BigInt.asIntN(54, value) === value ? Number(value) : String(value);
