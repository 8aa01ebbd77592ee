import { PosternError } from '../base/errors.ts';
import { DmStatus } from '../dm/status.ts';
import type { StoredBranch } from '../dm/stored-branch.ts';
import type { NewNode, NodeView, TreeBranch } from '../dm/tree-branch.ts';
import type { NodePath } from '../dm/uri.ts';
import { describe } from '../wire/syncml/ddf.ts';
import { gwImageInventory, ImageState, liveImageNodes } from './gw-image-inventory.ts';

/** An image as the DM server ordered it. */
export interface ImageOrder {
  /** Name of the image's node. */
  readonly name: string;
  readonly url: string | undefined;
  /** SHA-256 in lower-case hexadecimal. */
  readonly hash: string | undefined;
  /** Base64. */
  readonly signature: string | undefined;
  /** Whether the earlier version may be deleted when both do not fit. False when absent. */
  readonly dropsEarlier?: boolean;
}

/** The current state of an image. */
export interface ImageStatus {
  /** One of `ImageState`. */
  readonly state: number;
  /** Bytes; 0 while unknown. */
  readonly size: number;
  /** Bytes received so far. */
  readonly received: number;
  /** `FumoResult` of the last operation; 0 before the first one. */
  readonly result: number;
  /** Why the last operation failed; empty when it did not. */
  readonly reason: string;
  /** Path from which devices get the image over CoAP. */
  readonly path: string;
}

/**
 * Stores the data of images. An image is known by the name of its node. `begin`, `remove` and `forget` become part of the
 * transaction under way.
 */
export interface ImageKeeper {
  /** Largest number of bytes of all images together. */
  readonly quota: number;
  /** Bytes of all images together. */
  readonly used: number;
  status(name: string): ImageStatus;
  /**
   * Reserves room for an image that the server pushes, until `take` or `release`. No other image is deleted for it before
   * `take`: the package may fail.
   * @param others names of images that the same package brings
   * @throws {PosternError} `full` when there is not enough room, `tooLarge` above the quota
   */
  reserve(order: ImageOrder, bytes: number, others: readonly string[]): void;
  /** Gives the room back for which there was a `reserve`. */
  release(name: string): void;
  /** Stores an image that the server wrote as PkgData. The result is in the image's status. */
  take(order: ImageOrder, data: Uint8Array): void;
  /**
   * Whether an image may be downloaded now: returns 202, or 200 when it is there already.
   * @param isReplaced a change before it in the same package ends what is under way or there
   * @param others names of images that the same package brings
   * @throws {PosternError} `malformed` without a URL, `conflict` while it is downloaded, `full`
   */
  admit(order: ImageOrder, isReplaced: boolean, others: readonly string[]): number;
  /** Begins an admitted download. */
  begin(order: ImageOrder, server: string, correlator: string | undefined): void;
  /** Stops the download of an image, and deletes its data. */
  remove(name: string): void;
  /** Deletes the data and the record of an image. */
  forget(name: string): void;
}

/** Reads the order for an image from its nodes. */
export function imageOrder(stored: StoredBranch, name: string): ImageOrder {
  const text = (leaf: string) => stored.text('Images', name, leaf);
  return {
    name,
    url: text('PkgURL'),
    hash: text('Hash')?.toLowerCase(),
    signature: text('Signature'),
    dropsEarlier: text('DropEarlier') === 'true',
  };
}

const live: ReadonlySet<string> = new Set(liveImageNodes);

/** A change of an image that is made when the package is stored. All but `begin` end a download and delete the data. */
interface Step {
  readonly kind: 'begin' | 'remove' | 'delete';
  readonly name: string;
  readonly run: () => void;
}

/** Changes of one level, which are made when the outermost level is committed. An Exec inside an Atomic that fails does nothing. */
interface Level {
  readonly steps: Step[];
  /** Data of images that the server wrote, by name. */
  readonly pushed: Map<string, Uint8Array>;
}

/** `./GwImageInventory`: the orders that the DM server wrote, with the nodes that the gateway answers. */
export class ImageBranch implements TreeBranch {
  readonly #stored: StoredBranch;
  readonly #keeper: ImageKeeper;
  readonly #levels: Level[] = [];
  /** What the outermost level did, once it is stored. */
  #final: Level | undefined;

  constructor(stored: StoredBranch, keeper: ImageKeeper) {
    this.#stored = stored;
    this.#keeper = keeper;
    if (!stored.view(['Images'])) stored.plant(['Images'], { name: 'Images', format: 'node' });
  }

