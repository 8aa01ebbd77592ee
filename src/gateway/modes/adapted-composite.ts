import { asPosternError } from '../../base/errors.ts';
import type { Compound, NodeOperation, OperationOutcome } from '../../dm/server-session.ts';
import { DmStatus } from '../../dm/status.ts';
import { parseNodeUri } from '../../dm/uri.ts';
import { typeOf } from '../../wire/lwm2m/objects.ts';
import { pathText } from '../../wire/lwm2m/path.ts';
import type { Entry, TypeOf } from '../../wire/lwm2m/resource.ts';
import type { LwM2mReporting } from '../southbound/lwm2m-reporting.ts';
import type { Registration } from '../store/registrations.ts';
import { findNode } from './adapted-nodes.ts';
import type { AdaptedPatience } from './adapted-patience.ts';
import type { AdaptedWriter } from './adapted-writer.ts';

export interface AdaptedCompositeParts {
  readonly client: Registration;
  readonly reporting: LwM2mReporting;
  readonly writer: AdaptedWriter;
  readonly patience: AdaptedPatience;
}

/**
 * Performs an Atomic of Replaces by one Write-Composite (LwM2M core 1.1, section 6.3.9), which a client does as a whole or not at all.
 * Resolves with undefined where that is not possible, or the client refuses: then each value is written by itself, and the status of
 * each says what is wrong with it.
 */
export async function performComposite(
  atomic: Compound,
  { client, reporting, writer, patience }: AdaptedCompositeParts,
): Promise<OperationOutcome | undefined> {
  const { operations } = atomic;
  if (client.version === '1.0' || operations.length < 2) return undefined;
  const resources = operations.map((operation) => resourceOf(client, operation));
  if (!resources.every((each) => each !== undefined)) return undefined;
  const outcome = (status: number, each: number): OperationOutcome => ({
    operation: atomic,
    status,
    results: [],
    parts: operations.map((operation) => ({ operation, status: each, results: [] })),
  });
  let isSent = false;
  try {
    const isDone = await patience.try(async () => {
      const entries: Entry[] = [];
      for (const { path, operation } of resources) entries.push(await writer.entryOf(path, operation));
      const typesSaid = new Map(entries.map(({ path, type }) => [pathText(path), type]));
      const types: TypeOf = (path) => typesSaid.get(pathText(path)) ?? typeOf(path);
      await reporting.assure(client, patience.signal);
      isSent = true;
      return await reporting.writeComposite(client, entries, types, patience.signal);
    });
    return isDone ? outcome(DmStatus.Ok, DmStatus.Ok) : undefined;
  } catch (thrown) {
    const { code, dmStatus } = asPosternError(thrown);
    // Nobody knows what a client has done that does not answer.
    return isSent && code === 'timeout' ? outcome(DmStatus.AtomicRollbackFailed, dmStatus) : undefined;
  }
}

/** The resource that a Replace is about; undefined for any other operation, and any other node. */
function resourceOf(client: Registration, operation: Compound['operations'][number]) {
  if (operation.name !== 'Replace') return undefined;
  const { path, query } = parseNodeUri(operation.uri);
  if (query !== undefined) return undefined;
  const node = findNode(client, path);
  return node.kind === 'object' && node.path.length > 2
    ? { path: node.path, operation: operation as NodeOperation }
    : undefined;
}
