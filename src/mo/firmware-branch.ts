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

export type FirmwareOperation = keyof typeof FumoAlert;
export const isFirmwareOperation = (name: string): name is FirmwareOperation =>
  Object.hasOwn(FumoAlert, name);

/** An operation that a server began, and is to hear of. */
export interface FirmwareOrder {
  readonly operation: FirmwareOperation;
  /** Where the package is; none for Update. */
  readonly url: string;
  readonly server: string;
  readonly correlator: string | undefined;
}

export interface FirmwareBranchParts {
  readonly nodes: NodeStore;
  readonly clock: Clock;
  /**
   * Begins an operation, which ends later.
   * @throws {PosternError} `conflict` while another runs, `malformed` when no package is there
   */
  readonly begin: (order: FirmwareOrder) => void;
}

const initial: readonly TndsNode[] = [
  { name: 'Download', format: 'node', children: [{ name: 'PkgURL', format: 'chr', value: '' }] },
  { name: 'Update', format: 'node' },
  { name: 'DownloadAndUpdate', format: 'node', children: [{ name: 'PkgURL', format: 'chr', value: '' }] },
  { name: 'State', format: 'int', value: String(FumoState.Idle) },
];

/** `./FwUpdate` (OMA FUMO 1.0): what a server sets and executes; what comes of it is up to who made this. */
export class FirmwareBranch implements TreeBranch {
  readonly #parts: FirmwareBranchParts;
  readonly #stored: StoredBranch;

  constructor(parts: FirmwareBranchParts) {
    this.#parts = parts;
    const { nodes, clock } = parts;
    this.#stored = new StoredBranch('FwUpdate', fumo.root, nodes, { type: fumo.id, clock });
    for (const node of initial) if (!this.#stored.view([node.name])) this.#stored.plant([node.name], node);
  }

  get state(): number {
    return Number(this.#stored.text('State'));
  }

  set state(state: number) {
    this.#stored.plant(['State'], { name: 'State', format: 'int', value: String(state) });
  }

  /** Version that the server gave for the package. */
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

  replace(path: NodePath, node: NewNode): void {
    this.#stored.replace(path, node);
  }

  begin(): void {
    this.#stored.begin();
  }

  commit(): void {
    this.#stored.commit();
  }

  rollback(): void {
    this.#stored.rollback();
  }

  /** @throws {PosternError} `conflict` while another runs, `malformed` without a URL or a package */
  exec(
    [operation = '']: NodePath,
    _argument: NewNode,
    correlator: string | undefined,
    serverId: string,
  ): number {
    if (!isFirmwareOperation(operation))
      throw new DmError(DmStatus.CommandNotAllowed, `${operation} takes no Exec`);
    const url = operation === 'Update' ? '' : (this.#stored.text(operation, 'PkgURL') ?? '');
    if (operation !== 'Update' && url === '') throw new PosternError('malformed', 'no PkgURL');
    this.#parts.begin({ operation, url, server: serverId, correlator });
    return DmStatus.AcceptedForProcessing;
  }
}

/** The generic alert by which a server hears what an operation came to (OMA FUMO 1.0, section 8). */
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