  view(path: NodePath): NodeView | undefined {
    const [list, name, leaf, operation] = path;
    const { access = [], format = 'node' } = describe(gwImageInventory.root, path) ?? {};
    const base = { access, format, permanent: true };
    if (list === undefined) {
      const root = this.#stored.view(path);
      return root && { ...root, children: ['Images', 'Quota', 'Used'] };
    }
    if (list === 'Quota') return { ...base, value: String(this.#keeper.quota) };
    if (list === 'Used') return { ...base, value: String(this.#used) };
    const image = name === undefined ? undefined : this.#stored.view(['Images', name]);
    if (name === undefined || !image) return this.#stored.view(path);
    if (leaf === undefined) return { ...image, children: [...(image.children ?? []), ...liveImageNodes] };
    if (!live.has(leaf)) return this.#stored.view(path);
    if (leaf !== 'Operations') return { ...base, value: this.#value(name, leaf) };
    if (operation === undefined) return { ...base, children: ['Download', 'Remove'] };
    return operation === 'Download' || operation === 'Remove' ? base : undefined;
  }

  potential(path: NodePath) {
    return path[0] !== 'Images' || live.has(path[2] ?? '') ? undefined : this.#stored.potential(path);
  }

  /** @throws {PosternError} `full`, `tooLarge` */
  add(path: NodePath, node: NewNode): void {
    if (path[2] === 'PkgData') this.#push(path, node);
    else this.#stored.add(path, node);
  }

  /** @throws {PosternError} `full`, `tooLarge` */
  replace(path: NodePath, node: NewNode): void {
    if (path[2] === 'PkgData') this.#push(path, node);
    else this.#stored.replace(path, node);
  }

  delete(path: NodePath): void {
    this.#stored.delete(path);
    const [, name] = path;
    if (path.length !== 2 || name === undefined) return;
    // An image that is added again in the same package keeps its bytes until there are others.
    const forget = () => {
      if (!this.#stored.view(['Images', name])) this.#keeper.forget(name);
    };
    this.#change({ kind: 'delete', name, run: forget });
  }

  retitle(path: NodePath, title: string): void {
    this.#stored.retitle(path, title);
  }

  begin(): void {
    this.#stored.begin();
    // A package that could not be stored.
    if (this.#levels.length === 0) this.#release(this.#final);
    this.#final = undefined;
    this.#levels.push({ steps: [], pushed: new Map() });
  }

  commit(): void {
    const level = this.#levels.pop();
    this.#stored.commit();
    const outer = this.#levels.at(-1);
    if (!level) return;
    if (!outer) {
      this.#final = level;
      for (const { run } of level.steps) run();
      return;
    }
    outer.steps.push(...level.steps);
    for (const { kind, name } of level.steps) if (kind !== 'begin') outer.pushed.delete(name);
    for (const [name, data] of level.pushed) outer.pushed.set(name, data);
  }

  committed(): void {
    const { pushed = [] } = this.#final ?? {};
    this.#final = undefined;
    for (const [name, data] of pushed) this.#keeper.take(imageOrder(this.#stored, name), data);
  }

  rollback(): void {
    this.#stored.rollback();
    this.#release(this.#levels.pop());
  }

  /** @throws {PosternError} as `ImageKeeper.admit` */
  exec(
    [, name = '', , operation]: NodePath,
    _argument: NewNode,
    correlator: string | undefined,
    serverId: string,
  ): number {
    if (operation !== 'Download') {
      this.#change({ kind: 'remove', name, run: () => this.#keeper.remove(name) });
      return DmStatus.Ok;
    }
    const last = this.#last(name);
    if (last?.kind === 'begin') throw new PosternError('conflict', `image ${name} is being downloaded`);
    const order = imageOrder(this.#stored, name);
    const status = this.#keeper.admit(order, last !== undefined, this.#coming);
    const run = () => this.#keeper.begin(order, serverId, correlator);
    if (status === DmStatus.AcceptedForProcessing) this.#change({ kind: 'begin', name, run });
    return status;
  }

  #push(path: NodePath, { value = '' }: NewNode): void {
    const [, name = ''] = path;
    if (!this.#stored.view(['Images', name])) throw new PosternError('notFound', `no image ${name}`);
    const data = typeof value === 'string' ? Buffer.from(value, 'base64') : value;
    this.#keeper.reserve(imageOrder(this.#stored, name), data.length, this.#coming);
    // The node PkgData only says that the image was pushed. Its data goes into a file.
    this.#stored.add(path, { format: 'bin', value: '' });
    const level = this.#levels.at(-1);
    if (level) level.pushed.set(name, data);
    else this.#keeper.take(imageOrder(this.#stored, name), data);
  }

  /** Makes a change when the outermost level is stored, or at once without a level. */
  #change(step: Step): void {
    const level = this.#levels.at(-1);
    if (!level) {
      step.run();
      return;
    }
    level.steps.push(step);
    if (step.kind !== 'begin' && level.pushed.delete(step.name)) this.#keeper.release(step.name);
  }

  /** The last change of an image in this package. */
  #last(name: string): Step | undefined {
    return this.#levels.flatMap(({ steps }) => steps).findLast((step) => step.name === name);
  }

  /** How an image stands, as if this package were stored. */
  #status(name: string): ImageStatus {
    const status = this.#keeper.status(name);
    const kind = this.#last(name)?.kind;
    const none = { ...status, state: ImageState.Idle, size: 0, received: 0, result: 0, reason: '' };
    if (kind === 'begin') return { ...none, state: ImageState.Coming };
    return kind === 'remove' || !this.#stored.view(['Images', name]) ? none : status;
  }

  /** Bytes that images take, as if this package were stored. */
  get #used(): number {
    const names = new Set(this.#levels.flatMap(({ steps }) => steps.map(({ name }) => name)));
    const freed = (name: string) => this.#keeper.status(name).received - this.#status(name).received;
    const ending = [...names].filter((name) => this.#last(name)?.kind !== 'begin');
    return ending.reduce((sum, name) => sum - freed(name), this.#keeper.used);
  }

  /** Names of the images that this package brings. */
  get #coming(): readonly string[] {
    return this.#levels.flatMap(({ steps, pushed }) => [
      ...steps.filter(({ kind }) => kind === 'begin').map(({ name }) => name),
      ...pushed.keys(),
    ]);
  }

  /** Gives back the room for images that do not come. */
  #release(level: Level | undefined): void {
    for (const name of level?.pushed.keys() ?? [])
      if (!this.#levels.some((outer) => outer.pushed.has(name))) this.#keeper.release(name);
  }

  #value(name: string, leaf: string): string {
    const { state, size, received, result, reason, path } = this.#status(name);
    const values: Readonly<Record<string, string>> = {
      Size: String(size),
      Received: String(received),
      State: String(state),
      Result: String(result),
      Reason: reason,
      LocalURL: path,
    };
    return values[leaf] ?? '';
  }
}
