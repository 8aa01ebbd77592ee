import { asPosternError } from '../../base/errors.ts';
import { DmError } from '../../dm/dm-error.ts';
import type { Compound, NodeOperation, Operation, OperationOutcome } from '../../dm/server-session.ts';
import { DmStatus } from '../../dm/status.ts';
import { nodeUri, parseNodeUri } from '../../dm/uri.ts';
import { describeResource, ObjectId, objects, typeOf } from '../../wire/lwm2m/objects.ts';
import { isBelow, type Path } from '../../wire/lwm2m/path.ts';
import { idsBelow } from '../../wire/lwm2m/registration.ts';
import {
  type Entry,
  type ResourceType,
  type TypeOf,
  textOf,
  type Value,
  valueFrom,
} from '../../wire/lwm2m/resource.ts';
import type { LwM2mCalls } from '../southbound/lwm2m-calls.ts';
import type { Registration } from '../store/registrations.ts';
import { performAtomic } from './adapted-atomic.ts';
import type { AdaptedFirmware } from './adapted-firmware.ts';

type Result = OperationOutcome['results'][number];

/** A node of the tree that a client is shown as. */
type Node =
  | { readonly kind: 'text'; readonly value: string }
  | { readonly kind: 'interior'; readonly children: readonly string[] }
  | { readonly kind: 'firmware'; readonly below: readonly string[] }
  | { readonly kind: 'object'; readonly path: Path };

/** Where the leaves of DM's own objects are in a client: by these a mixed fleet can be asked at once. */
const aliases: Readonly<Record<string, Readonly<Record<string, Path>>>> = {
  DevInfo: { Man: [3, 0, 0], Mod: [3, 0, 1] },
  DevDetail: { DevTyp: [3, 0, 17], FwV: [3, 0, 3], SwV: [3, 0, 19], HwV: [3, 0, 18] },
};

/** Nodes of one list. */
const listBound = 4096;

const formats: Readonly<Record<ResourceType, string>> = {
  string: 'chr',
  integer: 'int',
  unsigned: 'int',
  float: 'float',
  boolean: 'bool',
  opaque: 'bin',
  // DM's own `time` is of a day.
  time: 'int',
  objlnk: 'chr',
  none: 'null',
};

/** What a value is for whom no description tells its type. */
const typeOfFormat: Readonly<Record<string, ResourceType>> = {
  int: 'integer',
  float: 'float',
  bool: 'boolean',
  bin: 'opaque',
  b64: 'opaque',
};

const notThere = (uri: string) => new DmError(DmStatus.NotFound, `${uri} is not there`);
const notAllowed = (uri: string, command: string) =>
  new DmError(DmStatus.CommandNotAllowed, `no ${command} at ${uri}`);
const notSupported = (what: string) => new DmError(DmStatus.OptionalFeatureNotSupported, what);

/**
 * An LwM2M client as a management tree (GwMO, adaptation mode; the rules are ours, docs/gwmo.md): `./3/0/9` is resource 9 of
 * instance 0 of object 3. DM commands on its nodes become LwM2M operations, and their answers DM statuses.
 */
export class AdaptedClient {
  readonly #client: Registration;
  readonly #calls: LwM2mCalls;
  readonly #firmware: AdaptedFirmware;
  readonly #signal: AbortSignal;

  constructor(client: Registration, calls: LwM2mCalls, firmware: AdaptedFirmware, signal: AbortSignal) {
    this.#firmware = firmware;
    this.#client = client;
    this.#calls = calls;
    this.#signal = signal;
  }

