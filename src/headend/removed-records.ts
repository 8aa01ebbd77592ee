import type { OperationOutcome, Work } from '../dm/server-session.ts';
import { DmStatus, isOk } from '../dm/status.ts';

/**
 * Work in a session with a gateway, as it is. Calls `removed` with the names of the device records that the gateway has
 * deleted, before the work goes on: the gateway sends no Device Detach for what this server itself has deleted (GwMO). A
 * record that is not there (404) is as good as deleted: the answer to an earlier Delete may have been lost.
 * @param records URI of the gateway's device records
 */
export async function* watchingRecords(
  work: Work,
  records: string,
  removed: (names: ReadonlySet<string>) => void,
): Work {
  try {
    let step = await work.next();
    while (!step.done) {
      const outcomes = yield step.value;
      const names = new Set(deletedIn(outcomes, `${records}/`));
      if (names.size > 0) removed(names);
      step = await work.next(outcomes);
    }
  } finally {
    await work.return();
  }
}

/** Names of the nodes right below `above` that are deleted, also by a part of a Sequence, or of an Atomic that was done. */
function deletedIn(outcomes: readonly OperationOutcome[], above: string): string[] {
  return outcomes.flatMap(({ operation, status, parts = [] }) => {
    if ('operations' in operation)
      return operation.name === 'Atomic' && !isOk(status) ? [] : deletedIn(parts, above);
    if (operation.name !== 'Delete' || !(isOk(status) || status === DmStatus.NotFound)) return [];
    const name = operation.uri.startsWith(above) ? operation.uri.slice(above.length) : '';
    return name === '' || name.includes('/') ? [] : [name];
  });
}
