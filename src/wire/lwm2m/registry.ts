import { firstShared, registryTable, tableCodes, tableTypes } from './registry-table.ts';
import type { ResourceType } from './resource.ts';

/** A resource as the public registry of LwM2M objects describes it. Resources that are only executed are not in it. */
export interface RegisteredResource {
  readonly name: string;
  readonly type: ResourceType;
  /** Whether the resource has instances. */
  readonly multiple: boolean;
  /** Whether each instance of the object has it. */
  readonly mandatory: boolean;
}

/** An object as the registry describes it. */
export interface RegisteredObject {
  readonly name: string;
  /** Whether the object may have several instances. */
  readonly multiple: boolean;
  /** By resource ID. */
  readonly resources: ReadonlyMap<number, RegisteredResource>;
}

/** The table, read so far that each object can be found in it. */
interface Index {
  readonly shared: ReadonlyMap<number, RegisteredResource>;
  /** By object ID. */
  readonly objects: ReadonlyMap<
    number,
    { readonly multiple: boolean; readonly items: string; readonly nameAt: number }
  >;
  readonly names: readonly string[];
}

const itemsIn = (text: string): readonly { gap: number; code: string }[] =>
  [...text.matchAll(/(\d*)(\D)/g)].map(([, gap = '', code = '']) => ({ gap: Number(gap), code }));

const resourceOf = (name: string, character: string): RegisteredResource => {
  const { first, multiple, mandatory } = tableCodes;
  const code = character.charCodeAt(0) - first;
  return {
    name,
    type: tableTypes[code % tableTypes.length]!,
    multiple: (code & multiple) !== 0,
    mandatory: (code & mandatory) !== 0,
  };
};

function readTable(): Index {
  const [common = '', lines = '', commonNames = '', names = ''] = registryTable().split('\n\n');
  const shared = new Map<number, RegisteredResource>();
  const called = commonNames.split('\n');
  let id = -1;
  for (const [at, { gap, code }] of itemsIn(common).entries()) {
    id += gap + 1;
    shared.set(id, resourceOf(called[at]!, code));
  }
  const objects = new Map<number, { multiple: boolean; items: string; nameAt: number }>();
  let object = 0;
  let nameAt = 0;
  for (const line of lines.split('\n')) {
    const [, gap, kind, items = ''] = /^(\d+)(.)(.*)$/.exec(line)!;
    object += Number(gap);
    objects.set(object, { multiple: kind === '*', items, nameAt });
    nameAt += 1 + items.replace(/[\d.!]/g, '').length;
  }
  return { shared, objects, names: names.split('\n') };
}

let index: Index | undefined;
/** Objects that were asked for. */
const known = new Map<number, RegisteredObject>();
const indexed = (): Index => {
  index ??= readTable();
  return index;
};

/** The object with an ID. `undefined` when the registry has none. */
export function registeredObject(id: number): RegisteredObject | undefined {
  const found = known.get(id);
  if (found) return found;
  const { objects, names, shared } = indexed();
  const entry = objects.get(id);
  if (!entry) return undefined;
  let { nameAt } = entry;
  let resource = -1;
  const name = names[nameAt++]!;
  const resources = new Map<number, RegisteredResource>();
  for (const { gap, code } of itemsIn(entry.items)) {
    resource += gap + 1;
    const isOwn = code !== '.' && code !== '!';
    resources.set(
      resource,
      isOwn ? resourceOf(names[nameAt++]!, code) : { ...shared.get(resource)!, mandatory: code === '!' },
    );
  }
  const object = { name, multiple: entry.multiple, resources };
  known.set(id, object);
  return object;
}

/** The resource that several objects have under this ID. */
export const sharedResource = (id: number): RegisteredResource | undefined =>
  id < firstShared ? undefined : indexed().shared.get(id);

/** Names of all objects, by ID. */
export const registeredNames = (): ReadonlyMap<number, string> => {
  const { objects, names } = indexed();
  return new Map([...objects].map(([id, { nameAt }]) => [id, names[nameAt]!]));
};
