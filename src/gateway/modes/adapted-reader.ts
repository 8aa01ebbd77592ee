import { asPosternError } from '../../base/errors.ts';
import { DmError } from '../../dm/dm-error.ts';
import { DmStatus } from '../../dm/status.ts';
import { type NodePath, nodeUri } from '../../dm/uri.ts';
import { describeResource } from '../../wire/lwm2m/objects.ts';
import { isBelow, type Path, pathText } from '../../wire/lwm2m/path.ts';
import { idsBelow } from '../../wire/lwm2m/registration.ts';
import type { Entry } from '../../wire/lwm2m/resource.ts';
import type { LwM2mCalls } from '../southbound/lwm2m-calls.ts';
import type { LwM2mReporting } from '../southbound/lwm2m-reporting.ts';
import type { Registration } from '../store/registrations.ts';
import type { AdaptedFirmware } from './adapted-firmware.ts';
import { type AdaptedNode, findNode, isAlias, nodeNotFound, notSupported, titleOf } from './adapted-nodes.ts';
import type { AdaptedPatience } from './adapted-patience.ts';
import { interior, nodesOf, type Result, resultOf } from './adapted-values.ts';

/** Nodes of one list. */
const listBound = 4096;

export interface AdaptedReaderParts {
  readonly calls: LwM2mCalls;
  readonly reporting: LwM2mReporting;
  readonly firmware: AdaptedFirmware;
  readonly patience: AdaptedPatience;
}

/** Get on an LwM2M client: of a leaf, of an interior node, of a list, of a property. */
export class AdaptedReader {
  readonly #client: Registration;
  readonly #calls: LwM2mCalls;
  readonly #firmware: AdaptedFirmware;
  readonly #reporting: LwM2mReporting;
  readonly #signal: AbortSignal;
  /** Values that a Read-Composite has given, by the path below which they are. */
  readonly #fetched = new Map<string, readonly Entry[]>();

  constructor(client: Registration, { calls, reporting, firmware, patience }: AdaptedReaderParts) {
    this.#client = client;
    this.#calls = calls;
    this.#reporting = reporting;
    this.#firmware = firmware;
    this.#signal = patience.signal;
  }

  /** Whether the client may know Read-Composite. */
  get mayFetch(): boolean {
    return this.#reporting.mayReadComposite(this.#client);
  }

  /**
   * Reads several paths by one Read-Composite, for the Gets that follow until `forget`. Does nothing where the client knows none. What
   * it does not say of a path, or says twice, is read by itself. What was not asked is passed over.
   * @param expected paths that are looked for in the answer, by default those that are asked
   */
  async fetch(paths: readonly Path[], expected = paths): Promise<void> {
    if (!this.mayFetch) return;
    const read = await this.#reporting.readComposite(this.#client, paths, this.#signal);
    // An instance is there twice where it and its resource are asked.
    const different = new Map(read?.map((entry) => [`${pathText(entry.path)} ${entry.value}`, entry]));
    const entries = byPath([...different.values()]);
    for (const path of expected) {
      const found = entries.get(pathText(path)) ?? [];
      if (found.length > 0 && found.every((entry) => entries.get(pathText(entry.path))?.length === 1))
        this.#fetched.set(pathText(path), found);
    }
  }

  /** Forgets what `fetch` has read. */
  forget(): void {
    this.#fetched.clear();
  }

