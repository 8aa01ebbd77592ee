import { asPosternError, PosternError } from '../../base/errors.ts';
import { DmError } from '../../dm/dm-error.ts';
import type { NodeOperation } from '../../dm/server-session.ts';
import { DmStatus } from '../../dm/status.ts';
import { parseNodeUri } from '../../dm/uri.ts';
import { typeOf } from '../../wire/lwm2m/objects.ts';
import { isBelow, type Path } from '../../wire/lwm2m/path.ts';
import { idsBelow } from '../../wire/lwm2m/registration.ts';
import { type Entry, type ResourceType, type TypeOf, valueFrom } from '../../wire/lwm2m/resource.ts';
import type { LwM2mCalls } from '../southbound/lwm2m-calls.ts';
import type { Registration } from '../store/registrations.ts';
import { commandNotAllowed, findNode } from './adapted-nodes.ts';
import type { AdaptedReader } from './adapted-reader.ts';
import { textIn, typeOfFormat } from './adapted-values.ts';

/** Add, Replace, Delete, Copy and Exec on the objects of an LwM2M client. */
export class AdaptedWriter {
  readonly #client: Registration;
  readonly #calls: LwM2mCalls;
  readonly #reader: AdaptedReader;
  readonly #signal: AbortSignal;

  constructor(client: Registration, calls: LwM2mCalls, reader: AdaptedReader, signal: AbortSignal) {
    this.#client = client;
    this.#calls = calls;
    this.#reader = reader;
    this.#signal = signal;
  }

  /**
   * Does one command at a path of the client.
   * @throws {DmError} 404, 405, 418
   * @throws {PosternError} `malformed` value, `timeout`, or as the client's answer
   */
  async perform(path: Path, operation: NodeOperation): Promise<void> {
    const { name, uri, data = '' } = operation;
    switch (name) {
      case 'Replace':
        await this.#replace(path, operation);
        break;
      case 'Add':
        await this.#add(path, operation);
        break;
      case 'Delete':
        // A resource exists as long as its instance does.
        if (path.length !== 2 && path.length !== 4) throw commandNotAllowed(uri, name);
        await this.#calls.remove(this.#client, path, this.#signal);
        break;
      case 'Exec':
        if (path.length !== 3) throw commandNotAllowed(uri, name);
        await this.#calls.execute(this.#client, path, textIn(data), this.#signal);
        break;
      case 'Copy':
        await this.#copy(path, operation);
        break;
    }
  }

  async #replace(path: Path, operation: NodeOperation): Promise<void> {
    if (path.length < 3) throw commandNotAllowed(operation.uri, operation.name);
    const { value, type } = await this.entryOf(path, operation);
    const types: TypeOf = (at) => typeOf(at) ?? type;
    const isInstance = path.length === 4;
    // A resource instance is written by a merge into its object instance: LwM2M 1.0 has no path for it.
    await this.#calls.write(this.#client, isInstance ? path.slice(0, 2) : path, [{ path, value }], {
      types,
      merge: isInstance,
      signal: this.#signal,
    });
  }

  /**
   * What a command writes at the path of a resource.
   * @throws {PosternError} `malformed`, `unsupportedFormat` when nobody says the type, or as the client's answer
   */
  async entryOf(path: Path, operation: NodeOperation): Promise<Required<Omit<Entry, 'time'>>> {
    const { data = '' } = operation;
    const type = await this.#typeFor(path, operation);
    return { path, type, value: typeof data === 'string' ? valueFrom(type, data) : data };
  }

  /**
   * The LwM2M type of a value that a command gives: by the description of the resource, else by the Format of the
   * command. Without a Format, and for a text that may be an object link, the client is asked: SenML says the type.
   * @throws {DmError} 415 when nobody says the type
   */
  async #typeFor(path: Path, { uri, name, format = '', data = '' }: NodeOperation): Promise<ResourceType> {
    const known = typeOf(path) ?? typeOfFormat[format];
    const text = textIn(data);
    const isSure =
      known !== undefined || data instanceof Uint8Array || (format !== '' && !/^\d+:\d+$/.test(text));
    if (isSure) return known ?? 'string';
    const said = name === 'Add' ? undefined : await this.#typeSaid(path);
    if (said === undefined && format === '')
      throw new PosternError(
        'unsupportedFormat',
        `${uri} has no type that is known; the command needs a Format`,
      );
    if (said === 'objlnk' || format !== '') return said === 'objlnk' ? said : 'string';
    // SenML does not tell whole numbers from others.
    if (said !== 'integer' && said !== 'float') return said ?? 'string';
    return /^[+-]?\d+$/.test(text) ? 'integer' : 'float';
  }

  /** The type that the client says of a resource. `undefined` when it says none, or the resource cannot be read. */
  async #typeSaid(path: Path): Promise<ResourceType | undefined> {
    const resource = path.slice(0, 3);
    try {
      const entries = await this.#calls.read(this.#client, resource, this.#signal);
      return entries.find((entry) => isBelow(entry.path, resource))?.type;
    } catch (thrown) {
      const { code } = asPosternError(thrown);
      if (code === 'timeout' || code === 'notFound') throw thrown;
      return undefined;
    }
  }

  async #add(path: Path, operation: NodeOperation): Promise<void> {
    const { uri } = operation;
    const exists = new DmError(DmStatus.AlreadyExists, `${uri} exists`);
    if (path.length === 2) {
      if (idsBelow(this.#client, path.slice(0, 1)).includes(path[1] ?? -1)) throw exists;
      const [object = 0, instance = 0] = path;
      await this.#calls.create(this.#client, object, instance, this.#signal);
      return;
    }
    if (path.length < 3) throw commandNotAllowed(uri, 'Add');
    if ((await this.#reader.leafIfThere(path, uri)).length > 0) throw exists;
    await this.#replace(path, operation);
  }

  async #copy(to: Path, { uri, from = '' }: NodeOperation): Promise<void> {
    const source = findNode(this.#client, parseNodeUri(from).path);
    if (source.kind !== 'object' || source.path.length < 3) throw commandNotAllowed(from, 'Copy');
    const { format, data } = await this.#reader.leaf(source.path, from);
    if (format === 'node') throw commandNotAllowed(from, 'Copy');
    await this.#replace(to, { name: 'Replace', uri, format, data });
  }
}
