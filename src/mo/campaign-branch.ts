import { hashedName } from '../base/hashed-name.ts';
import { DmError } from '../dm/dm-error.ts';
import { DmStatus } from '../dm/status.ts';
import type { StoredBranch } from '../dm/stored-branch.ts';
import type { NewNode, NodeView, TreeBranch } from '../dm/tree-branch.ts';
import type { NodePath } from '../dm/uri.ts';
import { describe, type NodeDescription } from '../wire/syncml/ddf.ts';
import { type CampaignOrder, liveCampaignNodes } from './campaign.ts';
import { type CampaignSummary, type DeviceOutcome, detailXml, summaryXml } from './campaign-result.ts';

/** Runs the campaigns of one kind. A campaign is known by the name of its node. */
export interface CampaignRunner<O extends CampaignOrder> {
  /**
   * Whether a campaign may start. Returns 202, or 200 when the order has no devices.
   * @throws {PosternError} `conflict` while the campaign runs, `full` when too many run
   */
  admit(order: O): number;
  /** Stores an admitted campaign, as part of the transaction under way. */
  record(order: O, correlator: string | undefined): void;
  /** Begins to work on a stored campaign. */
  launch(order: O): void;
  /** Stops a campaign. Returns 200, or 404 when it does not run. */
  cancel(name: string): number;
  /** Deletes what is stored of a campaign, as part of the transaction under way. */
  erase(name: string): void;
  /** Stops work on an erased campaign. */
  abandon(name: string): void;
  summary(name: string): CampaignSummary;
  counts(name: string): Omit<CampaignSummary, 'outcomes'>;
  /** DevIds of the targets. */
  devices(name: string): readonly string[];
  /** Undefined while the device has not ended. */
  outcome(name: string, device: string): DeviceOutcome | undefined;
}

const live: ReadonlySet<string> = new Set(liveCampaignNodes);

interface Start<O> {
  readonly order: O;
  readonly correlator: string | undefined;
}

/**
 * What one level of changes does to campaigns. A campaign starts when all of the package is stored: an Exec of Start inside
 * an Atomic that fails starts nothing.
 */
interface Level<O> {
  readonly deleted: Set<string>;
  readonly started: Map<string, Start<O>>;
}

/**
 * The campaigns of one kind as a branch: the orders that the DM server wrote, with the nodes that the gateway answers.
 */
export class CampaignBranch<O extends CampaignOrder> implements TreeBranch {
  readonly #stored: StoredBranch;
  readonly #description: NodeDescription;
  readonly #list: string;
  readonly #runner: CampaignRunner<O>;
  readonly #order: (name: string, server: string) => O;
  /** What each open level of changes deleted and started. */
  readonly #levels: Level<O>[] = [];
  /** The same of all levels, once it is stored: what runs follows it. */
  #final: Level<O> | undefined;

  /**
   * @param branch `list` is the name of the node below which the campaigns are
   * @param order reads the order of a campaign from its nodes, for the server that starts it
   */
  constructor(
    { stored, description, list }: { stored: StoredBranch; description: NodeDescription; list: string },
    runner: CampaignRunner<O>,
    order: (name: string, server: string) => O,
  ) {
    this.#stored = stored;
    this.#description = description;
    this.#list = list;
    this.#runner = runner;
    this.#order = order;
    if (!stored.view([list])) stored.plant([list], { name: list, format: 'node' });
  }

  view(path: NodePath): NodeView | undefined {
    const [list, name, leaf] = path;
    if (list !== this.#list || name === undefined) return this.#stored.view(path);
    const campaign = this.#stored.view([list, name]);
    if (!campaign || leaf === undefined)
      return campaign && { ...campaign, children: [...(campaign.children ?? []), ...liveCampaignNodes] };
    return live.has(leaf) ? this.#liveView(path, name) : this.#stored.view(path);
  }

  potential(path: NodePath) {
    return live.has(path[2] ?? '') ? undefined : this.#stored.potential(path);
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
    // The outcomes of a campaign are stored under its name.
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
    // A campaign of this name that runs and was deleted before, in the same package, is no obstacle.
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
    const [, , group, leaf] = path;
    if (children && group === 'Detail')
      return { ...base, children: this.#runner.devices(name).map(hashedName) };
    if (children) return { ...base, children: Object.keys(children) };
    if (format === 'null') return base;
    const value = group === 'Detail' ? this.#detail(name, leaf) : this.#value(name, group, leaf);
    return value === undefined ? undefined : { ...base, value };
  }

  #detail(name: string, record: string | undefined): string | undefined {
    const device = this.#runner.devices(name).find((each) => hashedName(each) === record);
    const outcome = device === undefined ? undefined : this.#runner.outcome(name, device);
    return outcome && detailXml(outcome);
  }

  #value(name: string, group: string | undefined, leaf: string | undefined): string {
    if (group === 'Results') {
      const format = Number(this.#stored.text(this.#list, name, 'ReturnFormat') ?? 0);
      return summaryXml(this.#runner.summary(name), format);
    }
    const { state, total, done, failed, pending } = this.#runner.counts(name);
    if (group === 'State') return String(state);
    const progress: Readonly<Record<string, number>> = { Total: total, Done: done, Failed: failed };
    return String(progress[leaf ?? ''] ?? pending);
  }
}
