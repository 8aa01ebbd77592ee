import { parseArgs } from 'node:util';

/** An option of a program: a switch, a text or a number. */
interface Option {
  /** What it does, for `--help`. */
  readonly what: string;
  /** Stands for its value in `--help`, such as `NAME`. An option without it is a switch. */
  readonly value?: string;
  /** The value is a number, and this one when the option is absent. */
  readonly number?: number;
  /** Values that a text may have, or each of several that are separated by commas. */
  readonly among?: readonly string[];
  /** The option may be given several times. */
  readonly many?: true;
}

type ValueOf<O extends Option> = O extends { readonly number: number }
  ? number
  : O extends { readonly value: string }
    ? (O extends { readonly many: true } ? readonly string[] : string) | undefined
    : boolean;

/** Options that most measurements have. */
export const measuring = {
  quick: { what: 'measures briefly; the figures are rough' },
  write: { what: 'records the figures in docs/figures.json, and makes the tables' },
} as const;

/** Ends the process: prints the usage for `--help`, or what is wrong with the options. */
export class Usage {
  readonly #text: string;

  constructor(command: string, summary: string, options: Readonly<Record<string, Option>>) {
    const shown = Object.entries(options).map(([name, { value = '', number, what }]) => {
      const standard =
        number === undefined
          ? ''
          : `; ${number === Number.POSITIVE_INFINITY ? 'without limit' : number} if absent`;
      return [`--${name} ${number === undefined ? value : 'N'}`.trimEnd(), `${what}${standard}`] as const;
    });
    const width = Math.max(6, ...shown.map(([name]) => name.length));
    const lines = [...shown, ['--help', 'prints this'] as const].map(
      ([name, what]) => `  ${name.padEnd(width)}  ${what}`,
    );
    this.#text = `Usage: npm run ${command} -- [OPTIONS]\n\n${summary}\n\n${lines.join('\n')}`;
  }

  help(): never {
    console.log(this.#text);
    process.exit(0);
  }

  wrong(why: string): never {
    console.error(`${why}\n\n${this.#text}`);
    process.exit(2);
  }
}

/**
 * Reads the options of a program behind `npm run`. `--help` prints its usage and ends the process with code 0. An unknown
 * option or a wrong value ends it with code 2 and a line that says why. To be called before anything is measured.
 * @param command name of the script in package.json
 */
export function optionsOf<const O extends Readonly<Record<string, Option>>>(
  command: string,
  summary: string,
  options: O,
): { readonly [Name in keyof O]: ValueOf<O[Name]> } {
  const usage = new Usage(command, summary, options);
  const isText = ({ value, number }: Option) => value !== undefined || number !== undefined;
  const types = Object.entries(options).map(
    ([name, option]) =>
      [name, { type: isText(option) ? 'string' : 'boolean', multiple: option.many ?? false }] as const,
  );
  let given: Readonly<Record<string, string | boolean | readonly string[] | undefined>>;
  try {
    const known = { ...Object.fromEntries(types), help: { type: 'boolean' } } as const;
    given = parseArgs({ options: known }).values as typeof given;
  } catch (thrown) {
    // Node adds advice on positional arguments, which no program here has.
    return usage.wrong((thrown as Error).message.split('. ')[0] ?? '');
  }
  if (given.help) return usage.help();
  const values = Object.entries<Option>(options).map(([name, option]) => {
    const value = given[name];
    if (option.number !== undefined) return [name, numberOf(usage, name, value ?? option.number)];
    const texts = typeof value === 'string' ? value.split(',') : Array.isArray(value) ? value : [];
    const strange = texts.find((text) => option.among?.includes(text) === false);
    if (strange !== undefined)
      return usage.wrong(`--${name} ${strange}: expected one of ${option.among?.join(', ')}`);
    return [name, isText(option) ? value : (value ?? false)];
  });
  return Object.fromEntries(values);
}

function numberOf(usage: Usage, name: string, value: unknown): number {
  const number = Number(value);
  return number >= 0 && value !== ''
    ? number
    : usage.wrong(`--${name} ${String(value)}: expected a number of at least 0`);
}
