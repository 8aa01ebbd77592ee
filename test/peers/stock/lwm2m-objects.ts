import type { CoapAnswer } from './coap-socket.ts';
import { uintBytes } from './coap-socket.ts';
import type { Lwm2mHabits } from './lwm2m-habits.ts';
import {
  decodeValues,
  encodeValues,
  type Format,
  type Held,
  heldFrom,
  numbers,
  type Values,
} from './lwm2m-values.ts';

const text = (value: string): Held => ({ type: 'string', value });
const integer = (value: number): Held => ({ type: 'integer', value: BigInt(value) });

/** The object of which a server may create instances, and the types of its resources. */
export const creatable = { object: 3303, types: { 5601: 'float', 5701: 'string', 5750: 'string' } } as const;

/** A request for objects, without its CoAP. */
export interface ObjectRequest {
  /** Such as `3/0/9`. */
  readonly path: string;
  readonly body: Buffer;
  /** Content-Format; undefined without one. */
  readonly contentFormat: number | undefined;
  readonly accept: number | undefined;
}

/** The objects of an LwM2M client but those that live: an own reading of LwM2M core 1.1, section 6.3. */
export class Lwm2mObjects {
  readonly #habits: Lwm2mHabits;
  readonly #others: () => Values;
  readonly values: Map<string, Held>;
  /** Instances of `creatable`, which may be without a value. */
  readonly created = new Set<string>([`${creatable.object}/0`]);
  readonly #writable: ReadonlySet<string>;
  #chosen = 0;

  /** @param others values of objects that live elsewhere, and can be read here */
  constructor(habits: Lwm2mHabits, given: Values, others: () => Values) {
    this.#habits = habits;
    this.#others = others;
    this.values = new Map<string, Held>([
      ['1/0/0', integer(1)],
      ['1/0/1', integer(600)],
      ['1/0/7', text('U')],
      ['3/0/0', text('Stock & Co')],
      ['3/0/1', text('S<1>')],
      ['3/0/3', text('1.0')],
      ['3/0/6/0', integer(1)],
      ['3/0/6/3', integer(5)],
      ['3/0/9', integer(77)],
      ['3/0/13', { type: 'time', value: 1_700_000_000n }],
      ['3/0/14', text('+01:00')],
      [`${creatable.object}/0/5750`, text('here')],
      ...given,
    ]);
    this.#writable = new Set(['1/0/1', '3/0/13', '3/0/14', ...given.keys()]);
  }

  /** Object instances, such as `3/0`. */
  get instances(): ReadonlySet<string> {
    return new Set(
      [...this.values.keys(), ...this.#others().keys(), ...this.created].map((path) =>
        path.split('/').slice(0, 2).join('/'),
      ),
    );
  }

  has(path: string): boolean {
    return [...this.values.keys(), ...this.created].some((key) => key === path || key.startsWith(`${path}/`));
  }

  read({ path, accept }: Pick<ObjectRequest, 'path' | 'accept'>): CoapAnswer {
    const { hasDiscover, root, refusal } = this.#habits;
    const base = path.split('/').map(Number);
    const found = this.#at(path);
    if (found.size === 0 && !this.has(path)) return { code: '4.04' };
    if (accept === 40) {
      if (!hasDiscover) return { code: '4.06' };
      const below = new Set(
        [...found.keys()].map((key) => key.split('/').slice(0, Math.max(3, base.length)).join('/')),
      );
      const links = [`<${root}/${path}>`, ...[...below].map((key) => `<${root}/${key}>`)];
      return content(40, Buffer.from(links.join(',')));
    }
    const wanted =
      accept === undefined ? this.#usualFormat(path, found) : this.#formatOf(accept, path, found);
    return wanted ? this.#coded(wanted, found, base) : { code: refusal };
  }

