import { DmError } from '../dm/dm-error.ts';
import { DmStatus } from '../dm/status.ts';
import type { StoredBranch } from '../dm/stored-branch.ts';
import type { NewNode, NodeView, TreeBranch } from '../dm/tree-branch.ts';
import type { NodePath } from '../dm/uri.ts';
import { describe, type NodeDescription } from '../wire/syncml/ddf.ts';

/** Carries out the orders of one kind. An order is known by the name of its node. */
export interface OrderRunner<O> {
  /**
   * Whether an order may start. Returns 202, or 200 when there is nothing to do.
   * @throws {PosternError} `conflict` while it runs, `full` when too many run
   */
  admit(order: O): number;
  /** Stores an admitted order, as part of the transaction under way. */
  record(order: O, correlator: string | undefined): void;
  /** Begins to work on a stored order. */
  launch(order: O): void;
  /** Stops an order. Returns 200, or 404 when it does not run. */
  cancel(name: string): number;
  /** Deletes what is stored of an order, as part of the transaction under way. */
  erase(name: string): void;
  /** Stops work on an erased order. */
  abandon(name: string): void;
}

interface Start<O> {
  readonly order: O;
  readonly correlator: string | undefined;
}

/**
 * What one level of changes does to orders. An order starts when all of the package is stored: an Exec of Start inside
 * an Atomic that fails starts nothing.
 */
interface Level<O> {
  readonly deleted: Set<string>;
  readonly started: Map<string, Start<O>>;
}

export interface StartedBranchParts {
  readonly stored: StoredBranch;
  readonly description: NodeDescription;
  /** Name of the node below which the orders are. */
  readonly list: string;
  /** Nodes of each order that the gateway answers itself, with `Start` and `Stop` among them. */
  readonly live: readonly string[];
}

/**
 * Orders of one kind that a DM server writes as nodes and starts by an Exec, as a branch: the nodes that the server wrote, with
 * those that the gateway answers.
 */
export abstract class StartedBranch<O> implements TreeBranch {
  readonly #stored: StoredBranch;
  readonly #description: NodeDescription;
  readonly #list: string;
  readonly #live: readonly string[];
  readonly #runner: OrderRunner<O>;
  readonly #order: (name: string, server: string) => O;
  /** What each open level of changes deleted and started. */
  readonly #levels: Level<O>[] = [];
  /** The same of all levels, once it is stored: what runs follows it. */
  #final: Level<O> | undefined;

  /** @param order reads an order from its nodes, for the server that starts it */
  constructor(
    { stored, description, list, live }: StartedBranchParts,
    runner: OrderRunner<O>,
    order: (name: string, server: string) => O,
  ) {
    this.#stored = stored;
    this.#description = description;
    this.#list = list;
    this.#live = live;
    this.#runner = runner;
    this.#order = order;
  }

  /**
   * Makes the node of the list, if the state has none yet.
   * @throws {PosternError} `storage`
   */
  plant(): void {
    const name = this.#list;
    if (!this.#stored.view([name])) this.#stored.plant([name], { name, format: 'node' });
  }

  /** Names of the children of a live node whose children are not described by name. */
  protected childrenOf(_name: string, _group: string): readonly string[] | undefined {
    return undefined;
  }

  /** Value of a live node, or of its child `leaf`. Undefined when there is no such node. */
  protected abstract valueOf(name: string, group: string, leaf: string | undefined): string | undefined;

  view(path: NodePath): NodeView | undefined {
    const [list, name, leaf] = path;
    if (list !== this.#list || name === undefined) return this.#stored.view(path);
    const order = this.#stored.view([list, name]);
    if (!order || leaf === undefined)
      return order && { ...order, children: [...(order.children ?? []), ...this.#live] };
    return this.#live.includes(leaf) ? this.#liveView(path, name) : this.#stored.view(path);
  }

  potential(path: NodePath) {
    return this.#live.includes(path[2] ?? '') ? undefined : this.#stored.potential(path);
  }

  add(path: NodePath, node: NewNode): void {
    this.#stored.add(path, node);
  }

  replace(path: NodePath, node: NewNode): void {
    this.#stored.replace(path, node);
  }

  delete(path: NodePath): void {
    this.#stored.delete(path);
    const [, name] = path;
    const level = this.#levels.at(-1);
    if (path.length !== 2 || name === undefined || !level) return;
    level.deleted.add(name);
    level.started.delete(name);
  }

  rename(path: NodePath): void {
    // What came of an order is stored under its name.
    throw new DmError(DmStatus.CommandNotAllowed, `${path.at(-1)} keeps its name`);
  }

  retitle(path: NodePath, title: string): void {
    this.#stored.retitle(path, title);
  }

  begin(): void {
    this.#stored.begin();
    this.#levels.push({ deleted: new Set(), started: new Map() });
  }

  commit(): void {
    const level = this.#levels.pop();
    this.#stored.commit();
    const outer = this.#levels.at(-1);
    if (!level) return;
    if (!outer) {
      for (const name of level.deleted) this.#runner.erase(name);
      for (const { order, correlator } of level.started.values()) this.#runner.record(order, correlator);
      this.#final = level;
      return;
    }
    for (const name of level.deleted) {
      outer.deleted.add(name);
      outer.started.delete(name);
    }
    for (const [name, start] of level.started) outer.started.set(name, start);
  }

  committed(): void {
    const { deleted = [], started } = this.#final ?? {};
    this.#final = undefined;
    for (const name of deleted) this.#runner.abandon(name);
    for (const { order } of started?.values() ?? []) this.#runner.launch(order);
  }

  rollback(): void {
    this.#stored.rollback();
    this.#levels.pop();
  }

  /**
   * Executes Start or Stop.
   * @throws {PosternError} `malformed`, `tooLarge`, `conflict`, `full`
   */
  exec(
    [, name = '', leaf]: NodePath,
    _argument: NewNode,
    correlator: string | undefined,
    serverId: string,
  ): number {
    if (leaf !== 'Start') return this.#runner.cancel(name);
    const order = this.#order(name, serverId);
    // An order of this name that runs and was deleted before, in the same package, is no obstacle.
    const isReplaced = this.#levels.some(({ deleted }) => deleted.has(name));
    const status = isReplaced ? DmStatus.AcceptedForProcessing : this.#runner.admit(order);
    const start = { order, correlator };
    const level = this.#levels.at(-1);
    if (level) level.started.set(name, start);
    else this.#startNow(start);
    return status;
  }

  /** Outside of a level of changes. */
  #startNow({ order, correlator }: Start<O>): void {
    this.#runner.record(order, correlator);
    this.#runner.launch(order);
  }

  #liveView(path: NodePath, name: string): NodeView | undefined {
    const description = describe(this.#description, path);
    if (!description) return undefined;
    const { format, access, children } = description;
    const base = { format, access, permanent: true };
    const [, , group = '', leaf] = path;
    if (children) return { ...base, children: this.childrenOf(name, group) ?? Object.keys(children) };
    if (format === 'null') return base;
    const value = this.valueOf(name, group, leaf);
    return value === undefined ? undefined : { ...base, value };
  }
}
