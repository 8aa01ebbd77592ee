// What the sources say of events, for docs/events.md: fields are types alone, so they are read from the text of the table.
import { readdirSync, readFileSync } from 'node:fs';
import { posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type EventName, eventTable } from '../base/event-table.ts';

export interface EventField {
  readonly name: string;
  /** `string`, `number` or `boolean`. */
  readonly type: string;
  readonly optional: boolean;
  /** Whether it is one of the fields that mean the same in each event. */
  readonly common: boolean;
}

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (file: string): string => readFileSync(root + file, 'utf8');

/** Types of the common fields, by name. */
export function commonFields(): ReadonlyMap<string, string> {
  const [, body = ''] = /interface CommonFields \{\n(.*?)\n\}/s.exec(read('base/event-fields.ts')) ?? [];
  return new Map([...body.matchAll(/^ {2}(\w+): (\w+);$/gm)].map(([, name = '', type = '']) => [name, type]));
}

/** Fields of each event, in the order of the table. */
export function fieldsOfEvents(): ReadonlyMap<EventName, readonly EventField[]> {
  const types = commonFields();
  const declarations = read('base/event-table.ts').matchAll(/^ {2}'([^']+)': [\w.]+<([^>]+)>\(\),$/gm);
  const found = new Map<EventName, readonly EventField[]>();
  for (const [, name = '', parameters = ''] of declarations) {
    const [needed = '', optional = '', own = ''] = parameters.split(/,(?![^{]*\})/);
    const common = (names: string, isOptional: boolean) =>
      [...names.matchAll(/'(\w+)'/g)].map(([, field = '']) => ({
        name: field,
        type: types.get(field) ?? '',
        optional: isOptional,
        common: true,
      }));
    const special = [...own.matchAll(/(\w+): (\w+)/g)].map(([, field = '', type = '']) => ({
      name: field,
      type,
      optional: false,
      common: false,
    }));
    found.set(name as EventName, [...common(needed, false), ...special, ...common(optional, true)]);
  }
  return found;
}

export const parties = ['gateway', 'headend', 'device'] as const;
export type PartyName = (typeof parties)[number];

/** Which parties emit each event: those whose folder holds its name, or uses the file of a lower floor that does. */
export function emitters(): ReadonlyMap<EventName, readonly PartyName[]> {
  const files = readdirSync(root, { recursive: true })
    .map((file) => String(file).replaceAll('\\', '/'))
    // The demo listens to events, and the table declares them.
    .filter((file) => file.endsWith('.ts') && !file.startsWith('demo/') && file !== 'base/event-table.ts');
  const texts = new Map(files.map((file) => [file, read(file)]));
  const reached = new Map(parties.map((party) => [party, reachable(party, texts)]));
  const found = new Map<EventName, readonly PartyName[]>();
  for (const [file, text] of texts)
    for (const [, name = ''] of text.matchAll(/'([a-z0-9]+\.[a-z0-9-]+)'/g)) {
      if (!isEvent(name)) continue;
      const before = found.get(name) ?? [];
      const now = parties.filter((party) => before.includes(party) || reached.get(party)?.has(file));
      found.set(name, now);
    }
  return found;
}

const isEvent = (name: string): name is EventName => Object.hasOwn(eventTable, name);

/** Files of a party, and what these import, types apart. */
function reachable(party: PartyName, texts: ReadonlyMap<string, string>): ReadonlySet<string> {
  const waiting = [...texts.keys()].filter(
    (file) => file.startsWith(`${party}/`) || file === `cli/${party}.ts`,
  );
  const seen = new Set<string>();
  for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
    if (seen.has(file)) continue;
    seen.add(file);
    const imports = (texts.get(file) ?? '').matchAll(/^import (?!type )[^;]*?from '(\.[^']+)';/gm);
    for (const [, target = ''] of imports) {
      const path = posix.join(posix.dirname(file), target);
      if (texts.has(path)) waiting.push(path);
    }
  }
  return seen;
}
