import { asPosternError } from '../../base/errors.ts';
import { DmError } from '../../dm/dm-error.ts';
import { DmStatus } from '../../dm/status.ts';
import { type NodePath, nodeUri } from '../../dm/uri.ts';
import { describeResource } from '../../wire/lwm2m/objects.ts';
import { isBelow, type Path } from '../../wire/lwm2m/path.ts';
import { idsBelow } from '../../wire/lwm2m/registration.ts';
import type { LwM2mCalls } from '../southbound/lwm2m-calls.ts';
import type { Registration } from '../store/registrations.ts';
import type { AdaptedFirmware } from './adapted-firmware.ts';
import { type AdaptedNode, findNode, isAlias, nodeNotFound, notSupported, titleOf } from './adapted-nodes.ts';
import { interior, nodesOf, type Result, resultOf } from './adapted-values.ts';

/** Nodes of one list. */
const listBound = 4096;

/** Get on an LwM2M client: of a leaf, of an interior node, of a list, of a property. */
export class AdaptedReader {
  readonly #client: Registration;
  readonly #calls: LwM2mCalls;
  readonly #firmware: AdaptedFirmware;
  readonly #signal: AbortSignal;

  constructor(client: Registration, calls: LwM2mCalls, firmware: AdaptedFirmware, signal: AbortSignal) {
    this.#client = client;
    this.#calls = calls;
    this.#firmware = firmware;
    this.#signal = signal;
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
      const found = await this.#list(path, node);
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
    const resource = path.slice(0, 3);
    const entries = await this.#calls.read(this.#client, resource, this.#signal);
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
      for (const child of node.children) await pushBelow(child);
    } else if (path.length > node.path.length || isAlias(path))
      for (const result of await this.leafIfThere(node.path, nodeUri(path))) push(result);
    else for (const result of await this.#subtree(node.path)) push(result);
    return found;
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
    const entries = await this.#calls.read(this.#client, path, this.#signal);
    return nodesOf(path, entries);
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
