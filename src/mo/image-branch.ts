import { PosternError } from '../base/errors.ts';
import { DmStatus } from '../dm/status.ts';
import type { StoredBranch } from '../dm/stored-branch.ts';
import type { NewNode, NodeView, TreeBranch } from '../dm/tree-branch.ts';
import type { NodePath } from '../dm/uri.ts';
import { describe } from '../wire/syncml/ddf.ts';
import { gwImageInventory, liveImageNodes } from './gw-image-inventory.ts';

/** What the DM server says of an image. */
export interface ImageOrder {
  readonly name: string;
  readonly url: string | undefined;
  readonly hash: string | undefined;
  readonly signature: string | undefined;
}

export interface ImageStatus {
  readonly state: number;
  readonly size: number;
  readonly received: number;
  readonly result: number;
  /** Why the last operation failed; empty when it did not. */
  readonly reason: string;
  readonly path: string;
}

/** What keeps images. `begin`, `remove` and `forget` become part of the transaction under way. */
export interface ImageKeeper {
  readonly quota: number;
  readonly used: number;
  status(name: string): ImageStatus;
  /**
   * Reserves room for an image that the server pushes, until `take` or `release`.
   * @param others names of images that the same package brings
   * @throws {PosternError} `full`, `tooLarge` when there is no room for this many bytes
   */
  reserve(name: string, bytes: number, others: readonly string[]): void;
  /** Gives the room back for which there was a `reserve`. */
  release(name: string): void;
  /** Takes what the server pushed. The result is in the image's status. */
  take(order: ImageOrder, data: Uint8Array): void;
  /**
   * Whether an image may be downloaded now: returns 202, or 200 when it is there already.
   * @param isReplaced a change before it in the same package ends what is under way or there
   * @param others names of images that the same package brings
   * @throws {PosternError} `malformed` without a URL, `conflict` while the image is being downloaded, `full`
   */
  admit(order: ImageOrder, isReplaced: boolean, others: readonly string[]): number;
  /** Begins an admitted download. */
  begin(order: ImageOrder, server: string, correlator: string | undefined): void;
  /** Stops the download of an image and deletes its bytes. */
  remove(name: string): void;
  /** The same, and deletes what is known of the image. */
  forget(name: string): void;
}

/** What is wanted of an image now. */
export function imageOrder(stored: StoredBranch, name: string): ImageOrder {
  const text = (leaf: string) => stored.text('Images', name, leaf);
  return { name, url: text('PkgURL'), hash: text('Hash')?.toLowerCase(), signature: text('Signature') };
}

const live: ReadonlySet<string> = new Set(liveImageNodes);

/** A change of an image that is made when the package is stored. */
interface Step {
  readonly name: string;
  /** Whether it ends a download, and takes the bytes. */
  readonly ends: boolean;
  readonly run: () => void;
}

/** What one level of changes does to images. An Exec inside an Atomic that fails does nothing. */
interface Level {
  readonly steps: Step[];
  readonly pushed: Map<string, Uint8Array>;
}

/** `./GwImageInventory`: what the DM server wrote, with how the images stand. */
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
    if (list === 'Used') return { ...base, value: String(this.#keeper.used) };
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
    this.#change({ name, ends: true, run: forget });
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
    for (const { name, ends } of level.steps) if (ends) outer.pushed.delete(name);
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

  /** @throws {PosternError} `malformed`, `conflict`, `full` */
  exec(
    [, name = '', , operation]: NodePath,
    _argument: NewNode,
    correlator: string | undefined,
    serverId: string,
  ): number {
    if (operation !== 'Download') {
      this.#change({ name, ends: true, run: () => this.#keeper.remove(name) });
      return DmStatus.Ok;
    }
    const isReplaced = this.#levels.some(({ steps }) =>
      steps.some((step) => step.name === name && step.ends),
    );
    const isBegun = this.#levels.some(({ steps }) => steps.some((step) => step.name === name && !step.ends));
    if (isBegun && !isReplaced) throw new PosternError('conflict', `image ${name} is being downloaded`);
    const order = imageOrder(this.#stored, name);
    const status = this.#keeper.admit(order, isReplaced, this.#coming);
    if (status === DmStatus.AcceptedForProcessing)
      this.#change({ name, ends: false, run: () => this.#keeper.begin(order, serverId, correlator) });
    return status;
  }

  #push(path: NodePath, { value = '' }: NewNode): void {
    const [, name = ''] = path;
    if (!this.#stored.view(['Images', name])) throw new PosternError('notFound', `no image ${name}`);
    const data = typeof value === 'string' ? Buffer.from(value, 'base64') : value;
    this.#keeper.reserve(name, data.length, this.#coming);
    // That it was pushed is a node; what was pushed is a file.
    this.#stored.add(path, { format: 'bin', value: '' });
    const level = this.#levels.at(-1);
    if (level) level.pushed.set(name, data);
    else this.#keeper.take(imageOrder(this.#stored, name), data);
  }

  #change(step: Step): void {
    const level = this.#levels.at(-1);
    if (!level) {
      step.run();
      return;
    }
    level.steps.push(step);
    if (step.ends && level.pushed.delete(step.name)) this.#keeper.release(step.name);
  }

  /** Names of the images that this package brings. */
  get #coming(): readonly string[] {
    return this.#levels.flatMap(({ steps, pushed }) => [
      ...steps.filter(({ ends }) => !ends).map(({ name }) => name),
      ...pushed.keys(),
    ]);
  }

  /** Gives back the room for images that do not come. */
  #release(level: Level | undefined): void {
    for (const name of level?.pushed.keys() ?? [])
      if (!this.#levels.some((outer) => outer.pushed.has(name))) this.#keeper.release(name);
  }

  #value(name: string, leaf: string): string {
    const { state, size, received, result, reason, path } = this.#keeper.status(name);
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
