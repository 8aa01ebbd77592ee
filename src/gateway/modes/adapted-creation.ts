import { asPosternError, PosternError } from '../../base/errors.ts';
import { DmError } from '../../dm/dm-error.ts';
import type { NodeOperation, OperationOutcome } from '../../dm/server-session.ts';
import { DmStatus, isOk } from '../../dm/status.ts';
import { nodeUri, parseNodeUri } from '../../dm/uri.ts';
import { typeOf } from '../../wire/lwm2m/objects.ts';
import { isBelow, type Path } from '../../wire/lwm2m/path.ts';
import { idsBelow } from '../../wire/lwm2m/registration.ts';
import { type Entry, type ResourceType, valueFrom } from '../../wire/lwm2m/resource.ts';
import { decodeTnds, isTndsType, type TndsNode } from '../../wire/syncml/tnds.ts';
import type { LwM2mCalls } from '../southbound/lwm2m-calls.ts';
import type { Registration } from '../store/registrations.ts';
import { outcomeWith, type StepOutcome } from './adapted-atomic.ts';
import { commandNotAllowed, findNode, isAlias, notSupported } from './adapted-nodes.ts';
import { interior, typeGiven } from './adapted-values.ts';

export interface AdaptedCreationParts {
  readonly client: Registration;
  readonly calls: LwM2mCalls;
  /** Does something that the client answers, unless the client is silent or the deadline has come. */
  readonly patiently: <T>(command: () => Promise<T>) => Promise<T>;
  readonly perform: (operation: NodeOperation) => Promise<OperationOutcome>;
  readonly signal: AbortSignal;
}

/** What the Adds of an instance say of its resources. */
interface Contents {
  readonly entries: Entry[];
  /** By path. */
  readonly types: Map<string, ResourceType>;
}

/** Creates an object instance of an LwM2M client with all the resources that a DM server adds to it, in one request. */
export class AdaptedCreation {
  readonly #parts: AdaptedCreationParts;

  constructor(parts: AdaptedCreationParts) {
    this.#parts = parts;
  }

