import { type ParseArgsConfig, parseArgs } from 'node:util';
import { versionNumber } from '../../src/gateway/update/boot-state.ts';

/** What somebody asked for is not to be had. */
export class UsageError extends Error {}

type Options = NonNullable<ParseArgsConfig['options']>;
type Values<O extends Options> = ReturnType<typeof parseArgs<{ options: O }>>['values'];

/** Runs a command, and sets the process's exit code: 0, 1 when it failed, 2 for wrong usage; and says what is wrong. */
export async function runCommand<const O extends Options>(command: {
  readonly help: string;
  readonly options: O;
  readonly run: (values: Values<O>) => Promise<void> | void;
}): Promise<void> {
  try {
    if (process.argv.includes('--help')) return console.log(command.help);
    await command.run(parseArgs({ options: command.options }).values);
  } catch (thrown) {
    const { message, code } = thrown as NodeJS.ErrnoException;
    const isUsage = thrown instanceof UsageError || code?.startsWith('ERR_PARSE_ARGS');
    console.error(isUsage ? `${message}\n--help tells what there is` : message);
    process.exitCode = isUsage ? 2 : 1;
  }
}

/**
 * A version as a number.
 * @param what it is the version of, or the option that gives it
 * @throws {UsageError} for what is no version
 */
export function checkedVersion(what: string, version: string): number {
  const number = versionNumber(version);
  if (number === undefined)
    throw new UsageError(
      `${what} ${version}: three numbers such as 1.2.3 are wanted, of at most 127, 255 and 255`,
    );
  return number;
}
