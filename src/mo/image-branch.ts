import { PosternError } from '../base/errors.ts';
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
  readonly path: string;
}

/** What keeps images. */
export interface ImageKeeper {
  readonly quota: number;
  readonly used: number;
  status(name: string): ImageStatus;
  /** @throws {PosternError} `full`, `tooLarge` when there will be no room for this many bytes */
  makeRoom(name: string, bytes: number): void;
  /** Takes what the server pushed. */
  take(order: ImageOrder, data: Uint8Array): void;
  /** Answers with 202, or 200 when it is there already. */
  download(order: ImageOrder, server: string, correlator: string | undefined): number;
  remove(name: string): void;
  forget(name: string): void;
}

/** What is wanted of an image now. */
export function imageOrder(stored: StoredBranch, name: string): ImageOrder {
  const text = (leaf: string) => stored.text('Images', name, leaf);
  return { name, url: text('PkgURL'), hash: text('Hash')?.toLowerCase(), signature: text('Signature') };
}

const live: ReadonlySet<string> = new Set(liveImageNodes);

/** Changes that are made when all of a package is final. */
interface Level {
  readonly pushed: Map<string, Uint8Array>;
  readonly deleted: Set<string>;
}

/** `./GwImageInventory`: what the DM server wrote, with how the images stand. */
export class ImageBranch implements TreeBranch {
  readonly #stored: StoredBranch;
  readonly #keeper: ImageKeeper;
  readonly #levels: Level[] = [];

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
    if (path.length === 2 && name !== undefined) this.#change((level) => level.deleted.add(name));
  }

  retitle(path: NodePath, title: string): void {
    this.#stored.retitle(path, title);
  }

  begin(): void {
    this.#stored.begin();
    this.#levels.push({ pushed: new Map(), deleted: new Set() });
  }

  commit(): void {
    this.#stored.commit();
    const level = this.#levels.pop();
    const outer = this.#levels.at(-1);
    if (!level) return;
    if (!outer) {
      this.#finish(level);
      return;
    }
    for (const name of level.deleted) {
      outer.pushed.delete(name);
      outer.deleted.add(name);
    }
    for (const [name, data] of level.pushed) outer.pushed.set(name, data);
  }

  rollback(): void {
    this.#stored.rollback();
    this.#levels.pop();
  }

  exec(
    [, name = '', , operation]: NodePath,
    _argument: NewNode,
    correlator: string | undefined,
    serverId: string,
  ): number {
    if (operation === 'Download')
      return this.#keeper.download(imageOrder(this.#stored, name), serverId, correlator);
    this.#keeper.remove(name);
    return 200;
  }

  #push(path: NodePath, { value = '' }: NewNode): void {
    const [, name = ''] = path;
    if (!this.#stored.view(['Images', name])) throw new PosternError('notFound', `no image ${name}`);
    const data = typeof value === 'string' ? Buffer.from(value, 'base64') : value;
    this.#keeper.makeRoom(name, data.length);
    // That it was pushed is a node; what was pushed is a file.
    this.#stored.add(path, { format: 'bin', value: '' });
    this.#change((level) => level.pushed.set(name, data));
  }

  #change(change: (level: Level) => void): void {
    const level = this.#levels.at(-1);
    if (level) {
      change(level);
      return;
    }
    const own: Level = { pushed: new Map(), deleted: new Set() };
    change(own);
    this.#finish(own);
  }

  #finish({ pushed, deleted }: Level): void {
    for (const name of deleted) if (!this.#stored.view(['Images', name])) this.#keeper.forget(name);
    for (const [name, data] of pushed) this.#keeper.take(imageOrder(this.#stored, name), data);
  }

  #value(name: string, leaf: string): string {
    const { state, size, received, result, path } = this.#keeper.status(name);
    const values: Readonly<Record<string, string>> = {
      Size: String(size),
      Received: String(received),
      State: String(state),
      Result: String(result),
      LocalURL: path,
    };
    return values[leaf] ?? '';
  }
}
