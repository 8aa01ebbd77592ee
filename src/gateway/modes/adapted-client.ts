import type { NodeOperation, Operation, OperationOutcome } from '../../dm/server-session.ts';
import { DmStatus } from '../../dm/status.ts';
import { type NodePath, parseNodeUri } from '../../dm/uri.ts';
import { type Path, pathText } from '../../wire/lwm2m/path.ts';
import { isTndsType } from '../../wire/syncml/tnds.ts';
import type { Registration } from '../store/registrations.ts';
import { type AdaptedCompositeParts, performComposite } from './adapted-composite.ts';
import { AdaptedCreation } from './adapted-creation.ts';
import type { AdaptedFirmware } from './adapted-firmware.ts';
import { commandNotAllowed, findNode, notSupported } from './adapted-nodes.ts';
import type { AdaptedPatience } from './adapted-patience.ts';
import { AdaptedReader, type AdaptedReaderParts } from './adapted-reader.ts';
import { textIn } from './adapted-values.ts';
import { AdaptedWriter } from './adapted-writer.ts';
import { performOn, type SingleOperation } from './adapter.ts';

/**
 * An LwM2M client as a management tree (GwMO, adaptation mode; the rules are ours, docs/gwmo.md): `./3/0/9` is resource 9 of
 * instance 0 of object 3. DM commands on its nodes become LwM2M operations, and their answers become DM statuses.
 */
export class AdaptedClient {
  readonly #client: Registration;
  readonly #firmware: AdaptedFirmware;
  readonly #patience: AdaptedPatience;
  readonly #reader: AdaptedReader;
  readonly #writer: AdaptedWriter;
  readonly #creation: AdaptedCreation;
  readonly #composite: AdaptedCompositeParts;

  constructor(client: Registration, parts: AdaptedReaderParts) {
    const { calls, reporting, firmware, patience } = parts;
    const { signal } = patience;
    this.#client = client;
    this.#firmware = firmware;
    this.#patience = patience;
    this.#reader = new AdaptedReader(client, parts);
    this.#writer = new AdaptedWriter(client, calls, this.#reader, signal);
    this.#creation = new AdaptedCreation({
      client,
      calls,
      signal,
      patiently: (command) => patience.try(command),
      perform: (operation) => this.perform(operation),
    });
    this.#composite = { client, reporting, writer: this.#writer, patience };
  }

  /** Does an operation. Never throws: a failure is a status of the outcome. */
  async perform(operation: Operation): Promise<OperationOutcome> {
    return await performOn(operation, this.#patience, (each) => this.#command(each), {
      creation: this.#creation,
      reads: (gets) => this.reads(gets),
      atomic: (atomic) => performComposite(atomic, this.#composite),
    });
  }

  /** As `AtOnce.reads`: Gets of leaves, by one Read-Composite. What it does not give is read by itself. */
  async reads(gets: readonly NodeOperation[]): Promise<readonly OperationOutcome[] | undefined> {
    const leaves = gets.flatMap(({ uri }) => leafAt(this.#client, uri));
    const paths = [...new Map(leaves.map((path) => [pathText(path), path])).values()];
    if (paths.length < 2 || !this.#reader.mayFetch) return undefined;
    try {
      await this.#patience.try(() => this.#reader.fetch(paths)).catch(() => {});
      const outcomes: OperationOutcome[] = [];
      for (const each of gets) outcomes.push(await this.perform(each));
      return outcomes;
    } finally {
      this.#reader.forget();
    }
  }

  /** Whether this is an Add of an instance, or of a resource of a new one whose ID the client chooses. */
  #isCreate(operation: SingleOperation): operation is NodeOperation {
    if (operation.name !== 'Add' || this.#creation.instanceOf(operation) === undefined) return false;
    const node = findNode(this.#client, parseNodeUri(operation.uri).path);
    return node.kind === 'new' || (node.kind === 'object' && node.path.length === 2);
  }

  async #command(operation: SingleOperation): Promise<Partial<OperationOutcome>> {
    if (operation.name === 'Alert') throw notSupported('an LwM2M client has no user to ask');
    if (this.#isCreate(operation)) return (await this.#creation.create([operation])).outcomes[0]!;
    const { name, uri, type } = operation;
    if (name !== 'Get' && isTndsType(type))
      throw notSupported('no TNDS object but in an Add of an object instance');
    const { path, query } = parseNodeUri(uri);
    if (name === 'Get') return { results: await this.#reader.get(path, query) };
    if (query !== undefined) throw commandNotAllowed(uri, name);
    const node = findNode(this.#client, path);
    if (node.kind === 'firmware') {
      this.#update(node.below, operation);
      return name === 'Exec' ? { status: DmStatus.AcceptedForProcessing } : {};
    }
    if (node.kind !== 'object') throw commandNotAllowed(uri, name);
    await this.#writer.perform(node.path, operation);
    return {};
  }

  #update(below: NodePath, { name, uri, data = '', correlator }: NodeOperation): void {
    if (name === 'Exec') this.#firmware.execute(this.#client, below, correlator);
    else if (name === 'Add' || name === 'Replace') this.#firmware.set(this.#client, below, textIn(data));
    else throw commandNotAllowed(uri, name);
  }
}

/** The path of the resource, or of its instance, that a Get without a query is about. None for any other Get. */
function leafAt(client: Registration, uri: string): readonly Path[] {
  try {
    const { path, query } = parseNodeUri(uri);
    const node = findNode(client, path);
    return query === undefined && node.kind === 'object' && node.path.length > 2 ? [node.path] : [];
  } catch {
    return [];
  }
}
