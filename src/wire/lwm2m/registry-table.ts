// The public registry of LwM2M objects as one text. Unbundled, it is made from the package at its first use. A bundle has the text
// alone (build/with-registry.ts), so nothing else of this file.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import type { ResourceType } from './resource.ts';

/**
 * Types of resources in the registry, by their place in a code of the table. `text` is a string or octets: the package does not tell
 * them apart. `unsigned` is an integer that is not negative.
 */
export const tableTypes = [
  'text',
  'integer',
  'unsigned',
  'float',
  'boolean',
  'time',
  'objlnk',
  'string',
] as const satisfies readonly ResourceType[];

/** Bits of a code above the type, and the character of the code 0. */
export const tableCodes = { multiple: 8, mandatory: 16, first: 'A'.charCodeAt(0) } as const;
/** Resources with at least this ID mean the same in each object that has them, unless the table says otherwise. */
export const firstShared = 2048;

/** What the JSON Schema of the package says of a resource, or of an object. Several instances are an array. */
interface Schema {
  readonly $id?: string;
  readonly title?: string;
  readonly type?: string;
  readonly pattern?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly unixTimestamp?: boolean;
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
}

interface Resource {
  readonly id: number;
  readonly name: string;
  /** Code without `mandatory`. */
  readonly code: number;
  readonly mandatory: boolean;
}

const plain = (title = '') => title.replace(/\s+/g, ' ').trim();
const single = (schema: Schema): Schema => schema.items ?? schema;

function typeIn(schema: Schema, isNumber: () => boolean): (typeof tableTypes)[number] {
  const { type, pattern, minimum = -1, maximum, unixTimestamp } = schema;
  if (unixTimestamp) return 'time';
  // Object links and links in CoRE link format are strings with a pattern.
  if (pattern !== undefined) return pattern.startsWith('^d') ? 'objlnk' : 'string';
  if (type === 'string') return 'text';
  if (type === 'number') return 'float';
  // The schema has booleans as integers. What is an integer in truth is a number in TypeScript.
  if (minimum === 0 && maximum === 1 && !isNumber()) return 'boolean';
  return minimum >= 0 ? 'unsigned' : 'integer';
}

/** A file of the package. */
export function packageText(name: string): string {
  const file = createRequire(import.meta.url).resolve('@nordicsemiconductor/lwm2m-types');
  return readFileSync(new URL(name, pathToFileURL(file)), 'utf8');
}

/** The objects of the package, by ID. */
function read(): readonly { id: number; name: string; multiple: boolean; resources: Resource[] }[] {
  const schemas: Readonly<Record<string, Schema>> = JSON.parse(
    packageText('LwM2MDocument.schema.json'),
  ).properties;
  const found = Object.values(schemas).map((schema) => {
    const { $id = '', properties = {}, required = [] } = single(schema);
    const id = Number(/(\d+)\.xml$/.exec($id)?.[1]);
    let types: string | undefined;
    const resources = Object.entries(properties).map(([resource, each]): Resource => {
      const isNumber = () => {
        types ??= packageText(`types/${id}.ts`);
        return new RegExp(`^type \\w+_${resource} = .*number`, 'm').test(types);
      };
      const type = tableTypes.indexOf(typeIn(single(each), isNumber));
      return {
        id: Number(resource),
        name: plain(each.title ?? each.items?.title),
        code: type + (each.items ? tableCodes.multiple : 0),
        mandatory: required.includes(resource),
      };
    });
    return { id, name: plain(schema.title), multiple: schema.items !== undefined, resources };
  });
  return found.toSorted((a, b) => a.id - b.id);
}

/**
 * The table: the registry in four parts, each of lines, with an empty line between two parts:
 * 1. Resources that several objects have: for each a number, which is omitted if it is 0, and the character of its code. The
 *    number is how many IDs lie between this one and the one before.
 * 2. The same for the resources of each object, an object in a line. The line begins with the distance of the object's ID from the
 *    one before, and with `*` for an object with instances, else a space. `.` stands in place of a code for a resource that is as
 *    part 1 has it, `!` for one that is mandatory as well.
 * 3. Names of the resources in part 1.
 * 4. Names of objects, each followed by the names of its resources that are not as part 1 has them.
 */
export function registryTable(): string {
  const objects = read();
  const same = ({ name, code }: Resource) => `${code} ${name}`;
  const everywhere = Map.groupBy(
    objects.flatMap(({ resources }) => resources).filter(({ id }) => id >= firstShared),
    ({ id }) => id,
  );
  const shared = new Map<number, Resource>();
  for (const [id, resources] of [...everywhere].sort(([a], [b]) => a - b)) {
    const [usual = []] = [...Map.groupBy(resources, same).values()].sort((a, b) => b.length - a.length);
    if (usual.length > 1) shared.set(id, usual[0]!);
  }
  const isShared = (resource: Resource) =>
    same(resource) === same(shared.get(resource.id) ?? { ...resource, name: '' });
  const coded = ({ code, mandatory }: Resource) =>
    String.fromCharCode(tableCodes.first + code + (mandatory ? tableCodes.mandatory : 0));
  const items = (resources: readonly Resource[], codeOf: (resource: Resource) => string) => {
    let last = -1;
    return resources.map((resource) => {
      const gap = resource.id - last - 1;
      last = resource.id;
      return `${gap || ''}${codeOf(resource)}`;
    });
  };
  const lines = objects.map(({ id, multiple, resources }, at) => {
    const own = items(resources, (each) => (isShared(each) ? (each.mandatory ? '!' : '.') : coded(each)));
    return `${id - (objects[at - 1]?.id ?? 0)}${multiple ? '*' : ' '}${own.join('')}`;
  });
  const names = objects.flatMap(({ name, resources }) => [
    name,
    ...resources.filter((each) => !isShared(each)).map((each) => each.name),
  ]);
  const common = [...shared.values()];
  return [
    items(common, (each) => coded({ ...each, mandatory: false })).join(''),
    lines.join('\n'),
    common.map(({ name }) => name).join('\n'),
    names.join('\n'),
  ].join('\n\n');
}
