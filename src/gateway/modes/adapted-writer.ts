import { DmError } from '../../dm/dm-error.ts';
import type { NodeOperation } from '../../dm/server-session.ts';
import { DmStatus } from '../../dm/status.ts';
import { parseNodeUri } from '../../dm/uri.ts';
import { typeOf } from '../../wire/lwm2m/objects.ts';
import type { Path } from '../../wire/lwm2m/path.ts';
import { idsBelow } from '../../wire/lwm2m/registration.ts';
import type { TypeOf } from '../../wire/lwm2m/resource.ts';
import type { LwM2mCalls } from '../southbound/lwm2m-calls.ts';
import type { Registration } from '../store/registrations.ts';
import { commandNotAllowed, findNode } from './adapted-nodes.ts';
import type { AdaptedReader } from './adapted-reader.ts';
import { textIn, valueGiven } from './adapted-values.ts';

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
    const { type, value } = valueGiven(path, operation);
    const types: TypeOf = (at) => typeOf(at) ?? type;
    const isInstance = path.length === 4;
    // A resource instance is written by a merge into its object instance: LwM2M 1.0 has no path for it.
    await this.#calls.write(this.#client, isInstance ? path.slice(0, 2) : path, [{ path, value }], {
      types,
      merge: isInstance,
      signal: this.#signal,
    });
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
