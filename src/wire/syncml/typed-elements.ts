import { PosternError } from '../../base/errors.ts';
import { fitsXml } from '../../base/presentable.ts';
import { utf8 } from './element-builder.ts';
import type { Content, Element, ElementName } from './elements.ts';

/** How a value of T stands in the content of one element. */
export interface Shape<T> {
  readonly name: ElementName;
  read(content: Content): T;
  write(value: T): Content;
}

type Arity = 'one' | 'optional' | 'many';

interface Field<T, A extends Arity> {
  readonly shape: Shape<T>;
  readonly arity: A;
}

// biome-ignore lint/suspicious/noExplicitAny: shapes of any value stand side by side in one declaration
type Fields = Readonly<Record<string, Field<any, Arity>>>;

type Value<F> = F extends Field<infer T, infer A> ? ('many' extends A ? readonly T[] : T) : never;
type OptionalKeys<F extends Fields> = {
  [K in keyof F]: F[K]['arity'] extends 'optional' ? K : never;
}[keyof F];

/** The value that a struct of these fields has. */
export type Infer<F extends Fields> = {
  readonly [K in Exclude<keyof F, OptionalKeys<F>>]: Value<F[K]>;
} & { readonly [K in OptionalKeys<F>]?: Value<F[K]> };

const wrong = (name: ElementName, expected: string) =>
  new PosternError('malformed', `<${name}> holds no ${expected}`);

/**
 * A text. Some clients write every Data in WBXML as opaque data, that of a credential or a code as well, and some indent it in XML:
 * what is no value of a node has no white space around it.
 */
const textIn = (content: Content): Content => {
  const text = content instanceof Uint8Array ? utf8(content) : content;
  return typeof text === 'string' ? text.trim() : text;
};

export const text = (name: ElementName): Shape<string> => ({
  name,
  read: (coded) => {
    const content = textIn(coded);
    if (typeof content !== 'string') throw wrong(name, 'text');
    // Every coding can be changed into XML: a gateway takes WBXML from a device and reports it in XML.
    if (!fitsXml(content)) throw wrong(name, 'text that XML can hold');
    return content;
  },
  write: (value) => value,
});

const numberOf = (name: ElementName, digits: RegExp): Shape<number> => ({
  name,
  read: (coded) => {
    const content = textIn(coded);
    if (typeof content !== 'string' || !digits.test(content)) throw wrong(name, 'whole number');
    return Number(content);
  },
  write: String,
});

/** A whole number of at most nine digits: IDs and codes are all smaller. */
export const integer = (name: ElementName): Shape<number> => numberOf(name, /^\d{1,9}$/);

/** A number of bytes. Clients without a limit of their own say 4294967295, or more. */
export const size = (name: ElementName): Shape<number> => numberOf(name, /^\d{1,15}$/);

export const flag = (name: ElementName): Shape<true> => ({
  name,
  read: (content) => {
    if (content !== true) throw wrong(name, 'flag');
    return true;
  },
  write: () => true,
});

export const bytes = (name: ElementName): Shape<Uint8Array> => ({
  name,
  read: (content) => {
    if (!(content instanceof Uint8Array)) throw wrong(name, 'octets');
    return content;
  },
  write: (value) => value,
});

export const data = (name: ElementName): Shape<string | Uint8Array> => ({
  name,
  read: (content) => {
    if (typeof content !== 'string' && !(content instanceof Uint8Array)) throw wrong(name, 'data');
    return content;
  },
  write: (value) => value,
});

export const one = <T>(shape: Shape<T>): Field<T, 'one'> => ({ shape, arity: 'one' });
export const optional = <T>(shape: Shape<T>): Field<T, 'optional'> => ({ shape, arity: 'optional' });
export const many = <T>(shape: Shape<T>): Field<T, 'many'> => ({ shape, arity: 'many' });

/** An element that holds named elements; those that the declaration does not name are ignored. */
export function struct<F extends Fields>(name: ElementName, fields: F): Shape<Infer<F>> {
  const entries = Object.entries(fields).map(([key, field]) => ({ key, ...field }));
  return {
    name,
    read: (content) => readFields(name, entries, content) as Infer<F>,
    write: (value) => writeFields(entries, value),
  };
}

interface Entry extends Field<unknown, Arity> {
  readonly key: string;
}

// Each message goes through the two functions below for each of its elements. They make no objects besides their results.

function readFields(name: ElementName, entries: readonly Entry[], content: Content): Record<string, unknown> {
  if (!Array.isArray(content)) throw wrong(name, 'elements');
  const elements = content as readonly Element[];
  const found: Record<string, unknown> = {};
  for (const { key, shape, arity } of entries) {
    if (arity === 'many') {
      const all: unknown[] = [];
      for (const element of elements) if (element.name === shape.name) all.push(shape.read(element.content));
      found[key] = all;
      continue;
    }
    let only: Element | undefined;
    for (const element of elements) {
      if (element.name !== shape.name) continue;
      if (only) throw new PosternError('malformed', `<${name}> holds two <${shape.name}>`);
      only = element;
    }
    if (only) found[key] = shape.read(only.content);
    else if (arity === 'one') throw new PosternError('malformed', `<${name}> lacks <${shape.name}>`);
  }
  return found;
}

function writeFields(entries: readonly Entry[], value: Readonly<Record<string, unknown>>): Element[] {
  const written: Element[] = [];
  for (const { key, shape, arity } of entries) {
    const own = value[key];
    if (arity === 'many')
      for (const each of own as readonly unknown[])
        written.push({ name: shape.name, content: shape.write(each) });
    else if (own !== undefined) written.push({ name: shape.name, content: shape.write(own) });
  }
  return written;
}
