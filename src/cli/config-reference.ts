// `npm run docs`: makes docs/configuration.md from the schemas that check configuration files.
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { deviceConfigSchema, deviceReloads } from '../device/config.ts';
import { gatewayConfigSchema, gatewayReloads } from '../gateway/config.ts';
import { boardConfigSchema } from '../gateway/update/board-config.ts';
import { headendConfigSchema, headendReloads } from '../headend/config.ts';

/** The parts of a valibot schema that this page needs. */
interface Schema {
  readonly type: string;
  readonly entries?: Readonly<Record<string, Schema>>;
  readonly wrapped?: Schema;
  readonly item?: Schema;
  readonly default?: unknown;
  readonly options?: readonly unknown[];
  readonly pipe?: readonly (Schema & { readonly description?: string; readonly message?: unknown })[];
}

interface Row {
  readonly key: string;
  readonly kind: string;
  readonly standard: string;
  readonly description: string;
}

interface Section {
  readonly name: string;
  readonly repeated: boolean;
  readonly description: string;
  readonly rows: Row[];
}

const descriptionOf = ({ pipe = [] }: Schema): string =>
  pipe.findLast(({ description }) => description)?.description ?? '';
const base = (schema: Schema): Schema =>
  schema.pipe?.[0] && schema.pipe[0] !== schema ? base(schema.pipe[0]) : schema;

/** The schema inside `optional`, with its default. */
function unwrap(schema: Schema): { inner: Schema; isOptional: boolean; standard: unknown } {
  const outer = base(schema);
  if (outer.type !== 'optional' || !outer.wrapped)
    return { inner: schema, isOptional: false, standard: undefined };
  return { inner: outer.wrapped, isOptional: true, standard: outer.default };
}

/** What the checks of a value expect, in words. */
function kindOf(schema: Schema): string {
  const plain = base(schema);
  const expected = (schema.pipe ?? []).flatMap((step) =>
    step.pipe ? kindOf(step) : typeof step.message === 'string' ? step.message : [],
  );
  if (plain.type === 'picklist')
    return `one of ${(plain.options ?? []).map((option) => `\`"${option}"\``).join(', ')}`;
  if (plain.type === 'array') return `list; each item: ${kindOf(plain.item ?? plain)}`;
  return (
    expected[0] ??
    { string: 'text', boolean: 'true or false', number: 'a number', record: 'table of texts' }[plain.type] ??
    plain.type
  );
}

const entriesOf = (schema: Schema) => Object.entries(base(schema).entries ?? {});
const isTable = (schema: Schema) => base(schema).type === 'strict_object';
const isTableList = (schema: Schema) => base(schema).type === 'array' && isTable(base(schema).item ?? schema);

function sectionsOf(name: string, schema: Schema, repeated: boolean, description = ''): Section[] {
  const rows: Row[] = [];
  const below: Section[] = [];
  for (const [key, field] of entriesOf(schema)) {
    const { inner, isOptional, standard } = unwrap(field);
    const path = name === '' ? key : `${name}.${key}`;
    if (isTable(inner)) below.push(...sectionsOf(path, inner, false, descriptionOf(field)));
    else if (isTableList(inner))
      below.push(...sectionsOf(path, base(inner).item ?? inner, true, descriptionOf(field)));
    else {
      const shown =
        standard === undefined ? (isOptional ? 'none' : '**required**') : `\`${JSON.stringify(standard)}\``;
      rows.push({ key, kind: kindOf(inner), standard: shown, description: descriptionOf(field) });
    }
  }
  // A table whose only keys are further tables is shown if it has a description.
  const isShown = rows.length > 0 || description !== '';
  return [...(isShown ? [{ name, repeated, description, rows }] : []), ...below];
}

function partyText(title: string, command: string, schema: unknown, reloads: readonly string[]): string {
  const taken = reloads.map((key) => `\`${key}\``).join(', ');
  const reload = `Taken over at SIGHUP: ${taken}. A change of any other key takes effect at the next start.`;
  return sectionsText(title, `For \`${command}\`.`, reload, schema);
}

function sectionsText(title: string, use: string, when: string, schema: unknown): string {
  const sections = sectionsOf('', schema as Schema, false).map(({ name, repeated, description, rows }) =>
    [
      `### \`${repeated ? `[[${name}]]` : `[${name}]`}\`${repeated ? ', any number of times' : ''}`,
      '',
      ...(description === '' ? [] : [`${description}.`, '']),
      ...(rows.length === 0 ? [] : ['| Key | Value | Default | Meaning |', '|---|---|---|---|']),
      ...rows.map((row) => `| \`${row.key}\` | ${row.kind} | ${row.standard} | ${row.description} |`),
    ].join('\n'),
  );
  return [`## ${title}`, '', use, '', when, '', sections.join('\n\n')].join('\n');
}

/** The whole page. */
export function configurationPage(): string {
  return `${[
    '# Configuration',
    '',
    'Configuration files are TOML. An unknown key or a wrong value is an error: the program prints the file, the key, what it expected and what it found, and exits. With `--check` it only checks the file, and the files that the keys name: certificates, keys and bootstrap documents must be readable and valid, and a private key must belong to its certificate. `npm run docs` makes this page from the schemas that check the files.',
    '',
    'SIGHUP lets a running party read its configuration again, and the files that it names, even if only the files have changed. A certificate of a server that runs without TLS, and none for one that runs with it, need a restart. The events `config.reloaded` and `config.restart-needed` say which keys were taken over and which need a restart; `postern status` shows the latter. A configuration that is wrong is refused with its reason (`config.refused`), and the one from before stays. A table that is gone takes its lists along at once, such as `coaps.device`, and the rest of it at the next start. A device that is in no list any more is locked out at once: it loses its account and its keys (`device.unlisted`). A device whose factory secret is changed keeps its account.',
    '',
    partyText('Gateway', 'postern gateway --config FILE', gatewayConfigSchema, gatewayReloads),
    '',
    sectionsText(
      'Board',
      'For the `gateway.toml` on the partition CONFIG of a board of the firmware image, beside the tables above ([firmware.md](firmware.md#first-boot)). `postern provision --check --from DIR` checks them together.',
      'Taken over when the board is provisioned. The gateway itself does not get these tables.',
      boardConfigSchema,
    ),
    '',
    partyText('Head-end', 'postern headend --config FILE', headendConfigSchema, headendReloads),
    '',
    partyText('Reference End Device', 'postern device --config FILE', deviceConfigSchema, deviceReloads),
  ].join('\n')}\n`;
}

if (import.meta.main)
  writeFileSync(fileURLToPath(new URL('../../docs/configuration.md', import.meta.url)), configurationPage());