  /** Read-Composite: what there is of these paths. */
  readAll(paths: readonly string[]): CoapAnswer {
    const { refusesComposite, wideIntegers } = this.#habits;
    if (refusesComposite) return { code: refusesComposite };
    const found = new Map(paths.flatMap((path) => [...this.#at(path)]));
    return content(numbers['senml-cbor'], encodeValues('senml-cbor', found, [], wideIntegers));
  }

  write({ path, body, contentFormat }: ObjectRequest): CoapAnswer {
    const before = this.values.get(path);
    if (!before) return { code: this.has(path) ? '4.05' : '4.04' };
    if (!this.#isWritable(path)) return { code: '4.05' };
    if (!this.#takes(contentFormat ?? 0, before)) return { code: '4.15' };
    const held = heldFrom(decodeValues(contentFormat ?? 0, body, path).get(path), before);
    if (!held) return { code: '4.00' };
    this.values.set(path, held);
    return { code: '2.04' };
  }

  /** Write-Composite: all of it or nothing. */
  writeAll({ body, contentFormat }: ObjectRequest): CoapAnswer {
    const { refusesComposite } = this.#habits;
    if (refusesComposite) return { code: refusesComposite };
    if (contentFormat !== numbers['senml-cbor']) return { code: '4.15' };
    const given = decodeValues(contentFormat, body, '');
    const changes: [string, Held][] = [];
    for (const [path, written] of given) {
      const before = this.values.get(path);
      if (!before) return { code: '4.04' };
      const held = this.#isWritable(path) ? heldFrom(written, before) : undefined;
      if (!held) return { code: this.#isWritable(path) ? '4.00' : '4.05' };
      changes.push([path, held]);
    }
    for (const [path, held] of changes) this.values.set(path, held);
    return { code: '2.04' };
  }

  /** Create: `path` is that of the object. */
  create({ path, body, contentFormat }: ObjectRequest): CoapAnswer {
    const { root, tellsInstance } = this.#habits;
    if (path !== `${creatable.object}`) return { code: this.has(path) ? '4.05' : '4.04' };
    if (!this.#takesSet(contentFormat)) return { code: '4.15' };
    const given = decodeValues(contentFormat ?? 0, body, path);
    const said = new Set([...given.keys()].map((key) => key.split('/')[1]));
    if (said.size > 1) return { code: '4.00' };
    const [chosen] = said;
    // IDs that it chooses are never those of a server.
    const free = 20 + this.#chosen++;
    const instance = `${path}/${chosen === undefined || chosen === '' ? free : chosen}`;
    if (this.created.has(instance)) return { code: '4.00' };
    const values: [string, Held][] = [];
    for (const [key, written] of given) {
      const [, , resource] = key.split('/');
      if (resource === undefined) continue;
      const type = (creatable.types as Readonly<Record<string, Held['type']>>)[resource];
      const held = type && heldFrom(written, { type, value: '' });
      if (!held) return { code: '4.00' };
      values.push([`${instance}/${resource}`, held]);
    }
    this.created.add(instance);
    for (const [key, held] of values) this.values.set(key, held);
    const location = tellsInstance ? [...root.split('/'), ...instance.split('/')] : [];
    return {
      code: '2.01',
      options: location
        .filter((each) => each !== '')
        .map((each) => ({ name: 'Location-Path' as const, value: Buffer.from(each) })),
    };
  }

  remove(path: string): CoapAnswer {
    if (!this.created.has(path)) return { code: this.has(path) ? '4.05' : '4.04' };
    this.created.delete(path);
    for (const key of [...this.values.keys()]) if (key.startsWith(`${path}/`)) this.values.delete(key);
    return { code: '2.02' };
  }

  #isWritable(path: string): boolean {
    return this.#writable.has(path) || path.startsWith(`${creatable.object}/`);
  }

  #at(path: string): Values {
    const all = [...this.values, ...this.#others()];
    return new Map(all.filter(([key]) => key === path || key.startsWith(`${path}/`)));
  }

  #takes(contentFormat: number, { type }: Held): boolean {
    if (contentFormat === 0) return type !== 'opaque';
    if (contentFormat === 42) return type === 'opaque';
    return this.#takesSet(contentFormat);
  }

  #takesSet(contentFormat: number | undefined): boolean {
    const { format } = this.#habits;
    return contentFormat === numbers[format] || (format === 'old-json' && contentFormat === numbers.tlv);
  }

  #usualFormat(path: string, found: Values): Format {
    const only = found.get(path);
    if (only?.type === 'opaque') return 'opaque';
    // Always the same for a path: the blocks of an answer are of one form.
    return only && path.length % 2 === 0 ? 'text' : this.#habits.format;
  }

  #formatOf(number: number, path: string, found: Values): Format | undefined {
    const { format } = this.#habits;
    const only = found.get(path);
    if (number === 0) return only && only.type !== 'opaque' ? 'text' : undefined;
    if (number === 42) return only?.type === 'opaque' ? 'opaque' : undefined;
    return number === numbers[format] ? format : undefined;
  }

  #coded(format: Format, found: Values, base: readonly number[]): CoapAnswer {
    const { draftNumbers, wideIntegers } = this.#habits;
    const number = numbers[format];
    const drafted = draftNumbers && number >= 11542 ? number - 10000 : number;
    return content(drafted, encodeValues(format, found, base, wideIntegers));
  }
}

export function content(contentFormat: number, payload: Buffer): CoapAnswer {
  return { code: '2.05', options: [{ name: 'Content-Format', value: uintBytes(contentFormat) }], payload };
}
