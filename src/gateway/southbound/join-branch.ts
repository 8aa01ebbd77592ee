import { DmError } from '../../dm/dm-error.ts';
import { OrderBranch } from '../../dm/order-branch.ts';
import { DmStatus } from '../../dm/status.ts';
import type { NewNode, NodeView, TreeBranch } from '../../dm/tree-branch.ts';
import type { NodePath } from '../../dm/uri.ts';
import { gwJoin } from '../../mo/gw-join.ts';
import { describe } from '../../wire/syncml/ddf.ts';
import { joinLimits } from './join-window.ts';
import type { Joins } from './joins.ts';

/** What a DM server has ordered: how the next window is, and what is to be done with the window. */
interface Order {
  readonly Minutes?: number;
  readonly Devices?: number;
  readonly action?: 'Open' | 'Close';
  /** Who ordered the action. */
  readonly by?: string;
}

const limits = { Minutes: joinLimits.minutes, Devices: joinLimits.devices } as const;

/**
 * `./GwJoin`: how a DM server opens and closes the join window (docs/gwmo.md). Minutes and devices are in
 * memory: a restart forgets them, as it closes the window.
 */
export class JoinBranch extends OrderBranch<Order> implements TreeBranch {
  readonly #joins: Joins;
  #next = { Minutes: 10, Devices: 1 };

  constructor(joins: Joins) {
    super();
    this.#joins = joins;
  }

  view(path: NodePath): NodeView | undefined {
    const description = describe(gwJoin.root, path);
    if (!description) return undefined;
    const { access, format } = description;
    const permanent = true;
    const [leaf] = path;
    const values = this.#values;
    if (leaf === undefined)
      return {
        format: 'node',
        type: gwJoin.id,
        children: [...Object.keys(values), 'Open', 'Close'],
        access,
        permanent,
      };
    return { format, access, permanent, ...(leaf in values && { value: values[leaf]! }) };
  }

  get #values(): Readonly<Record<string, string>> {
    const { window } = this.#joins.view;
    const { Minutes, Devices } = Object.assign({ ...this.#next }, ...this.open);
    return {
      Minutes: String(Minutes),
      Devices: String(Devices),
      Left: String(window?.left ?? 0),
      Until: window?.until ?? '',
      Joined: JSON.stringify(window?.joined ?? []),
    };
  }

  replace([leaf = '']: NodePath, { value }: NewNode): void {
    const most = limits[leaf as keyof typeof limits];
    const number = Number(value);
    if (!/^\d{1,4}$/.test(String(value)) || number < 1 || number > most)
      throw new DmError(DmStatus.BadRequest, `${leaf} is a whole number of 1 to ${most}`);
    this.order({ [leaf]: number });
  }

  /** @throws {PosternError} `notAllowed` where no device can prove a public key */
  exec([leaf]: NodePath, _: NewNode, __: string | undefined, by: string): number {
    if (leaf === 'Open') this.#joins.demandPossible();
    this.order({ action: leaf === 'Open' ? 'Open' : 'Close', by });
    return DmStatus.Ok;
  }

  protected override ordered({ action, by = '', ...next }: Order): void {
    this.#next = { ...this.#next, ...next };
    if (action === 'Open') this.#joins.open({ minutes: this.#next.Minutes, devices: this.#next.Devices }, by);
    else if (action === 'Close') this.#joins.close();
  }
}