  /** What the client has at a path and below. */
  async #read(path: Path): Promise<readonly Entry[]> {
    for (let length = path.length; length > 1; length--) {
      const fetched = this.#fetched.get(pathText(path.slice(0, length)));
      if (fetched) return fetched.filter((entry) => isBelow(entry.path, path));
    }
    // LwM2M 1.0 has no path of a resource instance.
    return await this.#calls.read(this.#client, path.slice(0, 3), this.#signal);
  }

  /**
   * Answers a Get. An interior node is answered with the names of its children.
   * @param query `list=Struct`, `list=StructData` or `prop=NAME`
   * @throws {DmError} 404, 406, 413
   * @throws {PosternError} as the client's answer, or `timeout`
   */
  async get(path: NodePath, query: string | undefined): Promise<readonly Result[]> {
    const uri = nodeUri(path);
    const node = findNode(this.#client, path);
    if (query === 'list=Struct' || query === 'list=StructData') {
      const found = await this.#list(path, node).finally(() => this.forget());
      if (query === 'list=StructData') return found;
      return found.map(({ uri: at, format }) => ({ uri: at, format, data: '' }));
    }
    if (query !== undefined && !query.startsWith('prop=')) throw notSupported(`no ${query}`);
    if (query !== undefined) return [await this.#property(path, node, query.slice('prop='.length))];
    if (node.kind === 'text') return [{ uri, format: 'chr', data: node.value }];
    if (node.kind === 'interior') return [interior(uri, node.children)];
    if (node.kind === 'firmware') return [await this.#firmwareNode(uri, node.below)];
    if (node.path.length > 2) return [await this.leaf(node.path, uri)];
    return [interior(uri, (await this.#children(node.path, uri)).map(String))];
  }

  /**
   * A resource or one of its instances. A resource of several instances is an interior node.
   * @throws {DmError} 404
   * @throws {PosternError} as the client's answer, or `timeout`
   */
  async leaf(path: Path, uri: string): Promise<Result> {
    const entries = await this.#read(path);
    const [exact] = entries.filter((entry) => entry.path.length === path.length && isBelow(entry.path, path));
    if (exact) return resultOf(uri, exact);
    const below = entries.filter((entry) => entry.path.length > path.length && isBelow(entry.path, path));
    // TLV has no entry for a resource without instances.
    const isEmpty = describeResource(path)?.multiple && path.length === 3;
    if (below.length === 0 && !isEmpty) throw nodeNotFound(uri);
    return interior(
      uri,
      below.map((entry) => String(entry.path[path.length])),
    );
  }

  /** The same, but nothing where the client answers 404: a client need not have all leaves that DM has. */
  async leafIfThere(path: Path, uri: string): Promise<readonly Result[]> {
    try {
      return [await this.leaf(path, uri)];
    } catch (thrown) {
      if (asPosternError(thrown).dmStatus === DmStatus.NotFound) return [];
      throw thrown;
    }
  }

  async #firmwareNode(uri: string, below: NodePath): Promise<Result> {
    const found = await this.#firmware.get(this.#client, below);
    if (typeof found !== 'string') return interior(uri, found);
    return { uri, format: below[0] === 'State' ? 'int' : 'chr', data: found };
  }

  async #children(path: Path, uri: string): Promise<readonly number[]> {
    const isRegistered = this.#client.paths.some((known) => isBelow(known, path) || isBelow(path, known));
    if (!isRegistered) throw nodeNotFound(uri);
    if (path.length === 1) {
      const instances = idsBelow(this.#client, path);
      if (instances.length > 0) return instances;
    }
    try {
      return await this.#calls.discover(this.#client, path, this.#signal);
    } catch (thrown) {
      const { code } = asPosternError(thrown);
      if (code === 'timeout' || code === 'unavailable' || code === 'notFound') throw thrown;
      // Some clients do not know Discover. A Read shows at least what is readable.
      const entries = await this.#calls.read(this.#client, path, this.#signal);
      return [...new Set(entries.map((entry) => entry.path[path.length] ?? 0))];
    }
  }

  async #list(path: NodePath, node: AdaptedNode): Promise<Result[]> {
    const found: Result[] = [];
    const push = (result: Result) => {
      if (found.length >= listBound) throw new DmError(DmStatus.RequestEntityTooLarge, 'too many nodes');
      found.push(result);
    };
    const pushBelow = async (name: string) => {
      const at = [...path, name];
      for (const result of await this.#list(at, findNode(this.#client, at))) push(result);
    };
    if (node.kind === 'firmware') {
      const result = await this.#firmwareNode(nodeUri(path), node.below);
      push(result);
      if (result.format === 'node' && result.data !== '')
        for (const child of String(result.data).split('/')) await pushBelow(child);
    } else if (node.kind === 'text') push({ uri: nodeUri(path), format: 'chr', data: node.value });
    else if (node.kind === 'interior') {
      push(interior(nodeUri(path), node.children));
      await this.#fetchBelow(path, node.children);
      for (const child of node.children) await pushBelow(child);
    } else if (path.length > node.path.length || isAlias(path))
      for (const result of await this.leafIfThere(node.path, nodeUri(path))) push(result);
    else for (const result of await this.#subtree(node.path)) push(result);
    return found;
  }

  /** Reads what is below the root of the tree, or below a node of DM's own objects, at once. */
  async #fetchBelow(path: NodePath, children: readonly string[]): Promise<void> {
    const instances = this.#client.paths.filter(({ length }) => length === 2);
    const nodes = children.map((child) => findNode(this.#client, [...path, child]));
    const paths = nodes.flatMap((each) => (each.kind === 'object' ? [each.path] : []));
    if (paths.some((each) => this.#fetched.has(pathText(each.slice(0, 2))))) return;
    const fetched = path.length === 0 ? this.fetch([[]], instances) : this.fetch(paths);
    // A client that does not answer this may answer a Read.
    await fetched.catch(() => this.#signal.throwIfAborted());
  }

  /** All that can be read at a path and below it, interior nodes first. One request for each object instance. */
  async #subtree(path: Path): Promise<readonly Result[]> {
    const uri = nodeUri(path.map(String));
    if (path.length === 1) {
      const instances = await this.#children(path, uri);
      const below: Result[] = [];
      for (const id of instances) below.push(...(await this.#subtree([...path, id])));
      return [interior(uri, instances.map(String)), ...below];
    }
    return nodesOf(path, await this.#read(path));
  }

  async #property(path: NodePath, node: AdaptedNode, name: string): Promise<Result> {
    const uri = nodeUri(path);
    const [{ format, type } = { format: 'node', type: undefined }] = await this.get(path, undefined);
    const values: Readonly<Record<string, string>> = {
      Name: path.at(-1) ?? '.',
      Format: format,
      Type: type ?? (format === 'node' ? '' : 'text/plain'),
      Title: node.kind === 'object' ? titleOf(node.path) : '',
    };
    const value = values[name];
    if (value === undefined) throw notSupported(`no property ${name}`);
    return { uri: `${uri}?prop=${name}`, format: 'chr', data: value };
  }
}

/** All entries at a path and below, by all paths that have some. */
function byPath(entries: readonly Entry[]): ReadonlyMap<string, readonly Entry[]> {
  const found = new Map<string, Entry[]>();
  for (const entry of entries)
    for (let length = 2; length <= entry.path.length; length++) {
      const at = pathText(entry.path.slice(0, length));
      const others = found.get(at);
      if (others) others.push(entry);
      else found.set(at, [entry]);
    }
  return found;
}
