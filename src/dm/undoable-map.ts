/**
 * A map whose changes can be taken back: `begin` opens a level, which `rollback` undoes and `commit` hands on to the level
 * around it. Levels nest.
 */
export class UndoableMap<V> {
  readonly #entries = new Map<string, V>();
  /** What each level found where it changed something first. */
  readonly #levels: Map<string, V | undefined>[] = [];
  readonly #changed: (key: string, value: V | undefined) => void;

  /** `changed` hears of each change, and of each that is taken back. */
  constructor(changed: (key: string, value: V | undefined) => void = () => {}) {
    this.#changed = changed;
  }

  get size(): number {
    return this.#entries.size;
  }

  get isOpen(): boolean {
    return this.#levels.length > 0;
  }

  get(key: string): V | undefined {
    return this.#entries.get(key);
  }

  keys(): MapIterator<string> {
    return this.#entries.keys();
  }

  /** No value removes the entry. */
  set(key: string, value: V | undefined): void {
    const level = this.#levels.at(-1);
    if (level && !level.has(key)) level.set(key, this.#entries.get(key));
    this.#put(key, value);
  }

  begin(): void {
    this.#levels.push(new Map());
  }

  /** Answers with the keys that changed, when this was the outermost level; the change is final then. */
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
