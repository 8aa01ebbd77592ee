import { type ParseArgsConfig, parseArgs } from 'node:util';
import { versionNumber } from '../../src/update/boot-state.ts';

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

/** @throws {UsageError} for what is no version */
export function checkVersion(option: string, version: string | undefined): void {
  if (version !== undefined && versionNumber(version) === undefined)
    throw new UsageError(
      `--${option} ${version}: three numbers such as 1.2.3 are wanted, of at most 127, 255 and 255`,
    );
}
