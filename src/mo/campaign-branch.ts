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
   * Starts a campaign. Returns 202, or 200 when the order has no devices.
   * @throws {PosternError} `conflict` while the campaign runs, `full` when too many run
   */
  start(order: O, correlator: string | undefined): number;
  /** Stops a campaign. Returns 200, or 404 when it does not run. */
  cancel(name: string): number;
  /** Stops a campaign and deletes its outcomes. */
  forget(name: string): void;
  summary(name: string): CampaignSummary;
  counts(name: string): Omit<CampaignSummary, 'outcomes'>;
  /** DevIds of the targets. */
  devices(name: string): readonly string[];
  /** Undefined while the device has not ended. */
  outcome(name: string, device: string): DeviceOutcome | undefined;
}

const live: ReadonlySet<string> = new Set(liveCampaignNodes);

/**
 * The campaigns of one kind as a branch: the orders that the DM server wrote, with the nodes that the gateway answers.
 */
export class CampaignBranch<O extends CampaignOrder> implements TreeBranch {
  readonly #stored: StoredBranch;
  readonly #description: NodeDescription;
  readonly #list: string;
  readonly #runner: CampaignRunner<O>;
  readonly #order: (name: string, server: string) => O;
  /** For each open level of changes, the campaigns that it deleted. They are forgotten when the deletion is final. */
  readonly #deleted: string[][] = [];

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
    if (path.length === 2 && name !== undefined) this.#deleted.at(-1)?.push(name);
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
    this.#forgetEarlier(name);
    return this.#runner.start(this.#order(name, serverId), correlator);
  }

  /**
   * Forgets a campaign that was deleted and added again in one message. At the commit, the one that starts now must not
   * be forgotten in its place.
   */
  #forgetEarlier(name: string): void {
    for (const [at, names] of this.#deleted.entries()) {
      if (!names.includes(name)) continue;
      this.#runner.forget(name);
      this.#deleted[at] = names.filter((each) => each !== name);
    }
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
