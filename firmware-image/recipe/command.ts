import { type ParseArgsConfig, parseArgs } from 'node:util';
import { versionNumber } from '../../src/gateway/update/boot-state.ts';

/** Wrong usage of a command. */
export class UsageError extends Error {}

type Options = NonNullable<ParseArgsConfig['options']>;
type Values<O extends Options> = ReturnType<typeof parseArgs<{ options: O }>>['values'];

/**
 * Runs a command of the command line. Prints the message of an error, and sets the exit code of the process: 0, 1 when the
 * command failed, 2 for wrong usage.
 */
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
    console.error(isUsage ? `${message}\nSee --help for the options.` : message);
    process.exitCode = isUsage ? 2 : 1;
  }
}

/**
 * A version as a number, `versionNumber()` of it.
 * @param what name of the version in the error message, such as the option that gives it
 * @throws {UsageError} for a text that is not a version
 */
export function checkedVersion(what: string, version: string): number {
  const number = versionNumber(version);
  if (number === undefined)
    throw new UsageError(
      `${what} ${version}: expected three numbers such as 1.2.3, at most 127, 255 and 255`,
    );
  return number;
}
