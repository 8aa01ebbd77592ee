import { asPosternError } from './errors.ts';
import type { Events } from './events.ts';

type Table = Readonly<Record<string, unknown>>;
const isTable = (value: unknown): value is Table =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The key of a name in the table at `at`. */
const below = (at: string, name: string): string => (at === '' ? name : `${at}.${name}`);

/**
 * Keys that differ between two configurations, such as `coap.port`. A list counts as one key, and so does a table that
 * only one of them has.
 */
export function changedKeys(before: unknown, after: unknown, at = ''): string[] {
  if (isTable(before) && isTable(after))
    return namesOf(before, after).flatMap((name) => changedKeys(before[name], after[name], below(at, name)));
  return JSON.stringify(before) === JSON.stringify(after) ? [] : [at];
}

const namesOf = (...tables: readonly Table[]): string[] => [...new Set(tables.flatMap(Object.keys))];

/** Keys of lists that have entries before, and are not there afterwards, be it that their table is gone. */
function goneLists(before: unknown, after: unknown, at = ''): string[] {
  if (Array.isArray(before)) return after === undefined && before.length > 0 ? [at] : [];
  if (!isTable(before)) return [];
  const next = isTable(after) ? after : {};
  return Object.keys(before).flatMap((name) => goneLists(before[name], next[name], below(at, name)));
}

/** The configuration, with these lists empty. */
const withoutEntries = (config: unknown, keys: readonly string[], at = ''): unknown =>
  keys.includes(at)
    ? []
    : isTable(config)
      ? Object.fromEntries(
          Object.entries(config).map(([name, value]) => [name, withoutEntries(value, keys, below(at, name))]),
        )
      : config;

/** The configuration `before`, with the values that `after` has for these keys. */
function withKeys(before: unknown, after: unknown, keys: readonly string[], at = ''): unknown {
  if (keys.includes(at)) return after;
  if (!isTable(before) || !isTable(after)) return before;
  const entries = namesOf(before, after).map((name) => {
    const value = withKeys(before[name], after[name], keys, below(at, name));
    return [name, value] as const;
  });
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined));
}

/** Gives an object the members of another one, and no others. Whoever holds the object sees them. */
export function overwrite<T extends object>(held: T, next: T): void {
  for (const name of Object.keys(held))
    if (!Object.hasOwn(next, name)) delete (held as Record<string, unknown>)[name];
  Object.assign(held, next);
}

/** The configuration of a party while it runs. Some of its keys can be reloaded, the others take effect at a start. */
export class LiveConfig<Config extends object> {
  readonly #events: Events;
  readonly #isReloadable: (key: string, current: Config, next: Config) => boolean;
  #current: Config;
  #restartNeeded: readonly string[] = [];
  #refused: string | undefined;

  constructor(
    config: Config,
    events: Events,
    isReloadable: (key: string, current: Config, next: Config) => boolean,
  ) {
    this.#current = config;
    this.#events = events;
    this.#isReloadable = isReloadable;
  }

  /** What holds now. */
  get current(): Config {
    return this.#current;
  }

  /** Keys that have another value in the configuration that was read last. They take effect at the next start. */
  get restartNeeded(): readonly string[] {
    return this.#restartNeeded;
  }

  /** Why the configuration that was read last was refused. Undefined when it was not. */
  get refused(): string | undefined {
    return this.#refused;
  }

  /**
   * Reads the configuration again and puts in force what can be reloaded. A list that can be reloaded is empty when its table is
   * gone: whoever deletes the last device of a list may delete the table with it, and means to lock the device out. When the
   * configuration cannot be read or applied, nothing changes. Never throws: what came of it is told by events.
   * @param apply puts a configuration in force, or throws and changes nothing
   */
  reload(read: () => Config, apply: (config: Config) => void): void {
    try {
      const next = read();
      const changed = changedKeys(this.#current, next);
      const isReloadable = (key: string) => this.#isReloadable(key, this.#current, next);
      const emptied = goneLists(this.#current, next).filter(
        (key) => isReloadable(key) && !changed.includes(key),
      );
      const reloaded = [...changed.filter(isReloadable), ...emptied];
      const config = withoutEntries(withKeys(this.#current, next, reloaded), emptied) as Config;
      apply(config);
      this.#current = config;
      this.#restartNeeded = changed.filter((key) => !isReloadable(key));
      this.#refused = undefined;
      this.#events.emit('config.reloaded', { keys: reloaded.join(' ') });
    } catch (thrown) {
      this.#refused = asPosternError(thrown).message;
      this.#events.emit('config.refused', { reason: this.#refused });
      return;
    }
    const keys = this.#restartNeeded.join(' ');
    if (keys !== '') this.#events.emit('config.restart-needed', { keys });
  }
}
