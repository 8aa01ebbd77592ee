import { DmError } from '../dm/dm-error.ts';
import { DmStatus } from '../dm/status.ts';
import type { StoredBranch } from '../dm/stored-branch.ts';
import type { NewNode, NodeView, TreeBranch } from '../dm/tree.ts';
import { describe } from '../syncml/ddf.ts';
import type { FanoutOrder } from './fanout-order.ts';
import { type FanoutSummary, summaryXml } from './fanout-result.ts';
import { gwFanout, liveFanoutNodes } from './gw-fanout.ts';

/** What runs fan-outs. */
export interface FanoutRunner {
  start(order: FanoutOrder, correlator: string | undefined): number;
  cancel(name: string): number;
  forget(name: string): void;
  summary(name: string): FanoutSummary;
}

const live: ReadonlySet<string> = new Set(liveFanoutNodes);

type Path = readonly string[];

/** `./GwFanout`: what the DM server wrote, with what the gateway knows of it. */
export class FanoutBranch implements TreeBranch {
  readonly #stored: StoredBranch;
  readonly #runner: FanoutRunner;
  readonly #order: (name: string) => FanoutOrder;
  /** Fan-outs that each open level of changes deleted: they are forgotten when that is final. */
  readonly #deleted: string[][] = [];

  constructor(stored: StoredBranch, runner: FanoutRunner, order: (name: string) => FanoutOrder) {
    this.#stored = stored;
    this.#runner = runner;
    this.#order = order;
  }

  view(path: Path): NodeView | undefined {
    const [list, name, leaf] = path;
    if (list !== 'Fanout' || name === undefined) return this.#stored.view(path);
    const fanout = this.#stored.view([list, name]);
    if (!fanout || leaf === undefined)
      return fanout && { ...fanout, children: [...(fanout.children ?? []), ...liveFanoutNodes] };
    return live.has(leaf) ? this.#liveView(path, name) : this.#stored.view(path);
  }

  potential(path: Path) {
    return live.has(path[2] ?? '') ? undefined : this.#stored.potential(path);
  }

  add(path: Path, node: NewNode): void {
    this.#stored.add(path, node);
  }

  replace(path: Path, node: NewNode): void {
    this.#stored.replace(path, node);
  }

  delete(path: Path): void {
    this.#stored.delete(path);
    const [, name] = path;
    if (path.length === 2 && name !== undefined) this.#deleted.at(-1)?.push(name);
  }

  rename(path: Path): void {
    // What it came to is kept by its name.
    throw new DmError(DmStatus.CommandNotAllowed, `${path.at(-1)} keeps its name`);
  }

  retitle(path: Path, title: string): void {
    this.#stored.retitle(path, title);
  }

  begin(): void {
    this.#stored.begin();
    this.#deleted.push([]);
  }

  commit(): void {
    this.#stored.commit();
    const names = this.#deleted.pop() ?? [];
    const outer = this.#deleted.at(-1);
    if (outer) outer.push(...names);
    else for (const name of names) this.#runner.forget(name);
  }

  rollback(): void {
    this.#stored.rollback();
    this.#deleted.pop();
  }

  /** @throws {PosternError} `malformed`, `tooLarge`, `conflict`, `full` */
  exec([, name = '', leaf]: Path, _argument: NewNode, correlator: string | undefined): number {
    return leaf === 'Start' ? this.#runner.start(this.#order(name), correlator) : this.#runner.cancel(name);
  }

  #liveView(path: Path, name: string): NodeView | undefined {
    const description = describe(gwFanout.root, path);
    if (!description) return undefined;
    const { format, access, children } = description;
    const base = { format, access, permanent: true };
    if (children) return { ...base, children: Object.keys(children) };
    if (format === 'null') return base;
    const summary = this.#runner.summary(name);
    const { state, total, done, failed, pending } = summary;
    switch (path.at(-1)) {
      case 'State':
        return { ...base, value: String(state) };
      case 'Results': {
        const format = Number(this.#stored.text('Fanout', name, 'ReturnFormat') ?? 0);
        return { ...base, value: summaryXml(summary, format) };
      }
      case 'Total':
        return { ...base, value: String(total) };
      case 'Done':
        return { ...base, value: String(done) };
      case 'Failed':
        return { ...base, value: String(failed) };
      default:
        return { ...base, value: String(pending) };
    }
  }
}
