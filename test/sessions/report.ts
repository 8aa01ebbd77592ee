import { type Figure, type Run, single, today } from '../../build/figures.ts';
import { machine } from '../bench/measure.ts';

/** Values of one habit beyond which they are not told apart. */
const mostValues = 12;

/** How many sessions had each habit. */
export class HabitCounts {
  readonly #counts = new Map<string, Map<string, number>>();

  /** Adds the habits of one session. Those of an inner object have its name before theirs. */
  add(habits: object, prefix = ''): void {
    for (const [name, value] of Object.entries(habits)) {
      if (typeof value === 'object' && value !== null) this.add(value, `${prefix}${name} `);
      else {
        const values = this.#counts.get(prefix + name) ?? new Map<string, number>();
        this.#counts.set(prefix + name, values);
        const shown = value === undefined ? 'none' : value === '' ? 'empty' : String(value);
        values.set(shown, (values.get(shown) ?? 0) + 1);
      }
    }
  }

  /** Habits with a few values, by `NAME: VALUE`. */
  get rows(): readonly (readonly [habit: string, sessions: number])[] {
    return [...this.#counts]
      .filter(([, values]) => values.size <= mostValues)
      .flatMap(([name, values]) =>
        [...values].toSorted().map(([value, sessions]) => [`${name}: ${value}`, sessions] as const),
      );
  }
}

/** What is recorded of the sessions with one kind of peer. */
export interface PlayedSessions {
  readonly kind: string;
  /** Seed of the first session. */
  readonly first: number;
  readonly sessions: number;
  readonly disagreements: number;
  /** Sessions that ended with success, in the words of the peer. */
  readonly done: number;
}

const goal = 10_000;
const runOf = (title: string, figures: Readonly<Record<string, Figure>>): Run => ({
  title,
  date: today(),
  machine: machine(),
  how: 'A row is the last run of its peer, `npm run sessions -- --peer KIND --write`.',
  figures,
});

/** The run with the row of one kind of peer instead of its earlier one. */
export function sessionRun(
  before: Run | undefined,
  { kind, first, sessions, disagreements, done }: PlayedSessions,
): Run {
  return runOf('Sessions with stock peers', {
    ...before?.figures,
    [`${kind}/sessions`]: single('Sessions', '', sessions, { atLeast: goal }),
    [`${kind}/disagreements`]: single('Disagreements', '', disagreements, { atMost: 0 }),
    [`${kind}/done`]: single('Ended with success', '', done),
    [`${kind}/first`]: single('First seed', '', first),
  });
}

/** The same of its habits. */
export function habitRun(before: Run | undefined, kind: string, counts: HabitCounts): Run {
  const others = Object.entries(before?.figures ?? {}).filter(([key]) => !key.startsWith(`${kind}, `));
  const own = counts.rows.map(
    ([habit, sessions]) =>
      // A key is the row and the column; a value may have a slash.
      [
        `${kind}, ${habit.replaceAll('/', '∕').replaceAll('|', '¦')}/sessions`,
        single('Sessions', '', sessions),
      ] as const,
  );
  return runOf('Habits of stock peers', Object.fromEntries([...others, ...own]));
}
