// `npm run docs`: renders the tables of figures in README and docs/, and the picture of a start, from docs/figures.json.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Figure, type Figures, type Run, readFigures, recordRun, shown, verdict } from './figures.ts';
import { startChart } from './start-chart.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Runs by page. A page has one block for each of its runs. */
const pageBlocks: Readonly<Record<string, readonly string[]>> = {
  'docs/performance.md': [
    'coap',
    'dtls',
    'storm',
    'codecs',
    'gateway',
    'telemetry',
    'against',
    'tunnel',
    'memory',
    'soak',
    'flash',
    'images',
    'bundle',
    'fuzz',
    'sessions',
    'habits',
  ],
  'docs/firmware.md': ['image', 'board', 'firmware'],
  'docs/security.md': ['attack'],
};

/** Figures that README shows, by run. Ratios against named peers come first. */
const summary: readonly (readonly [run: string, ...figures: string[]])[] = [
  ['coap', 'vs-package', 'vs-libcoap', 'growth'],
  ['dtls', 'vs-libcoap', 'idle'],
  ['codecs', 'xml-vs-saxes', 'wbxml-vs-xml', 'cbor-vs-xml', 'wbxml-bytes', 'cbor-bytes', 'xml-bytes'],
  ['gateway', 'storm-cpu', 'storm-peak', 'fan-out-cpu', 'fan-out-vs-loop-cpu', 'fan-out-vs-loop-rate'],
  ['tunnel', 'cpu-tunnel-stock', 'vs-bare', 'alone-p50-tunnel-stock', 'alone-p50-mqtt-stock'],
  ['images', 'cpu-200', 'growth-200'],
  ['bundle', 'minified', 'gzipped'],
  ['board', 'answer'],
  ['image', 'update-bundle', 'packed-disk'],
  ['firmware', 'free-1000', 'idle-hour'],
  ['fuzz', 'all/inputs', 'all/findings'],
];

const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
const table = (columns: readonly string[], rows: readonly (readonly string[])[]): string =>
  [line(columns), `|${'---|'.repeat(columns.length)}`, ...rows.map(line)].join('\n');

function cells(figure: Figure): string[] {
  const { what, unit, value, least, most } = figure;
  const show = (one: number) => shown(one, figure);
  const range = least === undefined || most === undefined ? '' : `${show(least)} to ${show(most)}`;
  return [what, `${show(value)} ${unit}`.trim(), range, verdict(figure)];
}

const columns = ['Figure', 'Value', 'Least to most', 'Target'] as const;

/** A run as its page shows it: how and when it was measured, and all its figures. */
export function runBlock({ date, machine, how, figures }: Run): string {
  const measured = machine === undefined ? `${date}.` : `${date}; ${machine}.`;
  const isGrid = Object.keys(figures).every((key) => key.includes('/'));
  const shownFigures = isGrid ? grid(figures) : table(columns, Object.values(figures).map(cells));
  return [`${how} Measured: ${measured}`, '', shownFigures].join('\n');
}

/** Figures whose keys are `ROW/COLUMN`, a row each. The head of a column has its target, and a figure that misses it is bold. */
function grid(figures: Readonly<Record<string, Figure>>): string {
  const rows = Map.groupBy(Object.entries(figures), ([key]) => key.split('/')[0] ?? '');
  const [first = []] = rows.values();
  const target = ({ atMost, atLeast }: Figure) => {
    if (atMost !== undefined) return ` (at most ${atMost.toLocaleString('en')})`;
    return atLeast === undefined ? '' : ` (at least ${atLeast.toLocaleString('en')})`;
  };
  const head = first.map(([, figure]) => `${figure.what}${target(figure)}`);
  const cell = ([, figure]: [string, Figure]) => {
    const text = `${shown(figure.value, figure)} ${figure.unit}`.trim();
    return verdict(figure).endsWith('missed') ? `**${text}**` : text;
  };
  return table(
    ['', ...head],
    [...rows].map(([row, all]) => [row, ...all.map(cell)]),
  );
}

/** The table "Figures" of README. */
export function summaryBlock(runs: Figures): string {
  const rows = summary.flatMap(([name, ...keys]) =>
    keys.map((key) => {
      const run = runs[name];
      const figure = run?.figures[key];
      if (!run || !figure) throw new Error(`docs/figures.json has no figure '${key}' of '${name}'`);
      return [run.title, ...cells(figure), run.date];
    }),
  );
  return [
    table(['Area', ...columns, 'Measured'], rows),
    '',
    'A value with a range is the median. Ratios compare within one run; times by themselves depend on the machine.',
  ].join('\n');
}

/**
 * Puts texts between their markers, `<!-- NAME -->` and `<!-- /NAME -->`.
 * @param path of the page, for the error
 * @throws {Error} when the page has no such markers
 */
export function fillBlocks(path: string, page: string, blocks: Readonly<Record<string, string>>): string {
  return Object.entries(blocks).reduce((text, [name, block]) => {
    const [from, to] = [`<!-- ${name} -->`, `<!-- /${name} -->`];
    const [start, end] = [text.indexOf(from), text.indexOf(to)];
    if (start < 0 || end < start) throw new Error(`${path} has no markers ${from} and ${to}`);
    return `${text.slice(0, start + from.length)}\n${block}\n${text.slice(end)}`;
  }, page);
}

function boardChart(runs: Figures): string {
  const { kernel, initramfs, answer } = runs.board?.figures ?? {};
  if (!kernel || !initramfs || answer?.atMost === undefined)
    throw new Error("docs/figures.json has no start of a board with a target: 'board'");
  return startChart(
    { kernel: kernel.value, initramfs: initramfs.value, answer: answer.value },
    answer.atMost,
  );
}

/** Files that show figures: path from the root, and the text that the file has to have. */
export function figurePages(runs: Figures = readFigures()): ReadonlyMap<string, string> {
  const filled = (path: string, blocks: Readonly<Record<string, string>>): [string, string] => [
    path,
    fillBlocks(path, readFileSync(root + path, 'utf8'), blocks),
  ];
  return new Map([
    filled('README.md', { figures: summaryBlock(runs) }),
    ...Object.entries(pageBlocks).map(([path, names]) =>
      filled(
        path,
        Object.fromEntries(
          names.map((name) => {
            const run = runs[name];
            if (!run) throw new Error(`docs/figures.json has no run '${name}'`);
            return [name, runBlock(run)];
          }),
        ),
      ),
    ),
    ['docs/board-start.svg', boardChart(runs)],
  ]);
}

function writePages(): void {
  for (const [path, text] of figurePages()) writeFileSync(root + path, text);
}

/** Prints a run. With `write` also records it, and renders all pages. */
export function publish(name: string, run: Run, write: boolean | undefined): void {
  console.log(runBlock(run));
  if (!write) return;
  recordRun(name, run);
  writePages();
}

if (import.meta.main) writePages();
