import type { Clock } from '../base/clock.ts';
import { PosternError } from '../base/errors.ts';
import type { OutgoingAlert } from '../dm/client-session.ts';
import { DmError } from '../dm/dm-error.ts';
import type { NodeStore } from '../dm/node-store.ts';
import { AlertCode, DmStatus } from '../dm/status.ts';
import { StoredBranch } from '../dm/stored-branch.ts';
import type { NewNode, NodeView, TreeBranch } from '../dm/tree-branch.ts';
import type { NodePath } from '../dm/uri.ts';
import type { TndsNode } from '../wire/syncml/tnds.ts';
import { FumoState, fumo } from './fumo.ts';
import { FumoAlert } from './identifiers.ts';

/** Download, Update or DownloadAndUpdate. */
export type FirmwareOperation = keyof typeof FumoAlert;
export const isFirmwareOperation = (name: string): name is FirmwareOperation =>
  Object.hasOwn(FumoAlert, name);

/** An operation that a server started. An alert reports the outcome to it. */
export interface FirmwareOrder {
  readonly operation: FirmwareOperation;
  /** URL of the package. Empty for Update. */
  readonly url: string;
  /** ServerID. */
  readonly server: string;
  readonly correlator: string | undefined;
}

/** Does the operations. One runs at a time. */
export interface FirmwareRunner {
  /**
   * Whether an operation may start now.
   * @throws {PosternError} `conflict` while another one runs, `malformed` for an Update without a package
   */
  admit(order: FirmwareOrder): void;
  /** Stores an admitted operation, as part of the transaction under way. */
  record(order: FirmwareOrder): void;
  /** Begins to work on a stored operation, which ends later. */
  launch(order: FirmwareOrder): void;
  /**
   * Returns what cancels the operation under way. When absent, no operation can be cancelled.
   * @throws {PosternError} `conflict` when there is none, or its installation has begun
   */
  cancel?(): () => void;
  /** PEM texts of the revocation lists in force. Absent where signers of packages cannot be revoked. */
  lists?(): string;
  /**
   * Puts a revocation list in force.
   * @throws {PosternError} `conflict` when no authority has signed it, or a newer one is in force
   */
  revoke?(list: string): Promise<void>;
}

/** What the branch is made of. */
export interface FirmwareBranchParts {
  readonly nodes: NodeStore;
  readonly clock: Clock;
  readonly runner: FirmwareRunner;
}

/** What happens when a package is stored. `record` is part of its transaction, `launch` follows it. */
interface Step {
  readonly record: () => void;
  readonly launch: () => void;
}

/** The nodes of a new branch. */
const initial: readonly TndsNode[] = [
  { name: 'Download', format: 'node', children: [{ name: 'PkgURL', format: 'chr', value: '' }] },
  { name: 'Update', format: 'node' },
  { name: 'DownloadAndUpdate', format: 'node', children: [{ name: 'PkgURL', format: 'chr', value: '' }] },
  { name: 'State', format: 'int', value: String(FumoState.Idle) },
];
const listPath = ['Ext', 'RevocationList'] as const;
/**
 * `./FwUpdate` (OMA FUMO 1.0): the nodes that a server writes and executes. An operation starts when all of the package is
 * stored: an Exec inside an Atomic that fails starts nothing.
 */
export class FirmwareBranch implements TreeBranch {
  readonly #parts: FirmwareBranchParts;
  readonly #stored: StoredBranch;
  /** What each open level of changes starts: one operation at most in all of them. */
  readonly #levels: Step[][] = [];
  /** The same of all levels, once it is stored. */
  #final: Step[] = [];

  constructor(parts: FirmwareBranchParts) {
    this.#parts = parts;
    const { nodes, clock, runner } = parts;
    this.#stored = new StoredBranch('FwUpdate', fumo.root, nodes, { type: fumo.id, clock });
    if (runner.lists) this.#stored.derive(listPath, () => runner.lists!());
    const extensions: TndsNode[] = [];
    if (runner.lists) extensions.push({ name: listPath[1], format: 'chr', value: '' });
    if (runner.cancel) extensions.push({ name: 'Cancel', format: 'null' });
    if (extensions.length > 0) this.#plant([], { name: listPath[0], format: 'node' });
    for (const node of extensions) this.#plant([listPath[0]], node);
    for (const node of initial) this.#plant([], node);
  }

