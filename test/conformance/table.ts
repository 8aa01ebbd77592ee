// `npm run docs` makes docs/conformance.md from the requirements here and from annotations of the tests. An annotation is a
// comment `// conforms: ID, ID` directly before a test, or a group of tests, for these requirements.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Requirement, requirements } from './requirements.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const page = `${root}docs/conformance.md`;

/** A test for a requirement. */
export interface Shown {
  /** Path of the file from the root, `test/…`. */
  readonly file: string;
  readonly title: string;
}

/** The tests of each requirement, by its ID, from the annotations of all tests. */
export function annotations(): ReadonlyMap<string, readonly Shown[]> {
  const found = new Map<string, Shown[]>();
  const files = readdirSync(`${root}test`, { recursive: true })
    .map(String)
    .filter((file) => file.endsWith('.test.ts'));
  for (const file of files.toSorted()) {
    const text = readFileSync(`${root}test/${file}`, 'utf8');
    for (const [, ids = '', , title = ''] of text.matchAll(
      /\/\/ conforms: ([^\n]+)\n.*?\b(?:test|describe)\(\s*(['"`])(.*?)\2/gs,
    ))
      for (const id of ids.split(',').map((each) => each.trim()))
        found.set(id, [...(found.get(id) ?? []), { file: `test/${file}`, title }]);
  }
  return found;
}

/** The faults of requirements and annotations, as lines of text. Empty when there are none. */
export function complaints(shown = annotations()): string[] {
  const ids = new Set(requirements.map(({ id }) => id));
  const twice = requirements.filter(
    ({ id }, at) => requirements.findIndex((other) => other.id === id) !== at,
  );
  return [
    ...twice.map(({ id }) => `there are two requirements ${id}`),
    ...[...shown.keys()]
      .filter((id) => !ids.has(id))
      .map((id) => `a test is annotated with ${id}, which is not a requirement`),
    ...requirements
      .filter(({ id, notApplicable, through }) => notApplicable === undefined && !through && !shown.has(id))
      .map(({ id }) => `no test for ${id}`),
    ...requirements
      .filter(({ id, notApplicable }) => notApplicable !== undefined && shown.has(id))
      .map(({ id }) => `${id} does not apply, but a test is annotated with it`),
    ...requirements.flatMap(({ id, through = [] }) =>
      through.filter((other) => !shown.has(other)).map((other) => `${id}: no test for ${other}`),
    ),
    ...requirements.flatMap(({ id, where }) =>
      where
        .filter((file) => !existsSync(`${root}src/${file}`))
        .map((file) => `${id}: src/${file} does not exist`),
    ),
  ];
}

const cell = (text: string) => text.replaceAll('|', '\\|').replaceAll('\n', ' ');

function row(
  { id, section, text, side, where, notApplicable, through }: Requirement,
  shown: readonly Shown[] = [],
): string {
  const proof =
    notApplicable !== undefined
      ? `not applicable: ${cell(notApplicable)}`
      : through
        ? `as ${through.join(', ')}`
        : shown.map(({ file, title }) => `\`${file.replace('test/', '')}\`: ${cell(title)}`).join('<br>');
  return `| ${id} | ${section} | ${side} | ${cell(text)} | ${where.map((file) => `\`${file}\``).join(' ')} | ${proof} |`;
}

/** The content of docs/conformance.md. */
export function conformancePage(): string {
  const shown = annotations();
  const specs = [...new Set(requirements.map(({ spec }) => spec))];
  const parts = specs.map((spec) => {
    const own = requirements.filter((requirement) => requirement.spec === spec);
    return [
      `## ${spec}`,
      '',
      '| | Section | Side | Requirement | Where | Shown by |',
      '|---|---|---|---|---|---|',
      ...own.map((requirement) => row(requirement, shown.get(requirement.id))),
    ].join('\n');
  });
  const applicable = requirements.filter(({ notApplicable }) => notApplicable === undefined).length;
  return `${[
    '# Conformance',
    `The requirements of the specifications on a DM client (C) and a DM server (S), in our own words. Each row names the files in \`src/\` that implement it and the tests that show it. ${applicable} requirements apply; ${requirements.length - applicable} of the static conformance tables do not apply, and their rows give the reason. The numbers of the rows are our own. \`npm run docs\` makes this page from annotations of the tests. A test fails when the page is out of date or when a row has no test.`,
    'Two things rest on assumptions, because the published text was not available: Package #0 of DM 1.3 (NOT-1) and the identifiers of GwMO (from GW-1 on). The assumptions are described in architecture.md, under "Where it departs from the first design", and in gwmo.md.',
    ...parts,
  ].join('\n\n')}\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const complaint of complaints()) console.error(complaint);
  writeFileSync(page, conformancePage());
}
