import { PosternError } from '../base/errors.ts';
import type { StoredBranch } from '../dm/stored-branch.ts';
import type { NewNode, NodeView, TreeBranch } from '../dm/tree-branch.ts';
import type { NodePath } from '../dm/uri.ts';
import { describe } from '../wire/syncml/ddf.ts';
import { gwImageInventory, liveImageNodes } from './gw-image-inventory.ts';

/** An image as the DM server ordered it. */
export interface ImageOrder {
  /** Name of the image's node. */
  readonly name: string;
  readonly url: string | undefined;
  /** SHA-256 in lower-case hexadecimal. */
  readonly hash: string | undefined;
  /** Base64. */
  readonly signature: string | undefined;
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
  /** Path from which devices get the image over CoAP. */
  readonly path: string;
}

/** Stores the data of images. An image is known by the name of its node. */
export interface ImageKeeper {
  /** Largest number of bytes of all images together. */
  readonly quota: number;
  /** Bytes of all images together. */
  readonly used: number;
  status(name: string): ImageStatus;
  /**
   * Makes room for this many bytes of an image, by evicting other images.
   * @throws {PosternError} `full` when there is not enough room, `tooLarge` above the quota
   */
  makeRoom(name: string, bytes: number): void;
  /** Stores an image that the server wrote as PkgData. */
  take(order: ImageOrder, data: Uint8Array): void;
  /**
   * Starts a download. Returns 202, or 200 when the image is there already.
   * @throws {PosternError} `malformed` without a URL, `conflict` while it is downloaded, `full`
   */
  download(order: ImageOrder, server: string, correlator: string | undefined): number;
  /** Deletes the data of an image. */
  remove(name: string): void;
  /** Deletes the data and the record of an image. */
  forget(name: string): void;
}

/** Reads the order for an image from its nodes. */
export function imageOrder(stored: StoredBranch, name: string): ImageOrder {
  const text = (leaf: string) => stored.text('Images', name, leaf);
  return { name, url: text('PkgURL'), hash: text('Hash')?.toLowerCase(), signature: text('Signature') };
}

const live: ReadonlySet<string> = new Set(liveImageNodes);

/** Changes of one level, which are made when the outermost level is committed. */
interface Level {
  /** Data of images that the server wrote, by name. */
  readonly pushed: Map<string, Uint8Array>;
  readonly deleted: Set<string>;
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
      this.#final = level;
      return;
    }
    for (const name of level.deleted) {
      outer.pushed.delete(name);
      outer.deleted.add(name);
    }
    for (const [name, data] of level.pushed) outer.pushed.set(name, data);
  }

  committed(): void {
    const level = this.#final;
    this.#final = undefined;
    if (level) this.#finish(level);
  }

  rollback(): void {
    this.#stored.rollback();
    this.#levels.pop();
  }

  /** @throws {PosternError} as `ImageKeeper.download` */
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
    // The node PkgData only says that the image was pushed. Its data goes into a file.
    this.#stored.add(path, { format: 'bin', value: '' });
    this.#change((level) => level.pushed.set(name, data));
  }

  /** Makes a change in the innermost level, or at once without one. */
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
