// `npm run docs` makes docs/conformance.md from the requirements here and from the annotations of the tests:
// a comment `// conforms: ID, ID` is on the line before the test, or the group of tests, that shows a requirement.
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

/** The tests that show each requirement, by their annotations. */
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

/** Mistakes in the table; none if it is consistent. */
export function complaints(shown = annotations()): string[] {
  const ids = new Set(requirements.map(({ id }) => id));
  const twice = requirements.filter(
    ({ id }, at) => requirements.findIndex((other) => other.id === id) !== at,
  );
  return [
    ...twice.map(({ id }) => `${id} is there twice`),
    ...[...shown.keys()]
      .filter((id) => !ids.has(id))
      .map((id) => `a test shows ${id}, which is not a requirement`),
    ...requirements
      .filter(({ id, notApplicable, through }) => notApplicable === undefined && !through && !shown.has(id))
      .map(({ id }) => `no test for ${id}`),
    ...requirements
      .filter(({ id, notApplicable }) => notApplicable !== undefined && shown.has(id))
      .map(({ id }) => `${id} does not apply, but a test shows it`),
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
      ? cell(notApplicable.startsWith('open: ') ? notApplicable : `not applicable: ${notApplicable}`)
      : through
        ? `the tests of ${through.join(', ')}`
        : shown.map(({ file, title }) => `\`${file.replace('test/', '')}\`: ${cell(title)}`).join('<br>');
  return `| ${id} | ${section} | ${side} | ${cell(text)} | ${where.map((file) => `\`${file}\``).join(' ')} | ${proof} |`;
}

/** Whether the tests would notice, and how that was found out. */
const tried =
  'On 29 and 30 November 2026 it was tried whether the tests of a row fail when the requirement does not hold. The code was broken for 136 rows, by 325 mistakes, one at a time: all rows of the DM protocol, the representation protocol and the tree; SEC-1 to SEC-7, SEC-9, SEC-10; NOT-1 to NOT-4; most of the enabler tests; some of bootstrap and of GwMO. The tests of 35 rows did not notice at least one of the mistakes. They were strengthened, and notice now. Five mistakes have no effect, because another check catches the same. The other rows were not tried, nor those that only journeys show.';

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
  const open = requirements.filter(({ notApplicable }) => notApplicable?.startsWith('open: ')).length;
  return `${[
    '# Conformance',
    `This page lists the requirements of the specifications on a DM client (C) and a DM server (S), in Postern's own words. Each row names the files in \`src/\` that implement the requirement, and the tests that show it. ${applicable} requirements apply. ${requirements.length - applicable - open} of the static conformance tables and of the enabler test cases do not apply, and ${open} are open; their rows say why. The numbers of the rows are Postern's own. \`npm run docs\` makes this page from annotations of the tests. A test fails if the page is out of date, or if a row has no test.`,
    'Two things are assumptions, because the published text was not at hand: Package #0 of DM 1.3 (NOT-1), and the identifiers of GwMO (GW-1 and following). [architecture.md](architecture.md#departures-from-the-first-design) and [gwmo.md](gwmo.md) say what is assumed.',
    tried,
    ...parts,
  ].join('\n\n')}\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const complaint of complaints()) console.error(complaint);
  writeFileSync(page, conformancePage());
}
