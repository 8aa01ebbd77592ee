import type { NamedOption } from 'coap-packet';
import type { Clock, Timer } from '../../../src/base/clock.ts';
import { type CoapAnswer, uintBytes } from './coap-socket.ts';

/** Sends a notification. `ended` is called when it gets a Reset. */
export type Notify = (
  token: Buffer,
  answer: CoapAnswer,
  options: readonly NamedOption[],
  ended: () => void,
) => void;

interface Relation {
  readonly token: Buffer;
  readonly paths: readonly string[];
  readonly read: () => CoapAnswer;
  lastAt: number;
  pending: Timer | undefined;
  due: Timer | undefined;
}

/** What servers observe of a client (RFC 7641; LwM2M core 1.1, section 6.4). */
export class Lwm2mObserved {
  readonly #clock: Clock;
  readonly #notify: Notify;
  readonly #heeds: boolean;
  readonly #relations = new Map<string, Relation>();
  /** `pmin` and `pmax` in seconds, by path. */
  readonly #conditions = new Map<string, Map<string, number>>();
  #number = 1;

  /** @param heeds whether it heeds `pmin` and `pmax` */
  constructor(clock: Clock, heeds: boolean, notify: Notify) {
    this.#clock = clock;
    this.#notify = notify;
    this.#heeds = heeds;
  }

  get size(): number {
    return this.#relations.size;
  }

  /** Forgets all: a new registration begins without observations. */
  clear(): void {
    for (const key of [...this.#relations.keys()]) this.#end(key);
    this.#conditions.clear();
  }

  /** Write-Attributes: what is given without a value is taken away. */
  setConditions(path: string, query: readonly string[]): void {
    const kept = this.#conditions.get(path) ?? new Map<string, number>();
    this.#conditions.set(path, kept);
    for (const each of query) {
      const [name = '', value] = each.split('=');
      if (value === undefined) kept.delete(name);
      else kept.set(name, Number(value));
    }
  }

  /**
   * Takes the option Observe of a request. Returns the options of the answer.
   * @param read what a notification has
   */
  ask(
    observe: number | undefined,
    token: Buffer,
    paths: readonly string[],
    read: () => CoapAnswer,
  ): readonly NamedOption[] {
    const key = token.toString('hex');
    if (observe === 1) this.#end(key);
    if (observe !== 0) return [];
    this.#end(key);
    const relation = { token, paths, read, lastAt: this.#clock.now(), pending: undefined, due: undefined };
    this.#relations.set(key, relation);
    this.#await(key, relation);
    return [this.#option()];
  }

  /** A value has changed. */
  changed(path: string): void {
    for (const [key, relation] of this.#relations) {
      if (!relation.paths.some((each) => path === each || path.startsWith(`${each}/`))) continue;
      const wait = this.#condition(relation, 'pmin') * 1000 - (this.#clock.now() - relation.lastAt);
      relation.pending ??= this.#clock.after(Math.max(0, wait), () => this.#tell(key, relation));
    }
  }

  #condition({ paths }: Relation, name: string): number {
    if (!this.#heeds) return 0;
    return Math.max(0, ...paths.map((path) => this.#conditions.get(path)?.get(name) ?? 0));
  }

  #await(key: string, relation: Relation): void {
    const pmax = this.#condition(relation, 'pmax');
    relation.due?.cancel();
    relation.due = pmax > 0 ? this.#clock.after(pmax * 1000, () => this.#tell(key, relation)) : undefined;
  }

  #tell(key: string, relation: Relation): void {
    relation.pending?.cancel();
    relation.pending = undefined;
    if (this.#relations.get(key) !== relation) return;
    relation.lastAt = this.#clock.now();
    this.#await(key, relation);
    this.#notify(relation.token, relation.read(), [this.#option()], () => this.#end(key));
  }

  #option(): NamedOption {
    return { name: 'Observe', value: uintBytes(this.#number++) };
  }

  #end(key: string): void {
    const relation = this.#relations.get(key);
    relation?.pending?.cancel();
    relation?.due?.cancel();
    this.#relations.delete(key);
  }
}
