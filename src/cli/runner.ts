import { type ParseArgsOptionsConfig, parseArgs } from 'node:util';
import { asPosternError } from '../base/errors.ts';
import { forTerminal } from '../base/safe-text.ts';
import { softwareVersion } from '../base/version.ts';

export type Values = Readonly<Record<string, string | boolean | undefined>>;

/** One subcommand of `postern`. */
export interface Command {
  /** One line for the list of commands. */
  readonly summary: string;
  /** Text of `--help`, below the summary. */
  readonly help: string;
  readonly options: ParseArgsOptionsConfig;
  /** Number of words besides options; none by default. */
  readonly words?: number;
  /** SIGHUP lets it read its configuration again. Without this, SIGHUP ends it in order, as SIGTERM does. */
  readonly reloads?: boolean;
  /** Runs until it has ended, or until `stop` is aborted. */
  run(values: Values, stop: AbortSignal, words: readonly string[], hangUps: HangUps): Promise<void>;
}

/** What SIGHUP does to a command that reloads. */
export class HangUps {
  #listener: (() => void) | undefined;
  #isDue = false;

  /** Calls the listener at each SIGHUP from now on, and at once when one came before. */
  on(listener: () => void): void {
    this.#listener = listener;
    if (!this.#isDue) return;
    this.#isDue = false;
    listener();
  }

  /** To be called at SIGHUP. */
  take(): void {
    if (this.#listener) this.#listener();
    else this.#isDue = true;
  }
}

/** The programs that `npm run build` makes, and the commands of each. The demo has those of the others for itself. */
const programs: Readonly<Record<string, readonly string[]>> = {
  'postern.mjs': ['gateway', 'launch', 'update', 'backup', 'restore', 'status', 'devices', 'reset', 'join'],
  'postern-headend.mjs': ['headend', 'account'],
  'postern-board.mjs': ['provision'],
  'postern-device.mjs': ['device'],
  'postern-demo.mjs': ['demo', 'ddf'],
};

/** Why there is no command of this name in this program. */
function noCommand(name: string): string {
  const other = Object.entries(programs).find(([, commands]) => commands.includes(name))?.[0];
  return other === undefined
    ? `there is no command '${name}'`
    : `this program has no command '${name}'; that is in another one: node dist/${other} ${name}`;
}

export type Commands = Readonly<Record<string, () => Promise<Command>>>;

const exitCodes = { failed: 1, usage: 2 } as const;
/** Major version of Node from which on the programs run; `engines` of package.json. */
const oldestNode = 24;
/**
 * Milliseconds after the first signal to stop until another one ends the process at once. Ctrl-C in a terminal reaches all
 * processes of a command at once, and npm and our own starter pass it on as well.
 */
const sameSignal = 300;
/** Milliseconds that a process may take to end by itself after its command has ended. */
const endWithin = 3000;

async function overview(commands: Commands): Promise<string> {
  const lines = await Promise.all(
    Object.entries(commands).map(async ([name, load]) => `  ${name.padEnd(10)}${(await load()).summary}`),
  );
  return `Postern ${softwareVersion}, a DM Gateway (OMA GwMO).\n\nUsage: postern COMMAND [OPTIONS]\n\n${lines.join('\n')}\n\n'postern COMMAND --help' describes a command.`;
}

/** Runs the command that the arguments name. Sets the exit code of the process: 0, 1 for a failure, 2 for wrong usage. */
export async function runCli(commands: Commands, args: readonly string[]): Promise<void> {
  // An older Node lacks SQLite and more, and would fail later with words that do not say so.
  if (Number.parseInt(process.versions.node, 10) < oldestNode)
    return fail(
      exitCodes.failed,
      `Node ${oldestNode} or newer is needed; this is Node ${process.versions.node}, ${process.execPath}`,
    );
  const [name, ...rest] = args;
  if (name === '--version') return console.log(softwareVersion);
  if (name === undefined || name === '--help' || name === 'help')
    return console.log(await overview(commands));
  const load = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (!load) return fail(exitCodes.usage, `${noCommand(name)}\n\n${await overview(commands)}`);
  const command = await load();
  let values: Values;
  let words: readonly string[];
  try {
    const options = { ...command.options, help: { type: 'boolean' } } as const;
    const parsed = parseArgs({ args: rest, options, allowPositionals: (command.words ?? 0) > 0 });
    values = parsed.values as Values;
    words = parsed.positionals;
    if (words.length > (command.words ?? 0)) throw new Error(`unexpected argument '${words.at(-1)}'`);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return fail(exitCodes.usage, `${why}\n'postern ${name} --help' describes the options`);
  }
  if (values.help) return console.log(`${command.summary}\n\n${command.help}`);
  const stop = new AbortController();
  const hangUps = new HangUps();
  let stopSince = 0;
  // The first signal ends the command in order, the second at once.
  const interrupt = () => {
    if (!stop.signal.aborted) {
      stopSince = performance.now();
      stop.abort();
    } else if (performance.now() - stopSince > sameSignal) process.exit(exitCodes.failed);
  };
  const hangUp = () => (command.reloads ? hangUps.take() : interrupt());
  const listeners = [
    ['SIGINT', interrupt],
    ['SIGTERM', interrupt],
    ['SIGHUP', hangUp],
    // Without a listener, Node opens its inspector: whoever may send a signal could then run code in this process.
    ['SIGUSR1', () => {}],
  ] as const;
  for (const [signal, listener] of listeners) process.on(signal, listener);
  try {
    await command.run(values, stop.signal, words, hangUps);
  } catch (thrown) {
    const { code, message, stack } = asPosternError(thrown);
    fail(exitCodes.failed, code === 'internal' ? (stack ?? message) : message);
  } finally {
    for (const [signal, listener] of listeners) process.off(signal, listener);
    // Something that nobody waits for may still be open, such as a connection that is being made.
    setTimeout(() => process.exit(), endWithin).unref();
  }
}

function fail(code: number, message: string): void {
  // A message may quote what a device or a gateway said.
  console.error(`postern: ${forTerminal(message)}`);
  process.exitCode ||= code;
}

/** Resolves when the signal is aborted. */
export function stopped(signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  signal.addEventListener('abort', () => resolve(), { once: true });
  // A pending promise alone does not keep the process alive.
  const alive = setInterval(() => {}, 1 << 30);
  if (signal.aborted) resolve();
  return promise.finally(() => clearInterval(alive));
}
