import { hashedName } from '../base/hashed-name.ts';
import type { StoredBranch } from '../dm/stored-branch.ts';
import type { NodeDescription } from '../wire/syncml/ddf.ts';
import { type CampaignOrder, liveCampaignNodes } from './campaign.ts';
import { type CampaignSummary, type DeviceOutcome, detailXml, summaryXml } from './campaign-result.ts';
import { type OrderRunner, StartedBranch } from './started-branch.ts';

/** Runs the campaigns of one kind. A campaign is known by the name of its node. It starts with 200 when it has no devices. */
export interface CampaignRunner<O extends CampaignOrder> extends OrderRunner<O> {
  summary(name: string): CampaignSummary;
  counts(name: string): Omit<CampaignSummary, 'outcomes'>;
  /** DevIds of the targets. */
  devices(name: string): readonly string[];
  /** Undefined while the device has not ended. */
  outcome(name: string, device: string): DeviceOutcome | undefined;
}

/** The campaigns of one kind as a branch. */
export class CampaignBranch<O extends CampaignOrder> extends StartedBranch<O> {
  readonly #returnFormat: (name: string) => number;
  readonly #runner: CampaignRunner<O>;

  /**
   * @param branch `list` is the name of the node below which the campaigns are
   * @param order reads the order of a campaign from its nodes, for the server that starts it
   */
  constructor(
    branch: { stored: StoredBranch; description: NodeDescription; list: string },
    runner: CampaignRunner<O>,
    order: (name: string, server: string) => O,
  ) {
    super({ ...branch, live: liveCampaignNodes }, runner, order);
    this.#returnFormat = (name) => Number(branch.stored.text(branch.list, name, 'ReturnFormat') ?? 0);
    this.#runner = runner;
    this.plant();
  }

  protected override childrenOf(name: string, group: string): readonly string[] | undefined {
    return group === 'Detail' ? this.#runner.devices(name).map(hashedName) : undefined;
  }

  protected override valueOf(name: string, group: string, leaf: string | undefined): string | undefined {
    if (group === 'Detail') return this.#detail(name, leaf);
    if (group === 'Results') return summaryXml(this.#runner.summary(name), this.#returnFormat(name));
    const { state, total, done, failed, pending } = this.#runner.counts(name);
    if (group === 'State') return String(state);
    const progress: Readonly<Record<string, number>> = { Total: total, Done: done, Failed: failed };
    return String(progress[leaf ?? ''] ?? pending);
  }

  #detail(name: string, record: string | undefined): string | undefined {
    const device = this.#runner.devices(name).find((each) => hashedName(each) === record);
    const outcome = device === undefined ? undefined : this.#runner.outcome(name, device);
    return outcome && detailXml(outcome);
  }
}
