import type { ClientHabits } from './client-habits.ts';
import type { Dice } from './dice.ts';
import { allIn, at, type Part, partsOf, textAt } from './markup.ts';

export interface Leaf {
  readonly format: string;
  readonly value: string | Buffer;
}

/** A command as the client has done it. */
export interface Done {
  readonly name: string;
  /** Without `./`; empty for a command without a target. */
  readonly uri: string;
  readonly status: number;
  /** Values of what a Get found, by URI. */
  readonly found?: ReadonlyMap<string, Leaf>;
  readonly said?: readonly string[];
  readonly parts?: readonly Done[];
}

/** The name of a node without the `./` in front. */
export const plain = (uri: string): string => uri.replace(/^\.\//, '').replace(/^\.(?=$|\?)/, '');

export const textOf = (value: string | Buffer): string =>
  typeof value === 'string' ? value : value.toString('base64');

/** The tree of a client, and how it does commands: an own reading of OMA DM 1.2, with a Map of leaves. */
export class ClientTree {
  readonly #habits: ClientHabits;
  readonly #dice: Dice;
  leaves = new Map<string, Leaf>();
  /** Interior nodes that may have no child. */
  interior = new Set<string>();

  constructor(habits: ClientHabits, dice: Dice) {
    this.#habits = habits;
    this.#dice = dice;
  }

  /** Does a command whose large object is put together. */
  perform(command: Part): Done {
    const { name, content } = command;
    if (name === 'Sequence') {
      const parts = commandsIn(content).map((each) => this.perform(each));
      return { name, uri: '', status: 200, parts };
    }
    if (name === 'Atomic') return this.#atomic(content);
    if (name === 'Alert') return this.#ask(command);
    const dones = allIn(command, 'Item').map((item) => this.#item(command, item));
    return dones[0] ?? { name, uri: '', status: 400 };
  }

  #atomic(content: Part['content']): Done {
    const before = { leaves: new Map(this.leaves), interior: new Set(this.interior) };
    const parts: Done[] = [];
    let failed = false;
    for (const each of commandsIn(content)) {
      const done: Done = failed
        ? { name: each.name, uri: uriIn(each), status: 215 }
        : each.name === 'Get'
          ? { name: each.name, uri: uriIn(each), status: 500 }
          : this.perform(each);
      failed ||= done.status >= 300;
      parts.push(done);
    }
    if (!failed) return { name: 'Atomic', uri: '', status: 200, parts };
    Object.assign(this, before);
    const undone = parts.map((done) => (done.status === 200 ? { ...done, status: 216 } : done));
    return { name: 'Atomic', uri: '', status: 507, parts: undone };
  }

  /** A question to the user. */
  #ask(alert: Part): Done {
    const code = Number(textAt(alert, 'Data'));
    const base = { name: 'Alert', uri: String(code) };
    if (code === 1100) return { ...base, status: 200 };
    if (code === 1101) return { ...base, status: this.#dice.pick([200, 304]) };
    if (this.#dice.chance(0.2)) return { ...base, status: 214 };
    const said = code === 1102 ? this.#dice.text(6) : String(this.#dice.between(1, 2));
    return { ...base, status: 200, said: [said] };
  }

  #item(command: Part, item: Part): Done {
    const { name } = command;
    const target = plain(textAt(item, 'Target', 'LocURI') ?? '');
    const [uri = '', query] = target.split('?');
    const done = (status: number, more: Partial<Done> = {}): Done => ({ name, uri: target, status, ...more });
    const exists = this.leaves.has(uri) || this.#isInterior(uri);
    const leaf = leafOf(command, item);
    switch (name) {
      case 'Get': {
        if (!exists) return done(404);
        return done(200, { found: this.#found(uri, query) });
      }
      case 'Replace':
        if (!this.leaves.has(uri)) return done(exists ? 405 : 404);
        if (!uri.startsWith('T/')) return done(405);
        this.leaves.set(uri, leaf);
        return done(200);
      case 'Add':
        if (exists) return done(418);
        if (!uri.startsWith('T/')) return done(405);
        if (leaf.format === 'node') this.interior.add(uri);
        else this.leaves.set(uri, leaf);
        return done(200);
      case 'Delete':
        if (!exists) return done(404);
        if (!uri.startsWith('T/')) return done(405);
        for (const key of [...this.leaves.keys(), ...this.interior])
          if (key === uri || key.startsWith(`${uri}/`)) {
            this.leaves.delete(key);
            this.interior.delete(key);
          }
        return done(200);
      case 'Copy': {
        const from = this.leaves.get(plain(textAt(item, 'Source', 'LocURI') ?? ''));
        if (!from) return done(404);
        if (!uri.startsWith('T/')) return done(405);
        this.leaves.set(uri, from);
        return done(200);
      }
      case 'Exec':
        return done(exists ? 202 : 404);
      default:
        return done(406);
    }
  }

  #isInterior(uri: string): boolean {
    return uri === '' || this.interior.has(uri) || this.#keys().some((key) => key.startsWith(`${uri}/`));
  }

  #keys(): string[] {
    return [...this.leaves.keys(), ...this.interior];
  }

  #node(uri: string): Leaf {
    const leaf = this.leaves.get(uri);
    if (leaf) return leaf;
    const start = uri === '' ? '' : `${uri}/`;
    const below = this.#keys().filter((key) => key.startsWith(start) && key !== uri);
    const names = new Set(below.map((key) => key.slice(start.length).split('/')[0]));
    return { format: 'node', value: [...names].join('/') };
  }

  #found(uri: string, query: string | undefined): Map<string, Leaf> {
    const found = new Map([[uri, this.#node(uri)]]);
    if (query !== 'list=StructData') return found;
    const limit = this.#habits.maxObjSize ?? Number.POSITIVE_INFINITY;
    for (const key of this.#keys())
      if (key.startsWith(`${uri}/`) && Buffer.byteLength(textOf(this.#node(key).value)) <= limit)
        found.set(key, this.#node(key));
    return found;
  }
}

const commandNames: ReadonlySet<string> = new Set([
  'Get',
  'Add',
  'Replace',
  'Delete',
  'Copy',
  'Exec',
  'Alert',
  'Atomic',
  'Sequence',
]);

/** The commands in the body of a message, in an Atomic, or in a Sequence. */
export const commandsIn = (content: Part['content']): readonly Part[] =>
  partsOf(content).filter(({ name }) => commandNames.has(name));

export const uriIn = (command: Part): string =>
  plain(textAt(allIn(command, 'Item')[0], 'Target', 'LocURI') ?? '');

function leafOf(command: Part, item: Part): Leaf {
  const format = textAt(item, 'Meta', 'Format') ?? textAt(command, 'Meta', 'Format') ?? 'chr';
  const data = at(item, 'Data')?.content ?? '';
  if (format === 'b64' || format === 'bin')
    return { format: 'bin', value: Buffer.isBuffer(data) ? data : Buffer.from(String(data), 'base64') };
  return { format, value: String(data) };
}
