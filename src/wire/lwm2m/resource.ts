import { PosternError } from '../../base/errors.ts';
import type { Path } from './path.ts';

/** Data types of resources (LwM2M core 1.1, appendix C); `none` is what is only executed. */
export type ResourceType =
  | 'string'
  | 'integer'
  | 'unsigned'
  | 'float'
  | 'boolean'
  | 'opaque'
  | 'time'
  | 'objlnk'
  | 'none';

/** A time is seconds since 1970; an object link is `3303:0`; an integer beyond what a number holds is its digits. */
export type Value = string | number | boolean | Uint8Array;

/** A resource, or an instance of one, and its value. */
export interface Entry {
  readonly path: Path;
  readonly value: Value;
}

/** Type of the resource at a path; none when nobody knows. */
export type TypeOf = (path: Path) => ResourceType | undefined;

const bad = (type: ResourceType, what: string) => new PosternError('malformed', `no ${type}: ${what}`);

/**
 * A value as text (LwM2M core 1.1, section 7.4.1): also how DM has it, but for octets, which stay what they are.
 */
export const textOf = (value: Value): string | Uint8Array =>
  value instanceof Uint8Array ? value : String(value);

/**
 * A value of a type from text. `true` and `1` are both a boolean's.
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
      return text;
    case 'none':
      throw bad(type, 'it has no value');
  }
}

/** @throws {PosternError} `malformed` */
export function linkOf(text: Value): readonly [number, number] {
  const [, object, instance] = /^(\d{1,5}):(\d{1,5})$/.exec(String(text)) ?? [];
  if (object === undefined || Number(object) > 0xffff || Number(instance) > 0xffff)
    throw bad('objlnk', String(text).slice(0, 32));
  return [Number(object), Number(instance)];
}

/** As a number where a number holds it, else its digits. */
export const narrowed = (value: bigint): number | string =>
  BigInt.asIntN(54, value) === value ? Number(value) : String(value);