  /** Does an operation. What fails is a status. */
  async perform(operation: Operation): Promise<OperationOutcome> {
    if ('operations' in operation) {
      if (operation.name === 'Atomic') return await performAtomic(operation, (each) => this.perform(each));
      const parts: OperationOutcome[] = [];
      for (const each of operation.operations) parts.push(await this.perform(each));
      return { operation, status: DmStatus.Ok, results: [], parts };
    }
    try {
      return { operation, status: DmStatus.Ok, results: [], ...(await this.#command(operation)) };
    } catch (thrown) {
      return { operation, status: asPosternError(thrown).dmStatus, results: [] };
    }
  }

  async #command(operation: Exclude<Operation, Compound>): Promise<Partial<OperationOutcome>> {
    if (operation.name === 'Alert') throw notSupported('nobody is asked at an LwM2M client');
    const { name, uri, data = '' } = operation;
    const { path, query } = parseNodeUri(uri);
    if (name === 'Get') return { results: await this.#get(path, query) };
    if (query !== undefined) throw notAllowed(uri, name);
    const node = this.#find(path);
    if (node.kind === 'firmware') {
      this.#update(node.below, uri, operation);
      return name === 'Exec' ? { status: DmStatus.AcceptedForProcessing } : {};
    }
    if (node.kind !== 'object') throw notAllowed(uri, name);
    const target = node.path;
    switch (name) {
      case 'Replace':
        await this.#replace(target, uri, operation);
        break;
      case 'Add':
        await this.#add(target, uri, operation);
        break;
      case 'Delete':
        // A resource comes and goes with its instance.
        if (target.length !== 2 && target.length !== 4) throw notAllowed(uri, name);
        await this.#calls.remove(this.#client, target, this.#signal);
        break;
      case 'Exec':
        if (target.length !== 3) throw notAllowed(uri, name);
        await this.#calls.execute(this.#client, target, String(textIn(data)), this.#signal);
        break;
      case 'Copy':
        await this.#copy(target, uri, operation);
        break;
    }
    return {};
  }

  #find(path: readonly string[]): Node {
    const [first, second, ...more] = path;
    if (first === undefined) {
      const ids = idsBelow(this.#client, []).map(String);
      const firmware = this.#isFirmware(['FwUpdate']) ? ['FwUpdate'] : [];
      return { kind: 'interior', children: [...Object.keys(aliases), ...firmware, ...ids] };
    }
    if (this.#isFirmware(path)) return { kind: 'firmware', below: path.slice(1) };
    const leaves = aliases[first];
    if (leaves) {
      const isInfo = first === 'DevInfo';
      if (second === undefined)
        return { kind: 'interior', children: [...(isInfo ? ['DevId'] : []), ...Object.keys(leaves)] };
      const alias = leaves[second];
      if (more.length > 0 || (!alias && !(isInfo && second === 'DevId'))) throw notThere(nodeUri(path));
      return alias ? { kind: 'object', path: alias } : { kind: 'text', value: this.#client.deviceId };
    }
    const ids = path.map((name) => (/^\d{1,5}$/.test(name) ? Number(name) : Number.NaN));
    if (ids.length > 4 || !ids.every((id) => id < 0xffff)) throw notThere(nodeUri(path));
    return { kind: 'object', path: ids };
  }

  /** FUMO is there where the client has the object that it stands on. */
  #isFirmware([first]: readonly string[]): boolean {
    return first === 'FwUpdate' && this.#client.paths.some(([object]) => object === ObjectId.Firmware);
  }

  async #firmwareNode(uri: string, below: readonly string[]): Promise<Result> {
    const found = await this.#firmware.get(this.#client, below);
    if (typeof found !== 'string') return interior(uri, found);
    return { uri, format: below[0] === 'State' ? 'int' : 'chr', data: found };
  }

  #update(below: readonly string[], uri: string, { name, data = '', correlator }: NodeOperation): void {
    if (name === 'Exec') this.#firmware.execute(this.#client, below, correlator);
    else if (name === 'Add' || name === 'Replace') this.#firmware.set(this.#client, below, textIn(data));
    else throw notAllowed(uri, name);
  }

  async #get(path: readonly string[], query: string | undefined): Promise<readonly Result[]> {
    const uri = nodeUri(path);
    const node = this.#find(path);
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
    if (node.path.length > 2) return [await this.#leaf(node.path, uri)];
    return [interior(uri, (await this.#children(node.path, uri)).map(String))];
  }

  /** A resource, or one of its instances; one of several instances is an interior node. */
  async #leaf(path: Path, uri: string): Promise<Result> {
    const resource = path.slice(0, 3);
    const entries = await this.#calls.read(this.#client, resource, this.#signal);
    const [exact] = entries.filter((entry) => entry.path.length === path.length && isBelow(entry.path, path));
    if (exact) return resultOf(uri, exact);
    const below = entries.filter((entry) => entry.path.length > path.length && isBelow(entry.path, path));
    // TLV says nothing of a resource without instances.
    const isEmpty = describeResource(path)?.multiple && path.length === 3;
    if (below.length === 0 && !isEmpty) throw notThere(uri);
    return interior(
      uri,
      below.map((entry) => String(entry.path[path.length])),
    );
  }

  /** Of the leaves that DM has for a device, a client need not have all. */
  async #leafIfThere(path: Path, uri: string): Promise<readonly Result[]> {
    try {
      return [await this.#leaf(path, uri)];
    } catch (thrown) {
      if (asPosternError(thrown).dmStatus === DmStatus.NotFound) return [];
      throw thrown;
    }
  }

  async #children(path: Path, uri: string): Promise<readonly number[]> {
    const isRegistered = this.#client.paths.some((known) => isBelow(known, path) || isBelow(path, known));
    if (!isRegistered) throw notThere(uri);
    if (path.length === 1) {
      const instances = idsBelow(this.#client, path);
      if (instances.length > 0) return instances;
    }
    try {
      return await this.#calls.discover(this.#client, path, this.#signal);
    } catch (thrown) {
      const { code } = asPosternError(thrown);
      if (code === 'timeout' || code === 'unavailable' || code === 'notFound') throw thrown;
      // Not every client can be asked so; what can be read it will tell.
      const entries = await this.#calls.read(this.#client, path, this.#signal);
      return [...new Set(entries.map((entry) => entry.path[path.length] ?? 0))];
    }
  }

  async #list(path: readonly string[], node: Node): Promise<Result[]> {
    const found: Result[] = [];
    const push = (result: Result) => {
      if (found.length >= listBound) throw new DmError(DmStatus.RequestEntityTooLarge, 'too many nodes');
      found.push(result);
    };
    if (node.kind === 'firmware') {
      const result = await this.#firmwareNode(nodeUri(path), node.below);
      push(result);
      if (result.format === 'node' && result.data !== '')
        for (const child of String(result.data).split('/'))
          for (const below of await this.#list([...path, child], this.#find([...path, child]))) push(below);
    } else if (node.kind === 'text') push({ uri: nodeUri(path), format: 'chr', data: node.value });
    else if (node.kind === 'interior') {
      push(interior(nodeUri(path), node.children));
      for (const child of node.children)
        for (const result of await this.#list([...path, child], this.#find([...path, child]))) push(result);
    } else if (path.length > node.path.length || aliases[path[0] ?? ''])
      for (const result of await this.#leafIfThere(node.path, nodeUri(path))) push(result);
    else for (const result of await this.#subtree(node.path)) push(result);
    return found;
  }

  /** What can be read at a path and below, interior nodes first, by one request for each object instance. */
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

  async #property(path: readonly string[], node: Node, name: string): Promise<Result> {
    const uri = nodeUri(path);
    const [{ format, type } = { format: 'node', type: undefined }] = await this.#get(path, undefined);
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

  async #replace(path: Path, uri: string, operation: NodeOperation): Promise<void> {
    if (path.length < 3) throw notAllowed(uri, operation.name);
    const { type, value } = valueGiven(path, operation);
    const types: TypeOf = (at) => typeOf(at) ?? type;
    const isInstance = path.length === 4;
    // An instance of a resource is written with what is above it: early versions know no path for it.
    await this.#calls.write(this.#client, isInstance ? path.slice(0, 2) : path, [{ path, value }], {
      types,
      merge: isInstance,
      signal: this.#signal,
    });
  }

  async #add(path: Path, uri: string, operation: NodeOperation): Promise<void> {
    const exists = new DmError(DmStatus.AlreadyExists, `${uri} exists`);
    if (path.length === 2) {
      if (idsBelow(this.#client, path.slice(0, 1)).includes(path[1] ?? -1)) throw exists;
      const [object = 0, instance = 0] = path;
      await this.#calls.create(this.#client, object, instance, this.#signal);
      return;
    }
    if (path.length < 3) throw notAllowed(uri, 'Add');
    if ((await this.#leafIfThere(path, uri)).length > 0) throw exists;
    await this.#replace(path, uri, operation);
  }

  async #copy(to: Path, uri: string, { from = '' }: NodeOperation): Promise<void> {
    const source = this.#find(parseNodeUri(from).path);
    if (source.kind !== 'object' || source.path.length < 3) throw notAllowed(from, 'Copy');
    const { format, data } = await this.#leaf(source.path, from);
    if (format === 'node') throw notAllowed(from, 'Copy');
    await this.#replace(to, uri, { name: 'Replace', uri, format, data });
  }
}

const textIn = (data: string | Uint8Array): string =>
  typeof data === 'string' ? data : Buffer.from(data).toString();

/** @throws {PosternError} `malformed` */
function valueGiven(
  path: Path,
  { format = '', data = '' }: NodeOperation,
): { type: ResourceType; value: Value } {
  const type = typeOf(path) ?? typeOfFormat[format] ?? 'string';
  return { type, value: data instanceof Uint8Array ? data : valueFrom(type, data) };
}

const interior = (uri: string, children: readonly string[]): Result => ({
  uri,
  format: 'node',
  data: children.join('/'),
});

function resultOf(uri: string, { path, value }: Entry): Result {
  const type = value instanceof Uint8Array ? 'opaque' : (typeOf(path) ?? typeIn(value));
  return { uri, format: formats[type], data: textOf(value) };
}

/** What a value is, by itself. */
function typeIn(value: Value): ResourceType {
  if (typeof value === 'boolean') return 'boolean';
  if (typeof value !== 'number') return 'string';
  return Number.isInteger(value) ? 'integer' : 'float';
}

/** The nodes of a read, each above what is below it. */
function nodesOf(base: Path, entries: readonly Entry[]): Result[] {
  const found: Result[] = [];
  const add = (path: Path) => {
    const uri = nodeUri(path.map(String));
    const exact = entries.find((entry) => entry.path.length === path.length && isBelow(entry.path, path));
    if (exact) {
      found.push(resultOf(uri, exact));
      return;
    }
    const below = entries.filter((entry) => isBelow(entry.path, path));
    const children = [...new Set(below.map((entry) => entry.path[path.length] ?? 0))];
    found.push(interior(uri, children.map(String)));
    for (const child of children) add([...path, child]);
  };
  add(base);
  return found;
}

/** What the registry calls a node. */
function titleOf(path: Path): string {
  const [object = -1] = path;
  if (path.length <= 2) return objects[object]?.name ?? '';
  return describeResource(path)?.name ?? '';
}
