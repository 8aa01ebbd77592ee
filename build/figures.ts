// docs/figures.json holds every measured figure. Benchmarks, fuzzing and builds write it here; figure-pages.ts renders the tables of
// README and docs/ from it. Figures stand nowhere else, so two pages cannot contradict each other.
import { readFileSync, writeFileSync } from 'node:fs';

const file = new URL('../docs/figures.json', import.meta.url);

/** The number of decimals that values of each unit are rounded to. Counts have the empty unit. */
const decimals = {
  '': 0,
  times: 2,
  '%': 1,
  µs: 1,
  ms: 1,
  s: 1,
  bytes: 0,
  KB: 1,
  MB: 1,
  'MB/s': 1,
  'MB/h': 1,
  '/h': 1,
  min: 0,
  'devices/s': 0,
  'requests/s': 0,
  'handshakes/s': 0,
} as const;
export type Unit = keyof typeof decimals;

/** Bounds that a figure has to keep. Most figures have none. */
export interface Target {
  readonly atMost?: number;
  readonly atLeast?: number;
}

export interface Figure extends Target {
  /** What was measured, as tables show it. */
  readonly what: string;
  readonly unit: Unit;
  /** The median where there is a range, else the one value that was measured. */
  readonly value: number;
  readonly least?: number;
  readonly most?: number;
}

/** The figures of one run of a benchmark, in the order in which tables show them. */
export interface Run {
  readonly title: string;
  /** YYYY-MM-DD. */
  readonly date: string;
  /** Cores and clock. Absent where figures do not depend on the machine, such as sizes. */
  readonly machine?: string;
  /** How it was measured: whole sentences of Markdown. */
  readonly how: string;
  readonly figures: Readonly<Record<string, Figure>>;
}

/** Runs by name. Each name has one block in one page of docs/. */
export type Figures = Readonly<Record<string, Run>>;

export function median(values: readonly number[]): number {
  const ordered = values.toSorted((a, b) => a - b);
  const middle = ordered.length >> 1;
  return ordered.length % 2 === 1 ? ordered[middle]! : (ordered[middle - 1]! + ordered[middle]!) / 2;
}

const rounded = (value: number, unit: Unit): number => Number(value.toFixed(decimals[unit]));

/** A figure that was measured once. */
export const single = (what: string, unit: Unit, value: number, target: Target = {}): Figure => ({
  what,
  unit,
  value: rounded(value, unit),
  ...target,
});

/** A figure that was measured several times: median, least and most. */
export const measured = (
  what: string,
  unit: Unit,
  values: readonly number[],
  target: Target = {},
): Figure => ({
  what,
  unit,
  value: rounded(median(values), unit),
  least: rounded(Math.min(...values), unit),
  most: rounded(Math.max(...values), unit),
  ...target,
});

/** A number as tables show it. Numbers from 1000 up have no decimals. */
export function shown(value: number, { unit, least }: Figure): string {
  const digits = value < 1000 ? decimals[unit] : 0;
  // A range shows all its decimals. A single value may have been recorded by hand as a whole number.
  const minimumFractionDigits = least === undefined ? 0 : digits;
  return value.toLocaleString('en', { minimumFractionDigits, maximumFractionDigits: digits });
}

/**
 * The target in words, and whether the figure meets it; the empty text where there is no target. It is derived from the rounded
 * value that tables show, so a reader who compares comes to the same result.
 */
export function verdict({ value, atMost, atLeast }: Figure): string {
  const isMet = (atMost === undefined || value <= atMost) && (atLeast === undefined || value >= atLeast);
  const targets = [
    ...(atMost === undefined ? [] : [`at most ${atMost.toLocaleString('en')}`]),
    ...(atLeast === undefined ? [] : [`at least ${atLeast.toLocaleString('en')}`]),
  ];
  return targets.length === 0 ? '' : `${targets.join(', ')}: ${isMet ? 'met' : 'missed'}`;
}

/** Today, as YYYY-MM-DD. */
export const today = (): string => new Date().toISOString().slice(0, 10);

export const readFigures = (): Figures => JSON.parse(readFileSync(file, 'utf8'));

/** Replaces the figures of one run. All other runs stay. */
export const recordRun = (name: string, run: Run): void =>
  writeFileSync(file, `${JSON.stringify({ ...readFigures(), [name]: run }, null, 2)}\n`);
