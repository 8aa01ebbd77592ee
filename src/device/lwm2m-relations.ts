import type { Clock, Monotonic, Timer } from '../base/clock.ts';
import { isBelow, type Path, pathText } from '../wire/lwm2m/path.ts';
import type { Entry, Value } from '../wire/lwm2m/resource.ts';
import type { StackObserver } from './coap-messages.ts';

/** Conditions of notifications (LwM2M core 1.1, section 5.1.2). `pmin` and `pmax` are in seconds. */
export interface Conditions {
  readonly pmin?: number;
  readonly pmax?: number;
  readonly gt?: number;
  readonly lt?: number;
  readonly st?: number;
}

/** An observation of a server. */
export interface Relation {
  readonly paths: readonly Path[];
  readonly observer: StackObserver;
  /** Sends what the paths hold now. */
  readonly send: () => void;
}

interface State extends Relation {
  /** Values when the last notification was sent, by path. */
  told: ReadonlyMap<string, Value>;
  toldAt: Monotonic;
  /** The next notification by `pmin`, when something has changed, and by `pmax`. */
  due: Timer | undefined;
  latest: Timer | undefined;
}

export interface RelationsParts {
  /** The values at a path and below. */
  readonly valuesAt: (path: Path) => readonly Entry[];
  readonly clock: Clock;
}

/** Most observations, and paths with conditions, at a time. */
const bound = 64;

/** The observations of an LwM2M client, and the conditions under which it notifies. */
export class LwM2mRelations {
  readonly #parts: RelationsParts;
  readonly #conditions = new Map<string, { readonly path: Path; readonly conditions: Conditions }>();
  readonly #relations = new Map<string, State>();

  constructor(parts: RelationsParts) {
    this.#parts = parts;
  }

  get size(): number {
    return this.#relations.size;
  }

  /**
   * Sets conditions at a path; what is undefined is taken away, and what is absent stays.
   * @returns false when there is no room
   */
  setConditions(path: Path, changes: Readonly<Record<string, number | undefined>>): boolean {
    const key = pathText(path);
    if (!this.#conditions.has(key) && this.#conditions.size >= bound) return false;
    const conditions = { ...this.#conditions.get(key)?.conditions, ...changes } as Conditions;
    this.#conditions.set(key, { path, conditions });
    return true;
  }

  /** The conditions of a path: its own, and those of what it is in. */
  conditionsOf(path: Path): Conditions {
    const above = [...this.#conditions.values()].filter((each) => isBelow(path, each.path));
    const inOrder = above.toSorted((a, b) => a.path.length - b.path.length);
    return Object.assign({}, ...inOrder.map(({ conditions }) => conditions));
  }

  /** Adds an observation, in place of an earlier one of the same observer. Returns false when there is no room. */
  add(relation: Relation): boolean {
    const { key } = relation.observer;
    this.end(key);
    if (this.#relations.size >= bound) return false;
    const state: State = {
      ...relation,
      told: new Map(),
      toldAt: 0 as Monotonic,
      due: undefined,
      latest: undefined,
    };
    this.#relations.set(key, state);
    relation.observer.onEnd(() => {
      if (this.#relations.get(key) === state) this.end(key);
    });
    this.#told(state);
    return true;
  }

  /** Ends the observation of an observer, if there is one. */
  end(key: string): void {
    const state = this.#relations.get(key);
    state?.due?.cancel();
    state?.latest?.cancel();
    this.#relations.delete(key);
    state?.observer.end();
  }

  /** Ends all observations: a client that registers anew forgets them. */
  clear(): void {
    for (const key of [...this.#relations.keys()]) this.end(key);
  }

  /** A value at this path has changed. */
  changed(path: Path): void {
    for (const state of this.#relations.values()) {
      if (!state.paths.some((each) => isBelow(path, each) || isBelow(each, path))) continue;
      if (!this.#isWorthTelling(state, path)) continue;
      const { clock } = this.#parts;
      const { pmin = 0 } = this.conditionsOf(path);
      const wait = state.toldAt + pmin * 1000 - clock.now();
      if (wait <= 0) this.#notify(state);
      else state.due ??= clock.after(wait, () => this.#notify(state));
    }
  }

  /** Whether a change passes `gt`, `lt` or `st`; any change does where none of them is set (section 5.1.2). */
  #isWorthTelling({ told }: State, path: Path): boolean {
    const { gt, lt, st } = this.conditionsOf(path);
    const now = this.#parts.valuesAt(path)[0]?.value;
    const before = told.get(pathText(path));
    if ((gt ?? lt ?? st) === undefined || typeof now !== 'number' || typeof before !== 'number') return true;
    const crosses = (limit: number | undefined) => limit !== undefined && now > limit !== before > limit;
    return crosses(gt) || crosses(lt) || (st !== undefined && Math.abs(now - before) >= st);
  }

  #notify(state: State): void {
    state.due?.cancel();
    state.due = undefined;
    state.send();
    this.#told(state);
  }

  #told(state: State): void {
    const { clock, valuesAt } = this.#parts;
    const entries = state.paths.flatMap((path) => valuesAt(path));
    state.told = new Map(entries.map(({ path, value }) => [pathText(path), value]));
    state.toldAt = clock.now();
    state.latest?.cancel();
    const most = state.paths.flatMap((path) => this.conditionsOf(path).pmax ?? []);
    state.latest =
      most.length === 0 ? undefined : clock.after(Math.min(...most) * 1000, () => this.#notify(state));
  }
}
