import { asPosternError } from '../../base/errors.ts';
import type { Compound, NodeOperation, Operation, OperationOutcome } from '../../dm/server-session.ts';
import { DmStatus } from '../../dm/status.ts';
import { type NodePath, parseNodeUri } from '../../dm/uri.ts';
import type { LwM2mCalls } from '../southbound/lwm2m-calls.ts';
import type { Registration } from '../store/registrations.ts';
import { performAtomic } from './adapted-atomic.ts';
import { type AdaptedCompositeParts, performComposite } from './adapted-composite.ts';
import type { AdaptedFirmware } from './adapted-firmware.ts';
import { commandNotAllowed, findNode, notSupported } from './adapted-nodes.ts';
import type { AdaptedPatience } from './adapted-patience.ts';
import { AdaptedReader } from './adapted-reader.ts';
import { textIn } from './adapted-values.ts';
import { AdaptedWriter } from './adapted-writer.ts';

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
  readonly #composite: AdaptedCompositeParts;

  constructor(client: Registration, calls: LwM2mCalls, firmware: AdaptedFirmware, patience: AdaptedPatience) {
    const { signal } = patience;
    this.#client = client;
    this.#firmware = firmware;
    this.#patience = patience;
    this.#reader = new AdaptedReader(client, calls, firmware, signal);
    this.#writer = new AdaptedWriter(client, calls, this.#reader, signal);
    this.#composite = { client, calls, writer: this.#writer, patience };
  }

  /** Does an operation. Never throws: a failure is a status of the outcome. */
  async perform(operation: Operation): Promise<OperationOutcome> {
    if ('operations' in operation) {
      if (operation.name === 'Atomic')
        return (
          (await performComposite(operation, this.#composite)) ??
          (await performAtomic(operation, (each) => this.perform(each)))
        );
      const parts: OperationOutcome[] = [];
      for (const each of operation.operations) parts.push(await this.perform(each));
      return { operation, status: DmStatus.Ok, results: [], parts };
    }
    try {
      return {
        operation,
        status: DmStatus.Ok,
        results: [],
        ...(await this.#patience.try(() => this.#command(operation))),
      };
    } catch (thrown) {
      return { operation, status: asPosternError(thrown).dmStatus, results: [] };
    }
  }

  async #command(operation: Exclude<Operation, Compound>): Promise<Partial<OperationOutcome>> {
    if (operation.name === 'Alert') throw notSupported('an LwM2M client has no user to ask');
    const { name, uri } = operation;
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
