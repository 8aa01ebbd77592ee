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

  /** Whether a level is open. */
  get isOpen(): boolean {
    return this.#levels.length > 0;
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
   * Closes a level. Of the outermost level it returns the changed keys: the changes are final. Of others it returns
   * none.
   */
  commit(): string[] {
    const level = this.#levels.pop();
    const outer = this.#levels.at(-1);
    if (!level || !outer) return [...(level?.keys() ?? [])];
    for (const [key, value] of level) if (!outer.has(key)) outer.set(key, value);
    return [];
  }

  rollback(): void {
    for (const [key, value] of this.#levels.pop() ?? []) this.#put(key, value);
  }

  #put(key: string, value: V | undefined): void {
    if (value === undefined) this.#entries.delete(key);
    else this.#entries.set(key, value);
    this.#changed(key, value);
  }
}