  /** Plants a node that is not there. */
  #plant(parent: NodePath, node: TndsNode): void {
    const path = [...parent, node.name];
    if (!this.#stored.view(path)) this.#stored.plant(path, node);
  }

  /** State of the update, one of `FumoState`. */
  get state(): number {
    return Number(this.#stored.text('State'));
  }

  set state(state: number) {
    this.#stored.plant(['State'], { name: 'State', format: 'int', value: String(state) });
  }

  /** Version of the package, as the server wrote it. */
  get packageVersion(): string | undefined {
    return this.#stored.text('PkgVersion');
  }

  view(path: NodePath): NodeView | undefined {
    return this.#stored.view(path);
  }

  potential(path: NodePath) {
    return this.#stored.potential(path);
  }

  add(path: NodePath, node: NewNode): void {
    this.#stored.add(path, node);
  }

  /**
   * A revocation list is in force at once, and stays so when the Atomic around it fails: it is the word of its authority, and not of
   * the server.
   */
  replace(path: NodePath, node: NewNode): Promise<void> | undefined {
    if (path[0] === listPath[0]) return this.#parts.runner.revoke?.(String(node.value));
    this.#stored.replace(path, node);
    return undefined;
  }

  begin(): void {
    this.#stored.begin();
    this.#levels.push([]);
  }

  commit(): void {
    const level = this.#levels.pop() ?? [];
    this.#stored.commit();
    const outer = this.#levels.at(-1);
    if (outer) {
      outer.push(...level);
      return;
    }
    for (const { record } of level) record();
    this.#final = level;
  }

  committed(): void {
    for (const { launch } of this.#final.splice(0)) launch();
  }

  rollback(): void {
    this.#stored.rollback();
    this.#levels.pop();
  }

  /**
   * Starts an operation, or cancels the one under way.
   * @throws {DmError} 405 for a node that is not an operation
   * @throws {PosternError} `conflict` while another operation runs, or when none can be cancelled; `malformed` without a URL or
   * a package
   */
  exec(
    [operation = '', extension]: NodePath,
    _argument: NewNode,
    correlator: string | undefined,
    serverId: string,
  ): number {
    const { runner } = this.#parts;
    if (extension === 'Cancel' && runner.cancel) {
      this.#take({ record: () => {}, launch: runner.cancel() });
      return DmStatus.Ok;
    }
    if (!isFirmwareOperation(operation))
      throw new DmError(DmStatus.CommandNotAllowed, `${operation} cannot be executed`);
    const url = operation === 'Update' ? '' : (this.#stored.text(operation, 'PkgURL') ?? '');
    if (operation !== 'Update' && url === '') throw new PosternError('malformed', 'no PkgURL');
    const order = { operation, url, server: serverId, correlator };
    if (this.#levels.some((level) => level.length > 0))
      throw new PosternError('conflict', 'the same package starts another operation');
    runner.admit(order);
    this.#take({ record: () => runner.record(order), launch: () => runner.launch(order) });
    return DmStatus.AcceptedForProcessing;
  }

  /** Does what was ordered when the package is stored: at once when no package is open. */
  #take(step: Step): void {
    const level = this.#levels.at(-1);
    if (level) level.push(step);
    else {
      step.record();
      step.launch();
    }
  }
}

/**
 * The generic alert that reports the outcome of an operation to the server (OMA FUMO 1.0, section 8).
 * @param correlator correlator of the Exec
 * @param result one of `FumoResult`
 */
export function firmwareAlert(
  operation: FirmwareOperation,
  correlator: string | undefined,
  result: number,
): Omit<OutgoingAlert, 'settled'> {
  return {
    code: AlertCode.Generic,
    ...(correlator !== undefined && { correlator }),
    items: [
      {
        source: { locUri: `./FwUpdate/${operation}` },
        meta: { type: FumoAlert[operation], format: 'int' },
        data: String(result),
      },
    ],
  };
}
