/** What a closed level changed. */
export interface Committed {
  readonly keys: readonly string[];
  /** Puts the values back that the keys had before. */
  readonly undo: () => void;
}

/**
 * A map whose changes can be undone. `begin` opens a level. `rollback` closes the innermost level and undoes its
 * changes. `commit` closes it and adds its changes to the level around it. Levels nest.
 */
export class UndoableMap<V> {
  readonly #entries = new Map<string, V>();
  /** For each open level, the value that each changed key had before the level changed it. */
  readonly #levels: Map<string, V | undefined>[] = [];
  readonly #changed: (key: string, value: V | undefined) => void;

  /** @param changed called for each change, also when a rollback changes a value back */
  constructor(changed: (key: string, value: V | undefined) => void = () => {}) {
    this.#changed = changed;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(key: string): V | undefined {
    return this.#entries.get(key);
  }

  keys(): MapIterator<string> {
    return this.#entries.keys();
  }

  /** Without a value the entry is removed. */
  set(key: string, value: V | undefined): void {
    const level = this.#levels.at(-1);
    if (level && !level.has(key)) level.set(key, this.#entries.get(key));
    this.#put(key, value);
  }

  begin(): void {
    this.#levels.push(new Map());
  }

  /**
   * Closes a level. Of the outermost level it returns the changed keys, to be stored, and how they go back if they cannot be
   * stored. Of others it returns no keys.
   */
  commit(): Committed {
    const level = this.#levels.pop();
    const outer = this.#levels.at(-1);
    if (level && !outer) return { keys: [...level.keys()], undo: () => this.#putBack(level) };
    for (const [key, value] of level ?? []) if (!outer?.has(key)) outer?.set(key, value);
    return { keys: [], undo: () => {} };
  }

  rollback(): void {
    this.#putBack(this.#levels.pop() ?? new Map());
  }

  #putBack(level: ReadonlyMap<string, V | undefined>): void {
    for (const [key, value] of level) this.#put(key, value);
  }

  #put(key: string, value: V | undefined): void {
    if (value === undefined) this.#entries.delete(key);
    else this.#entries.set(key, value);
    this.#changed(key, value);
  }
}