  /** A name of the instance that an Add creates, or of which it adds a resource. `undefined` for an Add of anything else. */
  instanceOf({ uri }: NodeOperation): string | undefined {
    try {
      const { path } = parseNodeUri(uri);
      const node = findNode(this.#parts.client, path);
      if (!('path' in node) || node.path.length < 2 || isAlias(path)) return undefined;
      // Instances without an ID are told from each other by their names.
      return `${node.path[0]}/${node.kind === 'new' ? path[1] : node.path[1]}`;
    } catch {
      return undefined;
    }
  }

  /**
   * Creates one instance. The first outcome has the status of the Create; those of the other Adds are 215 where it fails. Where the
   * client chose the ID, the first outcome has the node of the instance as result. An instance that is there gets 418, or 406 where
   * only resources are added to it: they could not be taken back.
   *
   * To undo deletes the instance, also when the client has refused the Create or has not answered: a client may have created it
   * without all its resources. It is not deleted when it may have been there before.
   */
  async create(adds: readonly NodeOperation[]): Promise<StepOutcome> {
    const { client, calls, patiently, signal } = this.#parts;
    let at = adds[0]!;
    let undo: StepOutcome['undo'];
    let isUnnamed = false;
    try {
      const contents: Contents = { entries: [], types: new Map() };
      for (at of adds) this.#collect(at, contents);
      at = adds[0]!;
      const node = this.#node(at);
      const [object = -1, id] = node.path;
      isUnnamed = node.isNew;
      const instance = isUnnamed ? undefined : id;
      const isMissing = instance !== undefined && (await this.#isMissing([object, instance], adds));
      const { entries, types } = contents;
      undo = async () => isMissing && (await this.#delete([object, id!]));
      const created = await patiently(() =>
        calls.create(client, object, instance, entries, {
          types: (path) => types.get(path.join('/')),
          signal,
        }),
      );
      const isOwn = created !== undefined && (!isUnnamed || !idsBelow(client, [object]).includes(created));
      undo = async () => isOwn && (await this.#delete([object, created]));
      if (instance !== undefined && created !== instance) {
        undo = async () => false;
        throw new PosternError('internal', `${client.deviceId} created another instance than ${instance}`);
      }
      const results = isUnnamed && isOwn ? [interior(nodeUri([`${object}`, `${created}`]), [])] : [];
      return {
        outcomes: adds.map((add) => ({
          ...outcomeWith(add, DmStatus.Ok),
          results: add === at ? results : [],
        })),
        undo,
      };
    } catch (thrown) {
      const { code, dmStatus } = asPosternError(thrown);
      // Of an instance without an ID a refusal is believed. When the answer is lost, nobody knows which one it is.
      if (isUnnamed && code !== 'timeout') undo = undefined;
      return {
        outcomes: adds.map((add) => outcomeWith(add, add === at ? dmStatus : DmStatus.NotExecuted)),
        ...(undo && { undo }),
      };
    }
  }

  /**
   * Adds what an Add says of the instance to `contents`.
   * @throws {DmError} 405, 418
   * @throws {PosternError} as `valueFrom` and `decodeTnds`; `unsupportedFormat`
   */
  #collect(add: NodeOperation, contents: Contents): void {
    const { uri, format = '', data = '', type: mediaType } = add;
    const { entries, types } = contents;
    if (isTndsType(mediaType)) {
      this.#collectTree(uri, decodeTnds(data).root, contents);
      return;
    }
    const { path } = this.#node(add);
    // Both a resource and an instance of it, or one of them twice.
    const isTaken = entries.some(({ path: other }) => isBelow(other, path) || isBelow(path, other));
    if (path.length === 2 || format === 'node') {
      if (data.length > 0) throw commandNotAllowed(uri, 'Add');
      return;
    }
    if (isTaken) throw new DmError(DmStatus.AlreadyExists, `${uri} is added twice`);
    if (data instanceof Uint8Array) {
      entries.push({ path, value: data });
      return;
    }
    const type = typeGiven(path, format, data) ?? (format === '' ? typeOf(path) : 'string');
    if (type === undefined)
      throw new PosternError('unsupportedFormat', `${uri} has no type that is known; the Add needs a Format`);
    types.set(path.join('/'), type);
    entries.push({ path, value: valueFrom(type, data) });
  }

  /** The same, of the nodes of a TNDS object. The Add says the name of its root. */
  #collectTree(uri: string, { format, value, children = [] }: TndsNode, contents: Contents): void {
    this.#collect({ name: 'Add', uri, format, ...(value !== undefined && { data: value }) }, contents);
    for (const child of children) this.#collectTree(`${uri}/${child.name}`, child, contents);
  }

  #node({ uri }: NodeOperation): { readonly isNew: boolean; readonly path: Path } {
    const node = findNode(this.#parts.client, parseNodeUri(uri).path);
    return 'path' in node ? { isNew: node.kind === 'new', path: node.path } : { isNew: false, path: [] };
  }

  /**
   * Whether the client says that it has no such instance. If it says neither that nor the opposite, its registration counts.
   * @throws {DmError} 418 or 406 when the instance is there
   * @throws {PosternError} `timeout`
   */
  async #isMissing(path: Path, adds: readonly NodeOperation[]): Promise<boolean> {
    const { client, calls, patiently, signal } = this.#parts;
    let isThere = idsBelow(client, path.slice(0, 1)).includes(path[1] ?? -1);
    try {
      // Also where it is registered: it may have been deleted since. An instance need not have a resource.
      await patiently(() => calls.read(client, path, signal));
      isThere = true;
    } catch (thrown) {
      const { code } = asPosternError(thrown);
      if (code === 'timeout') throw thrown;
      if (code === 'notFound') return true;
    }
    if (!isThere) return false;
    const { uri } = adds.find((add) => this.#node(add).path.length === 2) ?? {};
    if (uri === undefined)
      throw notSupported('no Add of a resource in an Atomic to an instance that is there');
    throw new DmError(DmStatus.AlreadyExists, `${uri} exists`);
  }

  /** Deletes an instance. Returns whether it is not there any more. */
  async #delete(path: Path): Promise<boolean> {
    const uri = nodeUri(path.map(String));
    for (const name of ['Delete', 'Get'] as const) {
      const { status } = await this.#parts.perform({ name, uri });
      if (status === DmStatus.NotFound || (name === 'Delete' && isOk(status))) return true;
    }
    return false;
  }
}
